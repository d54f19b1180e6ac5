"""Every mask mode and gate: what is forced, what is hidden, what the prediction loss reaches."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import BiMambaTrunk
from seq2exp.models import Seq2Exp, config_dict
from seq2exp.models.element_masks import abc_elements, element_bins
from seq2exp.models.masking import top_bins
from seq2exp.models.packing import pack_rows, run_packed
from seq2exp.models.registry import build_model
from seq2exp.nn.sequence import flip_bins, reverse_complement
from tests.models.test_seq2exp import PROMOTER, SMALL, make, make_batch, make_mask

BINARY = ("hard", "retrain", "peaks", "abc")
MODES = ("soft", *BINARY)
GATES = ("multiply", "delta", "pack")
# A soft mask cannot be packed; that it is refused is tested below.
GATED = [pair for pair in itertools.product(MODES, GATES) if pair != ("soft", "pack")]
POSTERIORS = ("beta", "kumaraswamy", "logistic_normal")
BUDGET = 0.4  # 8 of the 20 bins, of which the promoter takes 4
# Windows of 320 bases, TSS in the middle. In bins of 16: {0, 1}, {13, 14}, {19}.
ELEMENTS = [(222, 230), (100, 101), (-40, 20), (310, 500), (-1, -1)]


def batch_of_elements(batch=3):
    return torch.tensor(ELEMENTS, dtype=torch.int32).repeat(batch, 1, 1)


def mask_params(**changes):
    """Settings of a mask model for SMALL."""
    params = config_dict(Seq2Exp(dataclasses.replace(SMALL, num_features=0, **changes)))["params"]
    return {key: value for key, value in params.items() if key != "name"}


def mode_model(mask, **changes):
    if mask == "retrain":
        changes = {"mask_model": mask_params(), "mask_budget": BUDGET} | changes
    if mask == "abc":
        changes = {"abc_distance_bp": (20, 200)} | changes
    return make(mask=mask, **changes)


def run(model, batch, **options):
    return model(*batch, elements_BR2=batch_of_elements(len(batch[0])), **options)


# Forcing, in every mode --------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "gate"), GATED)
@pytest.mark.parametrize("sample", [True, False])
def test_blacklist_and_padding_then_promoter(mask, gate, sample):
    """F3 and acceptance 7: in the published peak mode neither was applied."""
    model, batch = mode_model(mask, gate=gate), make_batch()
    blacklist, valid = torch.zeros(3, 20, dtype=torch.bool), torch.ones(3, 20, dtype=torch.bool)
    blacklist[:, [1, 9, 13]] = True
    valid[:, [0, 19]] = False
    torch.manual_seed(0)
    out = run(model, batch, blacklist_BN=blacklist, valid_BN=valid, sample=sample)
    assert out.mask_BN[:, PROMOTER].eq(1).all()
    assert out.mask_BN[:, [0, 1, 13, 19]].eq(0).all()
    if mask in BINARY:
        assert set(out.mask_BN.unique().tolist()) == {0.0, 1.0}
        assert torch.isfinite(out.expression_BK).all()


def test_peaks_are_the_bins_that_elements_overlap():
    out = run(mode_model("peaks"), make_batch())
    expected = torch.zeros(3, 20, dtype=torch.float64)
    expected[:, [0, 1, 6, 13, 14, 19]] = 1
    assert torch.equal(out.mean_BN, expected)
    expected[:, PROMOTER] = 1
    assert torch.equal(out.mask_BN, expected)
    assert out.alpha_BN is None
    assert out.kl_B.eq(0).all()


def test_abc_takes_the_nearest_distal_elements_trimmed():
    """Twice the distances of the middles are 132, 119, 340 and 490; the limits 40 and 400."""
    whole = run(mode_model("abc"), make_batch(), force_promoter=False).mask_BN[0]
    assert whole.nonzero().flatten().tolist() == [0, 1, 6, 13, 14]
    nearest = mode_model("abc", abc_max_elements=2)
    found = run(nearest, make_batch(), force_promoter=False).mask_BN[0]
    assert found.nonzero().flatten().tolist() == [6, 13, 14]
    short = mode_model("abc", abc_element_bp=4)
    found = run(short, make_batch(), force_promoter=False).mask_BN[0]
    # (222, 230) becomes (224, 228); of (-40, 20) nothing is left inside the window.
    assert found.nonzero().flatten().tolist() == [6, 14]


@pytest.mark.parametrize("mask", ["peaks", "abc"])
def test_modes_of_elements_have_no_generator_and_need_a_set(mask):
    model, batch = mode_model(mask), make_batch()
    assert model.generator is None
    assert model.mask_head is None
    assert model.track_beta is None
    for missing in (None, batch_of_elements()[:, :0]):
        with pytest.raises(InputError, match=r"data\.elements"):
            model(*batch, elements_BR2=missing)
    nothing = torch.full((3, 1, 2), -1, dtype=torch.int32)
    alone = model(*batch, elements_BR2=nothing).mask_BN
    assert alone.sum(1).tolist() == [4, 4, 4]


@given(
    st.lists(st.tuples(st.integers(-60, 220), st.integers(0, 90)), min_size=1, max_size=6),
    st.sampled_from([1, 4, 16]),
)
@settings(max_examples=60, deadline=None)
def test_element_bins_equal_the_bases(pairs, bin_size):
    """Painted base by base; empty intervals and the padding paint nothing."""
    elements = torch.tensor([[(start, start + length) for start, length in pairs]])
    padded = torch.cat([elements, torch.full((1, 2, 2), -1)], dim=1).int()
    bases = torch.zeros(160, dtype=torch.bool)
    for start, length in pairs:
        bases[max(start, 0) : max(start + length, 0)] = True
    expected = bases.view(-1, bin_size).any(1)
    found = element_bins(padded, num_bins=160 // bin_size, bin_size=bin_size)
    assert torch.equal(found[0], expected)


def test_published_limits_of_abc():
    """Distance 1 kb excluded, 100 kb included, 60 elements, 2 kb each, of a 200 kb window."""
    middle = 100_000
    rows = [(middle + d - 1, middle + d + 1) for d in (1000, 1001, 100_000, 100_001)]
    rows += [(middle + 5000, middle + 9001)]
    rows += [(middle - 2000 - 10 * i, middle - 1998 - 10 * i) for i in range(70)]
    chosen = abc_elements(
        torch.tensor([rows], dtype=torch.int32),
        window_bp=200_000,
        nearest_bp=1000,
        farthest_bp=100_000,
        max_elements=60,
        max_length_bp=2000,
    )[0].tolist()
    assert chosen[0] == chosen[3] == [-1, -1]
    assert chosen[1] == list(rows[1])
    assert chosen[4] == [middle + 6001, middle + 8000]
    assert sum(row != [-1, -1] for row in chosen) == 60


# Retrain and top-k -------------------------------------------------------------------------------


def test_top_bins_take_the_left_of_equal_ones():
    score = torch.tensor([[0.2, 0.5, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_bins(score, count=3).tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize("budget", [0.2, 0.29, 0.4, 1.0])
def test_retrain_keeps_exactly_the_share_with_the_promoter(budget):
    """Acceptance 15: floor(p N) bins, the promoter among them, the rest the highest means."""
    model, batch = mode_model("retrain", mask_budget=budget), make_batch()
    out = model(*batch)
    count = int(budget * 20)
    assert out.mask_BN.sum(1).tolist() == [count] * 3
    assert out.mask_BN[:, PROMOTER].eq(1).all()
    mean = model.mask_model[0](batch[0], batch[1], None).mean_BN
    assert torch.equal(mean, model.mask_model[0].mean_mask(*batch[:2]))
    mean[:, PROMOTER] = torch.inf
    for row, kept in zip(mean, out.mask_BN.bool(), strict=True):
        if count < 20:
            assert row[kept].min() >= row[~kept].max()
    assert torch.equal(model.train()(*batch).mask_BN, out.mask_BN)


def test_retrain_ranks_what_is_forced_to_0_last():
    model, batch = mode_model("retrain"), make_batch()
    free = model(*batch).mask_BN
    blacklist = free.bool()
    blacklist[:, PROMOTER] = False
    out = model(*batch, blacklist_BN=blacklist)
    assert out.mask_BN[blacklist].eq(0).all()
    assert out.mask_BN.sum(1).tolist() == [8.0] * 3


def test_retrain_freezes_its_mask_model():
    model, batch = mode_model("retrain", mask_members=2).train(), make_batch()
    assert model.training
    assert not any(module.training for module in model.mask_model.modules())
    model(*batch).expression_BK.sum().backward()
    frozen = dict(model.mask_model.named_parameters())
    assert frozen
    assert not any(parameter.requires_grad for parameter in frozen.values())
    assert all(parameter.grad is None for parameter in frozen.values())
    keys = {name.split(".")[0] for name in model.state_dict()}
    assert "mask_model" in keys
    assert {"generator", "mask_head"}.isdisjoint(keys)
    assert {name.split(".")[1] for name in model.state_dict() if name[:5] == "mask_"} == {"0", "1"}


def test_retrain_averages_its_members_and_is_rebuilt_from_its_description():
    model, batch = mode_model("retrain", mask_members=2), make_batch()
    torch.manual_seed(9)
    for parameter in model.mask_model[1].parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    means = torch.stack([member.mean_mask(*batch[:2]) for member in model.mask_model]).mean(0)
    means[:, PROMOTER] = torch.inf
    assert torch.equal(model(*batch).mask_BN, top_bins(means, count=8))
    described = config_dict(model)
    again = build_model(described["name"], described["params"]).double().eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*batch).expression_BK, model(*batch).expression_BK)


def test_top_share_at_test_is_chosen_before_anything_is_forced():
    """Section 3.4: so the kept count can differ from p N; the published share is the prior mean."""
    model, batch = make(test_mask="topk", mask_budget=0.3), make_batch()
    blacklist = torch.zeros(3, 20, dtype=torch.bool)
    blacklist[:, :10] = True
    out = model(*batch, blacklist_BN=blacklist)
    chosen = top_bins(out.mean_BN, count=6)
    chosen[blacklist] = 0
    chosen[:, PROMOTER] = 1
    assert torch.equal(out.mask_BN, chosen)
    drawn = model(*batch, sample=True).mask_BN
    assert len(drawn.unique()) > 2
    assert make(test_mask="topk", prior_mean=0.25).config.budget_bins == 5
    assert mode_model("retrain", mask_budget=None, promoter_bp=16).config.budget_bins == 2


# Gates -------------------------------------------------------------------------------------------


def gapped_mask(num_bins, *, batch, longest, seed):
    """Kept runs and gaps of random length, 0 to `longest`."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.zeros(batch, num_bins, dtype=torch.float64)
    for row in mask:
        place = 0
        while place < num_bins:
            run_length, gap = torch.randint(0, longest + 1, (2,), generator=random).tolist()
            row[place : place + run_length] = 1
            place += run_length + gap
    return mask


def test_pack_rows_keeps_the_reach_of_each_gap():
    mask = torch.tensor([[0, 1, 0, 0, 0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
    index, used = pack_rows(mask.float(), reach=2)
    assert [row[keep].tolist() for row, keep in zip(index, used, strict=True)] == [
        [0, 1, 2, 3, 6, 7, 8, 9],
        [0, 1, 9],
    ]
    assert index.shape == (2, 8)


@pytest.mark.parametrize("d_conv", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_packing_is_exact_at_kept_rows_with_all_gradients(seed, d_conv):
    """Acceptance 11: random gaps of 0 to 10, three blocks, both directions, in float64."""
    torch.manual_seed(seed)
    trunk = BiMambaTrunk(8, num_layers=3, d_state=4, d_conv=d_conv).double()
    hidden = torch.randn(4, 70, 8, dtype=torch.float64, requires_grad=True)
    mask = gapped_mask(70, batch=4, longest=10, seed=seed).requires_grad_()
    kept = mask.detach().bool()
    weight = torch.randn(4, 70, 8, dtype=torch.float64) * kept[..., None]
    _, used = pack_rows(mask, reach=trunk.pack_reach)
    assert used.sum() < used.numel() or used.shape[1] < 70
    found = []
    for out in (trunk(hidden, mask), run_packed(trunk, hidden, mask, reach=trunk.pack_reach)):
        inputs = [*trunk.parameters(), hidden, mask]
        gradients = torch.autograd.grad((out * weight).sum(), inputs)
        found.append((out.detach()[kept], *gradients[:-1], gradients[-1][kept]))
    for whole, packed in zip(*found, strict=True):
        torch.testing.assert_close(whole, packed, rtol=0, atol=1e-12)


def test_dropping_every_closed_row_is_not_exact():
    """The published packing, which the convolution can tell from the whole."""
    torch.manual_seed(0)
    trunk = BiMambaTrunk(8, num_layers=2, d_state=4).double()
    hidden = torch.randn(1, 70, 8, dtype=torch.float64)
    mask = gapped_mask(70, batch=1, longest=10, seed=1)
    kept = mask.bool()
    whole = trunk(hidden, mask)[kept]
    exact = run_packed(trunk, hidden, mask, reach=trunk.pack_reach)[kept]
    published = run_packed(trunk, hidden, mask, reach=0)[kept]
    assert (whole - exact).abs().max() < 1e-12
    assert (whole - published).abs().max() > 1e-2


@pytest.mark.parametrize("mask", BINARY)
@pytest.mark.parametrize("readout", ["mean", "context", "bands"])
def test_packed_model_predicts_what_the_gated_one_does(mask, readout):
    changes = {"readout": readout, "element_channels": 2, "recompute": True}
    packed = mode_model(mask, gate="pack", **changes)
    gated = mode_model(mask, gate="delta", **changes)
    gated.load_state_dict(packed.state_dict())
    batch = make_batch()
    losses = []
    for model in (packed, gated):
        out = run(model.train(), batch, sample=False)
        out.expression_BK.square().sum().backward()
        losses.append(out.expression_BK.detach())
    torch.testing.assert_close(*losses, rtol=0, atol=1e-11)
    # A learned mask also reaches what it shares with the predictor, through the bins that are kept.
    compared = ("predictor", "readout", "head", "element_sum") if mask == "hard" else ("",)
    pairs = zip(packed.named_parameters(), gated.named_parameters(), strict=True)
    for (name, one), (_, other) in pairs:
        if name.startswith(compared) and one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10, msg=name)


def test_packed_batches_do_not_mix_genes():
    """Acceptance 12: rows of another length beside a gene change nothing."""
    model = mode_model("hard", gate="pack")
    batch = make_batch(batch=6)
    whole = model(*batch)
    assert len(whole.mask_BN.sum(1).unique()) > 1
    for i in range(6):
        alone = model(*(x[i : i + 1] for x in batch))
        torch.testing.assert_close(
            alone.expression_BK[0], whole.expression_BK[i], rtol=0, atol=1e-11
        )


def test_empty_batch_and_closed_windows_are_packed():
    model = mode_model("peaks", gate="pack")
    assert run(model, make_batch(batch=0)).expression_BK.shape == (0, 2)
    closed = model(*make_batch(), mask_BN=torch.zeros(3, 20), force_promoter=False)
    assert torch.isfinite(closed.expression_BK).all()


@pytest.mark.parametrize("gate", ["delta", "pack", "multiply"])
def test_a_masked_bin_is_hidden_by_delta_and_pack_but_not_by_multiply(gate):
    """F2: with the mask fixed, multiply at 0 still lets the stem read over the border of a bin."""
    model = make(gate=gate, mask="hard")
    codes, signal, features = make_batch()
    mask = make_mask()
    kept = mask.bool()
    other = torch.where(kept.repeat_interleave(16, 1), codes, (codes + 1) % 4)
    noisy = torch.where(kept[..., None], signal, 3 * signal + 1)
    before = model(codes, signal, features, mask_BN=mask).expression_BK
    after = model(other, noisy, features, mask_BN=mask).expression_BK
    assert torch.equal(before, after) == (gate != "multiply")


def influence(gate, weight):
    """How far the prediction moves when a distal bin with this mask gets other content."""
    model = make(gate=gate)
    codes, signal, features = make_batch()
    mask = torch.ones(3, 20, dtype=torch.float64)
    mask[:, 15] = weight
    other, noisy = codes.clone(), signal.clone()
    other[:, 240:256] = (codes[:, 240:256] + 1) % 4
    noisy[:, 15] = 3 * signal[:, 15] + 1
    before = model(codes, signal, features, mask_BN=mask).expression_BK
    return (model(other, noisy, features, mask_BN=mask).expression_BK - before).abs().sum().item()


def test_a_small_mask_is_no_bottleneck_when_it_multiplies():
    """F2 in the whole model: at mask 0.05 multiply keeps most of a bin's influence."""
    assert influence("multiply", 0.05) > 0.3 * influence("multiply", 1.0)
    assert influence("delta", 0.05) < 0.1 * influence("delta", 1.0)
    assert influence("delta", 0.0) == 0


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize(("mask", "gate"), [pair for pair in GATED if pair[0] in ("soft", "hard")])
def test_prediction_loss_reaches_the_mask_head(mask, gate, posterior):
    """F1 corrected, in every mode that learns (acceptance 9): no KL in this loss."""
    model = make(mask=mask, gate=gate, posterior=posterior, prior_scale_factor=0.3, beta_min=0.1)
    batch = make_batch()
    torch.manual_seed(0)
    out = model.train()(*batch)
    out.expression_BK.square().sum().backward()
    assert 0 < out.mask_BN.detach()[:, :8].mean() < 1
    assert model.mask_head.weight.grad.abs().max() > 1e-8
    assert model.generator.layers[0].mixer.in_proj.weight.grad.abs().max() > 1e-10


def test_published_packing_gives_the_mask_head_no_gradient():
    """F1 reproduced: rows chosen by boolean indexing, and nothing multiplied by the mask."""
    model, batch = make(mask="hard", prior_scale_factor=0.3, beta_min=0.1).train(), make_batch()
    codes, signal, features = batch
    torch.manual_seed(0)
    mask = model(*batch).mask_BN
    assert mask.requires_grad
    embedded = model._embed(
        partial(model.stem, model.stem.scan_bases(codes)), model.track_embedding(signal)
    )
    total = 0
    for row, kept in zip(embedded, mask == 1, strict=True):
        packed = model.predictor(row[kept][None])
        # The centre, found as in the published code: kept rows left of it, less half its width.
        middle = int(kept[:10].sum())
        pooled = packed[:, middle - 2 : middle + 2].mean(1)
        total = total + model.head(pooled, features[:1]).square().sum()
    total.backward()
    assert model.mask_head.weight.grad is None
    assert model.predictor.layers[0].mixer.in_proj.weight.grad.abs().max() > 0


# Missing tracks, strands, given masks ------------------------------------------------------------


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("mask", MODES)
def test_missing_tracks_are_allowed_in_every_mode(mask, posterior):
    """Acceptance 16: without the contacts the others carry the evidence; without any, the DNA."""
    learns = mask in ("soft", "hard")
    model = mode_model(mask, **({"posterior": posterior} if learns else {})).train()
    codes, signal, features = make_batch()
    signal[0, :, 2] = torch.nan
    signal[1] = torch.nan
    torch.manual_seed(0)
    out = run(model, (codes, signal, features))
    assert torch.isfinite(out.expression_BK).all()
    (out.expression_BK.sum() + out.kl_B.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if learns:
        whole = model.track_beta.log_weights_T.detach().clone()
        whole[2] = -torch.inf
        light = make_batch()[1][:1, :, :]
        with torch.no_grad():
            model.track_beta.log_weights_T.copy_(whole)
            model.track_embedding = None
            weightless = model.mean_mask(codes[:1], light)
        torch.testing.assert_close(weightless, out.mean_BN[:1].detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", MODES)
def test_averaged_output_is_the_same_for_both_strands(mask):
    """Acceptance 13, elements mirrored with the window."""
    model, (codes, signal, features) = mode_model(mask, rc_average=True), make_batch()
    elements = torch.tensor([[(201, 240), (3, 50)], [(30, 61), (-1, -1)], [(90, 95), (300, 333)]])
    there = elements[..., 1:] > 0
    mirrored = torch.where(there, 320 - elements.flip(-1), elements)
    one = model(codes, signal, features, elements_BR2=elements)
    other = model(reverse_complement(codes), flip_bins(signal), features, elements_BR2=mirrored)
    torch.testing.assert_close(one.expression_BK, other.expression_BK, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.mask_BN, flip_bins(other.mask_BN), rtol=0, atol=1e-9)


def test_packing_refuses_a_given_mask_between_0_and_1():
    model, batch = mode_model("hard", gate="pack"), make_batch()
    assert model(*batch, mask_BN=make_mask()).expression_BK.shape == (3, 2)
    with pytest.raises(InputError, match=r"0\.5.*gate: pack"):
        model(*batch, mask_BN=0.5 * make_mask())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"gate": "pack"}, r"model\.gate.*hard"),
        ({"mask": "hard", "test_mask": "topk"}, r"model\.test_mask"),
        ({"mask_budget": 0.0}, "mask_budget"),
        ({"mask": "retrain"}, "mask_from"),
        ({"mask_model": {"mask": "soft"}}, "mask_from"),
        ({"mask": "abc", "abc_distance_bp": (5, 5)}, "abc_distance_bp"),
        ({"mask": "peaks", "track_loss_weight": 0.1}, "track_loss_weight"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(SMALL, **changes)


def test_retrain_refuses_a_mask_model_of_other_inputs_and_too_small_a_budget():
    for changes in ({"window_bp": 640}, {"tracks": ["DNase"]}, {"bin_size": 32}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            mode_model("retrain", mask_model=mask_params() | changes)
    with pytest.raises(ConfigError, match="4 of the bins"):
        mode_model("retrain", mask_budget=0.1)
    with pytest.raises(ConfigError, match="learns its mask"):
        mode_model("retrain", mask_model=mask_params() | {"mask": "none"})


def test_pack_needs_a_trunk_of_finite_reach(monkeypatch):
    monkeypatch.setattr(BiMambaTrunk, "supports_gate", False)
    with pytest.raises(ConfigError, match="pack with trunk bimamba"):
        mode_model("hard", gate="pack")
