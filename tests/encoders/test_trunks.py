"""The protocol of trunks, kept by every registered one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import build_trunk, trunk_names
from tests.encoders.measure import kept_bytes, recomputed_bytes, shaken

OWN = {
    "bimamba": {"d_state": 4},
    "mamba": {"d_state": 4},
    "hyena": {"l_max": 61, "d_inner": 24, "filter_width": 8},
    "transformer": {"num_heads": 2},
    "conv": {},
}
NAMES = tuple(OWN)
CAUSAL = ("mamba", "hyena")
SPANS = [(0, 1), (0, 7), (10, 14), (22, 23), (5, 23), (0, 23)]
BATCH, LENGTH, WIDTH = 2, 23, 16


def make(name, *, seed=0, num_layers=3, **options):
    torch.manual_seed(seed)
    params = {"d_model": WIDTH, "num_layers": num_layers} | OWN[name] | options
    return shaken(build_trunk(name, params))


def rows(seed=1, *, batch=BATCH, length=LENGTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator)


def mask_of(kind, *, batch=BATCH, length=LENGTH):
    generator = torch.Generator().manual_seed(7)
    soft = torch.rand(batch, length, dtype=torch.float64, generator=generator)
    return {"none": None, "soft": soft, "hard": (soft > 0.4).double()}[kind]


def test_every_trunk_of_this_package_is_tested_here():
    assert set(NAMES) <= set(trunk_names())


@pytest.mark.parametrize("name", NAMES)
def test_output_has_one_row_per_position(name):
    trunk = make(name)
    assert trunk.out_dim == WIDTH
    assert trunk(rows()).shape == (BATCH, LENGTH, WIDTH)
    assert trunk(rows(length=1)).shape == (BATCH, 1, WIDTH)
    assert trunk(rows(batch=0)).shape == (0, LENGTH, WIDTH)
    assert trunk(rows(), span=(3, 5)).shape == (BATCH, 2, WIDTH)
    assert trunk.causal == (name in CAUSAL)


@pytest.mark.parametrize("mask", ["none", "soft", "hard"])
@pytest.mark.parametrize("name", NAMES)
def test_a_span_equals_the_slice_with_its_gradients(name, mask):
    """R2 and R3: exact, for the input, the mask and every parameter."""
    trunk, weights = make(name), mask_of(mask)
    x = rows().requires_grad_()
    wanted = [x, *trunk.parameters()]
    if weights is not None:
        wanted.append(weights.requires_grad_())
    for first, stop in SPANS:
        whole, part = trunk(x, weights)[:, first:stop], trunk(x, weights, span=(first, stop))
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)
        seed = torch.randn_like(part)
        plain = torch.autograd.grad(whole, wanted, seed, allow_unused=True, materialize_grads=True)
        ours = torch.autograd.grad(part, wanted, seed, allow_unused=True, materialize_grads=True)
        for mine, theirs in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_span_does_not_compute_what_it_cannot_read(name):
    """Positions that no position of the span reads may hold anything, NaN too."""
    trunk, x = make(name), rows()
    first, stop = trunk.reads((3, 5), LENGTH)
    x[:, :first], x[:, stop:] = math.nan, math.nan
    assert trunk(x, span=(3, 5)).isfinite().all()
    if name not in (*CAUSAL, "conv"):
        assert (first, stop) == (0, LENGTH)


@pytest.mark.parametrize("name", NAMES)
def test_the_receptive_field_is_what_gradients_reach(name):
    trunk, x = make(name), rows(batch=1).requires_grad_()
    seed = torch.randn(WIDTH, dtype=torch.float64)
    counts, spans = [], []
    out = trunk(x)
    for at in range(LENGTH):
        grad = torch.autograd.grad(out[0, at] @ seed, x, retain_graph=True)[0][0]
        size = grad.abs().sum(-1)
        # Fourier transforms leave rounding errors where nothing is read.
        reached = (size > 1e-13 * size.max()).nonzero().flatten()
        counts.append(len(reached))
        spans.append((int(reached[0]), int(reached[-1]) + 1))
        assert counts[-1] == spans[-1][1] - spans[-1][0], "no holes"
    assert max(counts) == trunk.receptive_field(LENGTH)
    assert spans == [trunk.reads((at, at + 1), LENGTH) for at in range(LENGTH)]


def test_the_receptive_field_of_dilated_convolutions():
    """1 + (width - 1) * (1 + 2 + 4) = 15; with a cycle of two 1 + 2 * (1 + 2 + 1) = 9."""
    assert make("conv").receptive_field(1000) == 15
    assert make("conv").receptive_field(10) == 10
    assert make("conv", cycle=2).receptive_field(1000) == 9
    assert make("conv", width=5, growth=3).receptive_field(1000) == 1 + 4 * (1 + 3 + 9)
    for name in set(NAMES) - {"conv"}:
        assert make(name).receptive_field(50) == 50


@pytest.mark.parametrize("name", NAMES)
def test_windows_do_not_depend_on_their_batch(name):
    trunk, x = make(name), rows(batch=3)
    mask = mask_of("soft", batch=3)
    alone = torch.cat([trunk(x[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(trunk(x, mask), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_trunks_ignore_what_lies_right(name):
    trunk, x = make(name), rows()
    changed = x.clone()
    changed[:, 12:] = 100 * torch.randn_like(changed[:, 12:])
    torch.testing.assert_close(trunk(changed)[:, :12], trunk(x)[:, :12], rtol=0, atol=1e-10)
    assert not torch.allclose(trunk(changed)[:, 12:], trunk(x)[:, 12:])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CAUSAL)))
def test_other_trunks_see_both_sides(name):
    trunk, x = make(name), rows()
    changed = x.clone()
    changed[:, 12:] += 1
    assert not torch.allclose(trunk(changed)[:, 11], trunk(x)[:, 11])


@pytest.mark.parametrize("name", NAMES)
def test_a_position_with_mask_zero_has_no_influence(name):
    trunk, x, mask = make(name), rows(), mask_of("hard")
    assert trunk.supports_gate
    kept = mask.bool()
    changed = torch.where(kept[..., None], x, 100 * torch.randn_like(x))
    torch.testing.assert_close(trunk(changed, mask)[kept], trunk(x, mask)[kept], rtol=0, atol=1e-12)
    assert not torch.allclose(trunk(changed)[kept], trunk(x)[kept])


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_ones_is_no_mask_and_zeros_stay_finite(name):
    trunk, x = make(name), rows().requires_grad_()
    ones = torch.ones(BATCH, LENGTH, dtype=torch.float64)
    torch.testing.assert_close(trunk(x, ones), trunk(x), rtol=0, atol=1e-12)
    zeros = torch.zeros_like(ones).requires_grad_()
    hidden = trunk(x, zeros)
    grads = torch.autograd.grad(hidden.square().sum(), [x, zeros], allow_unused=True)
    assert hidden.isfinite().all()
    assert all(grad is None or grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_mask(name):
    trunk, x = make(name, num_layers=2), rows(batch=1, length=6)
    mask = (0.2 + 0.6 * torch.rand(1, 6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: trunk(x, m), mask)


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_blocks_give_the_same_gradients(name):
    plain, again = make(name), make(name, recompute=True)
    x, mask, grads = rows(), mask_of("soft"), []
    for trunk in (plain, again):
        trunk(x, mask, span=(8, 12)).square().sum().backward()
        grads.append([p.grad for p in trunk.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_runs(name):
    x = rows().float()
    reference = make(name).float()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make(name).float()(x)
    low = make(name).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    for out in (mixed, low):
        error = (out.float() - reference).abs().mean() / reference.abs().mean()
        assert error < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_without_blocks_a_span_is_cut_and_normed(name):
    trunk, x = make(name, num_layers=0, final_norm=False), rows()
    assert torch.equal(trunk(x, span=(3, 9)), x[:, 3:9])


@pytest.mark.parametrize("span", [(-1, 2), (4, 4), (5, 3), (20, 24)])
def test_a_span_outside_of_the_window_is_refused(span):
    with pytest.raises(InputError, match="between 0 and 23"):
        make("conv")(rows(), span=span)


# Packed sequences -----------------------------------------------------------------------------

PACKERS = ("bimamba", "mamba")


@pytest.mark.parametrize("lengths", [(5, 1, 9, 8), (1, 1, 21), (8, 9, 1, 5)])
@pytest.mark.parametrize("name", PACKERS)
def test_packed_sequences_equal_each_alone(name, lengths):
    trunk, x = make(name), rows(batch=1)
    starts = torch.zeros(1, LENGTH, dtype=torch.bool)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    starts[0, [0, *ends[:-1]]] = True
    parts = zip([0, *ends[:-1]], ends, strict=True)
    alone = torch.cat([trunk(x[:, first:stop]) for first, stop in parts], dim=1)
    torch.testing.assert_close(trunk(x, starts_BN=starts), alone, rtol=0, atol=1e-12)
    assert not torch.allclose(trunk(x), alone)
    part = trunk(x, starts_BN=starts, span=(4, 11))
    torch.testing.assert_close(part, alone[:, 4:11], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PACKERS)
def test_packed_sequences_have_the_gradients_of_each_alone(name):
    trunk = make(name, num_layers=2)
    x = rows(batch=1, length=9).requires_grad_()
    starts = torch.zeros(1, 9, dtype=torch.bool)
    starts[0, 5] = True
    wanted = [x, *trunk.parameters()]
    packed = trunk(x, starts_BN=starts)
    alone = torch.cat([trunk(x[:, :5]), trunk(x[:, 5:])], dim=1)
    seed = torch.randn_like(packed)
    for mine, theirs in zip(
        torch.autograd.grad(packed, wanted, seed),
        torch.autograd.grad(alone, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(PACKERS)))
def test_trunks_that_cannot_tell_packed_sequences_apart_say_so(name):
    trunk = make(name)
    assert not trunk.supports_packing
    with pytest.raises(InputError, match="packed sequences"):
        trunk(rows(), starts_BN=torch.zeros(BATCH, LENGTH, dtype=torch.bool))


# Costs ----------------------------------------------------------------------------------------


def counted(trunk, x):
    """Products that torch itself counts; attention spelled out."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        trunk(x)
    return counter.get_total_flops()


def test_flops_of_one_mamba_direction_are_those_of_the_specification():
    """Specification 10, d = 128: 221,184 in products and 258,048 with the scan, per position.

    In 128 x 512, x 256 x 40, dt 8 x 256, out 256 x 128, twice each; scan 9 * 256 * 16. The
    depthwise convolution, 2 * 4 * 256, comes on top.
    """
    for width, products, total in ((128, 221_184, 258_048), (256, 851_968, 925_696)):
        trunk = build_trunk("mamba", {"d_model": width, "num_layers": 1})
        assert trunk.flops(1000) == 1000 * (total + 2 * 4 * 2 * width)
        plain = build_trunk("mamba", {"d_model": width, "num_layers": 1, "backend": "reference"})
        assert counted(plain, torch.zeros(1, 3, width)) == 3 * products


def test_tied_projections_save_44_percent_of_the_products():
    """R1: 196,608 of 2 * 221,184 are shared."""
    trunk = build_trunk("bimamba", {"d_model": 128, "num_layers": 1, "backend": "reference"})
    products = counted(trunk, torch.zeros(1, 3, 128)) / 3
    assert products == 2 * 221_184 - 196_608
    assert 1 - products / (2 * 221_184) == pytest.approx(0.444, abs=1e-3)
    assert trunk.flops(3) == 3 * (products + 2 * (9 * 256 * 16 + 2 * 4 * 256))


def test_flops_of_hyena():
    """Per position in 2 * 128 * 384, out 2 * 128**2, MLP 4 * 128 * 512, short 2 * 3 * 384.

    The filter: 2 * (5 * 64 + 2 * 64**2 + 64 * 128). Transforms of n = 256: three of
    2.5 n log2 n and 6 per frequency, for 128 channels.
    """
    trunk = build_trunk("hyena", {"d_model": 128, "num_layers": 2})
    products = 2 * 128 * 384 + 2 * 128**2 + 4 * 128 * 512 + 2 * (5 * 64 + 2 * 64**2 + 64 * 128)
    assert counted(trunk, torch.zeros(1, 128, 128)) == 2 * 128 * products
    short, size = 2 * 3 * 384, 256
    transforms = 128 * (3 * 2.5 * size * math.log2(size) + 6 * (size // 2 + 1))
    assert trunk.flops(128) == 2 * (128 * (products + short) + transforms)


def test_hyena_costs_what_the_specification_says():
    """Section 10: 0.345 TFLOP per gene and 0.036 per batch at 200 kb."""
    trunk = build_trunk("hyena", {"d_model": 128, "num_layers": 4})
    assert trunk.flops(200_000) == pytest.approx((0.345 + 0.036) * 1e12, rel=0.03)


@pytest.mark.parametrize(("name", "width"), [("transformer", 32), ("conv", 24)])
def test_flops_equal_those_that_torch_counts(name, width):
    """Here everything but norms and gates is a product that torch counts."""
    options = {"num_heads": 2} if name == "transformer" else {"width": 5, "expand": 2}
    trunk = build_trunk(name, {"d_model": width, "num_layers": 2, **options})
    assert trunk.flops(40) == counted(trunk, torch.zeros(1, 40, width))


def test_flops_of_the_transformer_by_hand():
    """Projections 4 D**2, gated MLP 3 D F with F = 8/3 D, attention 2 L D per position; twice."""
    trunk = build_trunk("transformer", {"d_model": 48, "num_layers": 1, "num_heads": 2})
    assert trunk.flops(100) == 2 * 100 * (4 * 48**2 + 3 * 48 * 128 + 2 * 100 * 48)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_activation_bytes_are_what_autograd_keeps(name, dropout):
    options = {"d_model": 32, "num_layers": 3, "dropout": dropout} | OWN[name]
    options |= {"d_state": 16} if "mamba" in name else {}
    options |= {"l_max": 400} if name == "hyena" else {}
    x = torch.randn(1, 300, 32, requires_grad=True)
    plain = build_trunk(name, options)
    assert plain.activation_bytes(300) == pytest.approx(kept_bytes(plain, x), rel=0.2)
    again = build_trunk(name, options | {"recompute": True})
    measured = recomputed_bytes(again, plain, x)
    assert again.activation_bytes(300) == pytest.approx(measured, rel=0.2)
    assert again.activation_bytes(300) < 0.6 * plain.activation_bytes(300)


# Bad settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer", {"num_heads": 3}, "num_heads"),
        ("transformer", {"num_heads": 16}, "use 8 heads"),
        ("transformer", {"norm": "batch"}, "rms or layer"),
        ("conv", {"width": 4}, "odd"),
        ("conv", {"growth": 4}, "no position is skipped"),
        ("conv", {"cycle": 0}, "cycle"),
        ("hyena", {"l_max": 0}, "l_max"),
        ("mamba", {"d_model": 0}, "d_model"),
    ],
)
def test_wrong_settings_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_trunk(name, {"d_model": WIDTH, "num_layers": 1} | options)
