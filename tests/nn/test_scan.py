"""The selective scan against its definition, and against itself in every chunking."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.nn.scan import backend_names, register_backend, scan_reference, selective_scan
from seq2exp.nn.scan.choose import Trials

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


BACKENDS = ("reference", "torch", "cpu")
EXACT = ("reference", "torch")


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


def ready(inputs, backend):
    """The inputs in the widest dtype that a backend takes, as fresh leaves."""
    dtype = torch.float64 if backend in EXACT else torch.float32
    return [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]


def assert_agree(found, expected, backend, what=""):
    """Float64 to rounding; float32 to 1e-5 of the largest value, or of 1 where all are small."""
    allowed = 1e-11 if backend in EXACT else 1e-5
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        scale = max(1.0, theirs.abs().max().item()) if theirs.numel() else 1.0
        gap = (ours - theirs).abs().max().item() if theirs.numel() else 0.0
        assert gap <= allowed * scale, f"{what} {i}: {gap} of {scale}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "batch", "channels"), [(17, 2, 3), (1, 1, 16), (130, 3, 40)])
def test_bias_softplus_mask_skip_and_gate_are_what_they_say(
    backend, reverse, length, batch, channels
):
    inputs = full_inputs(length, batch=batch, channels=channels)
    u, delta, A, B, C, D, state, z, bias, mask = inputs
    step = mask[..., None] * torch.log1p(torch.exp(delta + bias))
    bare, last = selective_scan(
        u, step, A, B, C, initial_state_BEN=state, reverse=reverse, return_state=True,
        backend="reference",
    )  # fmt: skip
    expected = ((bare + D * u) * z * torch.sigmoid(z), last)
    own = ready(inputs, backend)
    found = run_full(own, reverse=reverse, backend=backend)
    assert_agree(found, expected, backend)
    assert_agree(gradients(found, own), gradients(expected, inputs), backend, "gradient")


@pytest.mark.parametrize("backend", EXACT)
def test_full_gradients_agree_with_finite_differences(backend):
    inputs = full_inputs(5, batch=1, channels=2)
    starts = torch.tensor([[False, False, True, False, False]])
    assert torch.autograd.gradcheck(
        lambda *x: run_full(x, starts_BL=starts, backend=backend), inputs
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("which", range(10))
def test_compiled_gradients_agree_with_float64_finite_differences(which, reverse):
    """Slope along a random direction of one argument, from two float64 values of the definition."""
    inputs = full_inputs(70, batch=1, channels=18)
    starts = torch.zeros(1, 70, dtype=torch.bool)
    starts[:, [0, 20, 66]] = True
    own = ready(inputs, "cpu")
    seed = torch.Generator().manual_seed(which)
    way = torch.randn(inputs[which].shape, generator=seed, dtype=torch.float64)

    def value(tensors, backend):
        y, last = run_full(tensors, starts_BL=starts, reverse=reverse, backend=backend)
        return y.double().pow(2).sum() + last.double().pow(2).sum()

    with torch.no_grad():
        ends = []
        for h in (1e-6, -1e-6):
            moved = list(inputs)
            moved[which] = inputs[which] + h * way
            ends.append(value(moved, "reference"))
        slope = (ends[0] - ends[1]) / 2e-6
    (grad,) = torch.autograd.grad(value(own, "cpu"), own[which])
    scale = grad.double().norm() * way.norm()
    assert (grad.double() * way).sum().item() == pytest.approx(
        slope.item(), abs=1e-5 * scale.item(), rel=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(4, 7, 1, 5), (17,), (1, 1, 15)])
def test_packed_sequences_do_not_see_each_other(backend, reverse, sizes):
    inputs = full_inputs(17)
    starts = torch.zeros(2, 17, dtype=torch.bool)
    edges = torch.tensor([0, *sizes]).cumsum(0).tolist()
    starts[:, edges[:-1]] = True
    own = ready(inputs, backend)
    packed = run_full(own, starts_BL=starts, reverse=reverse, backend=backend, chunk=3)
    first = len(sizes) - 1 if reverse else 0
    pieces, last = [], None
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        u, delta, A, B, C, D, state, z, bias, mask = inputs
        alone = [u[:, a:b], delta[:, a:b], A, B[:, a:b], C[:, a:b], D]
        alone += [state if i == first else torch.zeros_like(state), z[:, a:b], bias, mask[:, a:b]]
        y, state_alone = run_full(alone, reverse=reverse, backend="reference")
        pieces.append(y)
        if i == len(sizes) - 1 - first:
            last = state_alone
    expected = (torch.cat(pieces, dim=1), last)
    assert_agree(packed, expected, backend)
    theirs = torch.autograd.grad(
        (expected[0].square().sum() + expected[1].square().sum()), inputs, allow_unused=True
    )
    theirs = [torch.zeros_like(x) if g is None else g for g, x in zip(theirs, inputs, strict=True)]
    ours = torch.autograd.grad(packed[0].square().sum() + packed[1].square().sum(), own)
    assert_agree(ours, theirs, backend, "gradient")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 512, 20_000])
def test_compiled_stays_within_1e5_of_float64_at_every_length(length, reverse):
    inputs = [t.detach() for t in full_inputs(length, batch=1, channels=17)]
    exact = run_full(inputs, reverse=reverse, backend="reference")
    for ours, theirs in zip(
        run_full(ready(inputs, "cpu"), reverse=reverse, backend="cpu"), exact, strict=True
    ):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("reverse", [False, True])
def test_compiled_gradients_do_not_depend_on_segments_or_threads(monkeypatch, reverse):
    inputs = ready(full_inputs(200, batch=2, channels=80), "cpu")
    starts = torch.zeros(2, 200, dtype=torch.bool)
    starts[0, 77] = starts[1, 128] = True

    def everything(chunk=16):
        outputs = run_full(inputs, reverse=reverse, starts_BL=starts, chunk=chunk, backend="cpu")
        return [*outputs, *gradients(outputs, inputs)]

    whole, before = everything(), torch.get_num_threads()
    monkeypatch.setattr("seq2exp.nn.scan.compiled._SEGMENT", 48)
    assert all(torch.equal(a, b) for a, b in zip(everything(), whole, strict=True))
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        assert all(torch.equal(a, b) for a, b in zip(everything(), whole, strict=True))
    finally:
        torch.set_num_threads(before)


def test_compiled_without_gradients_gives_the_same_bits():
    inputs = ready(full_inputs(100), "cpu")
    with torch.no_grad():
        plain = run_full(inputs, backend="cpu")
    found = run_full(inputs, backend="cpu")
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_compiled_reads_parts_of_wider_tensors_without_copies(monkeypatch):
    """u and z are halves of one projection; B, C parts of another; the gradient one number."""
    inputs = ready(full_inputs(40, channels=16), "cpu")
    u, delta, A, B, C, D, state, z, bias, mask = inputs
    with torch.no_grad():
        x, gate = torch.cat([u, z], dim=-1).chunk(2, dim=-1)
        into, out = torch.cat([B, C], dim=-1).split(4, dim=-1)
    parts = [t.requires_grad_() for t in (x, gate, into, out)]
    assert not any(t.is_contiguous() for t in parts)
    plain = run_full(inputs, backend="cpu")[0]
    expected = torch.autograd.grad(plain.sum(), inputs)
    monkeypatch.setattr(torch.Tensor, "contiguous", _only_small(torch.Tensor.contiguous))
    strided = run_full([x, delta, A, into, out, D, state, gate, bias, mask], backend="cpu")[0]
    assert torch.equal(plain, strided)
    found = torch.autograd.grad(strided.sum(), [x, delta, A, into, out, D, state, gate, bias, mask])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def _only_small(contiguous):
    def run(tensor, **options):
        assert tensor.is_contiguous() or tensor.numel() < 1000, "a whole tensor was copied"
        return contiguous(tensor, **options)

    return run


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_takes_half_precision_of_every_argument(dtype):
    half = [t.detach().to(dtype).requires_grad_() for t in full_inputs(60)]
    wide = [t.detach().float().requires_grad_() for t in half]
    found, expected = run_full(half, backend="cpu"), run_full(wide, backend="cpu")
    assert found[0].dtype == dtype
    assert found[1].dtype == torch.float32
    assert torch.equal(found[0], expected[0].to(dtype))
    assert torch.equal(found[1], expected[1])
    for ours, theirs in zip(gradients(found[1:], half[:5]), gradients(expected[1:], wide[:5]),
                            strict=True):  # fmt: skip
        assert torch.equal(ours, theirs.to(dtype))


@pytest.mark.parametrize("which", ["u", "delta", "B", "C", "z", "mask", "state"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("reverse", [False, True])
def test_compiled_keeps_what_is_not_finite_where_it_belongs(which, bad, reverse):
    """Not into other batch members, other channels, other sequences, nor against the order."""
    place = [*NAMES, "z", "bias", "mask"].index(which)
    inputs = [t.detach().float() for t in full_inputs(30, channels=20)]
    starts = torch.zeros(2, 30, dtype=torch.bool)
    starts[:, [0, 10, 20]] = True
    clean = run_full(inputs, starts_BL=starts, reverse=reverse, backend="cpu")[0]
    spoilt = inputs[place].clone()
    spoilt[(1, 14) if spoilt.ndim == 2 else (1, 14, 3) if which != "state" else (1, 3, 0)] = bad
    inputs[place] = spoilt
    y = run_full(inputs, starts_BL=starts, reverse=reverse, backend="cpu")[0]
    reach = torch.zeros(2, 30, 20, dtype=torch.bool)
    own = (slice(20, 30) if reverse else slice(0, 10)) if which == "state" else (
        slice(10, 15) if reverse else slice(14, 20)
    )  # fmt: skip
    reach[1, own, 3 if which in ("u", "delta", "z", "state") else slice(None)] = True
    assert torch.equal(y[~reach], clean[~reach])
    exact = [t.double() for t in inputs]
    wrong = ~run_full(exact, starts_BL=starts, reverse=reverse, backend="reference")[0].isfinite()
    assert wrong.any()
    assert not y[wrong].isfinite().any()


def test_compiled_takes_nothing():
    for length, batch in ((0, 2), (5, 0)):
        inputs = ready(full_inputs(length, batch=batch), "cpu")
        y, last = run_full(inputs, backend="cpu")
        assert y.shape == (batch, length, 3)
        assert torch.equal(last, inputs[6])
        assert [g.shape for g in gradients((y, last), inputs)] == [x.shape for x in inputs]


def test_auto_takes_the_compiled_loops_for_float32_and_torch_for_float64(monkeypatch):
    seen = []
    from seq2exp.nn.scan import front

    for name in ("cpu", "torch"):
        backend = front._BACKENDS[name]
        monkeypatch.setitem(
            front._BACKENDS, name, lambda x, name=name, run=backend: (seen.append(name), run(x))[1]
        )
    taken = []
    for refusal in (None, "it is not there"):
        monkeypatch.setattr(front, "_TRIALS", Trials(front._BACKENDS))
        if refusal:
            monkeypatch.setattr(front, "numba_refuses", lambda: "it is not there")
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            # The first call of a kind also makes the trials; the last one seen does the work.
            run([t.detach() for t in make_inputs(3, dtype=dtype)])
            taken.append(seen[-1])
    assert taken == ["cpu", "cpu", "torch", "torch", "torch", "torch"]
    with pytest.raises(ConfigError, match="it is not there"):
        run(make_inputs(3, dtype=torch.float32), backend="cpu")


@pytest.mark.parametrize("hidden", ["numba", "jit"])
def test_everything_runs_where_numba_does_not(hidden):
    """In a child where numba cannot be imported, or must not compile."""
    code = (
        "import os, sys, torch\n"
        + ("sys.modules['numba'] = None\n" if hidden == "numba" else "")
        + "from seq2exp.nn.mamba import BiMambaBlock\n"
        "torch.manual_seed(0)\n"
        "block = BiMambaBlock(16)\n"
        "y = block(torch.randn(1, 9, 16))\n"
        "y.sum().backward()\n"
        "print(y.abs().sum().item())\n"
    )
    values = []
    for program, extra in ((code, {"NUMBA_DISABLE_JIT": "1"} if hidden == "jit" else {}),
                           (code.replace("sys.modules['numba'] = None\n", ""), {})):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
            check=True, env={**os.environ, **extra},
        )  # fmt: skip
        values.append(float(done.stdout))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_what_overflows_half_precision_is_infinite_there_and_finite_in_the_state(backend):
    """The sum is held in float32: only the outputs beyond 65,504 overflow, to infinity, not NaN."""
    u = torch.full((1, 40, 2), 1e4, dtype=torch.float16)
    step = torch.full((1, 40, 2), 0.5, dtype=torch.float16)
    ones = torch.ones(1, 40, 3, dtype=torch.float16)
    rates = torch.full((2, 3), -1e-3)
    y, state = selective_scan(u, step, rates, ones, ones, return_state=True, backend=backend)
    assert state.dtype == torch.float32
    # Forty steps of 5e3 that decay by half a thousandth each.
    expected = 5e3 * sum(math.exp(-5e-4 * t) for t in range(40))
    torch.testing.assert_close(state, torch.full((1, 2, 3), expected), rtol=1e-4, atol=0)
    # Three states give 1.5e4 more at every step: the fifth output is beyond 65,504.
    assert torch.isfinite(y[:, :4]).all()
    assert torch.isposinf(y[:, 4:]).all()
