"""Compiled loops of the selective scan for the CPU; numba makes machine code of them at first use.

Channels lie innermost, 16 of them in a vector. A worker takes its blocks of 16 channels one after
the other over a tile of tokens, so that a tile is read from the cache by all but the first, and
holds rates and states of a block in scratch of its own, where they share no cache set with others.
Softplus, mask, skip and gate happen where the numbers are in registers anyway. Items of the
parallel loops are independent and each runs in order, so that the number of threads changes no bit.

Shapes: B batch, L positions, E channels, N states, K tiles, G groups of blocks, S positions of a
segment, V lanes of a vector, T positions of a tile.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from seq2exp.nn.lanes import (
    WIDTH,
    add_sums,
    compiled,
    exp2,
    fma,
    inline,
    load,
    scratch,
    sigmoid,
    softplus,
    splat,
    store,
    total,
)

__all__ = ["scan_backward", "scan_forward"]

Floats = NDArray[np.float32]

_F = np.float32
_ZERO, _ONE, _LN2 = _F(0), _F(1), _F(0.6931471805599453)
_OPTIONS = "f4[:], f4[:], f4[:,:,:], f4[:,:], b1[:,:]"
_FORWARD = f"""void(f4[:,:,:], f4[:,:,:], f4[:,:], f4[:,:,:], f4[:,:,:], {_OPTIONS},
    f4[:,:,:], f4[:,:,:], f4[:,:,:,:], b1, b1, i8, i8)"""
_BACKWARD = f"""void(f4[:,:,:], f4[:,:,:], f4[:,:], f4[:,:,:], f4[:,:,:], {_OPTIONS},
    f4[:,:,:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:], f4[:,:,:,:],
    f4[:,:,:,:], f4[:,:], f4[:,:], f4[:,:,:], b1, b1, i8, i8, i8)"""


@inline
def _step(raw, factor, softened):
    """Step size, its value before the mask, and its derivative with respect to delta."""
    plain, slope = raw, splat(_ONE)
    if softened:
        plain, slope = softplus(raw)
    return plain * factor, plain, slope * factor


@compiled(_FORWARD, parallel=True)
def scan_forward(
    u: Floats, delta: Floats, A: Floats, B: Floats, C: Floats, bias: Floats, D: Floats, z: Floats,
    mask: Floats, breaks: NDArray[np.bool_], state: Floats, y: Floats, marks: Floats,
    softened: bool, reverse: bool, tile: int, items: int,  # noqa: FBT001  numba takes no keywords
) -> None:  # fmt: skip
    """Fill y (B, L, E) and, unless it is empty, the states at the start of tiles (K, B, N, E).

    `A` (N, E) holds rates over ln 2; `state` (B, N, E) the first state on entry and the last one on
    return. What is absent of bias, D, z, mask and breaks is empty.
    """
    batch, length, channels = u.shape
    states, blocks = A.shape[0], channels // WIDTH
    share = (blocks + items - 1) // items
    for item in prange(batch * items):
        b, first = item // items, item % items * share
        rate, held = scratch(states, WIDTH), scratch(states, WIDTH)
        for k in range((length + tile - 1) // tile):
            for block in range(first, min(first + share, blocks)):
                left = block * WIDTH
                for n in range(states):
                    store(rate, (n, 0), load(A, (n, left)))
                    now = load(state, (b, n, left))
                    store(held, (n, 0), now)
                    if marks.shape[0] > 0:
                        store(marks, (k, b, n, left), now)
                for at in range(k * tile, min(k * tile + tile, length)):
                    t = length - 1 - at if reverse else at
                    if breaks.size > 0 and breaks[b, t]:
                        for n in range(states):
                            store(held, (n, 0), _ZERO)
                    raw, factor = load(delta, (b, t, left)), _ONE
                    if bias.size > 0:
                        raw = raw + load(bias, (left,))
                    if mask.size > 0:
                        factor = mask[b, t]
                    step = _step(raw, factor, softened)[0]
                    here = load(u, (b, t, left))
                    push = step * here
                    out = splat(_ZERO)
                    for n in range(states):
                        decay = exp2(step * load(rate, (n, 0)))
                        now = fma(decay, load(held, (n, 0)), push * B[b, t, n])
                        store(held, (n, 0), now)
                        out = fma(now, C[b, t, n], out)
                    if D.size > 0:
                        out = fma(here, load(D, (left,)), out)
                    if z.size > 0:
                        gate = load(z, (b, t, left))
                        out = out * (gate * sigmoid(gate))
                    store(y, (b, t, left), out)
                for n in range(states):
                    store(state, (b, n, left), load(held, (n, 0)))


@inline
def _states_again(
    u, delta, work, B, C, bias, mask, breaks, gated, softened, b, left, low, high, length, reverse,
    decays, values, tokens,
):  # fmt: skip
    """Make the states of a tile again, and what the way back needs of each token.

    `tokens` (4 T, V) gets step, its value before the mask, its derivative and C . s.
    """
    states = work.shape[0] // 3
    for j in range(high - low):
        t = length - 1 - low - j if reverse else low + j
        dropped = breaks.size > 0 and breaks[b, t]
        raw, factor = load(delta, (b, t, left)), _ONE
        if bias.size > 0:
            raw = raw + load(bias, (left,))
        if mask.size > 0:
            factor = mask[b, t]
        step, plain, slope = _step(raw, factor, softened)
        store(tokens, (4 * j, 0), step)
        store(tokens, (4 * j + 1, 0), plain)
        store(tokens, (4 * j + 2, 0), slope)
        push = step * load(u, (b, t, left))
        for n in range(states):
            row = j * states + n
            decay = exp2(step * load(work, (n, 0)))
            now = push * B[b, t, n]
            if dropped:
                decay = splat(_ZERO)
            else:
                now = fma(decay, load(values, (row, 0)), now)
            store(decays, (row, 0), decay)
            store(values, (row + states, 0), now)
        if gated:
            out = splat(_ZERO)
            for n in range(states):
                out = fma(load(values, (j * states + states + n, 0)), C[b, t, n], out)
            store(tokens, (4 * j + 3, 0), out)


@inline
def _one_back(at, n, grad, step, push, B, C, work, decays, values, to_push, to_step):
    """Take the adjoint of one state a token back; return what is summed over the channels.

    `at` is batch member, position, and place in the tile; `work` (3 N, V) holds rates, adjoints and
    the gradient of the rates; the two gradients at the end are added to and returned.
    """
    b, t, j = at
    states = work.shape[0] // 3
    row = j * states + n
    adjoint = fma(grad, C[b, t, n], load(work, (states + n, 0)))
    to_push = fma(adjoint, B[b, t, n], to_push)
    back = adjoint * load(decays, (row, 0))
    store(work, (states + n, 0), back)
    slope = back * load(values, (row, 0))
    to_step = fma(slope, load(work, (n, 0)), to_step)
    store(work, (2 * states + n, 0), fma(slope, step, load(work, (2 * states + n, 0))))
    return adjoint * push, grad * load(values, (row + states, 0)), to_push, to_step


@inline
def _all_back(at, grad, step, push, B, C, work, decays, values, sums_B, sums_C):
    """Take the adjoints of all states a token back; return the gradients of push and step."""
    states = work.shape[0] // 3
    fours = states - states % 4
    p = s = splat(_ZERO)
    for n in range(0, fours, 4):
        b0, c0, p, s = _one_back(at, n, grad, step, push, B, C, work, decays, values, p, s)
        b1, c1, p, s = _one_back(at, n + 1, grad, step, push, B, C, work, decays, values, p, s)
        b2, c2, p, s = _one_back(at, n + 2, grad, step, push, B, C, work, decays, values, p, s)
        b3, c3, p, s = _one_back(at, n + 3, grad, step, push, B, C, work, decays, values, p, s)
        add_sums(sums_B, (n,), b0, b1, b2, b3)
        add_sums(sums_C, (n,), c0, c1, c2, c3)
    for n in range(fours, states):
        b0, c0, p, s = _one_back(at, n, grad, step, push, B, C, work, decays, values, p, s)
        sums_B[n] += total(b0)
        sums_C[n] += total(c0)
    return p, s


@compiled(_BACKWARD, parallel=True)
def scan_backward(
    u: Floats, delta: Floats, A: Floats, B: Floats, C: Floats, bias: Floats, D: Floats, z: Floats,
    mask: Floats, breaks: NDArray[np.bool_], marks: Floats, grad_y: Floats, carry: Floats,
    grad_u: Floats, grad_delta: Floats, grad_z: Floats, grad_A: Floats, grad_B: Floats,
    grad_C: Floats, grad_bias: Floats, grad_D: Floats, grad_mask: Floats,
    softened: bool, reverse: bool, tile: int,  # noqa: FBT001  numba takes no keywords
    first_k: int, last_k: int,
) -> None:  # fmt: skip
    """Take the gradients back over a segment, the tiles from `last_k` - 1 down to `first_k`.

    Fills those of u, delta and z (B, L, E); adds to those of A (B, N, E), bias and D (B, E), and to
    those of B and C per group (G, B, S, N) and of the mask (G, B, S). `carry` (B, N, E) is the
    gradient of the state after the segment on entry, and of the one before it on return.
    """
    batch, length, channels = u.shape
    states, blocks, groups = A.shape[0], channels // WIDTH, grad_B.shape[0]
    share = (blocks + groups - 1) // groups
    end = min(last_k * tile, length)
    base = length - end if reverse else first_k * tile
    for item in prange(batch * groups):
        b, g = item // groups, item % groups
        work, tokens = scratch(3 * states, WIDTH), scratch(4 * tile, WIDTH)
        decays, values = scratch(tile * states, WIDTH), scratch((tile + 1) * states, WIDTH)
        for k in range(last_k - 1, first_k - 1, -1):
            low, high = k * tile, min(k * tile + tile, length)
            for block in range(g * share, min(g * share + share, blocks)):
                left = block * WIDTH
                for n in range(states):
                    store(values, (n, 0), load(marks, (k, b, n, left)))
                    store(work, (n, 0), load(A, (n, left)))
                    store(work, (states + n, 0), load(carry, (b, n, left)))
                    store(work, (2 * states + n, 0), _ZERO)
                _states_again(
                    u, delta, work, B, C, bias, mask, breaks, z.size > 0, softened, b,
                    left, low, high, length, reverse, decays, values, tokens,
                )  # fmt: skip
                skip, sum_D, sum_bias = splat(_ZERO), splat(_ZERO), splat(_ZERO)
                if D.size > 0:
                    skip = load(D, (left,))
                for j in range(high - low - 1, -1, -1):
                    t = length - 1 - low - j if reverse else low + j
                    grad, here = load(grad_y, (b, t, left)), load(u, (b, t, left))
                    if z.size > 0:
                        gate = load(z, (b, t, left))
                        open_ = sigmoid(gate)
                        out = fma(skip, here, load(tokens, (4 * j + 3, 0)))
                        slope = open_ * fma(gate, _ONE - open_, _ONE)
                        store(grad_z, (b, t, left), grad * out * slope)
                        grad = grad * (gate * open_)
                    step = load(tokens, (4 * j, 0))
                    to_push, to_step = _all_back(
                        (b, t, j), grad, step, step * here, B, C, work, decays, values,
                        grad_B[g, b, t - base], grad_C[g, b, t - base],
                    )  # fmt: skip
                    if breaks.size > 0 and breaks[b, t]:
                        to_step = splat(_ZERO)
                        for n in range(states):
                            store(work, (states + n, 0), _ZERO)
                    to_step = fma(to_push, here, to_step * _LN2)
                    if mask.size > 0:
                        grad_mask[g, b, t - base] += total(to_step * load(tokens, (4 * j + 1, 0)))
                    to_delta = to_step * load(tokens, (4 * j + 2, 0))
                    store(grad_u, (b, t, left), fma(to_push, step, grad * skip))
                    store(grad_delta, (b, t, left), to_delta)
                    sum_D, sum_bias = fma(grad, here, sum_D), sum_bias + to_delta
                for n in range(states):
                    store(carry, (b, n, left), load(work, (states + n, 0)))
                    whole = load(grad_A, (b, n, left)) + load(work, (2 * states + n, 0))
                    store(grad_A, (b, n, left), whole)
                store(grad_D, (b, left), load(grad_D, (b, left)) + sum_D)
                store(grad_bias, (b, left), load(grad_bias, (b, left)) + sum_bias)
