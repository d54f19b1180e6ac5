"""The selective scan against its definition, and against itself in every chunking."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.nn.scan import backend_names, register_backend, scan_reference, selective_scan

LENGTHS = (1, 3, 4, 63, 64, 65, 1000)
NAMES = ("u", "delta", "A", "B", "C", "D", "state")


def make_inputs(length, *, batch=2, channels=3, states=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = (
        normal(batch, length, channels),
        torch.nn.functional.softplus(normal(batch, length, channels) - 1),
        -torch.exp(normal(channels, states)),
        normal(batch, length, states),
        normal(batch, length, states),
        normal(channels),
        normal(batch, channels, states),
    )
    return [t.to(dtype).requires_grad_() for t in tensors]


def run(inputs, **options):
    u, delta, A, B, C, D, state = inputs
    return selective_scan(
        u, delta, A, B, C, D_E=D, initial_state_BEN=state, return_state=True, **options
    )


def loop_by_hand(inputs, *, reverse):
    """The recurrence of the specification with numbers, not tensors, along every axis."""
    u, delta, A, B, C, D, state = [t.detach().numpy() for t in inputs]
    y = torch.zeros(u.shape, dtype=torch.float64)
    final = torch.zeros(state.shape, dtype=torch.float64)
    batch, length, channels = u.shape
    for b in range(batch):
        for e in range(channels):
            s = state[b, e].copy()
            for t in reversed(range(length)) if reverse else range(length):
                decay = torch.from_numpy(delta[b, t, e] * A[e]).exp().numpy()
                s = decay * s + delta[b, t, e] * B[b, t] * u[b, t, e]
                y[b, t, e] = float((C[b, t] * s).sum() + D[e] * u[b, t, e])
            final[b, e] = torch.from_numpy(s)
    return y, final


def gradients(outputs, inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    total = sum((o * w.to(o.dtype)).sum() for o, w in zip(outputs, weights, strict=True))
    return torch.autograd.grad(total, inputs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 3, 17])
def test_reference_is_the_written_recurrence(length, reverse):
    inputs = make_inputs(length)
    y, final = run(inputs, backend="reference", reverse=reverse)
    y_hand, final_hand = loop_by_hand(inputs, reverse=reverse)
    torch.testing.assert_close(y, y_hand, rtol=0, atol=1e-12)
    torch.testing.assert_close(final, final_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_chunked_equals_reference_with_gradients(length, reverse):
    inputs = make_inputs(length)
    ours = run(inputs, backend="torch", reverse=reverse)
    oracle = run(inputs, backend="reference", reverse=reverse)
    for mine, theirs in zip(ours, oracle, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    pairs = zip(NAMES, gradients(ours, inputs), gradients(oracle, inputs), strict=True)
    for name, mine, theirs in pairs:
        torch.testing.assert_close(
            mine, theirs, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_agree_with_finite_differences(reverse):
    inputs = make_inputs(7)
    assert torch.autograd.gradcheck(
        lambda *tensors: run(tensors, backend="torch", reverse=reverse, chunk=3), inputs
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 64, 130, 500])
def test_chunk_size_changes_nothing(chunk, reverse):
    inputs = make_inputs(130)
    whole = run(inputs, chunk=130, reverse=reverse)
    parts = run(inputs, chunk=chunk, reverse=reverse)
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    for mine, theirs in zip(gradients(parts, inputs), gradients(whole, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-11)


def test_reverse_is_flip_scan_flip():
    u, delta, A, B, C, D, state = make_inputs(65)
    ours = run((u, delta, A, B, C, D, state), reverse=True)
    flipped = run((u.flip(1), delta.flip(1), A, B.flip(1), C.flip(1), D, state))
    torch.testing.assert_close(ours[0], flipped[0].flip(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours[1], flipped[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_state_carried_from_part_to_part(reverse):
    u, delta, A, B, C, D, state = make_inputs(50)
    whole_y, whole_state = run((u, delta, A, B, C, D, state), reverse=reverse)
    cuts = [(0, 13), (13, 14), (14, 50)]
    pieces = []
    for start, stop in cuts[::-1] if reverse else cuts:
        part = [x[:, start:stop] for x in (u, delta)], [x[:, start:stop] for x in (B, C)]
        y, state = run((*part[0], A, *part[1], D, state), reverse=reverse)
        pieces.append(y)
    joined = torch.cat(pieces[::-1] if reverse else pieces, dim=1)
    torch.testing.assert_close(joined, whole_y, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, whole_state, rtol=0, atol=1e-12)


def test_step_of_zero_passes_the_state_unchanged():
    u, delta, A, B, C, D, state = make_inputs(20)
    silent = torch.zeros_like(delta)
    y, final = run((u, silent, A, B, C, D, state))
    assert torch.equal(final, state)
    expected = torch.einsum("ben,bln->ble", state, C) + D * u
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_positions_with_step_zero_may_be_removed(reverse):
    u, delta, A, B, C, D, state = make_inputs(40)
    keep = torch.rand(40, generator=torch.Generator().manual_seed(3)) < 0.5
    gated = delta * keep[:, None]
    y, final = run((u, gated, A, B, C, D, state), reverse=reverse)
    packed = [x[:, keep] for x in (u, delta)], [x[:, keep] for x in (B, C)]
    y_packed, final_packed = run((*packed[0], A, *packed[1], D, state), reverse=reverse)
    torch.testing.assert_close(y[:, keep], y_packed, rtol=0, atol=1e-12)
    torch.testing.assert_close(final, final_packed, rtol=0, atol=1e-12)


def test_float32_stays_close_to_float64():
    exact = run(make_inputs(1000))
    single = run(make_inputs(1000, dtype=torch.float32))
    assert single[0].dtype == torch.float32
    torch.testing.assert_close(single[0].double(), exact[0], rtol=1e-4, atol=1e-4)


def test_half_precision_input_keeps_a_float32_state():
    inputs = make_inputs(100, dtype=torch.bfloat16)
    y, state = run(inputs)
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    wide = run([t.float() for t in inputs])
    # The same numbers in float32: only the rounding of the output is left.
    torch.testing.assert_close(y, wide[0].bfloat16())
    assert all(torch.isfinite(g).all() for g in gradients((y,), inputs[:6]))


def test_autocast_does_not_reach_the_recurrence():
    inputs = make_inputs(100, dtype=torch.float32)
    plain = run(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run(inputs)
    assert torch.equal(plain[0], cast[0])


def test_batch_members_do_not_mix():
    inputs = make_inputs(33, batch=5)
    y, _ = run(inputs)
    u, delta, A, B, C, D, state = inputs
    alone = [
        run((u[i : i + 1], delta[i : i + 1], A, B[i : i + 1], C[i : i + 1], D, state[i : i + 1]))[0]
        for i in range(5)
    ]
    torch.testing.assert_close(y, torch.cat(alone), rtol=0, atol=1e-13)


def test_non_contiguous_inputs():
    u, delta, A, B, C, D, state = make_inputs(20)
    strided = [torch.stack([t, t], dim=-1)[..., 0] for t in (u, delta, B, C)]
    assert not strided[0].is_contiguous()
    y, _ = run((strided[0], strided[1], A, strided[2], strided[3], D, state))
    assert torch.equal(y, run((u, delta, A, B, C, D, state))[0])


def test_empty_sequence_and_empty_batch():
    state = make_inputs(1)[6]
    y, final = run(
        (
            *[t[:, :0] for t in make_inputs(1)[:2]],
            make_inputs(1)[2],
            *[t[:, :0] for t in make_inputs(1)[3:5]],
            make_inputs(1)[5],
            state,
        )
    )
    assert y.shape == (2, 0, 3)
    assert torch.equal(final, state)
    assert run(make_inputs(5, batch=0))[0].shape == (0, 5, 3)


def test_default_start_is_zero():
    u, delta, A, B, C, _, state = make_inputs(9)
    plain = selective_scan(u, delta, A, B, C)
    zeros = selective_scan(u, delta, A, B, C, initial_state_BEN=torch.zeros_like(state))
    assert torch.equal(plain, zeros)


def test_wrong_shapes_and_names_are_refused():
    u, delta, A, B, C, D, _ = make_inputs(5)
    with pytest.raises(InputError, match="shape of B"):
        selective_scan(u, delta, A, B[:, :4], C)
    with pytest.raises(InputError, match="shape of D"):
        selective_scan(u, delta, A, B, C, D_E=D[:2])
    with pytest.raises(InputError, match="u and A"):
        selective_scan(u[0], delta, A, B, C)
    with pytest.raises(InputError, match="at least 1"):
        selective_scan(u, delta, A, B, C, chunk=0)
    with pytest.raises(ConfigError, match="use 'torch'"):
        selective_scan(u, delta, A, B, C, backend="torhc")


def test_taken_backend_name_is_refused():
    assert set(backend_names()) >= {"torch", "reference"}
    with pytest.raises(ConfigError, match="taken"):
        register_backend("torch", scan_reference)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("length", "batch", "channels", "states"),
    [(1, 1, 1, 1), (31, 2, 3, 4), (32, 1, 16, 5), (33, 9, 17, 2), (300, 1, 140, 16)],
)
def test_compiled_equals_the_float64_reference_with_gradients(
    length, batch, channels, states, reverse
):
    """Lengths around the chunk of 32, channels that leave vectors and blocks incomplete."""
    exact = make_inputs(length, batch=batch, channels=channels, states=states)
    single = [tensor.detach().float().requires_grad_() for tensor in exact]
    ours, oracle = (
        run(single, backend="cpu", reverse=reverse),
        run(exact, backend="reference", reverse=reverse),
    )
    for mine, theirs in zip(ours, oracle, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    pairs = zip(gradients(ours, single), gradients(oracle, exact), NAMES, strict=True)
    for mine, theirs, name in pairs:
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name


def test_compiled_is_the_same_for_every_number_of_threads():
    inputs = make_inputs(100, batch=1, channels=40, states=4, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            outputs = run(inputs, backend="cpu")
            found.append([*outputs, *gradients(outputs, inputs)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("chunk", [1, 7, 64, 500])
def test_compiled_in_any_chunks_is_the_same(chunk):
    inputs = make_inputs(130, dtype=torch.float32)
    whole, parts = run(inputs, backend="cpu"), run(inputs, backend="cpu", chunk=chunk)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    for a, b in zip(gradients(whole, inputs), gradients(parts, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_compiled_exponential_over_its_whole_range():
    """One token, one state: y = exp(delta A) s. Underflow goes to 0, overflow to inf, NaN stays.

    The product delta A / ln 2 is rounded to 2^-24 of itself, which the exponential turns into as
    much of its own size per unit of delta A.
    """
    rates = torch.cat([torch.linspace(-86, 88, 4001), torch.tensor([-200.0, 200.0, torch.nan])])
    one, none = torch.ones(1, 1, 1), torch.zeros(1, 1, len(rates))
    y = selective_scan(
        none,
        torch.ones_like(none),
        rates[:, None],
        one,
        one,
        initial_state_BEN=torch.ones(1, len(rates), 1),
        backend="cpu",
    )[0, 0]
    exact = rates[:4001].double().exp()
    allowed = 3e-7 + 1.5 * 2**-24 * rates[:4001].abs()
    assert (((y[:4001] - exact).abs() / exact) < allowed).all()
    assert 0 <= y[4001] < 1e-37
    assert torch.isinf(y[4002])
    assert torch.isnan(y[4003])


def test_a_nan_in_one_sequence_stays_there():
    inputs = [t.detach() for t in make_inputs(40, dtype=torch.float32)]
    inputs[0][1, 5, 0] = torch.nan
    y, _ = run(inputs, backend="cpu")
    assert not torch.isnan(y[0]).any()
    assert torch.isnan(y[1, 5:, 0]).all()
    assert not torch.isnan(y[1, :, 1:]).any()
    assert not torch.isnan(y[1, :5]).any()


def test_compiled_refuses_what_it_cannot_compute():
    with pytest.raises(ConfigError, match=r"torch\.float64 on cpu"):
        run(make_inputs(3), backend="cpu")


def test_compiled_takes_empty_sequences_and_strides():
    u, *rest = (t.detach() for t in make_inputs(0, dtype=torch.float32))
    y, state = run([u, *rest], backend="cpu")
    assert y.shape == (2, 0, 3)
    assert torch.equal(state, rest[-1])
    inputs = [t.detach() for t in make_inputs(50, dtype=torch.float32)]
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in inputs]
    for a, b in zip(run(inputs, backend="cpu"), run(strided, backend="cpu"), strict=True):
        assert torch.equal(a, b)


def test_compiled_needs_no_folder_for_its_machine_code():
    """F39: in a child where numba finds nowhere to write."""
    code = (
        "import torch\n"
        "from numba.core.caching import CacheImpl\n"
        "CacheImpl._locator_classes = []\n"
        "from seq2exp.nn.scan import selective_scan\n"
        "one = torch.ones(1, 3, 1)\n"
        "y = selective_scan(one, one, -torch.ones(1, 1), one, one, backend='cpu')\n"
        "print(y[0, 1, 0].item())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) == pytest.approx(1 + math.exp(-1))


PLAIN = ("reference", "torch")


def full_inputs(length, *, batch=2, channels=3, seed=0):
    """Inputs of every optional argument, float64 leaves."""
    generator = torch.Generator().manual_seed(seed + 100)
    tensors = make_inputs(length, batch=batch, channels=channels, seed=seed)
    extra = (
        torch.randn(batch, length, channels, generator=generator, dtype=torch.float64),
        torch.randn(channels, generator=generator, dtype=torch.float64),
        torch.rand(batch, length, generator=generator, dtype=torch.float64),
    )
    return [*tensors, *(t.requires_grad_() for t in extra)]


def run_full(inputs, **options):
    u, delta, A, B, C, D, state, z, bias, mask = inputs
    return selective_scan(
        u, delta, A, B, C, D_E=D, initial_state_BEN=state, z_BLE=z, delta_bias_E=bias,
        delta_softplus=True, step_mask_BL=mask, return_state=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("backend", PLAIN)
@pytest.mark.parametrize("reverse", [False, True])
def test_bias_softplus_mask_skip_and_gate_are_what_they_say(backend, reverse):
    inputs = full_inputs(17)
    u, delta, A, B, C, D, state, z, bias, mask = inputs
    step = mask[..., None] * torch.log1p(torch.exp(delta + bias))
    bare, last = selective_scan(
        u, step, A, B, C, initial_state_BEN=state, reverse=reverse, return_state=True
    )
    expected = ((bare + D * u) * z * torch.sigmoid(z), last)
    found = run_full(inputs, reverse=reverse, backend=backend)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    pairs = zip(gradients(found, inputs), gradients(expected, inputs), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", PLAIN)
def test_full_gradients_agree_with_finite_differences(backend):
    inputs = full_inputs(5, batch=1, channels=2)
    starts = torch.tensor([[False, False, True, False, False]])
    assert torch.autograd.gradcheck(
        lambda *x: run_full(x, starts_BL=starts, backend=backend), inputs
    )


@pytest.mark.parametrize("backend", PLAIN)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(4, 7, 1, 5), (17,), (1, 1, 15)])
def test_packed_sequences_do_not_see_each_other(backend, reverse, sizes):
    inputs = full_inputs(17)
    starts = torch.zeros(2, 17, dtype=torch.bool)
    edges = torch.tensor([0, *sizes]).cumsum(0).tolist()
    starts[:, edges[:-1]] = True
    packed, last = run_full(inputs, starts_BL=starts, reverse=reverse, backend=backend, chunk=3)
    first = len(sizes) - 1 if reverse else 0
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        u, delta, A, B, C, D, state, z, bias, mask = inputs
        alone = [u[:, a:b], delta[:, a:b], A, B[:, a:b], C[:, a:b], D]
        alone += [state if i == first else torch.zeros_like(state), z[:, a:b], bias, mask[:, a:b]]
        y, state_alone = run_full(alone, reverse=reverse)
        torch.testing.assert_close(packed[:, a:b], y, rtol=1e-12, atol=1e-12)
        if i == len(sizes) - 1 - first:
            torch.testing.assert_close(last, state_alone, rtol=1e-12, atol=1e-12)
