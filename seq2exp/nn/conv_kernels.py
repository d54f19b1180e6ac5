"""Compiled loops of the depthwise convolution for the CPU, channels innermost.

Every item of the parallel loops is a span of tokens, so that all its reads are neighbours and the
number of threads changes no bit.

Shapes: B batch, L positions, E channels, W taps, I spans, V lanes of a vector.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from seq2exp.nn.lanes import WIDTH, compiled, fma, inline, load, scratch, sigmoid, splat, store

__all__ = ["conv_backward", "conv_forward"]

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_ONE, _ZERO = np.float32(1), np.float32(0)
_FORWARD = "void(f4[:,:,:], f4[:,:], f4[:], b1[:,:], f4[:,:,:], b1, b1, i8)"
_BACKWARD = "void(f4[:,:,:], f4[:,:], f4[:], b1[:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:], b1, b1, i8)"


@inline
def _reach(starts, b, t, length, most, reverse):
    """Count the tokens behind t, in the order of the taps, that belong to its sequence."""
    for shift in range(1, most):
        source = t + shift if reverse else t - shift
        if source < 0 or source >= length:
            return shift - 1
        if starts.size > 0 and starts[b, source if reverse else source + 1]:
            return shift - 1
    return most - 1


@compiled(_FORWARD, parallel=True)
def conv_forward(
    x: Floats, taps: Floats, bias: Floats, starts: Bools, out: Floats,
    silu: bool, reverse: bool, span: int,  # noqa: FBT001  numba takes no keywords
) -> None:  # fmt: skip
    """Fill `out` (B, L, E); tap k (W, E) acts on the token k before, or k after with `reverse`."""
    batch, length, channels = x.shape
    spans = (length + span - 1) // span
    way = 1 if reverse else -1
    for item in prange(batch * spans):
        b, first = item // spans, item % spans * span
        for t in range(first, min(first + span, length)):
            reach = _reach(starts, b, t, length, taps.shape[0], reverse)
            for left in range(0, channels, WIDTH):
                value = fma(load(x, (b, t, left)), load(taps, (0, left)), load(bias, (left,)))
                for k in range(1, reach + 1):
                    value = fma(load(x, (b, t + way * k, left)), load(taps, (k, left)), value)
                if silu:
                    value = value * sigmoid(value)
                store(out, (b, t, left), value)


@inline
def _silu_slope(value):
    """Return the derivative of v * sigmoid(v)."""
    open_ = sigmoid(value)
    return open_ * fma(value, _ONE - open_, _ONE)


@compiled(_BACKWARD, parallel=True)
def conv_backward(
    x: Floats, taps: Floats, bias: Floats, starts: Bools, grad: Floats, grad_x: Floats,
    grad_taps: Floats, silu: bool, reverse: bool, span: int,  # noqa: FBT001
) -> None:  # fmt: skip
    """Fill the gradient of x (B, L, E) and, per span, of the taps and last the bias (I, W + 1, E).

    A span makes the gradients before the activation of the tokens that see it again, at most W - 1
    beyond its end.
    """
    batch, length, channels = x.shape
    spans, num_taps = (length + span - 1) // span, taps.shape[0]
    way = 1 if reverse else -1
    for item in prange(batch * spans):
        b, first = item // spans, item % spans * span
        stop = min(first + span, length)
        low = max(first - num_taps + 1, 0) if reverse else first
        high = stop if reverse else min(stop + num_taps - 1, length)
        inner = scratch(high - low, WIDTH)
        sums = scratch(num_taps + 1, WIDTH)
        reaches = np.empty(high - low, np.int64)
        for t in range(low, high):
            reaches[t - low] = _reach(starts, b, t, length, num_taps, reverse)
        for left in range(0, channels, WIDTH):
            for k in range(num_taps + 1):
                store(sums, (k, 0), _ZERO)
            for t in range(low, high):
                reach = reaches[t - low]
                value = load(grad, (b, t, left))
                if silu:
                    made = fma(load(x, (b, t, left)), load(taps, (0, left)), load(bias, (left,)))
                    for k in range(1, reach + 1):
                        made = fma(load(x, (b, t + way * k, left)), load(taps, (k, left)), made)
                    value = value * _silu_slope(made)
                store(inner, (t - low, 0), value)
                if first <= t < stop:
                    store(sums, (num_taps, 0), load(sums, (num_taps, 0)) + value)
                    for k in range(reach + 1):
                        seen = load(x, (b, t + way * k, left))
                        store(sums, (k, 0), fma(value, seen, load(sums, (k, 0))))
            for t in range(first, stop):
                value = splat(_ZERO)
                for k in range(num_taps):
                    at = t - way * k
                    if at < low or at >= high or reaches[at - low] < k:
                        break
                    value = fma(load(inner, (at - low, 0)), load(taps, (k, left)), value)
                store(grad_x, (b, t, left), value)
            for k in range(num_taps + 1):
                store(grad_taps, (item, k, left), load(sums, (k, 0)))
