"""Attention with relative positions as in Enformer (Avsec et al., Nat Methods 18:1196, 2021).

The logit of query i and key j is ``(q_i / sqrt(E) + u) . k_j + (q_i / sqrt(E) + w) . r_(j - i)``: u
and w are learned per head, r is a linear map of fixed features of the signed distance.

Shapes: B batch, N positions, S positions of the queries, P = 2 N - 1 distances, R = N + S - 1
distances that the queries meet, F features of a distance, H heads, E width of a key, V width of a
value, D width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "GammaScale",
    "RelativeAttention",
    "align_distances",
    "gamma_features",
    "position_features",
]

GammaScale = Literal["distances", "features"]
_MIN_HALF_LIFE = 3.0
_FLOOR = 1e-8
# On a processor: numbers that stay in its cache, and queries that fill a matrix product.
_LOGITS_AT_ONCE, _FEW_QUERIES = 1 << 19, 32


def gamma_features(
    num_positions: int,
    num_features: int,
    *,
    scale: GammaScale = "distances",
    device: torch.device | None = None,
) -> Tensor:
    """Gamma densities of the absolute distance, float64, shape (2 * num_positions - 1, features).

    The means run evenly from N / F to N, the standard deviation is N / (2 F).

    Parameters
    ----------
    num_positions : int
        N, which sets the means; the distances run from 1 - N to N - 1.
    num_features : int
        F.
    scale : str
        distances: the largest value of each feature is 1. The table that enformer-pytorch stores
        from TensorFlow is scaled so (largest difference 2.5e-3, from float32 there). features: the
        largest value at each distance is 1, which is what enformer-pytorch computes without that
        table.
    """
    distance_P1 = _distances(num_positions, device)[:, None].abs()
    mean_F = torch.linspace(
        num_positions / num_features,
        num_positions,
        num_features,
        dtype=torch.float64,
        device=device,
    )
    stddev = num_positions / (2 * num_features)
    shape_F, rate_F = (mean_F / stddev).square(), mean_F / stddev**2
    log_PF = torch.xlogy(shape_F - 1, distance_P1) - rate_F * distance_P1
    log_PF = log_PF - torch.lgamma(shape_F) + shape_F * rate_F.log()
    density_PF = log_PF.exp() + _FLOOR
    return density_PF / density_PF.amax(0 if scale == "distances" else 1, keepdim=True)


def position_features(
    num_positions: int,
    num_features: int,
    *,
    gamma_PF: Tensor | None = None,
    gamma_scale: GammaScale = "distances",
    device: torch.device | None = None,
) -> Tensor:
    """Features of the distances 1 - N .. N - 1 (key minus query), float64, shape (2 N - 1, F).

    A sixth each: exponential decay (half lives 2**3 .. N, evenly in the exponent), central masks
    (distance below 2**i - 1, i = 1, 2, ...) and gamma densities; then the same three times the sign
    of the distance.

    Parameters
    ----------
    num_positions, num_features : int
        N, and F, a multiple of 6.
    gamma_PF : float tensor, shape (2 N - 1, F / 6), optional
        Stored gamma densities in place of computed ones.
    gamma_scale : str
        See `gamma_features`.

    Raises
    ------
    ConfigError
        F is no multiple of 6.
    """
    if num_features < 6 or num_features % 6:
        raise ConfigError(
            facts(
                "features of a distance (dim / num_heads)",
                found=num_features,
                expected="a positive multiple of 6",
                fix="choose dim and num_heads so",
            )
        )
    count = num_features // 6
    distance_P = _distances(num_positions, device)
    absolute_P1 = distance_P.abs()[:, None]
    half_life_F = 2.0 ** torch.linspace(
        _MIN_HALF_LIFE, math.log2(num_positions), count, dtype=torch.float64, device=device
    )
    reach_F = 2.0 ** torch.arange(1, count + 1, dtype=torch.float64, device=device) - 1
    if gamma_PF is None:
        gamma_PF = gamma_features(num_positions, count, scale=gamma_scale, device=device)
    parts = [
        torch.exp(-math.log(2) / half_life_F * absolute_P1),
        (reach_F > absolute_P1).to(torch.float64),
        gamma_PF.to(torch.float64),
    ]
    features_PF = torch.cat(parts, dim=1)
    return torch.cat([features_PF, distance_P.sign()[:, None] * features_PF], dim=1)


def _distances(num_positions: int, device: torch.device | None) -> Tensor:
    return torch.arange(1 - num_positions, num_positions, dtype=torch.float64, device=device)


def align_distances(by_distance: Tensor, num_keys: int) -> Tensor:
    """Turn columns of distances into columns of keys, as a view of a contiguous input.

    Parameters
    ----------
    by_distance : tensor, shape (..., S, N + S - 1)
        Rows are S neighbouring queries; the columns of all are the same distances, so that key j of
        row s stands in column ``j - s + S - 1``.
    num_keys : int
        N.

    Returns
    -------
    tensor, shape (..., S, N)
    """
    num_rows, width = by_distance.shape[-2:]
    if num_rows == 1:
        return by_distance
    # Key j of row s is number s * width + j - s + S - 1 of the flat rows, so the rows of the
    # result start width - 1 apart.
    size = num_rows * (width - 1)
    flat = by_distance.flatten(-2)[..., num_rows - 1 : num_rows - 1 + size]
    return flat.view(*by_distance.shape[:-2], num_rows, width - 1)[..., :num_keys]


class RelativeAttention(nn.Module):
    """Multi-head attention whose logits depend on content and on signed distance.

    Parameters
    ----------
    dim : int
        Width of input and output.
    num_heads, key_dim, value_dim : int
        H, E and V.
    num_features : int
        Features of a distance.
    dropout, position_dropout : float
        Dropout on the attention weights and on the features of the distances.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        num_features: int,
        dropout: float = 0.0,
        position_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        self.num_features = num_features
        self.to_q = nn.Linear(dim, num_heads * key_dim, bias=False)
        self.to_k = nn.Linear(dim, num_heads * key_dim, bias=False)
        self.to_v = nn.Linear(dim, num_heads * value_dim, bias=False)
        self.to_rel_k = nn.Linear(num_features, num_heads * key_dim, bias=False)
        self.to_out = nn.Linear(num_heads * value_dim, dim)
        self.content_bias = nn.Parameter(torch.randn(num_heads, 1, key_dim))
        self.position_bias = nn.Parameter(torch.randn(num_heads, 1, key_dim))
        self.dropout = nn.Dropout(dropout)
        self.position_dropout = nn.Dropout(position_dropout)
        # As published: a fresh block adds nothing to its input.
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(
        self, x_BND: Tensor, features_PF: Tensor, *, span: tuple[int, int] | None = None
    ) -> Tensor:
        """Attend from the positions of `span`, from all when left out, to all positions.

        Parameters
        ----------
        x_BND : float tensor, shape (batch, positions, dim)
        features_PF : float tensor, shape (2 * positions - 1, num_features)
            Of `position_features`, in the dtype of the weights.
        span : tuple of int, optional
            Half-open run of queries.

        Returns
        -------
        tensor, shape (batch, positions of the span, dim)
        """
        num_keys = x_BND.shape[1]
        start, stop = span or (0, num_keys)
        query_BHSE = self.heads(self.to_q(x_BND[:, start:stop])) * self.key_dim**-0.5
        key_BHNE, value_BHNV = self.heads(self.to_k(x_BND)), self.heads(self.to_v(x_BND))
        # The distances that these queries meet; the first stands in row num_keys - stop.
        met_RF = self.position_dropout(features_PF[num_keys - stop : 2 * num_keys - 1 - start])
        place_HRE = self.heads(self.to_rel_k(met_RF)[None])[0]
        by_content, by_place = query_BHSE + self.content_bias, query_BHSE + self.position_bias
        num_queries, mixed = stop - start, []
        for first, last in self._at_once(x_BND, num_queries):
            met = slice(num_queries - last, num_queries - first + num_keys - 1)
            content_BHSN = by_content[:, :, first:last] @ key_BHNE.mT
            place_BHSR = by_place[:, :, first:last] @ place_HRE[:, met].mT
            logits_BHSN = content_BHSN + align_distances(place_BHSR, num_keys)
            weights_BHSN = self.dropout(logits_BHSN.softmax(dim=-1))
            mixed.append(weights_BHSN.to(value_BHNV.dtype) @ value_BHNV)
        out_BSD: Tensor = self.to_out(torch.cat(mixed, dim=2).transpose(1, 2).flatten(2))
        return out_BSD

    def _at_once(self, x_BND: Tensor, num_queries: int) -> list[tuple[int, int]]:
        """Divide the queries, so that the logits of a part stay in the cache of a processor.

        Neighbouring queries also meet fewer distances than all. Other devices take all at once.
        """
        size = max(1, num_queries)
        if x_BND.device.type == "cpu":
            logits = self.num_heads * x_BND.shape[0] * x_BND.shape[1]
            size = max(_FEW_QUERIES, _LOGITS_AT_ONCE // max(1, logits))
        return [(s, min(s + size, num_queries)) for s in range(0, num_queries, size)]

    def heads(self, x_BND: Tensor) -> Tensor:
        """Split the last axis by heads, shape (batch, heads, positions, width of a head)."""
        width = x_BND.shape[2] // self.num_heads
        return x_BND.view(*x_BND.shape[:2], self.num_heads, width).transpose(1, 2)

    def flops(self, num_positions: int, num_queries: int) -> int:
        """Count the operations of the matrix products of a forward pass for one sequence."""
        num_distances = num_positions + num_queries - 1
        keys, values = self.num_heads * self.key_dim, self.num_heads * self.value_dim
        dim = self.to_q.in_features
        linear = num_queries * dim * keys + num_positions * dim * (keys + values)
        linear += num_distances * self.num_features * keys + num_queries * values * dim
        mixing = num_queries * (num_positions * (keys + values) + num_distances * keys)
        return 2 * (linear + mixing)
