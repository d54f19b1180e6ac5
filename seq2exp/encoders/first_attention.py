"""The first attention of an Enformer for edits of one window.

An edit changes a few bins of what the tower gives. For all other queries the keys and values of
these bins alone are exchanged: the sums over keys that the softmax divides are kept for the window
without edits, what the old keys gave is taken out of them and what the new ones give put in.
Queries that differ themselves, and those for which so much is taken out that digits would be lost,
are attended again. Values are those of the whole attention up to rounding.

Shapes: N bins, D width, P = 2 N - 1 distances, H heads, E width of a key, V width of a value,
C bins that differ, R queries that are attended again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2exp.nn.enformer import EnformerBlock
from seq2exp.nn.relative import RelativeAttention

__all__ = ["FirstAttention"]

# More bins that differ, or queries to attend again, are left to the whole attention.
_MOST_KEYS, _MOST_QUERIES = 16, 64
# A sum that shrinks below this share of what it was has lost three bits; exp overflows at 88.
_LEAST_LEFT, _LARGEST_RISE = 1 / 8, 60.0


class FirstAttention:
    """A block and what its attention makes of one window.

    Parameters
    ----------
    block : EnformerBlock
        In evaluation mode.
    x_1ND : float tensor, shape (1, bins, dim)
        Its input without edits, in float32 or float64.
    features_PF : float tensor, shape (2 * bins - 1, features)
        Of the distances.
    """

    def __init__(self, block: EnformerBlock, x_1ND: Tensor, features_PF: Tensor) -> None:
        self.block, self.x_ND, self.num_bins = block, x_1ND[0], x_1ND.shape[1]
        self.features_PF = features_PF
        attention = self.attention
        self.place_HPE = attention.heads(attention.to_rel_k(features_PF)[None])[0]
        self.query_HNE, self.key_HNE, self.value_HNV = self._project(self.x_ND)
        most, total, mixed = [], [], []
        every_N = torch.arange(self.num_bins, device=x_1ND.device)
        for queries in torch.split(every_N, _MOST_QUERIES):
            query_HRE = self.query_HNE[:, queries]
            logits_HRN = self._logits(query_HRE, queries, self.key_HNE)
            most.append(logits_HRN.amax(-1, keepdim=True))
            weights_HRN = (logits_HRN - most[-1]).exp()
            total.append(weights_HRN.sum(-1, keepdim=True))
            mixed.append(weights_HRN @ self.value_HNV)
        self.most_HN1, self.total_HN1 = torch.cat(most, 1), torch.cat(total, 1)
        self.mixed_HNV = torch.cat(mixed, 1)

    @property
    def attention(self) -> RelativeAttention:
        """The attention of the block."""
        return self.block.attention

    def __call__(self, x_BND: Tensor) -> Tensor:
        """Return the residual stream after the block, shape (batch, bins, dim).

        Parameters
        ----------
        x_BND : float tensor, shape (batch, bins, dim)
            Edited input.
        """
        return self.block.with_network(x_BND + torch.stack([self._attended(x) for x in x_BND]))

    def _attended(self, x_ND: Tensor) -> Tensor:
        """Return what the attention adds to one edited window, shape (bins, dim)."""
        changed_C = (x_ND != self.x_ND).any(1).nonzero()[:, 0]
        mixed_HNV = None
        if len(changed_C) <= _MOST_KEYS:
            mixed_HNV = self._exchanged(x_ND, changed_C)
        if mixed_HNV is None:
            normed_1ND = self.block.norm_attention(x_ND)[None]
            whole_1ND: Tensor = self.attention(normed_1ND, self.features_PF)
            return whole_1ND[0]
        out_ND: Tensor = self.attention.to_out(mixed_HNV.transpose(0, 1).flatten(1))
        return out_ND

    def _exchanged(self, x_ND: Tensor, changed_C: Tensor) -> Tensor | None:
        """Mixed values of all queries, shape (heads, bins, V); None where too many are spoiled."""
        query_HCE, key_HCE, value_HCV = self._project(x_ND[changed_C])
        old_HNC, new_HNC = self._weights(changed_C, key_HCE)
        total_HN1 = self.total_HN1 + (new_HNC - old_HNC).sum(-1, keepdim=True)
        again_N = (total_HN1 < _LEAST_LEFT * self.total_HN1).any(0)[:, 0]
        again_N |= ~new_HNC.isfinite().all(-1).all(0)
        again_N[changed_C] = True
        again_R = again_N.nonzero()[:, 0]
        if len(again_R) > _MOST_QUERIES:
            return None
        old_value_HCV = self.value_HNV[:, changed_C]
        mixed_HNV = self.mixed_HNV + (new_HNC @ value_HCV - old_HNC @ old_value_HCV)
        mixed_HNV /= total_HN1
        key_HNE, value_HNV = self.key_HNE.clone(), self.value_HNV.clone()
        key_HNE[:, changed_C], value_HNV[:, changed_C] = key_HCE, value_HCV
        query_HNE = self.query_HNE.index_copy(1, changed_C, query_HCE)
        logits_HRN = self._logits(query_HNE[:, again_R], again_R, key_HNE)
        mixed_HNV[:, again_R] = logits_HRN.softmax(-1) @ value_HNV
        return mixed_HNV

    def _weights(self, changed_C: Tensor, key_HCE: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the exchanged keys for all queries, old and new; infinite where too large."""
        by_content_HNE = self.query_HNE + self.attention.content_bias
        by_place_HNE = self.query_HNE + self.attention.position_bias
        every_N = torch.arange(self.num_bins, device=changed_C.device)
        met_NC = changed_C - every_N[:, None] + self.num_bins - 1
        place_HNC = torch.einsum("hne,hnce->hnc", by_place_HNE, self.place_HPE[:, met_NC])
        both = []
        for key in (self.key_HNE[:, changed_C], key_HCE):
            rise_HNC = by_content_HNE @ key.mT + place_HNC - self.most_HN1
            both.append(rise_HNC.masked_fill(rise_HNC > _LARGEST_RISE, torch.inf).exp())
        return both[0], both[1]

    def _logits(self, query_HRE: Tensor, queries_R: Tensor, key_HNE: Tensor) -> Tensor:
        """Logits of some queries and all keys, shape (heads, queries, bins)."""
        every_N = torch.arange(self.num_bins, device=queries_R.device)
        met_RN = every_N - queries_R[:, None] + self.num_bins - 1
        place_HRP = (query_HRE + self.attention.position_bias) @ self.place_HPE.mT
        place_HRN = place_HRP.gather(2, met_RN.expand(len(place_HRP), -1, -1))
        return (query_HRE + self.attention.content_bias) @ key_HNE.mT + place_HRN

    def _project(self, x_CD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values of some bins, shapes (heads, bins, E), E and V."""
        attention, normed_1CD = self.attention, self.block.norm_attention(x_CD)[None]
        query_HCE = attention.heads(attention.to_q(normed_1CD))[0] * attention.key_dim**-0.5
        key_HCE = attention.heads(attention.to_k(normed_1CD))[0]
        return query_HCE, key_HCE, attention.heads(attention.to_v(normed_1CD))[0]
