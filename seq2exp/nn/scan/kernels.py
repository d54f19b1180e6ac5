"""Compiled loops of the selective scan for the CPU; numba makes machine code of them at first use.

Channels lie innermost, so that every inner loop is a vector operation, and the states of a block of
channels stay in the first-level cache while the loop walks over time. The exponential is a
polynomial with an exponent put together from bits: the library's cannot be vectorised and costs
seventeen times as much (measured). Items of the parallel loops are independent and each runs in
order, so that the number of threads changes no bit of the result.

Shapes: B batch, L positions, E channels, N states, K chunks, G groups of channel blocks.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

__all__ = ["scan_backward", "scan_forward"]

Floats = NDArray[np.float32]

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
# Beyond these, exp underflows to the smallest normal number and overflows to infinity.
_LOW, _HIGH = _F(-87.0), _F(89.0)
_LOG2E = _F(1.4426950408889634)
# ln 2 in two parts, so that the product with a small integer is exact in the first.
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
# Minimax polynomial of (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2 (Cephes, expf).
_C0, _C1, _C2 = _F(5.0000001201e-1), _F(1.6666665459e-1), _F(4.1665795894e-2)
_C3, _C4, _C5 = _F(8.3334519073e-3), _F(1.3981999507e-3), _F(1.9875691500e-4)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
# Sums may be reordered; NaN and infinity keep their meaning.
_FAST = {"contract", "reassoc", "nsz"}


def _compiled(**options: bool | set[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile at first use and keep the machine code, where there is a folder to keep it in."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(error_model="numpy", cache=True, **options)(function)
        except RuntimeError:
            return njit(error_model="numpy", **options)(function)

    return wrap


@_compiled()
def _exp(x: np.float32) -> np.float32:
    """Return exp(x) with a relative error below 4e-7; NaN stays NaN."""
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    power = np.int32(x * _LOG2E + (_HALF if x > _ZERO else -_HALF))
    whole = _F(power)
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    p = ((((_C5 * r + _C4) * r + _C3) * r + _C2) * r + _C1) * r + _C0
    p = p * r * r + r + _ONE
    return p * np.int32((power + _BIAS) << _MANTISSA).view(_F)


@_compiled(parallel=True, fastmath=_FAST)
def scan_forward(
    u: Floats,
    delta: Floats,
    A: Floats,
    B: Floats,
    C: Floats,
    start: Floats,
    y: Floats,
    marks: Floats,
    last: Floats,
    reverse: bool,  # noqa: FBT001  numba takes no keywords
    chunk: int,
    width: int,
) -> None:
    """Fill y (B, L, E), the states at the start of chunks (K, B, N, E) and the last (B, N, E)."""
    batch, length, channels = u.shape
    states = A.shape[0]
    blocks = (channels + width - 1) // width
    for item in prange(batch * blocks):
        b = item // blocks
        left = (item % blocks) * width
        w = min(width, channels - left)
        decay = np.empty((states, width), _F)
        state = np.empty((states, width), _F)
        total = np.empty(width, _F)
        step = np.empty(width, _F)
        push = np.empty(width, _F)
        for n in range(states):
            for i in range(w):
                decay[n, i] = A[n, left + i]
                state[n, i] = start[b, n, left + i]
        for at in range(length):
            t = length - 1 - at if reverse else at
            if at % chunk == 0:
                for n in range(states):
                    for i in range(w):
                        marks[at // chunk, b, n, left + i] = state[n, i]
            for i in range(w):
                step[i] = delta[b, t, left + i]
                push[i] = step[i] * u[b, t, left + i]
                total[i] = _ZERO
            for n in range(states):
                into, out = B[b, t, n], C[b, t, n]
                rate, held = decay[n], state[n]
                for i in range(w):
                    value = _exp(step[i] * rate[i]) * held[i] + into * push[i]
                    held[i] = value
                    total[i] += out * value
            for i in range(w):
                y[b, t, left + i] = total[i]
        for n in range(states):
            for i in range(w):
                last[b, n, left + i] = state[n, i]


@_compiled(parallel=True, fastmath=_FAST)
def scan_backward(
    u: Floats,
    delta: Floats,
    A: Floats,
    B: Floats,
    C: Floats,
    marks: Floats,
    grad_y: Floats,
    carry: Floats,
    grad_u: Floats,
    grad_delta: Floats,
    grad_A: Floats,
    grad_B: Floats,
    grad_C: Floats,
    reverse: bool,  # noqa: FBT001  numba takes no keywords
    chunk: int,
    width: int,
) -> None:
    """Fill the gradients: of A per batch member (B, N, E), of B and C per group (G, B, L, N).

    `carry` (B, N, E) is the gradient of the last state on entry and of the first one on return.
    States of a chunk are made again from its mark.
    """
    batch, length, channels = u.shape
    states = A.shape[0]
    groups = grad_B.shape[0]
    blocks = (channels + width - 1) // width
    for item in prange(batch * groups):
        b = item // groups
        rate = np.empty((states, width), _F)
        pull = np.empty((states, width), _F)
        sum_A = np.empty((states, width), _F)
        decays = np.empty((chunk, states, width), _F)
        values = np.empty((chunk + 1, states, width), _F)
        step = np.empty(width, _F)
        push = np.empty(width, _F)
        grad = np.empty(width, _F)
        to_push = np.empty(width, _F)
        to_step = np.empty(width, _F)
        for block in range(item % groups, blocks, groups):
            left = block * width
            w = min(width, channels - left)
            for n in range(states):
                for i in range(w):
                    rate[n, i] = A[n, left + i]
                    pull[n, i] = carry[b, n, left + i]
                    sum_A[n, i] = _ZERO
            for k in range(marks.shape[0] - 1, -1, -1):
                first = k * chunk
                size = min(chunk, length - first)
                for n in range(states):
                    for i in range(w):
                        values[0, n, i] = marks[k, b, n, left + i]
                for j in range(size):
                    t = length - 1 - (first + j) if reverse else first + j
                    for i in range(w):
                        step[i] = delta[b, t, left + i]
                        push[i] = step[i] * u[b, t, left + i]
                    for n in range(states):
                        into = B[b, t, n]
                        a, d, before, after = rate[n], decays[j, n], values[j, n], values[j + 1, n]
                        for i in range(w):
                            factor = _exp(step[i] * a[i])
                            d[i] = factor
                            after[i] = factor * before[i] + into * push[i]
                for j in range(size - 1, -1, -1):
                    t = length - 1 - (first + j) if reverse else first + j
                    for i in range(w):
                        step[i] = delta[b, t, left + i]
                        push[i] = step[i] * u[b, t, left + i]
                        grad[i] = grad_y[b, t, left + i]
                        to_push[i] = _ZERO
                        to_step[i] = _ZERO
                    for n in range(states):
                        into, out = B[b, t, n], C[b, t, n]
                        a, d, before, after = rate[n], decays[j, n], values[j, n], values[j + 1, n]
                        held, total = pull[n], sum_A[n]
                        sum_B = _ZERO
                        sum_C = _ZERO
                        for i in range(w):
                            adjoint = held[i] + grad[i] * out
                            sum_C += after[i] * grad[i]
                            sum_B += adjoint * push[i]
                            to_push[i] += adjoint * into
                            back = adjoint * d[i]
                            slope = back * before[i]
                            to_step[i] += slope * a[i]
                            total[i] += slope * step[i]
                            held[i] = back
                        grad_B[item % groups, b, t, n] += sum_B
                        grad_C[item % groups, b, t, n] += sum_C
                    for i in range(w):
                        grad_u[b, t, left + i] = to_push[i] * step[i]
                        grad_delta[b, t, left + i] = to_step[i] + to_push[i] * u[b, t, left + i]
            for n in range(states):
                for i in range(w):
                    grad_A[b, n, left + i] = sum_A[n, i]
                    carry[b, n, left + i] = pull[n, i]
