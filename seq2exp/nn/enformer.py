"""Blocks of Enformer (Avsec et al., Nat Methods 18:1196, 2021): convolutions, pools, attention.

Convolutions work on channels first; the attention blocks on channels last.

Shapes: B batch, C channels, L positions, M = L / 2 positions after a pool, N bins, S bins of a
span, P = 2 N - 1 distances, F features of a distance, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.batch_norm import BatchNorm, NormStatistics
from seq2exp.nn.relative import RelativeAttention

__all__ = [
    "AttentionPool",
    "ConvBlock",
    "EnformerBlock",
    "FinalPointwise",
    "Stem",
    "TowerStage",
    "channel_ladder",
    "sigmoid_gelu",
]

_SLOPE = 1.702


def sigmoid_gelu(x: Tensor) -> Tensor:
    """Return ``x * sigmoid(1.702 x)``, the GELU of Enformer; keeps one tensor for the backward."""
    return F.silu(x * _SLOPE).div_(_SLOPE)


def channel_ladder(dim: int, *, num_halvings: int, multiple: int) -> tuple[int, ...]:
    """Channels after the stem and after every stage of the tower.

    The stem has dim / 2; the stages go from there to `dim` in equal ratios, rounded to `multiple`.
    """
    half, steps = dim // 2, num_halvings - 2
    if steps < 1:
        return (half, dim)[:num_halvings]
    ratio = math.exp(math.log(dim / half) / steps)
    return (half, *(round(half * ratio**i / multiple) * multiple for i in range(steps + 1)))


class ConvBlock(nn.Module):
    """Batch norm, GELU, convolution of odd width; (batch, channels, positions) in and out.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    width : int
        Taps, odd; positions outside count as zero.
    statistics : str
        See `seq2exp.nn.batch_norm.BatchNorm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 1,
        statistics: NormStatistics = "batch",
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(in_channels, statistics=statistics)
        self.conv = nn.Conv1d(in_channels, out_channels, width, padding=width // 2)

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Normalise, activate and convolve."""
        out_BCL: Tensor = self.conv(sigmoid_gelu(self.norm(x_BCL)))
        return out_BCL

    def flops(self, length: int) -> int:
        """Count the operations of the convolution for one sequence."""
        return 2 * length * self.conv.weight.numel()

    def kept(self, length: int) -> int:
        """Count the numbers kept for the backward: inputs of norm, activation and convolution."""
        return 3 * length * self.conv.in_channels


class AttentionPool(nn.Module):
    """Joins neighbours in pairs by a softmax per channel: ``sum_t softmax_t(W x_t) x_t``.

    A softmax over two is a sigmoid of their difference, so W acts on x_0 - x_1 only: half the
    products of the plain form, and the same function. W starts as 2 x identity.

    Parameters
    ----------
    num_channels : int
        Channels.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(2 * torch.eye(num_channels))

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Pool an even number of positions to half of it."""
        first_BCM, second_BCM = x_BCL[..., ::2], x_BCL[..., 1::2]
        difference_BCM = first_BCM - second_BCM
        share_BCM = F.conv1d(difference_BCM, self.weight[..., None]).sigmoid()
        return torch.addcmul(second_BCM, difference_BCM, share_BCM)

    def flops(self, length: int) -> int:
        """Count the operations of the products for one sequence of `length` positions."""
        return length * self.weight.numel()

    def kept(self, length: int) -> int:
        """Count the numbers kept for the backward: differences and shares."""
        return length * self.weight.shape[0]


class Stem(nn.Module):
    """Convolution of width 15 over the bases, residual pointwise block, pool.

    Parameters
    ----------
    num_channels : int
        Channels.
    statistics : str
        See `seq2exp.nn.batch_norm.BatchNorm`.
    """

    WIDTH = 15

    def __init__(self, num_channels: int, *, statistics: NormStatistics = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, num_channels, self.WIDTH, padding=self.WIDTH // 2)
        self.pointwise = ConvBlock(num_channels, num_channels, statistics=statistics)
        self.pool = AttentionPool(num_channels)

    def forward(self, bases_BCL: Tensor) -> Tensor:
        """Map one-hot bases (4 channels) to half as many positions."""
        x_BCL = self.conv(bases_BCL)
        out_BCM: Tensor = self.pool(x_BCL + self.pointwise(x_BCL))
        return out_BCM

    def flops(self, length: int) -> int:
        """Count the operations for one sequence of `length` bases."""
        conv = 2 * length * self.conv.weight.numel()
        return conv + self.pointwise.flops(length) + self.pool.flops(length)

    def kept(self, length: int) -> int:
        """Count the numbers kept for the backward."""
        return 4 * length + self.pointwise.kept(length) + self.pool.kept(length)


class TowerStage(nn.Module):
    """Convolution block of width 5, residual pointwise block, pool.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    statistics : str
        See `seq2exp.nn.batch_norm.BatchNorm`.
    """

    WIDTH = 5

    def __init__(
        self, in_channels: int, out_channels: int, *, statistics: NormStatistics = "batch"
    ) -> None:
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels, width=self.WIDTH, statistics=statistics)
        self.pointwise = ConvBlock(out_channels, out_channels, statistics=statistics)
        self.pool = AttentionPool(out_channels)

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map positions to half as many."""
        x_BCL = self.conv(x_BCL)
        out_BCM: Tensor = self.pool(x_BCL + self.pointwise(x_BCL))
        return out_BCM

    def flops(self, length: int) -> int:
        """Count the operations for one sequence of `length` positions."""
        return sum(part.flops(length) for part in (self.conv, self.pointwise, self.pool))

    def kept(self, length: int) -> int:
        """Count the numbers kept for the backward."""
        return sum(part.kept(length) for part in (self.conv, self.pointwise, self.pool))


class EnformerBlock(nn.Module):
    """Pre-norm relative attention and a two-layer network of twice the width, each residual.

    Parameters
    ----------
    dim, num_heads, key_dim : int
        Width, heads, width of a key; values and features of a distance have dim / num_heads.
    dropout, attention_dropout, position_dropout : float
        On both residual branches and inside the network; on the attention weights; on the features
        of the distances.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        key_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        position_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_attention, self.norm_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = RelativeAttention(
            dim,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=dim // num_heads,
            num_features=dim // num_heads,
            dropout=attention_dropout,
            position_dropout=position_dropout,
        )
        self.project_in, self.project_out = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BND: Tensor, features_PF: Tensor, *, span: tuple[int, int] | None = None
    ) -> Tensor:
        """Return the residual stream of the bins of `span`, of all when left out.

        All bins are keys and values; only those of the span are queries and pass the network.
        """
        start, stop = span or (0, x_BND.shape[1])
        attended_BSD = self.attention(self.norm_attention(x_BND), features_PF, span=span)
        return self.with_network(x_BND[:, start:stop] + self.dropout(attended_BSD))

    def with_network(self, x_BSD: Tensor) -> Tensor:
        """Return the residual stream after the network, of what the attention has left of it."""
        hidden_BSF = self.dropout(self.project_in(self.norm_network(x_BSD))).relu()
        out_BSD: Tensor = x_BSD + self.dropout(self.project_out(hidden_BSF))
        return out_BSD

    def flops(self, num_bins: int, num_queries: int) -> int:
        """Count the operations of the matrix products for one sequence."""
        network = 4 * num_queries * self.project_in.weight.numel()
        return self.attention.flops(num_bins, num_queries) + network

    def kept(self, num_bins: int, num_queries: int) -> int:
        """Count the numbers kept for the backward in training."""
        inner = self.attention
        keys, values = inner.num_heads * inner.key_dim, inner.num_heads * inner.value_dim
        dim, num_distances = self.project_in.in_features, num_bins + num_queries - 1
        logits = inner.num_heads * num_queries * num_bins
        # Norm in and out, keys and values; queries twice; then norm in and out and the network.
        total = num_bins * (2 * dim + keys + values) + num_queries * (2 * keys + values + 4 * dim)
        total += num_distances * (keys + inner.num_features) + logits
        # Dropout keeps its mask (a number each on a CPU), and the dropped weights too.
        if inner.dropout.p:
            total += 2 * logits
        if self.dropout.p:
            total += 4 * num_queries * dim
        return total


class FinalPointwise(nn.Module):
    """Pointwise convolution block to twice the width, dropout, GELU; channels last.

    Parameters
    ----------
    dim : int
        Width of the input; the output has 2 * dim.
    dropout : float
        Dropout before the last activation.
    statistics : str
        See `seq2exp.nn.batch_norm.BatchNorm`.
    """

    def __init__(
        self, dim: int, *, dropout: float = 0.0, statistics: NormStatistics = "batch"
    ) -> None:
        super().__init__()
        self.block = ConvBlock(dim, 2 * dim, statistics=statistics)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Map (batch, bins, dim) to (batch, bins, 2 * dim)."""
        return sigmoid_gelu(self.dropout(self.block(x_BSD.mT).mT))

    def flops(self, num_bins: int) -> int:
        """Count the operations of the convolution for one sequence."""
        return self.block.flops(num_bins)

    def kept(self, num_bins: int) -> int:
        """Count the numbers kept for the backward in training."""
        out = self.block.conv.out_channels * num_bins
        return self.block.kept(num_bins) + out * (2 if self.dropout.p else 1)
