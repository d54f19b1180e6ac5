"""The convolutions by which EPInformer reads one promoter or element.

Shapes: M sequences, W base pairs, C channels, L positions, D width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.batch_norm import BatchNorm, NormStatistics
from seq2exp.nn.sequence import one_hot

__all__ = ["ElementNet", "ElementNorm"]

ElementNorm = Literal["all", "tower", "none"]

_STEM_WIDTH = 8
_DILATIONS = (2, 4, 6)
# Taps of the dilated convolutions and of the pointwise one after them.
_HEAD_TAPS = (3, 3, 3, 1)
_OUT_CHANNELS = 32


class ElementNet(nn.Module):
    """From bases to one vector per sequence.

    A convolution of width 8; per entry of `tower_channels` a convolution of width 3, max pool of 2
    and a residual pointwise convolution; convolutions of width 3 with dilation 2, 4 and 6 and no
    padding; a pointwise one to 32 channels; a linear map of the positions that are left to
    ``out_dim / 32``. ELU after each. Batch norm before the ELU of the tower and of the dilated
    part. 2,000 bp become 125 positions, then 121, 113, 101.

    Parameters
    ----------
    out_dim : int
        Width of the vector, a multiple of 32.
    length : int
        Base pairs of a sequence.
    stem_channels : int
        Channels of the first convolution.
    tower_channels : tuple of int
        Channels of the stages.
    head_channels : int
        Channels of the dilated convolutions.
    norm : str
        all, tower (not in the dilated part) or none: where batch norm stands.
    statistics : str
        See `seq2exp.nn.batch_norm.BatchNorm`.

    Raises
    ------
    ConfigError
        A width that is no multiple of 32, or a length of which no position would be left.
    """

    def __init__(
        self,
        out_dim: int,
        *,
        length: int = 2000,
        stem_channels: int = 256,
        tower_channels: tuple[int, ...] = (128, 64, 64, 128),
        head_channels: int = 64,
        norm: ElementNorm = "all",
        statistics: NormStatistics = "batch",
    ) -> None:
        super().__init__()
        self.length, self.num_pools = length, len(tower_channels)
        left = self.lengths()[-1]
        _check(out_dim, length=length, num_pools=self.num_pools, left=left)

        def maybe_norm(channels: int, *, is_on: bool) -> nn.Module:
            return BatchNorm(channels, statistics=statistics) if is_on else nn.Identity()

        self.norm = norm
        # Channels in and out of the stages of the tower and of the head.
        self.tower_ladder = list(pairwise((stem_channels, *tower_channels)))
        widths = (tower_channels[-1], *(head_channels for _ in _DILATIONS), _OUT_CHANNELS)
        self.head_ladder = list(pairwise(widths))
        self.stem = nn.Conv1d(4, stem_channels, _STEM_WIDTH)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in self.tower_ladder)
        self.norms = nn.ModuleList(
            maybe_norm(b, is_on=norm != "none") for _, b in self.tower_ladder
        )
        self.pointwise = nn.ModuleList(nn.Conv1d(b, b, 1) for _, b in self.tower_ladder)
        self.dilated = nn.ModuleList(
            nn.Conv1d(a, b, taps, dilation=dilation)
            for (a, b), taps, dilation in zip(
                self.head_ladder, _HEAD_TAPS, (*_DILATIONS, 1), strict=True
            )
        )
        self.dilated_norms = nn.ModuleList(
            maybe_norm(b, is_on=norm == "all") for _, b in self.head_ladder
        )
        self.positions = nn.Linear(left, out_dim // _OUT_CHANNELS)

    def lengths(self) -> tuple[int, ...]:
        """Positions after the tower and after every dilated convolution."""
        length = self.length >> self.num_pools
        lengths = [length]
        for dilation in _DILATIONS:
            length -= 2 * dilation
            lengths.append(length)
        return tuple(lengths)

    def forward(self, codes_MW: Tensor, weight_MW: Tensor | None = None) -> Tensor:
        """Encode sequences, shape (sequences, out_dim).

        Parameters
        ----------
        codes_MW : uint8 tensor, shape (sequences, length)
            Bases A0 C1 G2 T3; N4 and padding are zero.
        weight_MW : float tensor, shape (sequences, length), optional
            Multiplies the one-hot bases.
        """
        bases_MWC = one_hot(codes_MW, dtype=self.stem.weight.dtype)
        if weight_MW is not None:
            bases_MWC = bases_MWC * weight_MW[..., None].to(bases_MWC.dtype)
        # Padding as for an output of the same length: one more on the right.
        before = (_STEM_WIDTH - 1) // 2
        bases_MCW = F.pad(bases_MWC.mT, (before, _STEM_WIDTH - 1 - before))
        x_MCL = F.elu(self.stem(bases_MCW), inplace=True)
        for conv, norm, pointwise in zip(self.convs, self.norms, self.pointwise, strict=True):
            # ELU rises, so it comes after the maximum, on half the positions.
            full_MCL = norm(conv(x_MCL))
            x_MCL = torch.maximum(full_MCL[..., ::2], full_MCL[..., 1::2])
            x_MCL = F.elu(x_MCL, inplace=True)
            x_MCL = x_MCL + F.elu(pointwise(x_MCL), inplace=True)
        for conv, norm in zip(self.dilated, self.dilated_norms, strict=True):
            x_MCL = F.elu(norm(conv(x_MCL)), inplace=True)
        out_MCL = F.elu(self.positions(x_MCL), inplace=True)
        return out_MCL.flatten(1)

    def flops(self) -> int:
        """Count the operations of convolutions and products for one sequence."""
        total = self.length * self.stem.weight.numel()
        for i, (before, after) in enumerate(self.tower_ladder):
            total += (self.length >> i) * 3 * before * after + (self.length >> i + 1) * after**2
        for (before, after), taps, length in zip(
            self.head_ladder, _HEAD_TAPS, self._head_lengths(), strict=True
        ):
            total += length * taps * before * after
        return 2 * (total + _OUT_CHANNELS * self.positions.weight.numel())

    def kept(self) -> int:
        """Count the numbers kept for the backward of one sequence in training."""
        total = 4 * (self.length + _STEM_WIDTH) + self.stem.out_channels * self.length
        for i, (_, channels) in enumerate(self.tower_ladder):
            # Input of the norm and of the maximum; then two ELU and a sum on half the positions.
            pieces = 3.5 if self.norm != "none" else 2.5
            total += int(pieces * channels * (self.length >> i))
        for (_, channels), length in zip(self.head_ladder, self._head_lengths(), strict=True):
            total += (2 if self.norm == "all" else 1) * channels * length
        return total + _OUT_CHANNELS * self.positions.out_features

    def _head_lengths(self) -> tuple[int, ...]:
        """Positions after every convolution of the head."""
        lengths = self.lengths()[1:]
        return (*lengths, lengths[-1])


def _check(out_dim: int, *, length: int, num_pools: int, left: int) -> None:
    if out_dim < _OUT_CHANNELS or out_dim % _OUT_CHANNELS:
        raise ConfigError(
            facts(
                "out_dim",
                found=out_dim,
                expected=f"a positive multiple of {_OUT_CHANNELS}",
                fix="change it",
            )
        )
    if length % (1 << num_pools) or left < 1:
        least = (sum(_DILATIONS) * 2 + 1) << num_pools
        raise ConfigError(
            facts(
                "element_bp",
                found=length,
                expected=f"a multiple of {1 << num_pools}, at least {least}",
                fix="change it or tower_channels",
            )
        )
