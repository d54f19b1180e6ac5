"""Attention on a star: the hub sees all, every other row sees the hub and itself.

Written without the matrix of all pairs: a row that sees two keys has a sigmoid for a softmax.

Shapes: B batch, S rows (row 0 is the hub), H heads, E width of a head, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts

__all__ = ["StarBlock"]


class StarBlock(nn.Module):
    """Pre-norm star attention and a ReLU network of four times the width, each residual.

    The block of EPInformer (Lin et al., "EPInformer: a scalable deep learning framework for gene
    expression prediction by integrating promoter-enhancer sequences with multimodal epigenomic
    data", bioRxiv 2024.08.01.606099), whose attention is a masked `torch.nn.MultiheadAttention`.

    Parameters
    ----------
    dim, num_heads : int
        Width, and heads that divide it.

    Raises
    ------
    ConfigError
        The heads do not divide the width.
    """

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(
                facts(
                    "num_heads",
                    found=f"{num_heads} for a width of {dim}",
                    expected="a divisor of the width",
                    fix="change one of them",
                )
            )
        self.num_heads = num_heads
        self.norm_attention, self.norm_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.in_proj, self.out_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BSD: Tensor, filled_BS: Tensor, *, hub_only: bool = False) -> Tensor:
        """Return the residual stream after the block.

        Parameters
        ----------
        x_BSD : float tensor, shape (batch, rows, dim)
        filled_BS : bool tensor, shape (batch, rows)
            Rows that the hub sees; the hub itself is always filled.
        hub_only : bool
            Compute and return row 0 only.

        Returns
        -------
        tensor, shape (batch, rows, dim), or (batch, 1, dim)
            Rows that are not filled have values without meaning.
        """
        parts_BSHE = self.in_proj(self.norm_attention(x_BSD)).chunk(3, dim=-1)
        query_BSHE, key_BSHE, value_BSHE = (
            part.view(*part.shape[:2], self.num_heads, x_BSD.shape[2] // self.num_heads)
            for part in parts_BSHE
        )
        query_BSHE = query_BSHE * query_BSHE.shape[-1] ** -0.5
        mixed_BSHE = _hub(query_BSHE[:, :1], key_BSHE, value_BSHE, filled_BS)
        if hub_only:
            x_BSD = x_BSD[:, :1]
        else:
            mixed_BSHE = _rows_and_hub(query_BSHE, key_BSHE, value_BSHE, mixed_BSHE)
        x_BSD = x_BSD + self.out_proj(mixed_BSHE.flatten(2))
        out_BSD: Tensor = x_BSD + self.network(self.norm_network(x_BSD))
        return out_BSD

    def flops(self, num_rows: int, *, hub_only: bool = False) -> int:
        """Count the operations of the matrix products and of the logits for one set of rows."""
        dim, num_out = self.out_proj.in_features, 1 if hub_only else num_rows
        linear = num_rows * 3 * dim * dim + num_out * 9 * dim * dim
        mixing = 2 * num_rows * dim + 2 * (num_out - 1) * dim
        return 2 * (linear + mixing)


def _hub(query_B1HE: Tensor, key_BSHE: Tensor, value_BSHE: Tensor, filled_BS: Tensor) -> Tensor:
    """Mix the values of all filled rows for row 0, shape (batch, 1, heads, width)."""
    seen_BS = filled_BS.clone()
    seen_BS[:, 0] = True
    logits_BSH = (query_B1HE * key_BSHE).sum(-1)
    logits_BSH = logits_BSH.masked_fill(~seen_BS[..., None], float("-inf"))
    return (logits_BSH.softmax(dim=1)[..., None] * value_BSHE).sum(1, keepdim=True)


def _rows_and_hub(
    query_BSHE: Tensor, key_BSHE: Tensor, value_BSHE: Tensor, hub_B1HE: Tensor
) -> Tensor:
    """Add to the hub what the other rows read: the hub and themselves."""
    query_BRHE, hub_key, hub_value = query_BSHE[:, 1:], key_BSHE[:, :1], value_BSHE[:, :1]
    own_BRH1 = (query_BRHE * (key_BSHE[:, 1:] - hub_key)).sum(-1, keepdim=True).sigmoid()
    rows_BRHE = hub_value + own_BRH1 * (value_BSHE[:, 1:] - hub_value)
    return torch.cat([hub_B1HE, rows_BRHE], dim=1)
