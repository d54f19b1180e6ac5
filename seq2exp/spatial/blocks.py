"""Layers of the branch models: attention between sets of tokens, and positions on the array.

The blocks of TRIPLEX (Chung et al., CVPR 2024), written anew: masks are boolean and act where they
point, tables are read in the forward pass, order and number of tokens stay as they came in.

Shapes: B batch, Q queries, K keys, D width, H heads, E channels of a head, N spots of a section.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, InputError, facts

__all__ = ["Apeg2d", "Attention", "CrossBlock", "GridBiasAttention", "SelfBlock"]


class Attention(nn.Module):
    """Attention of queries over a context, or over themselves.

    Queries, keys and values without bias, the output with one; a single head has no output
    projection. Dropout follows the output projection.

    Parameters
    ----------
    width : int
    num_heads : int
        Divides the width.
    dropout : float
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ConfigError(
                facts(
                    "heads",
                    found=f"{num_heads} for a width of {width}",
                    expected="a divisor of the width",
                    fix=f"use {math.gcd(width, max(num_heads, 1))} heads",
                )
            )
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        single = num_heads == 1
        self.out = (
            nn.Identity() if single else nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        )

    def forward(
        self,
        query_BQD: Tensor,
        context_BKD: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return what each query takes from the context, shape (batch, queries, width).

        Parameters
        ----------
        query_BQD : float tensor, shape (batch, queries, width)
        context_BKD : float tensor, shape (batch, keys, width), optional
            The queries themselves by default.
        mask : bool tensor, shape (batch, keys), optional
            False hides a key. Where all keys are hidden the result is 0.
        """
        context_BKD = query_BQD if context_BKD is None else context_BKD
        query = self.query(query_BQD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        pair = self.key_value(context_BKD).unflatten(-1, (2, self.num_heads, -1))
        key_BHKE, value_BHKE = pair.transpose(1, 3).unbind(2)
        bias = self._bias()
        if mask is None:
            out = F.scaled_dot_product_attention(query, key_BHKE, value_BHKE, attn_mask=bias)
            return self._merge(out)
        open_B = mask.any(dim=1)
        # A row without keys would divide by zero: it sees all of them, and is then set to 0.
        seen_B11K = (mask | ~open_B[:, None])[:, None, None]
        chosen = seen_B11K if bias is None else bias.masked_fill(~seen_B11K, -math.inf)
        out = F.scaled_dot_product_attention(query, key_BHKE, value_BHKE, attn_mask=chosen)
        merged_BQD = self._merge(out)
        return torch.where(open_B[:, None, None], merged_BQD, torch.zeros_like(merged_BQD))

    def _bias(self) -> Tensor | None:
        """Return what is added to the scores, shape (heads, queries, keys)."""
        return None

    def _merge(self, out_BHQE: Tensor) -> Tensor:
        merged: Tensor = self.out(out_BHQE.transpose(1, 2).flatten(2))
        return merged


class GridBiasAttention(Attention):
    """Self-attention over a square of tokens with a learned bias per head and distance.

    The bias of a pair depends on (|rows apart|, |columns apart|): ``side**2`` numbers per head,
    0 at first.

    Parameters
    ----------
    width, num_heads, dropout
        As in :class:`Attention`.
    side : int
        Tokens are a ``side`` x ``side`` square, row by row.
    """

    offset: Tensor

    def __init__(self, width: int, *, num_heads: int, side: int, dropout: float = 0.0) -> None:
        super().__init__(width, num_heads=num_heads, dropout=dropout)
        self.bias = nn.Parameter(torch.zeros(num_heads, side * side))
        place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        apart = (place[:, None] - place[None]).abs()
        self.register_buffer("offset", apart[..., 0] * side + apart[..., 1], persistent=False)

    def _bias(self) -> Tensor:
        return self.bias[:, self.offset]


class _Mlp(nn.Sequential):
    def __init__(self, width: int, ratio: float, dropout: float) -> None:
        inner = round(ratio * width)
        super().__init__(
            nn.Linear(width, inner),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width),
            nn.Dropout(dropout),
        )


class SelfBlock(nn.Module):
    """Norm, self-attention, residual; norm, MLP, residual.

    Parameters
    ----------
    width, num_heads, dropout
        As in :class:`Attention`.
    mlp_ratio : float
        Inner width of the MLP by the width.
    side : int, optional
        Tokens are a square with biases of :class:`GridBiasAttention`.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = (
            Attention(width, num_heads=num_heads, dropout=dropout)
            if side is None
            else GridBiasAttention(width, num_heads=num_heads, side=side, dropout=dropout)
        )
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = _Mlp(width, mlp_ratio, dropout)

    def forward(self, x_BKD: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens of the same shape.

        Parameters
        ----------
        x_BKD : float tensor, shape (batch, tokens, width)
        mask : bool tensor, shape (batch, tokens), optional
            False hides a token from the others.
        """
        x_BKD = x_BKD + self.attention(self.norm(x_BKD), mask=mask)
        out: Tensor = x_BKD + self.mlp(self.mlp_norm(x_BKD))
        return out


class CrossBlock(nn.Module):
    """Norm, attention over a context, residual; norm, MLP, residual.

    One norm serves queries and context.

    Parameters
    ----------
    width, num_heads, mlp_ratio, dropout
        As in :class:`SelfBlock`.
    """

    def __init__(
        self, width: int, *, num_heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads=num_heads, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = _Mlp(width, mlp_ratio, dropout)

    def forward(self, query_BQD: Tensor, context_BKD: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the queries with what they took, shape (batch, queries, width).

        Parameters
        ----------
        query_BQD : float tensor, shape (batch, queries, width)
        context_BKD : float tensor, shape (batch, keys, width)
        mask : bool tensor, shape (batch, keys), optional
            False hides a key; a query without keys keeps its own path.
        """
        taken = self.attention(self.norm(query_BQD), self.norm(context_BKD), mask=mask)
        query_BQD = query_BQD + taken
        out: Tensor = query_BQD + self.mlp(self.mlp_norm(query_BQD))
        return out


class Apeg2d(nn.Module):
    """Positions from neighbours: a depthwise 3 x 3 convolution over the array, plus the input.

    Cells without a spot are zero. Weights are those of an ``nn.Conv2d`` with a bias.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x_ND: Tensor, grid_N2: Tensor) -> Tensor:
        """Return tokens in the order they came in, shape (spots, width).

        Parameters
        ----------
        x_ND : float tensor, shape (spots, width)
            Tokens of one section.
        grid_N2 : int64 tensor, shape (spots, 2)
            Row and column; any origin.

        Raises
        ------
        InputError
            Two spots share a cell.
        """
        place_N2 = grid_N2 - grid_N2.min(dim=0).values
        rows, columns = (int(size) + 1 for size in place_N2.max(dim=0).values)
        cell_N = place_N2[:, 0] * columns + place_N2[:, 1]
        _require_one_spot_per_cell(cell_N, grid_N2)
        canvas = x_ND.new_zeros(x_ND.shape[1], rows * columns)
        canvas = canvas.index_copy(1, cell_N, x_ND.T)
        around = self.conv(canvas.view(1, -1, rows, columns)).flatten(2)[0]
        out: Tensor = x_ND + around[:, cell_N].T
        return out


def _require_one_spot_per_cell(cell_N: Tensor, grid_N2: Tensor) -> None:
    found_N, order_N = cell_N.sort()
    repeated = order_N[1:][found_N[1:] == found_N[:-1]]
    if len(repeated):
        places = grid_N2[repeated].tolist()
        raise InputError(
            facts(
                "array of spots",
                found="spots that share a cell",
                expected="one spot per row and column",
                fix="drop the duplicates",
                count=len(repeated),
                examples=[f"row {row}, column {column}" for row, column in places[:3]],
            )
        )
