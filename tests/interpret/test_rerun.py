"""Shared reruns give what whole passes give, for every family, place, strand and track."""

from __future__ import annotations

import pytest
import torch

from seq2exp.encoders.stretches import refresh, widened
from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.output import ModelCall
from seq2exp.models.rerun import share_window
from seq2exp.nn.stem import StemConfig

WINDOW, BIN, EDIT = 2048, 32, 70
NUM_BINS = WINDOW // BIN
SMALL = {"d_model": 8, "num_layers": 3}
STEM = {"channels": 4, "width": 9}


def baseline(encoder, **params):
    changes = {
        key: params.pop(key) for key in ("rc_average", "readout", "readout_bp") if key in params
    }
    config = BaselineConfig(
        encoder=encoder,
        encoder_params={**SMALL, "stem": STEM, **params},
        window_bp=WINDOW,
        bin_size=BIN,
        tracks=("a", "b"),
        use_tracks=True,
        **{"readout_bp": 128, **changes},
    )
    return Baseline(config)


def seq2exp(**changes):
    stem = StemConfig(**{**STEM, **changes.pop("stem", {})})
    config = Seq2ExpConfig(
        window_bp=WINDOW, bin_size=BIN, tracks=("a", "b"), d_model=8, d_state=2, stem=stem,
        promoter_bp=128, readout_bp=128, **changes,
    )  # fmt: skip
    return Seq2Exp(config)


MODELS = {
    "conv": lambda: baseline("conv"),
    "conv, cycles, deep stem": lambda: baseline(
        "conv", num_layers=5, cycle=2, stem={**STEM, "num_layers": 3, "inner_pool": 1}
    ),
    "conv, both strands": lambda: baseline("conv", rc_average=True),
    "conv, whole window": lambda: baseline("conv", readout="bands"),
    "transformer": lambda: baseline("transformer", num_heads=2),
    "bimamba": lambda: baseline("bimamba", embedding="stem"),
    "seq2exp": seq2exp,
    "seq2exp, words": lambda: seq2exp(stem={"kmer": 3}),
    "seq2exp, both strands": lambda: seq2exp(rc_average=True, stem={"num_layers": 2}),
}


def call(codes, signal, mask=None):
    return ModelCall(codes, signal, None, None, None, mask, force_promoter=True)


def make_edits(starts):
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (1, WINDOW), generator=random, dtype=torch.uint8)
    signal = torch.rand(1, NUM_BINS, 2, generator=random, dtype=torch.float64)
    edited, tracks = codes.repeat(len(starts), 1), signal.repeat(len(starts), 1, 1)
    for row, start in enumerate(starts):
        edited[row, start : start + EDIT] = (codes[0, start : start + EDIT] + 1) % 5
        tracks[row, start // BIN : -(-(start + EDIT) // BIN)] = torch.nan
    changed = (edited != codes).view(-1, NUM_BINS, BIN).any(2)
    return codes, signal, edited, tracks, changed


@pytest.mark.parametrize("name", list(MODELS))
def test_shared_edits_equal_whole_passes(name):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    # Both ends, both sides of the middle, off the bins, one row twice, one left as it is.
    starts = [0, WINDOW - EDIT, 500, 517, 1000, 1300, 1300]
    codes, signal, edited, tracks, changed = make_edits(starts)
    edited[-1], tracks[-1], changed[-1] = codes[0], signal[0], False
    with torch.no_grad():
        shared = share_window(model, call(codes, signal))
        whole = model(edited, tracks)
        found = shared(call(edited, tracks), changed)
        reference = model(codes, signal)
    for part in ("expression_BK", "embedding_BD", "mask_BN"):
        torch.testing.assert_close(getattr(found, part), getattr(whole, part), rtol=0, atol=1e-12)
    moved = (whole.embedding_BD - reference.embedding_BD).abs().amax(1)
    assert (moved > 1e-9).sum() >= 1
    assert moved[-1] < 1e-12


def test_several_stretches_and_whole_windows_can_be_edited():
    model = baseline("conv").double().eval()
    codes, signal, edited, _, _ = make_edits([100, 1500])
    both = edited[:1].clone()
    both[0, 1500:1570] = edited[1, 1500:1570]
    other = torch.cat([both, 3 - codes.clamp(max=3)])
    changed = (other != codes).view(2, NUM_BINS, BIN).any(2)
    still = signal.repeat(2, 1, 1)
    with torch.no_grad():
        found = share_window(model, call(codes, signal))(call(other, still), changed)
        whole = model(other, still)
    torch.testing.assert_close(found.embedding_BD, whole.embedding_BD, rtol=0, atol=1e-12)


def test_a_given_mask_is_used_under_sharing():
    model = seq2exp().double().eval()
    codes, signal, edited, tracks, changed = make_edits([300, 900])
    mask = torch.rand(2, NUM_BINS, dtype=torch.float64)
    with torch.no_grad():
        found = share_window(model, call(codes, signal))(call(edited, tracks, mask), changed)
        whole = model(edited, tracks, mask_BN=mask)
    torch.testing.assert_close(found.expression_BK, whole.expression_BK, rtol=0, atol=1e-12)


def test_only_bins_near_an_edit_are_embedded_again():
    seen = []
    reference = (torch.zeros(1, NUM_BINS, 3),)

    def run(codes, signal):
        assert signal is None
        seen.append(tuple(codes.shape))
        return (codes.view(len(codes), -1, BIN)[..., :3].float(),)

    _, _, edited, _, changed = make_edits([640, 1280])
    (found,) = refresh(run, reference, edited, None, changed, bin_size=BIN, reads=(1, 1))
    # Three changed bins, one more on either side reads them, and one beyond that as context.
    assert seen == [(2, 7 * BIN)]
    affected = widened(changed, before=1, after=1)
    assert affected.sum(1).tolist() == [5, 5]
    assert (found[~affected] == 0).all()
    direct = edited.view(2, NUM_BINS, BIN)[..., :3].float()
    assert torch.equal(found[affected], direct[affected])


def test_what_a_convolution_cannot_reach_is_not_run():
    model = baseline("conv").eval()
    codes, signal, edited, tracks, changed = make_edits([0])
    with torch.no_grad():
        shared = share_window(model, call(codes, signal.float()))
        for layer in model.encoder.trunk.layers:
            layer.forward = None
        found = shared(call(edited, tracks.float()), changed)
        del model.encoder.trunk.layers[0].forward
    assert torch.isfinite(found.expression_BK).all()


def test_models_that_share_nothing_say_so():
    model = baseline("conv")
    model.encoder = torch.nn.Identity()
    assert share_window(model, call(torch.zeros(1, WINDOW, dtype=torch.uint8), None)) is None
    assert share_window(torch.nn.Linear(1, 1), call(None, None)) is None
    tracks_only = seq2exp(use_sequence=False, mask="none")
    assert share_window(tracks_only, call(None, None)) is None
