"""The whole model: published sizes, what the mask hides, invariances, and every variant."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.nn.beta import BetaParameters
from seq2exp.nn.mamba import BiMambaBlock
from seq2exp.nn.norm import RMSNorm
from seq2exp.nn.sequence import flip_bins, one_hot, reverse_complement
from seq2exp.nn.stem import StemConfig

KINDS = ["mean", "split", "max", "attention", "flatten", "context", "bands"]
TRACKS = ("DNase", "H3K27ac", "contact")
SMALL_STEM = StemConfig(channels=8, width=7, inner_pool=2, num_layers=2, inner_width=3)
SMALL = Seq2ExpConfig(
    tracks=TRACKS,
    num_features=3,
    num_outputs=2,
    window_bp=320,
    bin_size=16,
    d_model=12,
    d_state=4,
    generator_layers=1,
    predictor_layers=2,
    stem=SMALL_STEM,
    promoter_bp=40,
    readout_bp=40,
    head_hidden=16,
)
# Bins 8 .. 11 overlap bases 140 .. 180.
PROMOTER = slice(8, 12)


def make(config=SMALL, *, seed=0, **changes):
    torch.manual_seed(seed)
    model = Seq2Exp(dataclasses.replace(config, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter) * parameter.requires_grad
    return model


def make_batch(config=SMALL, *, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 5, (batch, config.window_bp), generator=generator, dtype=torch.uint8)
    shape = (batch, config.num_bins, len(config.tracks))
    signal = torch.rand(shape, generator=generator, dtype=torch.float64) * 5
    features = torch.randn(batch, config.num_features, generator=generator, dtype=torch.float64)
    return codes, signal, features


def make_mask(config=SMALL, *, batch=3, seed=2):
    """A 0/1 mask in which the promoter is kept."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(batch, config.num_bins, generator=generator) < 0.4).double()
    mask[:, PROMOTER] = 1
    return mask


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# Published sizes and start values ----------------------------------------------------------------


def test_published_soft_parameter_counts():
    """Specification 3.7, with its breakdown."""
    model = Seq2Exp(Seq2ExpConfig.published_soft())
    assert count(model) == 1_114_243
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 6
    assert count(model.generator) == count(model.predictor) == 539_264
    assert count(model.stem) == 640
    assert count(model.track_embedding) == 512
    assert count(model.mask_head) == 258
    assert count(model.head) == 34_305


def test_published_model_without_a_mask_has_the_retrain_size():
    assert count(Seq2Exp(Seq2ExpConfig.published_soft(mask="none"))) == 574_721


def test_linear_biases_start_at_zero_but_not_the_steps():
    model = Seq2Exp(SMALL)
    for name, parameter in model.named_parameters():
        if name.endswith("dt_proj.bias"):
            assert parameter.ne(0).all()
        elif name.endswith("bias"):
            assert parameter.eq(0).all(), name


def test_fresh_published_model_has_the_golden_beta():
    """l0 = l1 = 0 once the mask head is zero; no signal: alpha 11.693147, beta 20.493147."""
    config = Seq2ExpConfig.published_soft(
        window_bp=40, d_model=8, generator_layers=1, predictor_layers=1, promoter_bp=4, readout_bp=4
    )
    model = Seq2Exp(config).eval()
    torch.nn.init.zeros_(model.mask_head.weight)
    codes, signal, features = make_batch(config, batch=2)
    out = model(codes, torch.zeros_like(signal), features)
    torch.testing.assert_close(out.alpha_BN, torch.full((2, 40), 11.693147))
    torch.testing.assert_close(out.beta_BN, torch.full((2, 40), 20.493147))
    assert out.kl_B.shape == (2,)
    torch.testing.assert_close(out.kl_B, torch.full((2,), 18.729885), rtol=1e-5, atol=0)
    inside = torch.zeros(40, dtype=torch.bool)
    inside[18:22] = True
    torch.testing.assert_close(out.mask_BN[:, inside], torch.ones(2, 4))
    torch.testing.assert_close(out.mask_BN[:, ~inside], torch.full((2, 36), 0.363296))


# The published computation, written out at base level --------------------------------------------


def base_level_soft(model, codes, signal, features):
    """Sections 3.2 to 3.5 for one base per bin, multiply gate, mean mask."""
    config = model.config
    embedded = one_hot(codes, dtype=torch.float64) @ model.stem.proj.weight.t()
    embedded = embedded + model.stem.proj.bias
    tracks = signal @ model.track_embedding.proj.weight.t() + model.track_embedding.proj.bias
    logits = model.mask_head(model.generator(embedded))
    c, k = config.beta_min, config.prior_scale_factor
    alpha = torch.nn.functional.softplus(logits[..., 1]) + (c + 1e-8)
    beta = torch.nn.functional.softplus(logits[..., 0]) + (c + 1e-8)
    t = {"H3K27ac": 1.5, "DNase": 0.2, "contact": 1.0}
    w = {"H3K27ac": 0.4, "DNase": 0.4, "contact": 0.2}
    for i, name in enumerate(config.tracks):
        alpha = alpha + w[name] * ((signal[..., i] + c) * k + 1e-8)
        beta = beta + w[name] * (t[name] + c) * k
    mean = alpha / (alpha + beta)
    half, promoter = config.window_bp // 2, config.promoter_bp // 2
    mask = mean.clone()
    mask[:, half - promoter : half + promoter] = 1
    hidden = model.predictor((embedded + tracks) * mask[..., None])
    read = config.readout_bp // 2
    pooled = hidden[:, half - read : half + read].mean(1)
    return model.head.layers(torch.cat([pooled, features], -1)), mask, mean


def published_small(**changes):
    return Seq2ExpConfig.published_soft(
        window_bp=60,
        num_features=3,
        d_model=12,
        generator_layers=1,
        predictor_layers=2,
        promoter_bp=8,
        readout_bp=12,
        **changes,
    )


def test_bins_of_one_base_are_the_published_computation():
    config = published_small()
    model, batch = make(config), make_batch(config)
    out = model(*batch)
    expression, mask, mean = base_level_soft(model, *batch)
    torch.testing.assert_close(out.mean_BN, mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(out.mask_BN, mask, rtol=0, atol=1e-7)
    torch.testing.assert_close(out.expression_BK, expression, rtol=0, atol=1e-7)


def test_mask_bins_of_one_base_are_bit_equal_to_the_base_level_path():
    config = published_small()
    batch = make_batch(config)
    whole = make(config)(*batch)
    binned = make(config, mask_bin_size=1)(*batch)
    # This model predicts no tracks.
    assert whole.tracks_BNU is None
    names = [item.name for item in dataclasses.fields(whole) if item.name != "tracks_BNU"]
    for name in names:
        assert torch.equal(getattr(whole, name), getattr(binned, name)), name


def test_wider_mask_bins_share_one_beta():
    model, batch = make(mask_bin_size=64), make_batch()
    out = model(*batch)
    groups = out.mean_BN.view(3, 5, 4)
    assert torch.equal(groups, groups[..., :1].expand_as(groups))
    assert len(groups[0, :, 0].unique()) == 5
    assert out.mask_BN[:, PROMOTER].eq(1).all()
    kl = model.prior.kl(BetaParameters(out.alpha_BN[:, ::4], out.beta_BN[:, ::4]))
    torch.testing.assert_close(out.kl_B, kl.mean(1))


# What the mask hides -----------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["mean", "context", "bands"])
@pytest.mark.parametrize(("bin_size", "stride"), [(1, 1), (16, 1), (16, 2)])
def test_delta_gate_removes_all_dependence_on_masked_bins(bin_size, readout, stride):
    """F2 corrected: with the mask held fixed, masked bins may change at will."""
    stem = dataclasses.replace(SMALL_STEM, stride=stride)
    changes = {"bin_size": bin_size, "gate": "delta", "readout": readout, "stem": stem}
    changes |= {"final_norm": readout != "bands"}
    config = dataclasses.replace(SMALL, **changes)
    model = make(**changes)
    codes, signal, features = make_batch(config)
    keep = make_mask().bool()
    mask = keep.repeat_interleave(16 // bin_size, 1).double()
    base_kept = keep.repeat_interleave(16, 1)
    codes_changed = torch.where(base_kept, codes, (codes + 1) % 4)
    signal_changed = torch.where(mask.bool()[..., None], signal, signal * 3 + 1)
    before = model(codes, signal, features, mask_BN=mask)
    after = model(codes_changed, signal_changed, features, mask_BN=mask)
    assert torch.equal(before.expression_BK, after.expression_BK)
    open_before = model(codes, signal, features, mask_BN=torch.ones_like(mask))
    open_after = model(codes_changed, signal_changed, features, mask_BN=torch.ones_like(mask))
    assert not torch.allclose(open_before.expression_BK, open_after.expression_BK)


def test_multiply_gate_leaks_through_a_small_mask():
    """F2: the first mixer input keeps m sqrt(v + eps) / sqrt(m^2 v + eps) of its norm at mask m."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 128)
    torch.nn.init.zeros_(linear.bias)
    embedded = linear(torch.eye(4))
    norm = RMSNorm(128)
    whole = norm(embedded).norm(dim=-1)
    table = {0.5: 1.0, 0.1: 0.994, 0.05: 0.977, 0.01: 0.678, 0.001: 0.092, 0.0: 0.0}
    for mask, expected in table.items():
        kept = (norm(embedded * mask).norm(dim=-1) / whole).mean().item()
        assert kept == pytest.approx(expected, abs=0.02)


def test_delta_gate_scales_what_a_bin_gives_away():
    """Where multiply keeps 98 % at mask 0.05, delta lets through less than a tenth."""
    torch.manual_seed(0)
    block = BiMambaBlock(32).double()
    x = torch.randn(1, 40, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, 20] = torch.randn(1, 32, dtype=torch.float64)

    def effect(weight):
        mask = torch.ones(1, 40, dtype=torch.float64)
        mask[:, 20] = weight
        others = torch.arange(40) != 20
        return (block(x, mask) - block(changed, mask))[:, others].norm()

    assert effect(0.05) < 0.1 * effect(1.0)
    assert effect(0.0) == 0


@pytest.mark.parametrize("mask", ["soft", "hard"])
@pytest.mark.parametrize("gate", ["delta", "multiply"])
def test_prediction_loss_reaches_the_mask_head(mask, gate):
    """F1 corrected: no KL in this loss."""
    model, batch = make(mask=mask, gate=gate).train(), make_batch()
    torch.manual_seed(0)
    model(*batch).expression_BK.square().sum().backward()
    assert model.mask_head.weight.grad.abs().max() > 1e-8
    assert model.generator.layers[0].mixer.in_proj.weight.grad.abs().max() > 1e-10


@pytest.mark.parametrize("gate", ["delta", "multiply"])
def test_gradient_of_the_mask_agrees_with_finite_differences(gate):
    model = make(gate=gate)
    codes, signal, features = make_batch(batch=1)
    mask = torch.rand(1, SMALL.num_bins, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m: model(codes, signal, features, mask_BN=m).expression_BK, mask, atol=1e-6
    )


def test_binary_delta_mask_equals_packing():
    """The predictor on kept bins plus three rows of each gap gives the same kept states."""
    model = make(bin_size=1, gate="delta", window_bp=80, promoter_bp=8, readout_bp=8)
    codes, signal, _ = make_batch(model.config, batch=1)
    mask = (torch.rand(1, 80, generator=torch.Generator().manual_seed(4)) < 0.3).double()
    mask[:, 36:44] = 1
    gap_row = torch.zeros(80, dtype=torch.long)
    for i in range(80):
        gap_row[i] = 0 if mask[0, i] else (gap_row[i - 1] + 1 if i else 1)
    rows = gap_row <= 3
    assert rows.sum() < 80
    embedded = model._embed(
        partial(model.stem, model.stem.scan_bases(codes)), model.track_embedding(signal), mask
    )
    kept = mask[0].bool()
    whole = model.predictor(embedded, mask)[:, kept]
    packed = model.predictor(embedded[:, rows], mask[:, rows])[:, kept[rows]]
    torch.testing.assert_close(whole, packed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", ["soft", "hard"])
@pytest.mark.parametrize("sample", [True, False])
def test_blacklist_then_promoter_in_every_mode(mask, sample):
    model, batch = make(mask=mask), make_batch()
    blacklist = torch.zeros(3, SMALL.num_bins, dtype=torch.bool)
    blacklist[:, [2, 9]] = True
    valid = torch.ones(3, SMALL.num_bins, dtype=torch.bool)
    valid[:, [0, 8]] = False
    out = model(*batch, blacklist_BN=blacklist, valid_BN=valid, sample=sample)
    assert out.mask_BN[:, PROMOTER].eq(1).all()
    assert out.mask_BN[:, [0, 2]].eq(0).all()
    given = model(*batch, blacklist_BN=blacklist, mask_BN=torch.full_like(out.mask_BN, 0.5))
    assert given.mask_BN[:, PROMOTER].eq(1).all()
    assert given.mask_BN[:, 2].eq(0).all()
    assert given.mask_BN[:, 0].eq(0.5).all()
    free = model(*batch, blacklist_BN=blacklist, sample=sample, force_promoter=False)
    assert free.mask_BN[:, 9].eq(0).all()


def test_blacklisted_bins_do_not_matter():
    model = make()
    codes, signal, features = make_batch()
    blacklist = torch.zeros(3, SMALL.num_bins, dtype=torch.bool)
    blacklist[:, 3] = True
    mask = torch.full((3, SMALL.num_bins), 0.5, dtype=torch.float64)
    wild = signal.clone()
    wild[:, 3] = 1e4
    options = {"blacklist_BN": blacklist, "mask_BN": mask}
    calm, noisy = model(codes, signal, features, **options), model(codes, wild, features, **options)
    assert torch.equal(calm.expression_BK, noisy.expression_BK)


# Invariances -------------------------------------------------------------------------------------


def test_batch_of_one_equals_batch_of_eight():
    model = make()
    batch = make_batch(batch=8)
    whole = model(*batch)
    for i in range(8):
        alone = model(*(x[i : i + 1] for x in batch))
        for name in ("expression_BK", "mask_BN", "kl_B", "embedding_BD"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(whole, name)[i], rtol=0, atol=1e-11
            )


def test_other_members_and_order_do_not_matter():
    model, batch = make(), make_batch(batch=4)
    whole = model(*batch).expression_BK
    others = [x.clone() for x in batch]
    others[0][1:] = 4
    others[1][1:] = torch.nan
    torch.testing.assert_close(model(*others).expression_BK[0], whole[0], rtol=0, atol=1e-11)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = model(*(x[order] for x in batch)).expression_BK
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-11)


def test_two_test_runs_are_identical_and_training_samples():
    model, batch = make(), make_batch()
    assert torch.equal(model(*batch).expression_BK, model(*batch).expression_BK)
    model.train()
    assert not torch.equal(model(*batch).mask_BN, model(*batch).mask_BN)
    assert torch.equal(model(*batch, sample=False).mask_BN, model(*batch, sample=False).mask_BN)


@pytest.mark.parametrize("readout", KINDS)
@pytest.mark.parametrize("position_embedding", [False, True])
def test_averaged_output_is_the_same_for_both_strands(readout, position_embedding):
    changes = {"readout": readout, "position_embedding": position_embedding, "rc_average": True}
    model = make(**changes)
    codes, signal, features = make_batch()
    blacklist = torch.zeros(3, SMALL.num_bins, dtype=torch.bool)
    blacklist[:, 3] = True
    forward = model(codes, signal, features, blacklist_BN=blacklist)
    mirrored = model(
        reverse_complement(codes), flip_bins(signal), features, blacklist_BN=flip_bins(blacklist)
    )
    torch.testing.assert_close(forward.expression_BK, mirrored.expression_BK, rtol=0, atol=1e-9)
    for name in ("mask_BN", "mean_BN", "alpha_BN", "beta_BN"):
        torch.testing.assert_close(
            flip_bins(getattr(forward, name)), getattr(mirrored, name), rtol=0, atol=1e-9
        )
    assert not torch.allclose(forward.mask_BN, mirrored.mask_BN)
    plain = make(**(changes | {"rc_average": False}))
    assert not torch.allclose(
        plain(codes, signal, features).expression_BK,
        plain(reverse_complement(codes), flip_bins(signal), features).expression_BK,
    )
    asked = plain.forward_rc_averaged(codes, signal, features, blacklist_BN=blacklist)
    assert torch.equal(asked.expression_BK, forward.expression_BK)


def test_training_never_averages():
    model, batch = make(rc_average=True).train(), make_batch()
    plain = make().train()
    a, b = model(*batch, sample=False), plain(*batch, sample=False)
    assert torch.equal(a.expression_BK, b.expression_BK)


# Robustness --------------------------------------------------------------------------------------


def test_gradients_are_finite_on_hard_input():
    model = make(learn_missing_tracks=True, learn_track_beta=True).train()
    codes, signal, features = make_batch()
    codes[0] = 4
    signal[1] = torch.nan
    signal[2, :, 0] = torch.nan
    signal[0] = 0
    features[0, 0] = torch.nan
    torch.manual_seed(0)
    out = model(codes, signal, features)
    (out.expression_BK.sum() + out.kl_B.sum()).backward()
    assert torch.isfinite(out.expression_BK).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("gate", ["delta", "multiply"])
def test_half_precision_has_no_nan(gate):
    model = make(gate=gate).float().train()
    codes, signal, features = (x.float() if x.is_floating_point() else x for x in make_batch())
    exact = model(codes, signal, features, sample=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(codes, signal, features, sample=False)
        sampled = model(codes, signal, features)
    assert out.alpha_BN.dtype == out.kl_B.dtype == out.expression_BK.dtype == torch.float32
    torch.testing.assert_close(out.expression_BK, exact.expression_BK, rtol=0.1, atol=0.1)
    (sampled.expression_BK.sum() + sampled.kl_B.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_missing_feature_counts_as_the_training_mean():
    model = make()
    codes, signal, features = make_batch()
    model.fit_scaling([(signal, features)])
    missing, mean = features.clone(), features.clone()
    missing[:, 1] = torch.nan
    mean[:, 1] = features[:, 1].mean()
    torch.testing.assert_close(
        model(codes, signal, missing).expression_BK, model(codes, signal, mean).expression_BK
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c, s, f: (c[:, :-1], s, f), "codes"),
        (lambda c, s, f: (c, s[:, :, :2], f), "signal"),
        (lambda c, s, f: (c, s[:, :-1], f), "signal"),
        (lambda c, s, f: (c, None, f), "signal: found nothing"),
        (lambda c, s, f: (c, s, f[:, :1]), "features"),
        (lambda c, s, f: (c, s, f[:2]), "features"),
    ],
)
def test_wrong_shapes_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        make()(*change(*make_batch()))
    with pytest.raises(InputError, match="mask_BN"):
        make()(*make_batch(), mask_BN=torch.ones(3, 4))


# Variants ----------------------------------------------------------------------------------------


def test_no_mask_reads_everything():
    model, batch = make(mask="none"), make_batch()
    out = model(*batch)
    assert out.mask_BN.eq(1).all()
    assert out.mean_BN.eq(1).all()
    assert out.alpha_BN is None
    assert out.kl_B.eq(0).all()
    assert model.generator is None
    given = model(*batch, mask_BN=make_mask())
    assert not torch.allclose(given.expression_BK, out.expression_BK)


def test_sequence_only_ignores_tracks():
    model = make(use_tracks=False, mask_from_tracks=False)
    codes, signal, features = make_batch()
    other = model(codes, signal * 7, features)
    assert torch.equal(model(codes, signal, features).expression_BK, other.expression_BK)
    assert make(tracks=())(codes, None, features).expression_BK.shape == (3, 2)


def test_tracks_only_ignores_bases():
    model = make(use_sequence=False, generator_sees_tracks=True)
    codes, signal, features = make_batch()
    other = model(codes.flip(1), signal, features)
    assert torch.equal(model(codes, signal, features).expression_BK, other.expression_BK)
    assert model.stem is None


def test_mask_from_tracks_alone_has_no_generator():
    model, batch = make(mask_from_generator=False), make_batch()
    assert model.generator is None
    out = model(*batch)
    torch.testing.assert_close(out.alpha_BN, model.track_beta(batch[1]).alpha_BN)


def test_generator_sees_tracks_only_when_told():
    codes, signal, features = make_batch()
    for sees in (False, True):
        model = make(generator_sees_tracks=sees, mask_from_tracks=False)
        first = model(codes, signal, features).mean_BN
        second = model(codes, signal * 2, features).mean_BN
        assert torch.equal(first, second) is not sees


def test_features_are_ignored_when_not_asked_for():
    model = make(num_features=0)
    codes, signal, features = make_batch()
    assert torch.equal(
        model(codes, signal, features).expression_BK, model(codes, signal).expression_BK
    )


def test_kl_may_leave_out_forced_bins():
    batch = make_batch()
    whole, free = make()(*batch), make(kl_excludes_forced=True)(*batch)
    kl = make().prior.kl(BetaParameters(whole.alpha_BN, whole.beta_BN))
    torch.testing.assert_close(whole.kl_B, kl.mean(1))
    outside = torch.ones(SMALL.num_bins, dtype=torch.bool)
    outside[PROMOTER] = False
    torch.testing.assert_close(free.kl_B, kl[:, outside].mean(1))


@pytest.mark.parametrize(
    ("readout", "width"),
    [("mean", 12), ("split", 24), ("max", 12), ("attention", 12), ("flatten", 4 * 16)],
)
def test_readouts(readout, width):
    model, batch = make(readout=readout), make_batch()
    assert model.readout.span == (8, 12)
    assert model(*batch).embedding_BD.shape == (3, width)
    hidden = torch.randn(2, 20, 12, dtype=torch.float64)
    pooled = model.readout(hidden)
    moved = hidden.clone()
    moved[:, :8] += 1
    moved[:, 12:] += 1
    assert torch.equal(model.readout(moved), pooled)
    if readout == "mean":
        torch.testing.assert_close(pooled, hidden[:, 8:12].mean(1))
    if readout == "split":
        halves = torch.cat([hidden[:, 8:10].mean(1), hidden[:, 10:12].mean(1)], -1)
        torch.testing.assert_close(pooled, halves)
    if readout == "max":
        torch.testing.assert_close(pooled, hidden[:, 8:12].amax(1))


def test_context_readout_weighs_the_whole_window_by_the_mask():
    model = make(readout="context")
    hidden, mask = torch.randn(2, 20, 12, dtype=torch.float64), make_mask(batch=2)
    expected = torch.stack(
        [sum(mask[b, i] * hidden[b, i] for i in range(20)) / 20 for b in range(2)]
    )
    pooled = model.readout(hidden, mask)
    torch.testing.assert_close(pooled[:, 12:], expected)
    torch.testing.assert_close(pooled[:, :12], hidden[:, 8:12].mean(1))
    torch.testing.assert_close(model.readout(hidden)[:, 12:], hidden.mean(1))


# Scaling -----------------------------------------------------------------------------------------


def test_scaling_is_learned_from_training_data():
    model = make(track_transform="log1p")
    _, signal, features = make_batch(batch=6)
    signal[:2, :, 1] = torch.nan
    model.fit_scaling([(signal[:4], features[:4]), (signal[4:], features[4:])])
    logs = torch.log1p(signal).reshape(-1, 3)
    for i in range(3):
        present = logs[:, i][~logs[:, i].isnan()]
        torch.testing.assert_close(model.track_embedding.mean_T[i], present.mean())
        torch.testing.assert_close(model.track_embedding.std_T[i], present.std(correction=0))
        raw = signal[..., i][~signal[..., i].isnan()]
        torch.testing.assert_close(model.track_unit_T[i], raw.mean())
    torch.testing.assert_close(model.head.feature_mean_F, features.mean(0))
    torch.testing.assert_close(model.head.feature_std_F, features.std(0, correction=0))


def test_track_beta_does_not_depend_on_the_unit_of_the_signal():
    codes, signal, features = make_batch()
    means = []
    for factor in (1.0, 1000.0):
        model = make(track_transform="none")
        model.fit_scaling([(signal * factor, features)])
        means.append(model(codes, signal * factor, features).mean_BN)
    torch.testing.assert_close(*means)


def test_published_settings_use_raw_values():
    config = published_small()
    model = make(config)
    _, signal, features = make_batch(config)
    model.fit_scaling([(signal, features)])
    assert model.track_unit_T.eq(1).all()
    assert model.track_embedding.mean_T.eq(0).all()
    assert model.head.feature_std_F.eq(1).all()


def test_output_scaling():
    model, batch = make(), make_batch()
    before = model(*batch).expression_BK
    mean, std = torch.tensor([3.0, torch.nan]), torch.tensor([2.0, 0.0])
    model.set_output_scaling(mean.double(), std.double())
    after = model(*batch).expression_BK
    torch.testing.assert_close(after[:, 0], before[:, 0] * 2 + 3)
    torch.testing.assert_close(after[:, 1], before[:, 1])


def test_state_carries_scaling_and_prior():
    model = make()
    _, signal, features = make_batch()
    model.fit_scaling([(signal, features)])
    other = Seq2Exp(SMALL).double().eval()
    other.load_state_dict(model.state_dict())
    batch = make_batch(seed=9)
    assert torch.equal(model(*batch).expression_BK, other(*batch).expression_BK)
    assert {"prior.alpha", "prior.beta", "track_unit_T"} <= set(model.state_dict())


# Configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"window_bp": 330}, "window_bp"),
        ({"window_bp": 15, "bin_size": 5}, "even"),
        ({"mask_bin_size": 24}, "mask_bin_size"),
        ({"prior_mean": 1.0}, "prior_mean"),
        ({"tracks": ("DNase", "DNase")}, "tracks"),
        ({"use_sequence": False, "use_tracks": False}, "use_sequence"),
        ({"use_sequence": False}, "generator_sees_tracks"),
        ({"mask_from_generator": False, "mask_from_tracks": False}, "mask_from_generator"),
        ({"track_betas": {"DNAse": 1.0}}, "use 'DNase'"),
        ({"track_weights": {"DNase": 0.0}}, "track_weights"),
        ({"readout_bp": 0}, "readout_bp"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(SMALL, **changes)


def test_track_values_are_found_by_name():
    """F5: the order of the tracks does not move the published values, and others start at 1."""
    config = dataclasses.replace(
        SMALL, tracks=("ATAC", "DNase", "H3K27ac"), track_betas={"ATAC": 0.5}
    )
    assert config.track_beta_values() == ([0.5, 0.2, 1.5], [1.0, 2.0, 2.0])


def test_given_mask_replaces_the_learned_one():
    model, batch = make(), make_batch()
    learned = model(*batch)
    given = model(*batch, mask_BN=learned.mask_BN)
    assert torch.equal(given.expression_BK, learned.expression_BK)
    assert given.alpha_BN is None
    assert given.kl_B.eq(0).all()
    without = learned.mask_BN.clone()
    without[:, 4] = 0
    assert not torch.equal(model(*batch, mask_BN=without).expression_BK, learned.expression_BK)


def test_empty_batch_gives_empty_output():
    out = make()(*make_batch(batch=0))
    assert out.expression_BK.shape == (0, 2)
    assert out.mask_BN.shape == (0, SMALL.num_bins)
