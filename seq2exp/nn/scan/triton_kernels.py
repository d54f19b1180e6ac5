"""The selective scan as Triton kernels, forward and gradients, for both directions at once.

A program owns one block of channels of one sequence and walks over tiles of tokens in the order in
which the scan visits them. The rows of a tile are tokens, its columns channels: a column lies in
one thread, so the recurrence of a state runs inside the thread and only sums over channels cross
threads. Two directions are two sides of one launch; a side is an offset into the stacked small
arrays and one of two pointers to each large one. Long sequences are cut into segments, so that the
grid fills a device: first every segment alone from a state of zero, then the segments combined in
order, then every segment again from its true start. All arithmetic is float32.

Import this module only where triton is installed.

Shapes: S sides, B batch, X = S * B sequences, L positions, E channels, N states per channel,
K segments or chunks, T rows of a tile, W channels of a block, P states padded to a power of two.
"""

from __future__ import annotations


import triton
import triton.language as tl

__all__ = ["scan_adjoints", "scan_combine", "scan_ends", "scan_gradients", "scan_marks",
           "scan_outputs"]  # fmt: skip


LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _chain(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    """Compose x -> a x + b, then x -> c x + d."""
    return a * c, b * c + d


@triton.jit
def _chain_before(
    a: tl.tensor,
    b: tl.tensor,
    p: tl.tensor,
    q: tl.tensor,
    c: tl.tensor,
    d: tl.tensor,
    r: tl.tensor,
    s: tl.tensor,
) -> tl.tensor:
    """Compose two runs of maps, and beside each run the same run without its last map."""
    return a * c, b * c + d, a * r, b * r + s


@triton.jit
def _softplus(x: tl.tensor) -> tl.tensor:
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
def _sigmoid(x: tl.tensor) -> tl.tensor:
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _row(x_TW: tl.tensor, rows_T: tl.tensor, index: tl.constexpr) -> tl.tensor:
    """One row of a tile; the others are chosen away at compile time."""
    return tl.sum(tl.where((rows_T == index)[:, None], x_TW, 0.0), axis=0)


@triton.jit
def _block(channels: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """Block of channels and sequence of this program."""
    blocks = tl.cdiv(channels, WIDTH)
    return tl.program_id(0) % blocks, tl.program_id(0) // blocks


@triton.jit
def _tokens(
    tile: tl.tensor,
    length: tl.tensor,
    side: tl.tensor,
    TILE: tl.constexpr,
    REVERSE: tl.constexpr,
    AGAINST: tl.constexpr,
) -> tl.tensor:
    """Visits of a tile, which of them are tokens, and where; bit `side` of REVERSE turns them."""
    rows_T = tl.arange(0, TILE)
    if AGAINST:
        rows_T = TILE - 1 - rows_T
    visits_T = tile * TILE + rows_T
    backwards = (REVERSE >> side) & 1
    tokens_T = visits_T + backwards * (length - 1 - 2 * visits_T)
    return visits_T, visits_T < length, tokens_T.to(tl.int64)


@triton.jit
def _step(
    delta: tl.tensor,
    at_TW: tl.tensor,
    alive_TW: tl.tensor,
    bias_W: tl.tensor,
    mask_T: tl.tensor,
    SOFTPLUS: tl.constexpr,
) -> tl.tensor:
    """Step before and after the softplus, and after the mask, which is 0 where no token is."""
    raw_TW = tl.load(delta + at_TW, mask=alive_TW, other=0.0).to(tl.float32) + bias_W[None, :]
    soft_TW = raw_TW
    if SOFTPLUS:
        soft_TW = _softplus(raw_TW)
    return raw_TW, soft_TW, soft_TW * mask_T[:, None]


@triton.jit
def _decay(
    step_TW: tl.tensor, rate_W: tl.tensor, breaks_T: tl.tensor, HAS_BREAKS: tl.constexpr
) -> tl.tensor:
    decay_TW = tl.exp2(step_TW * (rate_W * LOG2E)[None, :])
    if HAS_BREAKS:
        decay_TW = tl.where((breaks_T != 0)[:, None], 0.0, decay_TW)
    return decay_TW


@triton.jit
def _advance(
    carry_PW: tl.tensor,
    u_TW: tl.tensor,
    step_TW: tl.tensor,
    breaks_T: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    channels_W: tl.tensor,
    visits_T: tl.tensor,
    padded: tl.tensor,
    channels: tl.tensor,
    STATES: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    HAS_BREAKS: tl.constexpr,
    OUTPUT: tl.constexpr,
) -> tl.tensor:
    """Carry the states over one tile; with OUTPUT also the sum over states of C * state."""
    rows_T = tl.arange(0, TILE)
    numbers_P = tl.arange(0, PADDED)
    inside_W = channels_W < channels
    push_TW = step_TW * u_TW
    y_TW = tl.zeros_like(push_TW)
    for n in range(STATES):
        rate_W = tl.load(A + n * channels + channels_W, mask=inside_W, other=0.0)
        B_T = tl.load(B + n * padded + visits_T).to(tl.float32)
        start_W = tl.sum(tl.where((numbers_P == n)[:, None], carry_PW, 0.0), axis=0)
        a_TW = _decay(step_TW, rate_W, breaks_T, HAS_BREAKS)
        b_TW = push_TW * B_T[:, None]
        b_TW = tl.where((rows_T == 0)[:, None], b_TW + a_TW * start_W[None, :], b_TW)
        _, state_TW = tl.associative_scan((a_TW, b_TW), 0, _chain)
        carry_PW = tl.where(
            (numbers_P == n)[:, None], _row(state_TW, rows_T, TILE - 1)[None, :], carry_PW
        )
        if OUTPUT:
            C_T = tl.load(C + n * padded + visits_T).to(tl.float32)
            y_TW += state_TW * C_T[:, None]
    return carry_PW, y_TW


@triton.jit
def scan_ends(
    u_first: tl.tensor, u_second: tl.tensor, delta_first: tl.tensor, delta_second: tl.tensor,
    A: tl.tensor, B: tl.tensor, bias: tl.tensor, mask: tl.tensor, breaks: tl.tensor,
    decays: tl.tensor, ends: tl.tensor,
    batch: tl.tensor, length: tl.tensor, padded: tl.tensor, channels: tl.tensor, tiles: tl.tensor,
    STATES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BREAKS: tl.constexpr,
) -> None:  # fmt: skip
    """Write, for every segment alone, its total decay and its last state from a start of zero."""
    block, item = _block(channels, WIDTH)
    segment = tl.program_id(1)
    side = item // batch
    channels_W = block * WIDTH + tl.arange(0, WIDTH)
    inside_W = channels_W < channels
    numbers_P = tl.arange(0, PADDED)
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    big = (item % batch).to(tl.int64) * length
    per_visit = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    carry_PW = tl.zeros((PADDED, WIDTH), dtype=tl.float32)
    total_W = tl.zeros((WIDTH,), dtype=tl.float32)
    broken = tl.zeros((), dtype=tl.int32)
    for i in range(tiles):
        visits_T, alive_T, tokens_T = _tokens(
            segment * tiles + i, length, side, TILE, REVERSE, False
        )
        at_TW = (big + tokens_T)[:, None] * channels + channels_W[None, :]
        alive_TW = alive_T[:, None] & inside_W[None, :]
        mask_T = tl.load(mask + per_visit + visits_T)
        breaks_T = alive_T
        if HAS_BREAKS:
            breaks_T = tl.load(breaks + per_visit + visits_T) != 0
            broken = tl.maximum(broken, tl.max(breaks_T.to(tl.int32), axis=0))
        u_TW = tl.load(u + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        _, _, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        total_W += tl.sum(step_TW, axis=0)
        carry_PW, _ = _advance(
            carry_PW, u_TW, step_TW, breaks_T, A + side * STATES * channels,
            B + per_visit * STATES, B, channels_W, visits_T, padded, channels,
            STATES, PADDED, TILE, HAS_BREAKS, False,
        )  # fmt: skip
    at_PW = numbers_P[:, None] * channels + channels_W[None, :]
    inside_PW = (numbers_P < STATES)[:, None] & inside_W[None, :]
    rates_PW = tl.load(A + side * STATES * channels + at_PW, mask=inside_PW, other=0.0)
    decay_PW = tl.exp2(rates_PW * LOG2E * total_W[None, :])
    decay_PW = tl.where(broken != 0, 0.0, decay_PW)
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    tl.store(decays + place + at_PW, decay_PW, mask=inside_PW)
    tl.store(ends + place + at_PW, carry_PW, mask=inside_PW)


@triton.jit
def scan_combine(
    decays: tl.tensor, ends: tl.tensor, initial: tl.tensor, starts: tl.tensor, segments: tl.tensor, numbers: tl.tensor,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, BACKWARDS: tl.constexpr,
) -> None:  # fmt: skip
    """Write the true start of every segment, from its neighbours' decays and ends."""
    item = tl.program_id(1).to(tl.int64)
    columns_W = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside_W = columns_W < numbers
    rows_R = tl.arange(0, ROWS)
    carry_W = tl.load(initial + item * numbers + columns_W, mask=inside_W, other=0.0)
    for i in range(tl.cdiv(segments, ROWS)):
        order_R = i * ROWS + rows_R
        alive_RW = (order_R < segments)[:, None] & inside_W[None, :]
        place_R = order_R
        if BACKWARDS:
            place_R = segments - 1 - order_R
        at_RW = (item * segments + place_R)[:, None] * numbers + columns_W[None, :]
        a_RW = tl.load(decays + at_RW, mask=alive_RW, other=1.0)
        b_RW = tl.load(ends + at_RW, mask=alive_RW, other=0.0)
        first_R = (rows_R == 0)[:, None]
        b_RW = tl.where(first_R, b_RW + a_RW * carry_W[None, :], b_RW)
        p_RW = tl.where(first_R, 0.0, tl.full((ROWS, WIDTH), 1.0, dtype=tl.float32))
        q_RW = tl.where(first_R, carry_W[None, :], tl.zeros((ROWS, WIDTH), dtype=tl.float32))
        a_RW = tl.where(first_R, 0.0, a_RW)
        _, state_RW, _, before_RW = tl.associative_scan((a_RW, b_RW, p_RW, q_RW), 0, _chain_before)
        tl.store(starts + at_RW, before_RW, mask=alive_RW)
        carry_W = _row(state_RW, rows_R, ROWS - 1)


@triton.jit
def scan_outputs(
    u_first: tl.tensor, u_second: tl.tensor, delta_first: tl.tensor, delta_second: tl.tensor,
    z_first: tl.tensor, z_second: tl.tensor, y_first: tl.tensor, y_second: tl.tensor,
    A: tl.tensor, B: tl.tensor, C: tl.tensor, D: tl.tensor, bias: tl.tensor, mask: tl.tensor, breaks: tl.tensor,
    starts: tl.tensor, kept: tl.tensor, last: tl.tensor,
    batch: tl.tensor, length: tl.tensor, padded: tl.tensor, channels: tl.tensor, tiles: tl.tensor, chunks: tl.tensor,
    STATES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK_TILES: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    HAS_BREAKS: tl.constexpr, HAS_Z: tl.constexpr, KEEP: tl.constexpr,
) -> None:  # fmt: skip
    """Write y, the last state and, with KEEP, the state at the start of every chunk."""
    block, item = _block(channels, WIDTH)
    segment = tl.program_id(1)
    side = item // batch
    channels_W = block * WIDTH + tl.arange(0, WIDTH)
    inside_W = channels_W < channels
    numbers_P = tl.arange(0, PADDED)
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    y = tl.where(side == 0, y_first, y_second)
    big = (item % batch).to(tl.int64) * length
    per_visit = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    D_W = tl.load(D + side * channels + channels_W, mask=inside_W, other=0.0)
    at_PW = numbers_P[:, None] * channels + channels_W[None, :]
    inside_PW = (numbers_P < STATES)[:, None] & inside_W[None, :]
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    carry_PW = tl.load(starts + place + at_PW, mask=inside_PW, other=0.0)
    for i in range(tiles):
        tile = segment * tiles + i
        visits_T, alive_T, tokens_T = _tokens(tile, length, side, TILE, REVERSE, False)
        at_TW = (big + tokens_T)[:, None] * channels + channels_W[None, :]
        alive_TW = alive_T[:, None] & inside_W[None, :]
        mask_T = tl.load(mask + per_visit + visits_T)
        breaks_T = alive_T
        if HAS_BREAKS:
            breaks_T = tl.load(breaks + per_visit + visits_T) != 0
        if KEEP:
            chunk = tile // CHUNK_TILES
            keep = tile % CHUNK_TILES == 0
            row = (item.to(tl.int64) * chunks + chunk) * STATES * channels
            tl.store(kept + row + at_PW, carry_PW, mask=inside_PW & keep)
        u_TW = tl.load(u + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        _, _, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        carry_PW, y_TW = _advance(
            carry_PW, u_TW, step_TW, breaks_T, A + side * STATES * channels,
            B + per_visit * STATES, C + per_visit * STATES, channels_W, visits_T,
            padded, channels, STATES, PADDED, TILE, HAS_BREAKS, True,
        )  # fmt: skip
        y_TW += D_W[None, :] * u_TW
        if HAS_Z:
            z_TW = tl.load(z + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
            y_TW = y_TW * z_TW * _sigmoid(z_TW)
        tl.store(y + at_TW, y_TW.to(y.dtype.element_ty), mask=alive_TW)
    final = segment == tl.num_programs(1) - 1
    row = item.to(tl.int64) * STATES * channels
    tl.store(last + row + at_PW, carry_PW, mask=inside_PW & final)


@triton.jit
def scan_marks(
    u_first: tl.tensor, u_second: tl.tensor, delta_first: tl.tensor, delta_second: tl.tensor,
    A: tl.tensor, B: tl.tensor, bias: tl.tensor, mask: tl.tensor, breaks: tl.tensor,
    kept: tl.tensor, marks: tl.tensor,
    batch: tl.tensor, length: tl.tensor, padded: tl.tensor, channels: tl.tensor, all_tiles: tl.tensor,
    STATES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK_TILES: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    HAS_BREAKS: tl.constexpr,
) -> None:  # fmt: skip
    """Write the state at the start of every tile, from those at the starts of the chunks."""
    block, item = _block(channels, WIDTH)
    chunk = tl.program_id(1)
    side = item // batch
    channels_W = block * WIDTH + tl.arange(0, WIDTH)
    inside_W = channels_W < channels
    numbers_P = tl.arange(0, PADDED)
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    big = (item % batch).to(tl.int64) * length
    per_visit = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    at_PW = numbers_P[:, None] * channels + channels_W[None, :]
    inside_PW = (numbers_P < STATES)[:, None] & inside_W[None, :]
    row = (item.to(tl.int64) * tl.num_programs(1) + chunk) * STATES * channels
    carry_PW = tl.load(kept + row + at_PW, mask=inside_PW, other=0.0)
    for i in range(CHUNK_TILES):
        tile = chunk * CHUNK_TILES + i
        mark = (item.to(tl.int64) * all_tiles + tile) * STATES * channels
        tl.store(marks + mark + at_PW, carry_PW, mask=inside_PW)
        visits_T, alive_T, tokens_T = _tokens(tile, length, side, TILE, REVERSE, False)
        at_TW = (big + tokens_T)[:, None] * channels + channels_W[None, :]
        alive_TW = alive_T[:, None] & inside_W[None, :]
        mask_T = tl.load(mask + per_visit + visits_T)
        breaks_T = alive_T
        if HAS_BREAKS:
            breaks_T = tl.load(breaks + per_visit + visits_T) != 0
        u_TW = tl.load(u + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        _, _, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        carry_PW, _ = _advance(
            carry_PW, u_TW, step_TW, breaks_T, A + side * STATES * channels,
            B + per_visit * STATES, B, channels_W, visits_T, padded, channels,
            STATES, PADDED, TILE, HAS_BREAKS, False,
        )  # fmt: skip


@triton.jit
def scan_adjoints(
    delta_first: tl.tensor, delta_second: tl.tensor, z_first: tl.tensor, z_second: tl.tensor,
    grad_y_first: tl.tensor, grad_y_second: tl.tensor,
    A: tl.tensor, C: tl.tensor, bias: tl.tensor, mask: tl.tensor, breaks: tl.tensor, decays: tl.tensor, ends: tl.tensor,
    batch: tl.tensor, length: tl.tensor, padded: tl.tensor, channels: tl.tensor, tiles: tl.tensor,
    STATES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BREAKS: tl.constexpr,
    HAS_Z: tl.constexpr,
) -> None:  # fmt: skip
    """Write every segment's decay, and the gradient of its start from its own outputs alone."""
    block, item = _block(channels, WIDTH)
    segment = tl.program_id(1)
    side = item // batch
    channels_W = block * WIDTH + tl.arange(0, WIDTH)
    inside_W = channels_W < channels
    rows_T = tl.arange(0, TILE)
    numbers_P = tl.arange(0, PADDED)
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    grad_y = tl.where(side == 0, grad_y_first, grad_y_second)
    big = (item % batch).to(tl.int64) * length
    per_visit = item.to(tl.int64) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    carry_PW = tl.zeros((PADDED, WIDTH), dtype=tl.float32)
    total_W = tl.zeros((WIDTH,), dtype=tl.float32)
    broken = tl.zeros((), dtype=tl.int32)
    for i in range(tiles):
        tile = segment * tiles + tiles - 1 - i
        visits_T, alive_T, tokens_T = _tokens(tile, length, side, TILE, REVERSE, True)
        at_TW = (big + tokens_T)[:, None] * channels + channels_W[None, :]
        alive_TW = alive_T[:, None] & inside_W[None, :]
        mask_T = tl.load(mask + per_visit + visits_T)
        breaks_T = alive_T
        if HAS_BREAKS:
            breaks_T = tl.load(breaks + per_visit + visits_T) != 0
            broken = tl.maximum(broken, tl.max(breaks_T.to(tl.int32), axis=0))
        _, _, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        total_W += tl.sum(step_TW, axis=0)
        grad_TW = tl.load(grad_y + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        if HAS_Z:
            z_TW = tl.load(z + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
            grad_TW = grad_TW * z_TW * _sigmoid(z_TW)
        for n in range(STATES):
            rate_W = tl.load(
                A + (side * STATES + n) * channels + channels_W, mask=inside_W, other=0.0
            )
            C_T = tl.load(C + per_visit * STATES + n * padded + visits_T).to(tl.float32)
            from_W = tl.sum(tl.where((numbers_P == n)[:, None], carry_PW, 0.0), axis=0)
            a_TW = _decay(step_TW, rate_W, breaks_T, HAS_BREAKS)
            b_TW = grad_TW * C_T[:, None]
            b_TW = tl.where((rows_T == 0)[:, None], b_TW + from_W[None, :], b_TW)
            _, adjoint_TW = tl.associative_scan((a_TW, a_TW * b_TW), 0, _chain)
            carry_PW = tl.where(
                (numbers_P == n)[:, None], _row(adjoint_TW, rows_T, TILE - 1)[None, :], carry_PW
            )
    at_PW = numbers_P[:, None] * channels + channels_W[None, :]
    inside_PW = (numbers_P < STATES)[:, None] & inside_W[None, :]
    rates_PW = tl.load(A + side * STATES * channels + at_PW, mask=inside_PW, other=0.0)
    decay_PW = tl.exp2(rates_PW * LOG2E * total_W[None, :])
    decay_PW = tl.where(broken != 0, 0.0, decay_PW)
    place = (item.to(tl.int64) * tl.num_programs(1) + segment) * STATES * channels
    tl.store(decays + place + at_PW, decay_PW, mask=inside_PW)
    tl.store(ends + place + at_PW, carry_PW, mask=inside_PW)


@triton.jit
def scan_gradients(
    u_first: tl.tensor, u_second: tl.tensor, delta_first: tl.tensor, delta_second: tl.tensor,
    z_first: tl.tensor, z_second: tl.tensor, grad_y_first: tl.tensor, grad_y_second: tl.tensor,
    grad_u_first: tl.tensor, grad_u_second: tl.tensor, grad_delta_first: tl.tensor, grad_delta_second: tl.tensor,
    grad_z_first: tl.tensor, grad_z_second: tl.tensor,
    A: tl.tensor, B: tl.tensor, C: tl.tensor, D: tl.tensor, bias: tl.tensor, mask: tl.tensor, breaks: tl.tensor,
    marks: tl.tensor, adjoints: tl.tensor, grad_initial: tl.tensor, grad_A: tl.tensor, grad_B: tl.tensor,
    grad_C: tl.tensor, grad_D: tl.tensor, grad_bias: tl.tensor, grad_mask: tl.tensor,
    batch: tl.tensor, length: tl.tensor, padded: tl.tensor, channels: tl.tensor, tiles: tl.tensor, all_tiles: tl.tensor,
    STATES: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BREAKS: tl.constexpr,
    HAS_Z: tl.constexpr,
) -> None:  # fmt: skip
    """Write all gradients of a segment, tile by tile against the visiting order.

    `adjoints` is the gradient of the state behind every segment. Gradients that sum over channels
    are written per block of channels, those that sum over tokens per segment.
    """
    block, item = _block(channels, WIDTH)
    segment = tl.program_id(1)
    side = item // batch
    channels_W = block * WIDTH + tl.arange(0, WIDTH)
    inside_W = channels_W < channels
    rows_T = tl.arange(0, TILE)
    numbers_P = tl.arange(0, PADDED)
    u = tl.where(side == 0, u_first, u_second)
    delta = tl.where(side == 0, delta_first, delta_second)
    z = tl.where(side == 0, z_first, z_second)
    grad_y = tl.where(side == 0, grad_y_first, grad_y_second)
    grad_u = tl.where(side == 0, grad_u_first, grad_u_second)
    grad_delta = tl.where(side == 0, grad_delta_first, grad_delta_second)
    grad_z = tl.where(side == 0, grad_z_first, grad_z_second)
    big = (item % batch).to(tl.int64) * length
    per_visit = item.to(tl.int64) * padded
    # Partial sums per block of channels: (blocks, X, N, L) and (blocks, X, L).
    partial = (
        block.to(tl.int64) * (tl.num_programs(0) // tl.cdiv(channels, WIDTH)) + item
    ) * padded
    bias_W = tl.load(bias + side * channels + channels_W, mask=inside_W, other=0.0)
    D_W = tl.load(D + side * channels + channels_W, mask=inside_W, other=0.0)
    at_PW = numbers_P[:, None] * channels + channels_W[None, :]
    inside_PW = (numbers_P < STATES)[:, None] & inside_W[None, :]
    number = item.to(tl.int64) * tl.num_programs(1) + segment
    place = number * STATES * channels
    carry_PW = tl.load(adjoints + place + at_PW, mask=inside_PW, other=0.0)
    grad_A_PW = tl.zeros((PADDED, WIDTH), dtype=tl.float32)
    grad_D_W = tl.zeros((WIDTH,), dtype=tl.float32)
    grad_bias_W = tl.zeros((WIDTH,), dtype=tl.float32)
    for i in range(tiles):
        tile = segment * tiles + tiles - 1 - i
        visits_T, alive_T, tokens_T = _tokens(tile, length, side, TILE, REVERSE, False)
        at_TW = (big + tokens_T)[:, None] * channels + channels_W[None, :]
        alive_TW = alive_T[:, None] & inside_W[None, :]
        mask_T = tl.load(mask + per_visit + visits_T)
        breaks_T = alive_T
        if HAS_BREAKS:
            breaks_T = tl.load(breaks + per_visit + visits_T) != 0
        u_TW = tl.load(u + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        _, _, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        grad_TW = tl.load(grad_y + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        if HAS_Z:
            z_TW = tl.load(z + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
            grad_TW = grad_TW * z_TW * _sigmoid(z_TW)
        push_TW = step_TW * u_TW
        y_TW = D_W[None, :] * u_TW
        grad_push_TW = tl.zeros_like(push_TW)
        grad_step_TW = tl.zeros_like(push_TW)
        first_T = (rows_T == 0)[:, None]
        mark = (item.to(tl.int64) * all_tiles + tile) * STATES * channels
        for n in range(STATES):
            rate_W = tl.load(
                A + (side * STATES + n) * channels + channels_W, mask=inside_W, other=0.0
            )
            at_T = per_visit * STATES + n * padded + visits_T
            B_T = tl.load(B + at_T).to(tl.float32)
            C_T = tl.load(C + at_T).to(tl.float32)
            start_W = tl.load(marks + mark + n * channels + channels_W, mask=inside_W, other=0.0)
            from_W = tl.sum(tl.where((numbers_P == n)[:, None], carry_PW, 0.0), axis=0)
            decay_TW = _decay(step_TW, rate_W, breaks_T, HAS_BREAKS)
            ones_TW = tl.full((TILE, WIDTH), 1.0, dtype=tl.float32)
            zeros_TW = tl.zeros((TILE, WIDTH), dtype=tl.float32)
            b_TW = push_TW * B_T[:, None]
            b_TW = tl.where(first_T, b_TW + decay_TW * start_W[None, :], b_TW)
            a_TW = tl.where(first_T, 0.0, decay_TW)
            p_TW = tl.where(first_T, 0.0, ones_TW)
            q_TW = tl.where(first_T, start_W[None, :], zeros_TW)
            _, state_TW, _, before_TW = tl.associative_scan(
                (a_TW, b_TW, p_TW, q_TW), 0, _chain_before
            )
            # Against the order, upside down: a scan with reverse=True would shuffle across lanes.
            own_TW = tl.flip(grad_TW * C_T[:, None], 0)
            turned_TW = tl.flip(decay_TW, 0)
            a_TW = tl.where(first_T, 0.0, turned_TW)
            b_TW = turned_TW * tl.where(first_T, own_TW + from_W[None, :], own_TW)
            q_TW = tl.where(first_T, from_W[None, :], zeros_TW)
            _, _, _, later_TW = tl.associative_scan((a_TW, b_TW, p_TW, q_TW), 0, _chain_before)
            adjoint_TW = tl.flip(own_TW + later_TW, 0)
            through_TW = decay_TW * adjoint_TW
            carry_PW = tl.where(
                (numbers_P == n)[:, None], _row(through_TW, rows_T, 0)[None, :], carry_PW
            )
            grad_exponent_TW = through_TW * before_TW
            grad_push_TW += adjoint_TW * B_T[:, None]
            grad_step_TW += grad_exponent_TW * rate_W[None, :]
            sum_W = tl.sum(grad_exponent_TW * step_TW, axis=0)
            grad_A_PW += tl.where((numbers_P == n)[:, None], sum_W[None, :], 0.0)
            at_T = partial * STATES + n * padded + visits_T
            tl.store(grad_B + at_T, tl.sum(adjoint_TW * push_TW, axis=1))
            tl.store(grad_C + at_T, tl.sum(state_TW * grad_TW, axis=1))
            if HAS_Z:
                y_TW += state_TW * C_T[:, None]
        # Read again rather than held in registers over the loop.
        u_TW = tl.load(u + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
        raw_TW, soft_TW, step_TW = _step(delta, at_TW, alive_TW, bias_W, mask_T, SOFTPLUS)
        grad_step_TW += grad_push_TW * u_TW
        grad_u_TW = grad_push_TW * step_TW + D_W[None, :] * grad_TW
        grad_D_W += tl.sum(grad_TW * u_TW, axis=0)
        if HAS_Z:
            out_TW = tl.load(grad_y + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
            z_TW = tl.load(z + at_TW, mask=alive_TW, other=0.0).to(tl.float32)
            open_TW = _sigmoid(z_TW)
            grad_z_TW = out_TW * y_TW * open_TW * (1.0 + z_TW * (1.0 - open_TW))
            tl.store(grad_z + at_TW, grad_z_TW.to(grad_z.dtype.element_ty), mask=alive_TW)
        grad_step_TW = tl.where(alive_TW, grad_step_TW, 0.0)
        tl.store(grad_mask + partial + visits_T, tl.sum(grad_step_TW * soft_TW, axis=1))
        grad_raw_TW = grad_step_TW * mask_T[:, None]
        if SOFTPLUS:
            grad_raw_TW = grad_raw_TW * _sigmoid(raw_TW)
        grad_bias_W += tl.sum(grad_raw_TW, axis=0)
        tl.store(grad_u + at_TW, grad_u_TW.to(grad_u.dtype.element_ty), mask=alive_TW)
        tl.store(grad_delta + at_TW, grad_raw_TW.to(grad_delta.dtype.element_ty), mask=alive_TW)
    tl.store(grad_A + place + at_PW, grad_A_PW, mask=inside_PW)
    tl.store(grad_D + number * channels + channels_W, grad_D_W, mask=inside_W)
    tl.store(grad_bias + number * channels + channels_W, grad_bias_W, mask=inside_W)
    row = item.to(tl.int64) * STATES * channels
    tl.store(grad_initial + row + at_PW, carry_PW, mask=inside_PW & (segment == 0))
