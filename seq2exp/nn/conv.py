"""Convolutions along a sequence with the channels innermost.

Shapes: B batch, L positions, E channels, W taps, I spans, V = W + 1; M rows of S positions with C
channels, O output channels, P positions after pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.nn.numba_use import arrays, use_threads, vectorised, without_gaps

__all__ = ["conv_max_pool", "conv_relu_sum", "depthwise_conv", "windows"]

# Rows of about this many numbers are unfolded at once, so that they stay in the cache.
_UNFOLDED_NUMBERS = 1 << 18
# Positions that one item of a compiled loop takes; fixed, so that threads change no sum.
_SPAN = 256


def depthwise_conv(
    x_BLE: Tensor,
    weight_EW: Tensor,
    bias_E: Tensor,
    *,
    reverse: bool = False,
    silu: bool = False,
    starts_BL: Tensor | None = None,
) -> Tensor:
    """Depthwise convolution whose output at t sees the inputs t - W + 1 .. t.

    With `reverse` it sees t .. t + W - 1, with the taps mirrored: the same operation on the flipped
    sequence, flipped back. Positions outside count as zero.

    Parameters
    ----------
    x_BLE : float tensor, shape (batch, length, channels)
        May be a part of a wider tensor; it is not copied.
    weight_EW : float tensor, shape (channels, taps)
        The last tap acts on the position itself.
    bias_E : float tensor, shape (channels,)
    reverse : bool
        Look to the right instead of the left.
    silu : bool
        Apply ``v * sigmoid(v)`` to the result.
    starts_BL : bool tensor, shape (batch, length), optional
        True at the first token of each of several sequences packed one behind the other; no tap
        sees another sequence.

    Returns
    -------
    tensor of the dtype of `x_BLE`, shape (batch, length, channels)

    Notes
    -----
    Compiled loops (float32 on the CPU, channels a multiple of 16) make it in one pass.
    """
    weight_EW, bias_E = weight_EW.to(x_BLE.dtype), bias_E.to(x_BLE.dtype)
    if vectorised(x_BLE) and weight_EW.shape[1] > 0:
        taps_WE = weight_EW.t().flip(0)
        fused: Callable[..., Tensor] = _CompiledConv.apply
        return fused(x_BLE, taps_WE, bias_E, starts_BL, silu, reverse)
    run: Callable[..., Tensor] = _DepthwiseConv.apply
    out_BLE = run(x_BLE, weight_EW, bias_E, starts_BL, reverse)
    return F.silu(out_BLE) if silu else out_BLE


class _CompiledConv(torch.autograd.Function):
    """Keeps x alone, and makes the sums over the taps again where silu needs them."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x_BLE: Tensor,
        taps_WE: Tensor,
        bias_E: Tensor,
        starts_BL: Tensor | None,
        silu: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
        reverse: bool,  # noqa: FBT001
    ) -> Tensor:
        from seq2exp.nn.conv_kernels import conv_forward

        if starts_BL is None:
            starts_BL = x_BLE.new_empty((0, 0), dtype=torch.bool)
        tensors = without_gaps(x_BLE), taps_WE.contiguous(), bias_E.contiguous(), starts_BL
        out_BLE = x_BLE.new_empty(x_BLE.shape)
        use_threads()
        conv_forward(*arrays(*tensors, out_BLE), silu, reverse, _SPAN)
        ctx.save_for_backward(*tensors)
        ctx.flags = silu, reverse
        return out_BLE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_BLE: Tensor,
    ) -> tuple[Tensor | None, ...]:
        from seq2exp.nn.conv_kernels import conv_backward

        tensors = ctx.saved_tensors
        batch, length, channels = grad_BLE.shape
        num_taps, spans = tensors[1].shape[0], batch * -(-length // _SPAN)
        grad_x_BLE = grad_BLE.new_empty(grad_BLE.shape)
        sums_IVE = grad_BLE.new_empty((spans, num_taps + 1, channels))
        use_threads()
        conv_backward(
            *arrays(*tensors, without_gaps(grad_BLE), grad_x_BLE, sums_IVE), *ctx.flags, _SPAN
        )
        sums_VE = sums_IVE.sum(0)
        return grad_x_BLE, sums_VE[:num_taps], sums_VE[num_taps], None, None, None


class _DepthwiseConv(torch.autograd.Function):
    """Sum of shifted products; the generic convolution kernels are slow for few taps on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x_BLE: Tensor,
        weight_EW: Tensor,
        bias_E: Tensor,
        starts_BL: Tensor | None,
        reverse: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
    ) -> Tensor:
        taps_WE = weight_EW.t().contiguous()
        out_BLE = torch.addcmul(bias_E, x_BLE, taps_WE[-1])
        keeps = _same_sequence(starts_BL, taps_WE)
        for target, source, tap, keep in _shifts(out_BLE, x_BLE, taps_WE, keeps, reverse=reverse):
            target.addcmul_(source if keep is None else source * keep, tap)
        ctx.save_for_backward(x_BLE, weight_EW, starts_BL)
        ctx.reverse = reverse
        return out_BLE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_BLE: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x_BLE, weight_EW, starts_BL = ctx.saved_tensors
        taps_WE = weight_EW.t().contiguous()
        grad_x_BLE = grad_BLE * taps_WE[-1]
        sums = [(grad_BLE * x_BLE).sum((0, 1))]
        keeps = _same_sequence(starts_BL, taps_WE)
        pairs = zip(
            _shifts(grad_BLE, grad_x_BLE, taps_WE, keeps, reverse=ctx.reverse),
            _shifts(grad_BLE, x_BLE, taps_WE, keeps, reverse=ctx.reverse),
            strict=True,
        )
        for (source, target, tap, keep), (_, x, _, _) in pairs:
            kept = source if keep is None else source * keep
            target.addcmul_(kept, tap)
            sums.append((kept * x).sum((0, 1)))
        return grad_x_BLE, torch.stack(sums[::-1], dim=1), grad_BLE.sum((0, 1)), None, None


def _same_sequence(starts_BL: Tensor | None, taps_WE: Tensor) -> list[Tensor | None]:
    """For shifts 1, 2, ...: 1 where a token and the one so far before it share their sequence."""
    shifts = range(1, taps_WE.shape[0])
    if starts_BL is None:
        return [None for _ in shifts]
    number_BL = starts_BL.cumsum(1)
    return [
        (number_BL[:, shift:] == number_BL[:, :-shift])[..., None].to(taps_WE.dtype)
        for shift in shifts
    ]


def _shifts(
    out_BLE: Tensor,
    in_BLE: Tensor,
    taps_WE: Tensor,
    keeps: list[Tensor | None],
    *,
    reverse: bool,
) -> list[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Overlapping parts of output and input, tap and kept pairs, for shifts 1, 2, ..."""
    length = out_BLE.shape[1]
    pairs = []
    for shift, keep in enumerate(keeps, start=1):
        ahead, behind = slice(min(shift, length), length), slice(0, max(length - shift, 0))
        out_span, in_span = (behind, ahead) if reverse else (ahead, behind)
        pairs.append((out_BLE[:, out_span], in_BLE[:, in_span], taps_WE[-1 - shift], keep))
    return pairs


def windows(x: Tensor, width: int, *, stride: int = 1) -> Tensor:
    """Lay every run of `width` positions that starts at a multiple of `stride` side by side.

    Parameters
    ----------
    x : tensor, shape (..., positions, channels)

    Returns
    -------
    tensor, shape (..., (positions - width) // stride + 1, width * channels)
        Taps outermost, channels innermost.
    """
    x = x.contiguous()
    count, channels = (x.shape[-2] - width) // stride + 1, x.shape[-1]
    strides = (*x.stride()[:-2], stride * channels, 1)
    return x.as_strided((*x.shape[:-2], count, width * channels), strides)


def conv_max_pool(
    x_MSC: Tensor, weight_OW: Tensor, bias_O: Tensor, *, pool: int, stride: int = 1
) -> Tensor:
    """Convolution without padding, then the largest of every `pool` neighbouring results.

    Runs as matrix products over a few rows at a time and never holds the whole unpooled result.

    Parameters
    ----------
    x_MSC : float tensor, shape (rows, positions, channels)
    weight_OW : float tensor, shape (out_channels, width * channels)
        Taps outermost, as in `windows`.
    bias_O : float tensor, shape (out_channels,)
    pool : int
        Divides the number of results, (positions - width) // stride + 1.
    stride : int
        Positions from one result to the next.

    Returns
    -------
    tensor, shape (rows, results / pool, out_channels)
    """
    device = x_MSC.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_MSC.dtype
    run: Callable[..., Tensor] = _ConvMaxPool.apply
    keeps_places = torch.is_grad_enabled()
    return run(x_MSC.to(dtype), weight_OW.to(dtype), bias_O.to(dtype), pool, stride, keeps_places)


class _ConvMaxPool(torch.autograd.Function):
    """Keeps the place of every maximum, one byte each, and unfolds the input again."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x_MSC: Tensor,
        weight_OW: Tensor,
        bias_O: Tensor,
        pool: int,
        stride: int,
        keeps_places: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
    ) -> Tensor:
        width = weight_OW.shape[1] // x_MSC.shape[2]
        num_pooled = ((x_MSC.shape[1] - width) // stride + 1) // pool
        shape = (x_MSC.shape[0], num_pooled, weight_OW.shape[0])
        out_MPO = x_MSC.new_empty(shape)
        # Inputs look as if they needed a gradient also where none is recorded.
        keeps_places = keeps_places and any(ctx.needs_input_grad)
        places = shape if keeps_places else (0, *shape[1:])
        place_MPO = torch.zeros(places, dtype=torch.uint8, device=x_MSC.device)
        for rows in _row_blocks(x_MSC, weight_OW):
            full = windows(x_MSC[rows], width, stride=stride).flatten(0, 1) @ weight_OW.t()
            steps = full.view(-1, num_pooled, pool, shape[2]).unbind(2)
            best, place = steps[0], place_MPO[rows]
            for i, step in enumerate(steps[1:], start=1):
                if keeps_places:
                    # Later places are larger, so the maximum keeps the last one that won.
                    won = (step > best).view(torch.uint8).mul_(i)
                    torch.maximum(place, won, out=place)
                best = torch.maximum(best, step)
            torch.add(best, bias_O, out=out_MPO[rows])
        ctx.save_for_backward(x_MSC, weight_OW, place_MPO)
        ctx.pool, ctx.stride = pool, stride
        return out_MPO

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_MPO: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, Tensor, None, None, None]:
        x_MSC, weight_OW, place_MPO = ctx.saved_tensors
        num_out, channels = weight_OW.shape[0], x_MSC.shape[2]
        width = weight_OW.shape[1] // channels
        grad_x_MSC = torch.zeros_like(x_MSC) if ctx.needs_input_grad[0] else None
        grad_weight_OW = torch.zeros_like(weight_OW) if ctx.needs_input_grad[1] else None
        for rows in _row_blocks(x_MSC, weight_OW):
            place, grad = place_MPO[rows].long().unsqueeze(2), grad_MPO[rows].unsqueeze(2)
            full = grad.new_zeros((*grad.shape[:2], ctx.pool, num_out))
            full = full.scatter_(2, place, grad).view(-1, num_out)
            if grad_weight_OW is not None:
                unfolded = windows(x_MSC[rows], width, stride=ctx.stride).flatten(0, 1)
                grad_weight_OW.addmm_(full.t(), unfolded)
            if grad_x_MSC is not None:
                taps = (full @ weight_OW).view(len(grad_x_MSC[rows]), -1, width, channels)
                span = (taps.shape[1] - 1) * ctx.stride + 1
                for tap in range(width):
                    grad_x_MSC[rows, tap : tap + span : ctx.stride] += taps[:, :, tap]
        return grad_x_MSC, grad_weight_OW, grad_MPO.sum((0, 1)), None, None, None


def conv_relu_sum(x_MSC: Tensor, weight_OW: Tensor, bias_O: Tensor, *, stride: int = 1) -> Tensor:
    """Convolution without padding, ReLU, and the sum over all positions of a row.

    Runs over a few rows at a time and holds no unsummed result, not even for the backward pass,
    which convolves again.

    Parameters
    ----------
    x_MSC : float tensor, shape (rows, positions, channels)
        Gets no gradient.
    weight_OW : float tensor, shape (out_channels, width * channels)
        Taps outermost, as in `windows`.
    bias_O : float tensor, shape (out_channels,)
    stride : int
        Positions from one result to the next.

    Returns
    -------
    tensor, shape (rows, out_channels)
    """
    device = x_MSC.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_MSC.dtype
    run: Callable[..., Tensor] = _ConvReluSum.apply
    return run(x_MSC.detach().to(dtype), weight_OW.to(dtype), bias_O.to(dtype), stride)


class _ConvReluSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x_MSC: Tensor,
        weight_OW: Tensor,
        bias_O: Tensor,
        stride: int,
    ) -> Tensor:
        out_MO = x_MSC.new_empty((x_MSC.shape[0], weight_OW.shape[0]))
        width = weight_OW.shape[1] // x_MSC.shape[2]
        for rows in _row_blocks(x_MSC, weight_OW):
            taps = windows(x_MSC[rows], width, stride=stride)
            full = torch.addmm(bias_O, taps.flatten(0, 1), weight_OW.t())
            torch.sum(full.relu_().view(*taps.shape[:2], -1), dim=1, out=out_MO[rows])
        ctx.save_for_backward(x_MSC, weight_OW, bias_O)
        ctx.stride = stride
        return out_MO

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_MO: Tensor,
    ) -> tuple[None, Tensor, Tensor, None]:
        x_MSC, weight_OW, bias_O = ctx.saved_tensors
        width = weight_OW.shape[1] // x_MSC.shape[2]
        grad_weight_OW, grad_bias_O = torch.zeros_like(weight_OW), torch.zeros_like(bias_O)
        for rows in _row_blocks(x_MSC, weight_OW):
            taps = windows(x_MSC[rows], width, stride=ctx.stride)
            flat = taps.flatten(0, 1)
            full = torch.addmm(bias_O, flat, weight_OW.t())
            passed = (full > 0).view(*taps.shape[:2], -1) * grad_MO[rows, None]
            grad_weight_OW.addmm_(passed.flatten(0, 1).t(), flat)
            grad_bias_O += passed.sum((0, 1))
        return None, grad_weight_OW, grad_bias_O, None


def _row_blocks(x_MSC: Tensor, weight_OW: Tensor) -> list[slice]:
    numbers = x_MSC.shape[1] * max(weight_OW.shape)
    size = max(1, _UNFOLDED_NUMBERS // max(1, numbers))
    return [slice(start, start + size) for start in range(0, x_MSC.shape[0], size)]
