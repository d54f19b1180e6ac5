"""Triton kernels of the gradients of the selective scan.

`scan_adjoints` runs every segment alone against the visiting order, `triton_forward.scan_combine`
chains the segments, `scan_gradients` runs every segment again with the true gradient of the state
behind it. Sums over channels are written per block of channels, sums over tokens per segment; the
caller adds them up, so no two programs write to one place.

Import only where triton is installed.

Shapes: as in `triton_tiles`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from seq2exp.nn.scan.triton_tiles import (
    LOG2E,
    chain,
    chain_before,
    decays,
    find_block,
    find_states,
    find_tile,
    load_tile,
    offsets,
    put_group,
    put_row,
    row_of,
    sigmoid,
    steps,
    take_group,
)

__all__ = ["scan_adjoints", "scan_gradients"]


@triton.jit(do_not_specialize=["channels"])
def scan_adjoints(
    delta_first: tensor, delta_second: tensor, z_first: tensor, z_second: tensor,
    grad_y_first: tensor, grad_y_second: tensor,
    A: tensor, C: tensor, bias: tensor, mask: tensor, breaks: tensor, totals: tensor, ends: tensor,
    batch: tensor, length: tensor, padded: tensor, channels: tensor, tiles: tensor,
    STATES: constexpr, GROUPS: constexpr, GROUP: constexpr, TILE: constexpr, WIDTH: constexpr,
    REVERSE: constexpr, SOFTPLUS: constexpr, HAS_BREAKS: constexpr, HAS_Z: constexpr,
) -> None:  # fmt: skip
    """Write every segment's decay, and the gradient of its start from its own outputs alone."""
    _block, item, channels_W = find_block(channels, WIDTH)
    segment, side = tl.program_id(1), item // batch
    inside_W = channels_W < channels
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    grad_y = tl.where(side == 0, grad_y_first, grad_y_second)
    turned = (REVERSE >> side) & 1
    rows_T, at_TW = offsets(turned, channels, channels_W, TILE, AGAINST=True)
    row = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    rates = A + side * STATES * channels
    first_T1 = (tl.arange(0, TILE) == 0)[:, None]
    carry_HQW = tl.zeros((GROUPS, GROUP, WIDTH), dtype=tl.float32)
    total_W = tl.zeros((WIDTH,), dtype=tl.float32)
    broken = tl.zeros((), dtype=tl.int32)
    for i in range(tiles):
        visits_T, alive_TW, base = find_tile(
            segment * tiles + tiles - 1 - i, rows_T, channels_W, turned, item % batch, length,
            channels, TILE,
        )  # fmt: skip
        if HAS_BREAKS:
            dropped_T = tl.load(breaks + row + visits_T).to(tl.int32)
            broken = tl.maximum(broken, tl.max(dropped_T, axis=0))
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        _, step_TW = steps(raw_TW, tl.load(mask + row + visits_T), SOFTPLUS)
        total_W += tl.sum(step_TW, axis=0)
        grad_TW = load_tile(grad_y, base, at_TW, alive_TW)
        if HAS_Z:
            z_TW = load_tile(z, base, at_TW, alive_TW)
            grad_TW = grad_TW * z_TW * sigmoid(z_TW)
        for group in range(STATES // GROUP):
            behind_QW = take_group(carry_HQW, group, GROUPS)
            for k in tl.static_range(GROUP):
                n = group * GROUP + k
                rate_W = tl.load(rates + n * channels + channels_W, mask=inside_W, other=0.0)
                C_T = tl.load(C + row * STATES + n * padded + visits_T).to(tl.float32)
                decay_TW = decays(step_TW, rate_W, breaks + row, visits_T, HAS_BREAKS)
                own_TW = grad_TW * C_T[:, None]
                behind_TW = row_of(behind_QW, k, GROUP)[None, :] + own_TW
                own_TW = tl.where(first_T1, behind_TW, own_TW)
                _, through_TW = tl.associative_scan((decay_TW, decay_TW * own_TW), 0, chain)
                behind_QW = put_row(behind_QW, k, row_of(through_TW, TILE - 1, TILE), GROUP)
            carry_HQW = put_group(carry_HQW, group, behind_QW, GROUPS)
    at_HQW, inside_HQW = find_states(channels, channels_W, STATES, GROUPS, GROUP)
    rates_HQW = tl.load(rates + at_HQW, mask=inside_HQW, other=0.0)
    decay_HQW = tl.exp2(rates_HQW * LOG2E * total_W[None, None, :])
    decay_HQW = tl.where(broken != 0, 0.0, decay_HQW)
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    tl.store(totals + place + at_HQW, decay_HQW, mask=inside_HQW)
    tl.store(ends + place + at_HQW, carry_HQW, mask=inside_HQW)


@triton.jit(do_not_specialize=["channels"])
def scan_gradients(
    u_first: tensor, u_second: tensor, delta_first: tensor, delta_second: tensor,
    z_first: tensor, z_second: tensor, grad_y_first: tensor, grad_y_second: tensor,
    grad_u_first: tensor, grad_u_second: tensor, grad_delta_first: tensor,
    grad_delta_second: tensor, grad_z_first: tensor, grad_z_second: tensor,
    A: tensor, B: tensor, C: tensor, D: tensor, bias: tensor, mask: tensor, breaks: tensor,
    marks: tensor, adjoints: tensor, grad_initial: tensor, grad_A: tensor, grad_B: tensor,
    grad_C: tensor, grad_D: tensor, grad_bias: tensor, grad_mask: tensor,
    batch: tensor, length: tensor, padded: tensor, channels: tensor, tiles: tensor,
    STATES: constexpr, GROUPS: constexpr, GROUP: constexpr, TILE: constexpr, WIDTH: constexpr,
    REVERSE: constexpr, SOFTPLUS: constexpr, HAS_BREAKS: constexpr, HAS_Z: constexpr,
) -> None:  # fmt: skip
    """Write all gradients of a segment, tile by tile against the visiting order.

    `marks` is the state at the start of every tile, `adjoints` the gradient of the state behind
    every segment.
    """
    block, item, channels_W = find_block(channels, WIDTH)
    segment, side = tl.program_id(1), item // batch
    inside_W = channels_W < channels
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    grad_y = tl.where(side == 0, grad_y_first, grad_y_second)
    grad_u = tl.where(side == 0, grad_u_first, grad_u_second)
    grad_delta = tl.where(side == 0, grad_delta_first, grad_delta_second)
    grad_z = tl.where(side == 0, grad_z_first, grad_z_second)
    turned = (REVERSE >> side) & 1
    rows_T, at_TW = offsets(turned, channels, channels_W, TILE, AGAINST=False)
    first_T1 = (rows_T == 0)[:, None]
    row = item.to(tl.int64) * padded
    items = tl.num_programs(0) // tl.cdiv(channels, WIDTH)
    partial = (block.to(tl.int64) * items + item) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    D_W = tl.load(D + side * channels + channels_W, mask=inside_W, other=0.0)
    rates = A + side * STATES * channels
    at_HQW, inside_HQW = find_states(channels, channels_W, STATES, GROUPS, GROUP)
    number = item.to(tl.int64) * tl.num_programs(1) + segment
    place = number * STATES * channels
    carry_HQW = tl.load(adjoints + place + at_HQW, mask=inside_HQW, other=0.0)
    grad_A_HQW = tl.zeros((GROUPS, GROUP, WIDTH), dtype=tl.float32)
    grad_D_W = tl.zeros((WIDTH,), dtype=tl.float32)
    grad_bias_W = tl.zeros((WIDTH,), dtype=tl.float32)
    for i in range(tiles):
        step_in_segment = tiles - 1 - i
        visits_T, alive_TW, base = find_tile(
            segment * tiles + step_in_segment, rows_T, channels_W, turned, item % batch, length,
            channels, TILE,
        )  # fmt: skip
        mask_T = tl.load(mask + row + visits_T)
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        _, step_TW = steps(raw_TW, mask_T, SOFTPLUS)
        grad_TW = load_tile(grad_y, base, at_TW, alive_TW)
        if HAS_Z:
            z_TW = load_tile(z, base, at_TW, alive_TW)
            grad_TW = grad_TW * z_TW * sigmoid(z_TW)
        u_TW = load_tile(u, base, at_TW, alive_TW)
        push_TW = step_TW * u_TW
        y_TW = D_W[None, :] * u_TW
        grad_push_TW = tl.zeros((TILE, WIDTH), dtype=tl.float32)
        grad_step_TW = tl.zeros((TILE, WIDTH), dtype=tl.float32)
        mark = marks + (number * tiles + step_in_segment) * STATES * channels
        for group in range(STATES // GROUP):
            behind_QW = take_group(carry_HQW, group, GROUPS)
            grad_A_QW = tl.zeros((GROUP, WIDTH), dtype=tl.float32)
            for k in tl.static_range(GROUP):
                n = group * GROUP + k
                rate_W = tl.load(rates + n * channels + channels_W, mask=inside_W, other=0.0)
                B_T = tl.load(B + row * STATES + n * padded + visits_T).to(tl.float32)
                C_T = tl.load(C + row * STATES + n * padded + visits_T).to(tl.float32)
                start_W = tl.load(mark + n * channels + channels_W, mask=inside_W, other=0.0)
                behind_W = row_of(behind_QW, k, GROUP)
                decay_TW = decays(step_TW, rate_W, breaks + row, visits_T, HAS_BREAKS)
                ones_TW = tl.full((TILE, WIDTH), 1.0, dtype=tl.float32)
                # States after every visit, and before it.
                b_TW = push_TW * B_T[:, None]
                b_TW = tl.where(first_T1, b_TW + decay_TW * start_W[None, :], b_TW)
                q_TW = tl.where(first_T1, start_W[None, :], ones_TW * 0.0)
                _, state_TW, _, before_TW = tl.associative_scan(
                    (decay_TW, b_TW, ones_TW, q_TW), 0, chain_before
                )
                # Their gradients, upside down: a scan with reverse=True would shuffle across lanes.
                own_TW = tl.flip(grad_TW * C_T[:, None], 0)
                a_TW = tl.flip(decay_TW, 0)
                b_TW = a_TW * tl.where(first_T1, own_TW + behind_W[None, :], own_TW)
                q_TW = tl.where(first_T1, behind_W[None, :], ones_TW * 0.0)
                _, _, _, later_TW = tl.associative_scan(
                    (a_TW, b_TW, ones_TW, q_TW), 0, chain_before
                )
                adjoint_TW = tl.flip(own_TW + later_TW, 0)
                through_TW = decay_TW * adjoint_TW
                behind_QW = put_row(behind_QW, k, row_of(through_TW, 0, TILE), GROUP)
                grad_exponent_TW = through_TW * before_TW
                grad_push_TW += adjoint_TW * B_T[:, None]
                grad_step_TW += grad_exponent_TW * rate_W[None, :]
                sum_W = tl.sum(grad_exponent_TW * step_TW, axis=0)
                grad_A_QW = put_row(grad_A_QW, k, sum_W, GROUP)
                at_T = partial * STATES + n * padded + visits_T
                tl.store(grad_B + at_T, tl.sum(adjoint_TW * push_TW, axis=1))
                tl.store(grad_C + at_T, tl.sum(state_TW * grad_TW, axis=1))
                if HAS_Z:
                    y_TW += state_TW * C_T[:, None]
            carry_HQW = put_group(carry_HQW, group, behind_QW, GROUPS)
            grad_A_HQW += put_group(tl.zeros_like(grad_A_HQW), group, grad_A_QW, GROUPS)
        # Read again rather than held in registers over the loop.
        u_TW = load_tile(u, base, at_TW, alive_TW)
        raw_TW = load_tile(delta, base, at_TW, alive_TW) + bias_W[None, :]
        soft_TW, step_TW = steps(raw_TW, mask_T, SOFTPLUS)
        grad_step_TW = tl.where(alive_TW, grad_step_TW + grad_push_TW * u_TW, 0.0)
        grad_u_TW = grad_push_TW * step_TW + D_W[None, :] * grad_TW
        tl.store(grad_u + base + at_TW, grad_u_TW.to(grad_u.dtype.element_ty), mask=alive_TW)
        grad_D_W += tl.sum(grad_TW * u_TW, axis=0)
        if HAS_Z:
            z_TW = load_tile(z, base, at_TW, alive_TW)
            open_TW = sigmoid(z_TW)
            slope_TW = open_TW * (1.0 + z_TW * (1.0 - open_TW))
            grad_z_TW = load_tile(grad_y, base, at_TW, alive_TW) * y_TW * slope_TW
            tl.store(grad_z + base + at_TW, grad_z_TW.to(grad_z.dtype.element_ty), mask=alive_TW)
        tl.store(grad_mask + partial + visits_T, tl.sum(grad_step_TW * soft_TW, axis=1))
        grad_raw_TW = grad_step_TW * mask_T[:, None]
        if SOFTPLUS:
            grad_raw_TW = grad_raw_TW * sigmoid(raw_TW)
        grad_bias_W += tl.sum(grad_raw_TW, axis=0)
        tl.store(
            grad_delta + base + at_TW, grad_raw_TW.to(grad_delta.dtype.element_ty), mask=alive_TW
        )
    tl.store(grad_A + place + at_HQW, grad_A_HQW, mask=inside_HQW)
    tl.store(grad_D + number * channels + channels_W, grad_D_W, mask=inside_W)
    tl.store(grad_bias + number * channels + channels_W, grad_bias_W, mask=inside_W)
    place = item.to(tl.int64) * STATES * channels
    tl.store(grad_initial + place + at_HQW, carry_HQW, mask=inside_HQW & (segment == 0))
