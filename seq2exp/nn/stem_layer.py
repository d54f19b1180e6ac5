"""One convolution of the stem, with what crosses the border of a bin kept apart.

Shapes: B batch, N bins, S positions of one bin, C channels, M rows (batch times bins).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.conv import conv_max_pool, conv_relu_sum, windows
from seq2exp.nn.norm import rms_norm

__all__ = ["Activation", "StemLayer", "StemScan"]

Activation = Literal["gelu", "relu"]
StemScan = tuple[Tensor, ...]
"""What a stem computes once for all masks."""


class StemLayer(nn.Module):
    """Convolution inside bins, max pool, norm over channels and activation.

    What crosses a bin border is computed apart: the first and last positions of a bin are the sum
    of what the bin sees of itself and, times the weight of the neighbour, of what it sees of the
    neighbour. With all weights 1 this is the ordinary convolution with zero padding.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    width : int
        Taps.
    pool : int
        Evaluated positions that are max-pooled to one.
    stride : int
        Positions from one evaluated position to the next.
    offset : int
        First evaluated position of every bin, below `stride`.
    norm : bool
        Divide by the root mean square of the channels.
    activation : str
        "gelu" or "relu".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        pool: int,
        stride: int = 1,
        offset: int = 0,
        norm: bool = True,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.width, self.pool, self.stride, self.offset = width, pool, stride, offset
        # Taps before and after the position itself.
        self.before, self.after = width // 2, (width - 1) // 2
        self.conv = nn.Linear(width * in_channels, out_channels)
        self.scale = nn.Parameter(torch.ones(out_channels)) if norm else None
        self.act = nn.GELU() if activation == "gelu" else nn.ReLU()

    def edges(self, size: int) -> tuple[int, int]:
        """Count the positions at each end of a bin whose pooled value can depend on a neighbour.

        Parameters
        ----------
        size : int
            Positions of a bin.
        """
        last = size - self.stride + self.offset
        left = max(0, -(-(self.before - self.offset) // self.stride))
        right = max(0, -(-(last + self.after - size + 1) // self.stride))
        return -(-left // self.pool) * self.pool, -(-right // self.pool) * self.pool

    def scan(self, x_BNSC: Tensor) -> StemScan:
        """Compute everything that does not depend on a mask.

        Returns
        -------
        tuple of tensors
            The finished middle of each bin; the own part of its left edge and what the left
            neighbour adds there; the same for the right edge.
        """
        left, right = self.edges(x_BNSC.shape[2])
        start, stop = self._middle(x_BNSC.shape[2])
        middle_BNSC = self._activate(self._pooled_conv(x_BNSC[:, :, start:stop]))
        if left == right == 0:
            return (middle_BNSC,)
        return (middle_BNSC, *self._scan_left(x_BNSC, left), *self._scan_right(x_BNSC, right))

    def scan_summed(self, x_BNSC: Tensor) -> StemScan:
        """Like `scan`, with the middle of each bin summed to one position."""
        left, right = self.edges(x_BNSC.shape[2])
        start, stop = self._middle(x_BNSC.shape[2])
        simple = self.pool == 1 and self.scale is None and isinstance(self.act, nn.ReLU)
        # The summed convolution passes no gradient to what it reads.
        if not simple or stop - start < self.width or x_BNSC.requires_grad:
            scan = self.scan(x_BNSC)
            return (scan[0].sum(2, keepdim=True), *scan[1:])
        middle_MC = conv_relu_sum(
            x_BNSC[:, :, start:stop].flatten(0, 1),
            self.conv.weight,
            self.conv.bias,
            stride=self.stride,
        )
        middle_BN1C = middle_MC.view(*x_BNSC.shape[:2], 1, self.conv.out_features)
        return (middle_BN1C, *self._scan_left(x_BNSC, left), *self._scan_right(x_BNSC, right))

    def _middle(self, size: int) -> tuple[int, int]:
        """Positions that the results between the two edges of a bin read."""
        left, right = self.edges(size)
        return self._span(left, size // self.stride - right)

    def _scan_left(self, x_BNSC: Tensor, count: int) -> StemScan:
        """First positions of a bin: its own part, and that of the end of the bin before."""
        if count == 0:
            return self._nothing(x_BNSC), self._nothing(x_BNSC)
        start, stop = self._span(0, count)
        own = F.pad(x_BNSC[:, :, :stop], (0, 0, -start, 0))
        other = F.pad(x_BNSC[:, :-1, start:], (0, 0, 0, stop, 1, 0))
        return self._conv(own, self.conv.bias), self._conv(other)

    def _scan_right(self, x_BNSC: Tensor, count: int) -> StemScan:
        """Last positions of a bin: its own part, and that of the start of the bin after."""
        if count == 0:
            return self._nothing(x_BNSC), self._nothing(x_BNSC)
        size = x_BNSC.shape[2]
        start, stop = self._span(size // self.stride - count, size // self.stride)
        own = F.pad(x_BNSC[:, :, start:], (0, 0, 0, stop - size))
        other = F.pad(x_BNSC[:, 1:, : stop - size], (0, 0, size - start, 0, 0, 1))
        return self._conv(own, self.conv.bias), self._conv(other)

    def finish(self, scan: StemScan, mask_BN: Tensor | None = None) -> Tensor:
        """Join middle and edges, shape (batch, bins, positions, channels).

        Parameters
        ----------
        scan : tuple of tensors
            What `scan` returned.
        mask_BN : float tensor, shape (batch, bins), optional
            Weight of what each bin shows to its neighbours; 1 everywhere when left out.
        """
        if len(scan) == 1:
            return scan[0]
        left, right = self.finish_edges(scan, mask_BN)
        return torch.cat([left, scan[0], right], dim=2)

    def finish_edges(self, scan: StemScan, mask_BN: Tensor | None = None) -> list[Tensor]:
        """Finish the left and right edge of every bin; the arguments are those of `finish`."""
        _, left, before, right, after = scan
        if mask_BN is not None:
            mask_BN11 = mask_BN.to(before.dtype)[..., None, None]
            before = before * F.pad(mask_BN11[:, :-1], (0, 0, 0, 0, 1, 0))
            after = after * F.pad(mask_BN11[:, 1:], (0, 0, 0, 0, 0, 1))
        return [self._activate(self._max_pool(x)) for x in (left + before, right + after)]

    def flops(self, size: int) -> int:
        """Count the operations on a bin of `size` positions, edges twice (see the class)."""
        evaluated = size // self.stride + sum(self.edges(size))
        return 2 * evaluated * self.conv.weight.numel()

    def kept_numbers(self, size: int) -> int:
        """Count the numbers of four bytes that a bin of `size` positions keeps for the backward.

        The input; of the middle one byte per maximum; of the edges both unfolded parts, and what
        is pooled; of every pooled position the input of the norm and of the activation.
        """
        start, stop = self._middle(size)
        channels, taps = self.conv.out_features, self.conv.in_features
        num_edge = sum(self.edges(size))
        num_pooled = size // self.stride // self.pool
        middle = num_pooled - num_edge // self.pool
        kept = max(0, stop - start) * (taps // self.width) + middle * channels // 4
        kept += num_edge * (2 * taps + (channels if self.pool > 1 else 0))
        normed = 0 if self.scale is None else channels + 1
        return kept + num_pooled * (normed + channels)

    def _span(self, first: int, stop: int) -> tuple[int, int]:
        """Positions that the evaluated positions first .. stop - 1 read, as a half-open span."""
        start = self.offset + first * self.stride - self.before
        return start, self.offset + (stop - 1) * self.stride + self.after + 1

    def _nothing(self, x_BNSC: Tensor) -> Tensor:
        return x_BNSC.new_zeros((*x_BNSC.shape[:2], 0, self.conv.out_features))

    def _conv(self, x_BNSC: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(windows(x_BNSC, self.width, stride=self.stride), self.conv.weight, bias)

    def _pooled_conv(self, x_BNSC: Tensor) -> Tensor:
        if x_BNSC.shape[2] < self.width:
            return self._nothing(x_BNSC)
        out_MSC = conv_max_pool(
            x_BNSC.flatten(0, 1),
            self.conv.weight,
            self.conv.bias,
            pool=self.pool,
            stride=self.stride,
        )
        return out_MSC.view(*x_BNSC.shape[:2], *out_MSC.shape[1:])

    def _max_pool(self, x_BNSC: Tensor) -> Tensor:
        if self.pool == 1:
            return x_BNSC
        batch, num_bins, size, channels = x_BNSC.shape
        return x_BNSC.view(batch, num_bins, size // self.pool, self.pool, channels).amax(3)

    def _activate(self, x_BNSC: Tensor) -> Tensor:
        normed_BNSC = x_BNSC if self.scale is None else rms_norm(x_BNSC, self.scale)
        out_BNSC: Tensor = self.act(normed_BNSC)
        return out_BNSC
