"""What the Triton kernels of the selective scan share: places, steps, decays and one tile's scan.

A program owns one block of channels of one sequence and walks over tiles of tokens in the order in
which the scan visits them. The rows of a tile are tokens, its columns channels. A column lies in
one thread, so the recurrence of a state runs inside the thread and only sums over channels cross
threads. That layout is why the kernels must not learn at compile time that the number of channels
is a multiple of 16: the compiler would then give a thread several channels and few tokens.

Two scans of one launch are its sides: offsets into the stacked small arrays, one of two pointers
for each large one. Small arrays lie in visiting order and are padded to whole tiles with zeros;
large ones (batch, length, channels) lie in the order of the tokens.

Import only where triton is installed. Arithmetic is float32.

Shapes: T rows of a tile, W channels of a block, H groups of Q states each.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

__all__ = ["LOG2E", "chain", "chain_before", "decays", "find_block", "find_states", "find_tile",
           "load_tile", "offsets", "put_group", "put_row", "row_of", "sigmoid", "steps",
           "take_group", "walk_tile"]  # fmt: skip

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def chain(a: tensor, b: tensor, c: tensor, d: tensor) -> tensor:
    """Compose x -> a x + b, then x -> c x + d."""
    return a * c, b * c + d


@triton.jit
def chain_before(
    a: tensor, b: tensor, p: tensor, q: tensor, c: tensor, d: tensor, r: tensor, s: tensor
) -> tensor:
    """Compose two runs of maps, and beside each run (p, q) the same run without its last map.

    With (1, 0) beside every map but the first, and the state before the first beside that one, a
    scan gives the state before every map; constants beside maps cost nothing once compiled.
    """
    return a * c, b * c + d, a * r, b * r + s


@triton.jit
def sigmoid(x: tensor) -> tensor:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _softplus(x: tensor) -> tensor:
    """Return log(1 + exp(x)); the series of artanh keeps small steps exact to the last digits."""
    small = tl.exp(-tl.abs(x))
    ratio = small / (2.0 + small)
    square = ratio * ratio
    series = 1.0 / 15.0 + square * (1.0 / 17.0)
    series = 1.0 / 13.0 + square * series
    series = 1.0 / 11.0 + square * series
    series = 1.0 / 9.0 + square * series
    series = 1.0 / 7.0 + square * series
    series = 1.0 / 5.0 + square * series
    series = 1.0 / 3.0 + square * series
    return tl.maximum(x, 0.0) + 2.0 * (ratio + ratio * square * series)


@triton.jit
def row_of(x_TW: tensor, row: constexpr, TILE: constexpr) -> tensor:
    """Return one row of a tile; the choice is made at compile time."""
    return tl.sum(tl.where((tl.arange(0, TILE) == row)[:, None], x_TW, 0.0), axis=0)


@triton.jit
def put_row(x_TW: tensor, row: constexpr, value_W: tensor, TILE: constexpr) -> tensor:
    """Return a tile with one row replaced; the choice is made at compile time."""
    return tl.where((tl.arange(0, TILE) == row)[:, None], value_W[None, :], x_TW)


@triton.jit
def take_group(states_HQW: tensor, group: tensor, GROUPS: constexpr) -> tensor:
    """Return one group of states. Groups, since every choice at run time costs its selections."""
    chosen_H = (tl.arange(0, GROUPS) == group)[:, None, None]
    return tl.sum(tl.where(chosen_H, states_HQW, 0.0), axis=0)


@triton.jit
def put_group(states_HQW: tensor, group: tensor, values_QW: tensor, GROUPS: constexpr) -> tensor:
    """Return all states with one group of them replaced."""
    chosen_H = (tl.arange(0, GROUPS) == group)[:, None, None]
    return tl.where(chosen_H, values_QW[None, :, :], states_HQW)


@triton.jit
def find_states(
    channels: tensor,
    channels_W: tensor,
    STATES: constexpr,
    GROUPS: constexpr,
    GROUP: constexpr,
) -> tensor:
    """Return the places of a block's states in an array (states, channels), and which exist."""
    numbers_HQ = tl.arange(0, GROUPS)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    at_HQW = numbers_HQ[:, :, None] * channels + channels_W[None, None, :]
    return at_HQW, (numbers_HQ < STATES)[:, :, None] & (channels_W < channels)[None, None, :]


@triton.jit
def find_block(channels: tensor, WIDTH: constexpr) -> tensor:
    """Return block of channels, sequence and channels of this program."""
    blocks = tl.cdiv(channels, WIDTH)
    block = tl.program_id(0) % blocks
    return block, tl.program_id(0) // blocks, block * WIDTH + tl.arange(0, WIDTH)


@triton.jit
def offsets(
    turned: tensor, channels: tensor, channels_W: tensor, TILE: constexpr, AGAINST: constexpr
) -> tensor:
    """Return the rows of a tile, and where its numbers lie behind that of its first visit.

    With AGAINST the last visit is the first row.
    """
    rows_T = tl.arange(0, TILE)
    if AGAINST:
        rows_T = TILE - 1 - rows_T
    return rows_T, (rows_T * (1 - 2 * turned))[:, None] * channels + channels_W[None, :]


@triton.jit
def find_tile(
    tile: tensor,
    rows_T: tensor,
    channels_W: tensor,
    turned: tensor,
    sequence: tensor,
    length: tensor,
    channels: tensor,
    TILE: constexpr,
) -> tensor:
    """Return visits of a tile, which of its numbers exist, and the place of its first token."""
    visits_T = tile * TILE + rows_T
    first = tile * TILE + turned * (length - 1 - 2 * tile * TILE)
    alive_TW = (visits_T < length)[:, None] & (channels_W < channels)[None, :]
    return visits_T, alive_TW, (sequence.to(tl.int64) * length + first) * channels


@triton.jit
def load_tile(pointer: tensor, base: tensor, at_TW: tensor, alive_TW: tensor) -> tensor:
    """Load a tile of a large array as float32, 0 where nothing exists."""
    return tl.load(pointer + base + at_TW, mask=alive_TW, other=0.0).to(tl.float32)


@triton.jit
def steps(raw_TW: tensor, mask_T: tensor, SOFTPLUS: constexpr) -> tensor:
    """Return the step before and after the mask, which is 0 where there is no token."""
    soft_TW = raw_TW
    if SOFTPLUS:
        soft_TW = _softplus(raw_TW)
    return soft_TW, soft_TW * mask_T[:, None]


@triton.jit
def decays(
    step_TW: tensor, rate_W: tensor, breaks: tensor, visits_T: tensor, HAS_BREAKS: constexpr
) -> tensor:
    """Return exp(step * rate), 0 where the state is dropped before the visit."""
    decay_TW = tl.exp2(step_TW * (rate_W * LOG2E)[None, :])
    if HAS_BREAKS:
        decay_TW = tl.where((tl.load(breaks + visits_T) != 0)[:, None], 0.0, decay_TW)
    return decay_TW


@triton.jit
def walk_tile(
    carry_HQW: tensor,
    y_TW: tensor,
    u_TW: tensor,
    step_TW: tensor,
    A: tensor,
    B: tensor,
    C: tensor,
    breaks: tensor,
    channels_W: tensor,
    visits_T: tensor,
    padded: tensor,
    channels: tensor,
    STATES: constexpr,
    GROUPS: constexpr,
    GROUP: constexpr,
    TILE: constexpr,
    HAS_BREAKS: constexpr,
    OUTPUT: constexpr,
) -> tensor:
    """Carry the states over one tile; with OUTPUT add the sum over states of C * state to y."""
    first_T1 = (tl.arange(0, TILE) == 0)[:, None]
    inside_W = channels_W < channels
    push_TW = step_TW * u_TW
    for group in range(STATES // GROUP):
        states_QW = take_group(carry_HQW, group, GROUPS)
        for k in tl.static_range(GROUP):
            n = group * GROUP + k
            rate_W = tl.load(A + n * channels + channels_W, mask=inside_W, other=0.0)
            B_T = tl.load(B + n * padded + visits_T).to(tl.float32)
            start_W = row_of(states_QW, k, GROUP)
            decay_TW = decays(step_TW, rate_W, breaks, visits_T, HAS_BREAKS)
            b_TW = push_TW * B_T[:, None]
            b_TW = tl.where(first_T1, b_TW + decay_TW * start_W[None, :], b_TW)
            _, state_TW = tl.associative_scan((decay_TW, b_TW), 0, chain)
            states_QW = put_row(states_QW, k, row_of(state_TW, TILE - 1, TILE), GROUP)
            if OUTPUT:
                C_T = tl.load(C + n * padded + visits_T).to(tl.float32)
                y_TW += state_TW * C_T[:, None]
        carry_HQW = put_group(carry_HQW, group, states_QW, GROUPS)
    return carry_HQW, y_TW
