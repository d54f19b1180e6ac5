"""Triton kernels that make states and outputs of the selective scan.

Long sequences are cut into segments, so that the grid fills a device: `scan_ends` runs every
segment alone from a state of zero, `scan_combine` chains the segments, `scan_outputs` runs every
segment again from its true start. With one segment the last kernel is enough. `scan_marks` makes
the states inside the chunks again for the backward.

Import only where triton is installed.

Shapes: as in `triton_tiles`; R rows of segments.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from seq2exp.nn.scan.triton_tiles import (
    LOG2E,
    chain_before,
    find_block,
    find_states,
    find_tile,
    load_tile,
    offsets,
    row_of,
    sigmoid,
    steps,
    walk_tile,
)

__all__ = ["scan_combine", "scan_ends", "scan_marks", "scan_outputs"]


@triton.jit(do_not_specialize=["channels"])
def scan_ends(
    u_first: tensor, u_second: tensor, delta_first: tensor, delta_second: tensor,
    A: tensor, B: tensor, bias: tensor, mask: tensor, breaks: tensor, decays: tensor, ends: tensor,
    batch: tensor, length: tensor, padded: tensor, channels: tensor, tiles: tensor,
    STATES: constexpr, GROUPS: constexpr, GROUP: constexpr, TILE: constexpr, WIDTH: constexpr,
    REVERSE: constexpr, SOFTPLUS: constexpr, HAS_BREAKS: constexpr,
) -> None:  # fmt: skip
    """Write, for every segment alone, its total decay and its last state from a start of zero."""
    _block, item, channels_W = find_block(channels, WIDTH)
    segment, side = tl.program_id(1), item // batch
    inside_W = channels_W < channels
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    turned = (REVERSE >> side) & 1
    rows_T, at_TW = offsets(turned, channels, channels_W, TILE, AGAINST=False)
    row = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    rates = A + side * STATES * channels
    carry_HQW = tl.zeros((GROUPS, GROUP, WIDTH), dtype=tl.float32)
    total_W = tl.zeros((WIDTH,), dtype=tl.float32)
    broken = tl.zeros((), dtype=tl.int32)
    for i in range(tiles):
        visits_T, alive_TW, base = find_tile(
            segment * tiles + i, rows_T, channels_W, turned, item % batch, length, channels, TILE
        )
        if HAS_BREAKS:
            dropped_T = tl.load(breaks + row + visits_T).to(tl.int32)
            broken = tl.maximum(broken, tl.max(dropped_T, axis=0))
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        _, step_TW = steps(raw_TW, tl.load(mask + row + visits_T), SOFTPLUS)
        total_W += tl.sum(step_TW, axis=0)
        carry_HQW, _ = walk_tile(
            carry_HQW, step_TW, load_tile(u, base, at_TW, alive_TW), step_TW, rates,
            B + row * STATES, B, breaks + row, channels_W, visits_T, padded, channels,
            STATES, GROUPS, GROUP, TILE, HAS_BREAKS, OUTPUT=False,
        )  # fmt: skip
    at_HQW, inside_HQW = find_states(channels, channels_W, STATES, GROUPS, GROUP)
    rates_HQW = tl.load(rates + at_HQW, mask=inside_HQW, other=0.0)
    decay_HQW = tl.exp2(rates_HQW * LOG2E * total_W[None, None, :])
    decay_HQW = tl.where(broken != 0, 0.0, decay_HQW)
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    tl.store(decays + place + at_HQW, decay_HQW, mask=inside_HQW)
    tl.store(ends + place + at_HQW, carry_HQW, mask=inside_HQW)


@triton.jit(do_not_specialize=["numbers"])
def scan_combine(
    decays: tensor, ends: tensor, initial: tensor, starts: tensor, segments: tensor,
    numbers: tensor, ROWS: constexpr, WIDTH: constexpr, AGAINST: constexpr,
) -> None:  # fmt: skip
    """Write the state before every segment from all segments' decays and ends.

    With AGAINST the segments are visited from the last to the first.
    """
    item = tl.program_id(1).to(tl.int64)
    columns_W = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside_W = columns_W < numbers
    rows_R = tl.arange(0, ROWS)
    first_R1 = (rows_R == 0)[:, None]
    carry_W = tl.load(initial + item * numbers + columns_W, mask=inside_W, other=0.0)
    for i in range(tl.cdiv(segments, ROWS)):
        order_R = i * ROWS + rows_R
        alive_RW = (order_R < segments)[:, None] & inside_W[None, :]
        place_R = order_R
        if AGAINST:
            place_R = segments - 1 - order_R
        at_RW = (item * segments + place_R)[:, None] * numbers + columns_W[None, :]
        a_RW = tl.load(decays + at_RW, mask=alive_RW, other=1.0)
        b_RW = tl.load(ends + at_RW, mask=alive_RW, other=0.0)
        b_RW = tl.where(first_R1, b_RW + a_RW * carry_W[None, :], b_RW)
        ones_RW = tl.full((ROWS, WIDTH), 1.0, dtype=tl.float32)
        q_RW = tl.where(first_R1, carry_W[None, :], ones_RW * 0.0)
        _, state_RW, _, before_RW = tl.associative_scan(
            (a_RW, b_RW, ones_RW, q_RW), 0, chain_before
        )
        tl.store(starts + at_RW, before_RW, mask=alive_RW)
        carry_W = row_of(state_RW, ROWS - 1, ROWS)


@triton.jit(do_not_specialize=["channels"])
def scan_outputs(
    u_first: tensor, u_second: tensor, delta_first: tensor, delta_second: tensor,
    z_first: tensor, z_second: tensor, y_first: tensor, y_second: tensor,
    A: tensor, B: tensor, C: tensor, D: tensor, bias: tensor, mask: tensor, breaks: tensor,
    starts: tensor, kept: tensor, last: tensor,
    batch: tensor, length: tensor, padded: tensor, channels: tensor, tiles: tensor,
    STATES: constexpr, GROUPS: constexpr, GROUP: constexpr, TILE: constexpr, WIDTH: constexpr,
    REVERSE: constexpr, SOFTPLUS: constexpr, HAS_BREAKS: constexpr, CHUNK_TILES: constexpr,
    HAS_Z: constexpr, KEEP: constexpr,
) -> None:  # fmt: skip
    """Write y, the last state and, with KEEP, the state at the start of every chunk."""
    _block, item, channels_W = find_block(channels, WIDTH)
    segment, side = tl.program_id(1), item // batch
    inside_W = channels_W < channels
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    y = tl.where(side == 0, y_first, y_second)
    turned = (REVERSE >> side) & 1
    rows_T, at_TW = offsets(turned, channels, channels_W, TILE, AGAINST=False)
    row = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    D_W = tl.load(D + side * channels + channels_W, mask=inside_W, other=0.0)
    at_HQW, inside_HQW = find_states(channels, channels_W, STATES, GROUPS, GROUP)
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    carry_HQW = tl.load(starts + place + at_HQW, mask=inside_HQW, other=0.0)
    for i in range(tiles):
        visits_T, alive_TW, base = find_tile(
            segment * tiles + i, rows_T, channels_W, turned, item % batch, length, channels, TILE
        )
        if KEEP:
            chunk = (segment * tiles + i) // CHUNK_TILES
            chunks = tl.num_programs(1) * tiles // CHUNK_TILES
            keep = (item.to(tl.int64) * chunks + chunk) * STATES * channels
            tl.store(kept + keep + at_HQW, carry_HQW, mask=inside_HQW & (i % CHUNK_TILES == 0))
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        _, step_TW = steps(raw_TW, tl.load(mask + row + visits_T), SOFTPLUS)
        u_TW = load_tile(u, base, at_TW, alive_TW)
        carry_HQW, y_TW = walk_tile(
            carry_HQW, D_W[None, :] * u_TW, u_TW, step_TW, A + side * STATES * channels,
            B + row * STATES, C + row * STATES, breaks + row, channels_W, visits_T, padded,
            channels, STATES, GROUPS, GROUP, TILE, HAS_BREAKS, OUTPUT=True,
        )  # fmt: skip
        if HAS_Z:
            z_TW = load_tile(z, base, at_TW, alive_TW)
            y_TW = y_TW * z_TW * sigmoid(z_TW)
        tl.store(y + base + at_TW, y_TW.to(y.dtype.element_ty), mask=alive_TW)
    final = segment == tl.num_programs(1) - 1
    place = item.to(tl.int64) * STATES * channels
    tl.store(last + place + at_HQW, carry_HQW, mask=inside_HQW & final)


@triton.jit(do_not_specialize=["channels"])
def scan_marks(
    u_first: tensor, u_second: tensor, delta_first: tensor, delta_second: tensor,
    A: tensor, B: tensor, bias: tensor, mask: tensor, breaks: tensor, kept: tensor, marks: tensor,
    batch: tensor, length: tensor, padded: tensor, channels: tensor,
    STATES: constexpr, GROUPS: constexpr, GROUP: constexpr, TILE: constexpr, WIDTH: constexpr,
    REVERSE: constexpr, SOFTPLUS: constexpr, HAS_BREAKS: constexpr, CHUNK_TILES: constexpr,
) -> None:  # fmt: skip
    """Write the state at the start of every tile, from those at the starts of the chunks."""
    _block, item, channels_W = find_block(channels, WIDTH)
    chunk, side = tl.program_id(1), item // batch
    inside_W = channels_W < channels
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    turned = (REVERSE >> side) & 1
    rows_T, at_TW = offsets(turned, channels, channels_W, TILE, AGAINST=False)
    row = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    at_HQW, inside_HQW = find_states(channels, channels_W, STATES, GROUPS, GROUP)
    number = item.to(tl.int64) * tl.num_programs(1) + chunk
    carry_HQW = tl.load(kept + number * STATES * channels + at_HQW, mask=inside_HQW, other=0.0)
    for i in range(CHUNK_TILES):
        mark = (number * CHUNK_TILES + i) * STATES * channels
        tl.store(marks + mark + at_HQW, carry_HQW, mask=inside_HQW)
        visits_T, alive_TW, base = find_tile(
            chunk * CHUNK_TILES + i, rows_T, channels_W, turned, item % batch, length, channels,
            TILE,
        )  # fmt: skip
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        _, step_TW = steps(raw_TW, tl.load(mask + row + visits_T), SOFTPLUS)
        carry_HQW, _ = walk_tile(
            carry_HQW, step_TW, load_tile(u, base, at_TW, alive_TW), step_TW,
            A + side * STATES * channels, B + row * STATES, B, breaks + row, channels_W, visits_T,
            padded, channels, STATES, GROUPS, GROUP, TILE, HAS_BREAKS, OUTPUT=False,
        )  # fmt: skip
