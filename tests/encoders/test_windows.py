"""The protocol of encoders, kept by those that are an embedding and a trunk."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import build_encoder, encoder_names
from seq2exp.models.heads import ExpressionHead
from tests.encoders.measure import count, kept_bytes, shaken

STEM = {"channels": 6, "width": 7, "inner_pool": 1, "num_queries": 2}
SMALL = {"d_model": 8, "num_layers": 2}
# Name of a case: encoder, its settings, base pairs per bin.
CASES = {
    "mamba": ("mamba", SMALL | {"d_state": 4}, 1),
    "mamba_linear": ("mamba", SMALL | {"d_state": 4, "embedding": "linear"}, 1),
    "mamba_stem": ("mamba", SMALL | {"d_state": 4, "embedding": "stem", "stem": STEM}, 8),
    "hyena": ("hyena", SMALL | {"filter_width": 8}, 1),
    "hyena_stem": ("hyena", SMALL | {"embedding": "stem", "stem": STEM, "filter_width": 8}, 8),
    "transformer": ("transformer", SMALL | {"num_heads": 2, "stem": STEM}, 8),
    "conv": ("conv", SMALL | {"stem": STEM}, 8),
    "conv_base": ("conv", SMALL | {}, 1),
    "conv_deep": ("conv", SMALL | {"num_layers": 1, "stem": STEM | {"num_layers": 2}}, 8),
    "conv_summed": (
        "conv",
        SMALL | {"stem": STEM | {"pool": "sum", "norm": False, "activation": "relu"}},
        8,
    ),
    "conv_kmer": ("conv", SMALL | {"stem": {"kmer": 3, "channels": 6}}, 8),
}
FAMILIES = ("mamba", "hyena", "transformer", "conv")
NUM_BINS, BATCH = 16, 2
TRACKS = ("H3K27ac", "DNase")


def make(case, *, tracks=(), seed=0, num_bins=NUM_BINS, **options):
    torch.manual_seed(seed)
    name, params, bin_size = CASES[case]
    encoder = build_encoder(
        name, params | options, tracks=tracks, window_bp=num_bins * bin_size, bin_size=bin_size
    )
    return shaken(encoder).eval()


def bases(encoder, *, batch=BATCH, num_bins=NUM_BINS, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, num_bins * encoder.bin_size)
    return torch.randint(0, 4, shape, generator=generator).to(torch.uint8)


def mask_of(*, batch=BATCH, num_bins=NUM_BINS):
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(batch, num_bins, generator=generator) > 0.4).double()


def test_the_families_are_registered():
    assert set(FAMILIES) <= set(encoder_names())


@pytest.mark.parametrize("case", CASES)
def test_output_has_one_row_per_bin(case):
    encoder = make(case)
    assert encoder(bases(encoder)).shape == (BATCH, NUM_BINS, encoder.out_dim)
    assert encoder(bases(encoder, batch=0)).shape == (0, NUM_BINS, encoder.out_dim)
    assert encoder(bases(encoder, num_bins=1)).shape == (BATCH, 1, encoder.out_dim)
    assert encoder(bases(encoder), span=(7, 9)).shape == (BATCH, 2, encoder.out_dim)
    assert encoder.rc == "none"
    assert encoder.window_bp is None
    assert not encoder.takes_tracks


@pytest.mark.parametrize("gate", ["multiply", "delta"])
@pytest.mark.parametrize("case", CASES)
def test_a_span_equals_the_slice_with_its_gradients(case, gate):
    encoder = make(case, gate=gate)
    codes, mask = bases(encoder), mask_of().requires_grad_()
    wanted = [mask, *encoder.parameters()]
    for first, stop in [(0, 1), (6, 9), (15, 16), (3, 16)]:
        whole = encoder(codes, mask_BN=mask)[:, first:stop]
        part = encoder(codes, mask_BN=mask, span=(first, stop))
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)
        seed = torch.randn_like(part)
        plain = torch.autograd.grad(whole, wanted, seed, allow_unused=True, materialize_grads=True)
        ours = torch.autograd.grad(part, wanted, seed, allow_unused=True, materialize_grads=True)
        for mine, theirs in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def readers(encoder, codes):
    """Whether output bin n changes with base l, shape (length, bins)."""
    length = codes.shape[1]
    changed = codes.repeat(length, 1)
    at = torch.arange(length)
    changed[at, at] = (changed[at, at] + 1) % 4
    difference = (encoder(changed) - encoder(codes)).abs().sum(-1)
    # Fourier transforms leave rounding errors where nothing is read.
    return difference > 1e-12


@pytest.mark.parametrize("case", CASES)
def test_the_receptive_field_is_what_changes_an_output(case):
    encoder = make(case)
    length = NUM_BINS * encoder.bin_size
    with torch.no_grad():
        read = readers(encoder, bases(encoder, batch=1))
    reached = [column.nonzero().flatten() for column in read.t()]
    extents = [int(r[-1] - r[0]) + 1 for r in reached]
    assert max(extents) == encoder.receptive_field(length)
    after_own_bin = [int(r[-1]) >= (n + 1) * encoder.bin_size for n, r in enumerate(reached)]
    assert encoder.causal == (not any(after_own_bin))


def test_stems_widen_the_receptive_field_by_their_reach():
    """conv_deep: width 7 reaches 3 bases, the second layer 2 more; one block of 3 bins of 8 bp."""
    assert make("conv_deep").receptive_field(1600) == 3 * 8 + 2 * (3 + 2)
    assert make("conv_kmer").receptive_field(1600) == (1 + 2 + 4) * 8
    assert make("conv_base").receptive_field(1600) == 7
    assert make("mamba").receptive_field(1600) == 1600


@pytest.mark.parametrize("case", ["mamba", "mamba_linear", "hyena"])
def test_causal_baselines_ignore_what_lies_right_of_the_read_out(case):
    """Specification 14.9, 2 bins read: exact with the span, since the rest is never computed."""
    encoder = make(case, gate="delta")
    codes, mask = bases(encoder), mask_of()
    changed = codes.clone()
    changed[:, 9:] = 3 - changed[:, 9:]
    other = torch.cat([mask[:, :9], 1 - mask[:, 9:]], dim=1)
    ours = encoder(codes, mask_BN=mask, span=(7, 9))
    assert torch.equal(ours, encoder(changed, mask_BN=other, span=(7, 9)))
    assert encoder.causal


@pytest.mark.parametrize("case", ["transformer", "conv"])
def test_other_families_see_what_lies_right(case):
    encoder = make(case)
    codes = bases(encoder)
    changed = codes.clone()
    changed[:, 9 * 8 :] = 3 - changed[:, 9 * 8 :]
    assert not torch.allclose(encoder(codes, span=(7, 9)), encoder(changed, span=(7, 9)))


@pytest.mark.parametrize("case", CASES)
def test_windows_do_not_depend_on_their_batch(case):
    encoder = make(case, gate="delta")
    codes, mask = bases(encoder, batch=3), mask_of(batch=3)
    alone = torch.cat([encoder(codes[i : i + 1], mask_BN=mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(encoder(codes, mask_BN=mask), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_delta_hides_bins_and_multiply_scales_the_embedding(case):
    mask = mask_of()
    for gate in ("delta", "multiply"):
        encoder = make(case, gate=gate)
        codes = bases(encoder)
        kept = mask.bool()
        hidden = (~kept).repeat_interleave(encoder.bin_size, dim=1)
        changed = torch.where(hidden, 3 - codes, codes)
        ours, theirs = encoder(codes, mask_BN=mask), encoder(changed, mask_BN=mask)
        if gate == "delta":
            torch.testing.assert_close(theirs[kept], ours[kept], rtol=0, atol=1e-12)
            assert not torch.allclose(theirs[~kept], ours[~kept]), "a bin reads itself"
        else:
            plain = encoder.embedding(codes) * mask[..., None]
            torch.testing.assert_close(ours, encoder.trunk(plain))


@pytest.mark.parametrize("case", CASES)
def test_windows_of_n_are_finite_with_their_gradients(case):
    encoder = make(case)
    out = encoder(torch.full_like(bases(encoder), 4))
    grads = torch.autograd.grad(out.square().sum(), list(encoder.parameters()), allow_unused=True)
    assert out.isfinite().all()
    assert all(g is None or g.isfinite().all() for g in grads)


@pytest.mark.parametrize("case", ["mamba", "mamba_linear", "hyena", "conv_base"])
def test_windows_of_one_base(case):
    encoder = make(case, num_bins=1)
    for code in range(5):
        codes = torch.full((1, 1), code, dtype=torch.uint8)
        assert encoder(codes, span=(0, 1)).isfinite().all()
    assert encoder.receptive_field(1) == 1


@pytest.mark.parametrize("case", CASES)
def test_half_precision_runs(case):
    encoder = make(case).float()
    codes = bases(encoder)
    plain = encoder(codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(codes)
    low = make(case).bfloat16()(codes)
    for out in (mixed, low):
        error = (out.float() - plain).abs().mean() / plain.abs().mean()
        assert error < 0.1


# Tracks ---------------------------------------------------------------------------------------

READS_TRACKS = ("mamba_linear", "mamba_stem", "hyena_stem", "transformer", "conv", "conv_base")


def signal_of(*, batch=BATCH, num_bins=NUM_BINS):
    generator = torch.Generator().manual_seed(11)
    return torch.rand(batch, num_bins, len(TRACKS), generator=generator).double() * 9


@pytest.mark.parametrize("case", READS_TRACKS)
def test_tracks_are_read_scaled_and_may_be_missing(case):
    encoder = make(case, tracks=TRACKS)
    codes, signal = bases(encoder), signal_of()
    assert encoder.takes_tracks
    out = encoder(codes, signal)
    assert not torch.allclose(out, encoder(codes, signal + 1))
    part = encoder(codes, signal, mask_of(), span=(6, 9))
    torch.testing.assert_close(part, encoder(codes, signal, mask_of())[:, 6:9], rtol=0, atol=1e-12)
    # A missing track counts as its training mean, here of log(1 + signal).
    mean = signal.log1p().mean((0, 1))
    encoder.set_track_scaling(mean, torch.tensor([2.0, 0.5]))
    missing, filled = signal.clone(), signal.clone()
    missing[:, 3:5, 0] = math.nan
    filled[:, 3:5, 0] = mean[0].expm1()
    torch.testing.assert_close(encoder(codes, missing), encoder(codes, filled))
    assert not torch.allclose(encoder(codes, signal), out)


def test_missing_tracks_can_have_a_vector_of_their_own():
    for case in ("mamba_linear", "conv"):
        encoder = make(case, tracks=TRACKS, learn_missing_tracks=True)
        codes, signal = bases(encoder), signal_of()
        missing, zero = signal.clone(), signal.clone()
        missing[:, 3, 1], zero[:, 3, 1] = math.nan, 0
        assert encoder(codes, missing).isfinite().all()
        assert not torch.allclose(encoder(codes, missing), encoder(codes, zero))


@pytest.mark.parametrize("case", CASES)
def test_tracks_that_were_not_asked_for_are_refused(case):
    encoder = make(case)
    with pytest.raises(InputError, match="signal: found tracks"):
        encoder(bases(encoder), signal_of())
    if case in READS_TRACKS:
        encoder = make(case, tracks=TRACKS)
        with pytest.raises(InputError, match="signal: found none"):
            encoder(bases(encoder))
        with pytest.raises(InputError, match="shape of signal"):
            encoder(bases(encoder), signal_of()[:, :-1])


# Published sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tracks", "options", "expected"),
    [
        ("mamba", (), {}, 502_401),
        ("hyena", (), {}, 903_681),
        # A matrix of 4 x 128 and a bias in place of a table of 12 x 128.
        ("mamba", (), {"embedding": "linear"}, 502_401 - 12 * 128 + 5 * 128),
        ("mamba", TRACKS, {"embedding": "linear"}, 502_401 - 12 * 128 + 7 * 128),
    ],
)
def test_published_parameter_counts_with_the_common_head(name, tracks, options, expected):
    """Head 137 -> 128 -> 128 -> 1 of 34,305; the rest as specification section 3 says."""
    encoder = build_encoder(name, options, tracks=tracks, window_bp=200_000, bin_size=1)
    head = ExpressionHead(encoder.out_dim, num_features=9, num_outputs=1, hidden=128)
    assert count(head) == 34_305
    assert count(encoder) + count(head) == expected


def test_published_costs_at_200_kb():
    """Section 3: Mamba 0.206 TFLOP, and 0.104 cropped to 101 kb; the convolution adds 0.8 %."""
    encoder = build_encoder("mamba", {}, window_bp=200_000, bin_size=1)
    assert encoder.flops(200_000) == 4 * 200_000 * (258_048 + 2 * 4 * 256)
    assert encoder.flops(200_000) == pytest.approx(0.206e12, rel=0.02)
    assert encoder.flops(101_000) == pytest.approx(0.104e12, rel=0.02)


def test_the_table_reads_the_published_characters():
    """A7 C8 G9 T10 N11."""
    encoder = make("mamba")
    codes = torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)
    rows = encoder.embedding.table.weight
    assert rows.shape[0] == 12
    assert torch.equal(encoder.embedding(codes)[0], rows[[7, 8, 9, 10, 11]])


def test_hyena_keeps_the_scale_of_its_window():
    encoder = build_encoder("hyena", SMALL, window_bp=60, bin_size=1)
    assert encoder.trunk.layers[0].mixer.l_max == 62
    assert encoder.embedding_dropout.p == 0.1
    fixed = build_encoder("hyena", SMALL | {"l_max": 200_002}, window_bp=60, bin_size=1)
    assert fixed.trunk.layers[0].mixer.l_max == 200_002
    with pytest.raises(InputError, match="l_max"):
        encoder(torch.zeros(1, 63, dtype=torch.uint8))


# Costs ----------------------------------------------------------------------------------------

DEEP = {"channels": 12, "width": 15, "num_layers": 3, "inner_pool": 4}
COSTS = {
    "table": ("mamba", {}, 1, ()),
    "linear": ("mamba", {"embedding": "linear"}, 1, TRACKS),
    "attention": ("conv", {"stem": {"channels": 24}}, 64, TRACKS),
    "deep": ("conv", {"stem": DEEP}, 64, ()),
    "max": ("transformer", {"stem": DEEP | {"pool": "max"}}, 64, ()),
    "mean": ("conv", {"stem": {"channels": 24, "pool": "mean", "dropout": 0.1}}, 64, ()),
    "stride": ("conv", {"stem": {"channels": 24, "stride": 3, "inner_pool": 1}}, 60, ()),
    "summed": (
        "conv",
        {"stem": {"pool": "sum", "norm": False, "activation": "relu", "inner_pool": 1}},
        64,
        (),
    ),
    "words": ("conv", {"stem": {"kmer": 4, "channels": 24}}, 64, ()),
}


def cost_case(case):
    name, params, bin_size, tracks = COSTS[case]
    length = 40 * bin_size if bin_size > 1 else 300
    params = {"d_model": 16, "num_layers": 1} | params
    encoder = build_encoder(name, params, tracks=tracks, window_bp=length, bin_size=bin_size)
    codes = torch.randint(0, 4, (1, length)).to(torch.uint8)
    signal = torch.rand(1, length // bin_size, len(tracks)) if tracks else None
    return encoder, codes, signal


@pytest.mark.parametrize("case", sorted(set(COSTS) - {"words"}))
def test_flops_of_the_embedding_are_those_that_torch_counts(case):
    encoder, codes, signal = cost_case(case)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        encoder.embedding(codes, signal)
    num_bins = codes.shape[1] // encoder.bin_size
    assert encoder.embedding.flops(num_bins) == counter.get_total_flops()
    trunk = encoder.trunk.flops(num_bins)
    assert encoder.flops(codes.shape[1]) == encoder.embedding.flops(num_bins) + trunk


def test_flops_of_words():
    """Bins of 64 bp hold 61 words of 4 letters, of 24 numbers each; then 24 x 16."""
    encoder, _, _ = cost_case("words")
    assert encoder.embedding.flops(40) == 40 * (61 * 24 + 2 * 24 * 16)


@pytest.mark.parametrize("case", COSTS)
def test_activation_bytes_include_the_embedding(case):
    encoder, codes, signal = cost_case(case)
    measured = kept_bytes(encoder, codes, signal)
    assert encoder.activation_bytes(codes.shape[1]) == pytest.approx(measured, rel=0.2)
    embedded = encoder.embedding.kept_numbers(codes.shape[1] // encoder.bin_size) * 4
    assert embedded == pytest.approx(kept_bytes(encoder.embedding, codes, signal), rel=0.25)


# Wrong input and settings ---------------------------------------------------------------------


@pytest.mark.parametrize("case", ["mamba_stem", "transformer", "conv"])
@pytest.mark.parametrize("length", [0, 7, 127])
def test_windows_of_broken_bins_are_refused(case, length):
    with pytest.raises(InputError, match="multiple of 8 bp"):
        make(case)(torch.zeros(1, length, dtype=torch.uint8))


def test_masks_and_spans_of_another_shape_are_refused():
    encoder = make("conv")
    with pytest.raises(InputError, match="shape of mask"):
        encoder(bases(encoder), mask_BN=torch.ones(BATCH, NUM_BINS - 1))
    for span in [(5, 5), (0, 17), (-1, 3)]:
        with pytest.raises(InputError, match="span"):
            encoder(bases(encoder), span=span)


@pytest.mark.parametrize(
    ("name", "params", "tracks", "window_bp", "bin_size", "message"),
    [
        ("mamba", {}, TRACKS, 64, 1, "use embedding: linear"),
        ("hyena", {}, TRACKS, 64, 1, "no tracks"),
        ("mamba", {}, (), 64, 8, "use embedding: stem"),
        ("hyena", {"embedding": "linear"}, (), 64, 8, "bins of 1 bp"),
        ("conv", {}, (), 100, 8, "use a window of 96 bp"),
        ("transformer", {}, (), 0, 8, "window_bp"),
        ("conv", {"gate": "pack"}, (), 64, 8, "gate"),
        ("conv", {"dropout": 1.0}, (), 64, 8, "dropout"),
        ("hyena", {"l_max": 10}, (), 64, 1, "at least the number of bins"),
        ("mamba", {"d_modle": 8}, (), 64, 1, "d_model"),
        ("mambo", {}, (), 64, 1, "use 'mamba'"),
    ],
)
def test_wrong_settings_are_named(name, params, tracks, window_bp, bin_size, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, params, tracks=tracks, window_bp=window_bp, bin_size=bin_size)


def test_building_twice_from_one_seed_gives_the_same_weights():
    for case in CASES:
        first, second = make(case), make(case)
        for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert not any(isinstance(m, nn.BatchNorm1d) for m in first.modules())
