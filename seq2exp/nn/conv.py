"""Depthwise convolution along a sequence, causal or anti-causal, without moving the channels.

Shapes: B batch, L positions, E channels, W taps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["depthwise_conv"]


def depthwise_conv(
    x_BLE: Tensor, weight_EW: Tensor, bias_E: Tensor, *, reverse: bool = False
) -> Tensor:
    """Depthwise convolution whose output at t sees the inputs t - W + 1 .. t.

    With `reverse` it sees t .. t + W - 1, with the taps mirrored: the same operation on the flipped
    sequence, flipped back. Positions outside count as zero.

    Parameters
    ----------
    x_BLE : float tensor, shape (batch, length, channels)
    weight_EW : float tensor, shape (channels, taps)
        The last tap acts on the position itself.
    bias_E : float tensor, shape (channels,)
    reverse : bool
        Look to the right instead of the left.

    Returns
    -------
    tensor of the dtype of `x_BLE`, shape (batch, length, channels)
    """
    run: Callable[..., Tensor] = _DepthwiseConv.apply
    return run(x_BLE, weight_EW.to(x_BLE.dtype), bias_E.to(x_BLE.dtype), reverse)


class _DepthwiseConv(torch.autograd.Function):
    """Sum of shifted products; the generic convolution kernels are slow for few taps on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x_BLE: Tensor,
        weight_EW: Tensor,
        bias_E: Tensor,
        reverse: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
    ) -> Tensor:
        taps_WE = weight_EW.t().contiguous()
        out_BLE = torch.addcmul(bias_E, x_BLE, taps_WE[-1])
        for target, source, tap in _shifts(out_BLE, x_BLE, taps_WE, reverse=reverse):
            target.addcmul_(source, tap)
        ctx.save_for_backward(x_BLE, weight_EW)
        ctx.reverse = reverse
        return out_BLE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_BLE: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x_BLE, weight_EW = ctx.saved_tensors
        taps_WE = weight_EW.t().contiguous()
        grad_x_BLE = grad_BLE * taps_WE[-1]
        for source, target, tap in _shifts(grad_BLE, grad_x_BLE, taps_WE, reverse=ctx.reverse):
            target.addcmul_(source, tap)
        rows = [(grad_BLE * x_BLE).sum((0, 1))]
        rows += [
            (grad * x).sum((0, 1))
            for grad, x, _ in _shifts(grad_BLE, x_BLE, taps_WE, reverse=ctx.reverse)
        ]
        return grad_x_BLE, torch.stack(rows[::-1], dim=1), grad_BLE.sum((0, 1)), None


def _shifts(
    out_BLE: Tensor, in_BLE: Tensor, taps_WE: Tensor, *, reverse: bool
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Overlapping parts of output and input, and the tap between them, for shifts 1, 2, ..."""
    length = out_BLE.shape[1]
    pairs = []
    for shift in range(1, taps_WE.shape[0]):
        ahead, behind = slice(min(shift, length), length), slice(0, max(length - shift, 0))
        out_span, in_span = (behind, ahead) if reverse else (ahead, behind)
        pairs.append((out_BLE[:, out_span], in_BLE[:, in_span], taps_WE[-1 - shift]))
    return pairs
