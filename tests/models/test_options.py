"""Options around the published model: strides, bands, no final norm, the guess at the tracks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.models.output import ModelCall
from seq2exp.models.track_head import TrackHead
from seq2exp.nn.stem import StemConfig
from tests.models.test_seq2exp import SMALL, make, make_batch, make_mask

WORDS = StemConfig(channels=8, width=12, stride=3, inner_pool=1, norm=False, activation="relu")
YEAST = dataclasses.replace(
    SMALL,
    window_bp=336,
    bin_size=24,
    stem=dataclasses.replace(WORDS, pool="sum"),
    final_norm=False,
    expand=1,
    out_proj_gain=0.3,
    promoter_bp=48,
    readout="bands",
    readout_edges=(-168, -48, -20, 0, 24, 168),
    head_layers=1,
    head_activation="gelu",
    head_skip=True,
    feature_clip=5.0,
)


def test_everything_together_trains_every_parameter():
    model = make(YEAST, embedding_dropout=0.2, head_input_dropout=0.2).train()
    codes, signal, features = make_batch(YEAST)
    torch.manual_seed(0)
    out = model(codes, signal, features)
    assert out.embedding_BD.shape == (3, 5 * YEAST.d_model)
    (out.expression_BK.square().sum() + out.kl_B.sum()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("weighting", ["mask", "plain"])
def test_gradient_of_the_mask_through_strides_and_bands(weighting):
    model = make(YEAST, readout_weighting=weighting)
    codes, signal, features = make_batch(YEAST, batch=1)
    mask = torch.rand(1, YEAST.num_bins, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m: model(codes, signal, features, mask_BN=m).expression_BK, mask, atol=1e-6
    )


@pytest.mark.parametrize("weighting", ["mask", "plain"])
def test_bands_hide_masked_bins_only_when_weighted(weighting):
    model = make(YEAST, readout_weighting=weighting)
    codes, signal, features = make_batch(YEAST)
    mask = torch.ones(3, YEAST.num_bins, dtype=torch.float64)
    mask[:, 2] = 0
    changed = codes.clone()
    changed[:, 48:72] = (changed[:, 48:72] + 1) % 4
    louder = signal.clone()
    louder[:, 2] += 1
    before = model(codes, signal, features, mask_BN=mask)
    after = model(changed, louder, features, mask_BN=mask)
    assert torch.equal(before.expression_BK, after.expression_BK) is (weighting == "mask")


def test_size_of_the_hidden_states_reaches_the_readout_without_the_final_norm():
    """With the norm, an embedding twice as large gives the same mean; without, twice the mean."""
    for final_norm, factor in ((True, 1.0), (False, 2.0)):
        model = make(SMALL, final_norm=final_norm, predictor_layers=0, generator_layers=0)
        embedded = torch.randn(2, SMALL.num_bins, SMALL.d_model, dtype=torch.float64) * 10
        once = model.readout(model.predictor(embedded))
        twice = model.readout(model.predictor(embedded * 2))
        torch.testing.assert_close(twice, factor * once, rtol=1e-4, atol=1e-4)


def test_embedding_dropout_only_in_training():
    codes, signal, features = make_batch()
    options = {"mask_BN": make_mask()}
    plain, dropping = make(), make(embedding_dropout=0.5)
    expected = plain(codes, signal, features, **options).expression_BK
    assert torch.equal(dropping(codes, signal, features, **options).expression_BK, expected)
    dropping.train()
    torch.manual_seed(0)
    assert not torch.equal(dropping(codes, signal, features, **options).expression_BK, expected)


# The guess at the tracks -------------------------------------------------------------------------


def test_track_loss_is_the_masked_mean_square_by_hand():
    """Predictions 0; targets (x - 1) / 2 at known, valid bins: 1, 4 and 9 of bins 3, 5 and 7."""
    head = TrackHead(4, tracks=(1,), transform="none").double()
    torch.nn.init.zeros_(head.proj.weight)
    torch.nn.init.zeros_(head.proj.bias)
    head.scaling.set_scaling(torch.tensor([1.0]), torch.tensor([2.0]))
    signal = torch.tensor([[3.0, 5, 7, torch.nan, 99], [torch.nan] * 5]).double()
    signal = torch.stack([signal * 0 + 50, signal], -1)
    valid = torch.tensor([[True] * 4 + [False]] * 2)
    hidden = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    loss = head(hidden, signal, valid)
    torch.testing.assert_close(loss, torch.tensor([(1 + 4 + 9) / 3, 0.0]).double())
    loss.sum().backward()
    assert torch.isfinite(head.proj.bias.grad).all()
    assert torch.isfinite(hidden.grad).all()


def test_predicted_tracks_are_raw_signal_along_the_window_and_flip_with_it():
    """Their squared error, scaled, is the loss; RC averaging turns the other strand's around."""
    model = make(track_loss_weight=1.0, track_transform="none").eval()
    batch = make_batch()
    out = model(*batch)
    targets = list(model.config.target_tracks)
    errors = model.track_head.scaling.scaled(out.tracks_BNU) - model.track_head.scaling.scaled(
        batch[1][..., targets]
    )
    torch.testing.assert_close(out.track_loss_B, errors.square().nanmean((1, 2)))
    call = ModelCall(*batch, None, None, None, force_promoter=True)
    other = model.one_strand(call.mirrored()).tracks_BNU.flip(1)
    averaged = model.forward_rc_averaged(*batch).tracks_BNU
    torch.testing.assert_close(averaged, (out.tracks_BNU + other) / 2)
    assert model.train()(*batch).tracks_BNU is None


def test_track_loss_teaches_the_generator_and_spares_the_predictor():
    model, batch = make(track_loss_weight=1.0), make_batch()
    out = model(*batch)
    assert out.track_loss_B.shape == (3,)
    out.track_loss_B.sum().backward()
    assert model.generator.layers[0].mixer.in_proj.weight.grad.abs().max() > 0
    assert model.stem.first.conv.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.predictor.parameters())
    assert model.track_embedding.proj.weight.grad is None


def test_track_loss_reads_the_sequence_and_no_track():
    """Contact is the third track: its values do not matter. The others are targets only."""
    model = make(track_loss_weight=1.0)
    codes, signal, features = make_batch()
    assert model.track_head.tracks == [0, 1]
    before = model(codes, signal, features).track_loss_B
    farther = signal.clone()
    farther[..., 2] += 7
    assert torch.equal(model(codes, farther, features).track_loss_B, before)
    other_bases = (codes + 1) % 4
    assert not torch.allclose(model(other_bases, signal, features).track_loss_B, before)


def test_track_targets_are_standardised_with_training_moments():
    model = make(track_loss_weight=1.0, use_tracks=False)
    _, signal, features = make_batch(batch=6)
    model.fit_scaling([(signal, features)])
    logs = torch.log1p(signal).reshape(-1, 3)[:, :2]
    torch.testing.assert_close(model.track_head.scaling.mean_T, logs.mean(0))
    torch.testing.assert_close(model.track_head.scaling.std_T, logs.std(0, correction=0))


def test_no_track_loss_without_weight_or_under_a_given_mask():
    batch = make_batch()
    assert make().track_head is None
    assert make()(*batch).track_loss_B.eq(0).all()
    model = make(track_loss_weight=1.0)
    assert model(*batch, mask_BN=make_mask()).track_loss_B.eq(0).all()


def test_guess_changes_no_prediction():
    batch = make_batch()
    plain, guessing = make(), make(track_loss_weight=1.0)
    missing = guessing.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("track_head") for name in missing)
    assert torch.equal(plain(*batch).expression_BK, guessing(*batch).expression_BK)


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"readout_edges": (0,)}, "readout_edges"),
        ({"readout_edges": (0, 0, 10)}, "ascending"),
        ({"readout_edges": (10, -10)}, "ascending"),
        ({"readout_edges": (-161, 0)}, r"within \+-160 bp"),
        ({"readout_edges": (0, 161)}, r"within \+-160 bp"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"dt_min": 0.2, "dt_max": 0.1}, "at most dt_max"),
        ({"out_proj_gain": 0.0}, "out_proj_gain"),
        ({"feature_clip": 0.0}, "feature_clip"),
        ({"head_layers": -1}, "head_layers"),
        ({"feature_hidden": -1}, "feature_hidden"),
        ({"head_input_dropout": 1.0}, "head_input_dropout"),
        ({"embedding_dropout": -0.1}, "embedding_dropout"),
        ({"track_loss_weight": -1.0}, "track_loss_weight"),
        ({"track_loss_weight": 1.0, "generator_sees_tracks": True}, "track_loss_weight"),
        ({"track_loss_weight": 1.0, "mask": "none"}, "track_loss_weight"),
        ({"track_loss_weight": 1.0, "mask_from_generator": False}, "track_loss_weight"),
        ({"track_loss_weight": 1.0, "tracks": ("contact",)}, "track_loss_weight"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(SMALL, **changes)


def test_stride_that_does_not_divide_the_bin_is_refused_with_a_way_out():
    with pytest.raises(ConfigError, match="use bins of 15 bp or stride 1"):
        make(stem=dataclasses.replace(WORDS, width=5))
