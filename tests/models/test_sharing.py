"""Variants of one window under sharing: equal to whole passes, and to the window where nothing is.

What is tested of deletions (long stretches, tracks, given masks) is in tests/interpret.
"""

from __future__ import annotations

import pytest
import torch

from seq2exp.encoders.first_block import FirstBlock
from seq2exp.encoders.stretches import find_stretches
from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.output import ModelCall
from seq2exp.models.rerun import share_window
from seq2exp.nn.mamba import BiMambaBlock
from seq2exp.nn.stem import StemConfig

WINDOW, BIN = 2048, 32
NUM_BINS, TSS = WINDOW // BIN, WINDOW // 2
STEM = {"channels": 4, "width": 9}
ENFORMER = {"dim": 24, "depth": 2, "num_heads": 2, "key_dim": 4, "num_halvings": 5,
            "channel_multiple": 4}  # fmt: skip


def baseline(encoder, *, rc_average=False, tracks=True, **params):
    if encoder != "enformer":
        params = {"d_model": 16, "num_layers": 3, "stem": STEM, **params}
    config = BaselineConfig(
        encoder=encoder, encoder_params=params, window_bp=WINDOW, bin_size=BIN, readout_bp=128,
        tracks=("a", "b"), use_tracks=tracks, rc_average=rc_average,
    )  # fmt: skip
    return Baseline(config)


def seq2exp(**changes):
    stem = StemConfig(**{**STEM, **changes.pop("stem", {})})
    config = Seq2ExpConfig(
        window_bp=WINDOW, bin_size=BIN, tracks=("a", "b"), d_model=16, d_state=2, stem=stem,
        promoter_bp=128, readout_bp=128, **changes,
    )  # fmt: skip
    return Seq2Exp(config)


MODELS = {
    "conv": lambda: baseline("conv"),
    "conv, both strands": lambda: baseline("conv", rc_average=True),
    "transformer, deep stem": lambda: baseline(
        "transformer", num_heads=2, stem={**STEM, "num_layers": 3, "inner_pool": 2}
    ),
    "bimamba": lambda: baseline("bimamba", embedding="stem"),
    "bimamba, both strands": lambda: baseline("bimamba", embedding="stem", rc_average=True),
    "bimamba, one block": lambda: baseline("bimamba", embedding="stem", num_layers=1),
    "mamba": lambda: baseline("mamba", embedding="stem"),
    "hyena": lambda: baseline("hyena", embedding="stem"),
    "enformer": lambda: baseline("enformer", tracks=False, **ENFORMER),
    "seq2exp": seq2exp,
    "seq2exp, both strands": lambda: seq2exp(rc_average=True),
    "seq2exp, hard": lambda: seq2exp(mask="hard"),
    "seq2exp, packed": lambda: seq2exp(mask="hard", gate="pack"),
    "seq2exp, best bins": lambda: seq2exp(test_mask="topk"),
    "seq2exp, scaled": lambda: seq2exp(gate="multiply"),
    "seq2exp, words": lambda: seq2exp(stem={"kmer": 3}),
    "seq2exp, conv": lambda: seq2exp(trunk="conv"),
    "seq2exp, no mask": lambda: seq2exp(mask="none"),
}


def call(codes, signal, mask=None):
    return ModelCall(codes, signal, None, None, None, mask, force_promoter=True)


def make_variants(dtype=torch.float64):
    """64 rows: substitutions at edges and borders, several at once, indels; the last is none."""
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (1, WINDOW), generator=random, dtype=torch.uint8)
    signal = torch.rand(1, NUM_BINS, 2, generator=random, dtype=dtype)
    rows = codes.repeat(64, 1)
    places = [0, 1, BIN - 1, BIN, TSS - 1, TSS, TSS + BIN, WINDOW - BIN, WINDOW - 2, WINDOW - 1]
    places += torch.randint(0, WINDOW, (46,), generator=random).tolist()
    for row, at in enumerate(places):
        rows[row, at] = (codes[0, at] + 1) % 4
    for row in (10, 20, 56):
        several = torch.randint(0, WINDOW, (5,), generator=random)
        rows[row, several] = (codes[0, several] + 1) % 4
    rows[57] = (codes[0] + 1) % 4
    # Indels shift what lies between them and the end away from the TSS.
    rows[58, 1200:] = codes[0, 1197:-3]
    rows[59, 1200:-3] = codes[0, 1203:]
    rows[60, 3:400] = codes[0, :397]
    rows[61, :400] = codes[0, 2:402]
    rows[62, 1900] = 4 if codes[0, 1900] != 4 else 0
    changed = (rows != codes).view(64, NUM_BINS, BIN).any(2)
    assert changed.any(1).tolist() == [True] * 63 + [False]
    return codes, signal, rows, signal.expand(64, -1, -1), changed


def run(model, codes, signal):
    return model(codes, signal) if model.config.tracks else model(codes)


@pytest.mark.parametrize("name", list(MODELS))
def test_variants_under_sharing_equal_whole_passes(name):
    torch.manual_seed(1)
    model = MODELS[name]().double().eval()
    codes, signal, rows, signals, changed = make_variants()
    with torch.no_grad():
        shared = share_window(model, call(codes, signal))
        found = shared(call(rows, signals), changed)
        whole = model(rows, signals)
        reference = model(codes, signal)
        alone = [
            shared(call(rows[i : i + 1], signal), changed[i : i + 1]) for i in (0, 9, 58, 61, 63)
        ]
        unchanged = shared(call(codes, signal), torch.zeros(1, NUM_BINS, dtype=torch.bool))
    for part in ("expression_BK", "embedding_BD", "mask_BN", "mean_BN"):
        got, wanted = getattr(found, part), getattr(whole, part)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)
        singles = torch.cat([getattr(one, part) for one in alone])
        torch.testing.assert_close(singles, got[[0, 9, 58, 61, 63]], rtol=0, atol=1e-11)
        # A row without a change is the reference, bit for bit, whatever else is in the batch.
        assert torch.equal(got[63:], getattr(unchanged, part))
        assert torch.equal(singles[4:], getattr(unchanged, part))
        assert torch.equal(got[63:], getattr(reference, part))
    moved = (found.embedding_BD - unchanged.embedding_BD).abs().amax(1)
    assert (moved > 1e-9).sum() > 5


@pytest.mark.parametrize("name", ["conv", "bimamba", "seq2exp"])
def test_single_precision_agrees_to_a_hundred_thousandth(name):
    """The compiled loops of the processor run in float32 only."""
    torch.manual_seed(1)
    model = MODELS[name]().eval()
    model.set_output_scaling(torch.zeros(1), torch.full((1,), 30.0))
    codes, signal, rows, signals, changed = make_variants(torch.float32)
    with torch.no_grad():
        found = share_window(model, call(codes, signal))(call(rows, signals), changed)
        whole = model(rows, signals)
    torch.testing.assert_close(found.expression_BK, whole.expression_BK, rtol=0, atol=1e-5)
    effect = found.expression_BK - found.expression_BK[63:]
    assert effect.abs().max() > 1e-3


def test_an_input_that_is_no_base_is_noticed_where_bases_are_those_of_the_window():
    """Rows whose bases agree are not taken for the window when their mask or padding differs."""
    torch.manual_seed(0)
    model = seq2exp().double().eval()
    codes, signal, *_ = make_variants()
    valid = torch.ones(1, NUM_BINS, dtype=torch.bool)
    window = call(codes, signal)._replace(valid_BN=valid)
    two = torch.ones(3, NUM_BINS, dtype=torch.bool)
    two[1, :30] = False
    edited = call(codes.repeat(3, 1), signal.expand(3, -1, -1))._replace(valid_BN=two)
    with torch.no_grad():
        shared = share_window(model, window)
        found = shared(edited, torch.zeros(3, NUM_BINS, dtype=torch.bool))
        whole = model(edited.codes_BL, edited.signal_BNT, valid_BN=two)
    torch.testing.assert_close(found.expression_BK, whole.expression_BK, rtol=0, atol=1e-12)
    assert torch.equal(found.expression_BK[0], found.expression_BK[2])
    assert (found.mask_BN[1, :30] == 0).all()
    assert not torch.equal(found.expression_BK[1], found.expression_BK[0])


@pytest.mark.parametrize("gate", ["delta", "pack", "multiply"])
def test_what_the_mask_of_the_window_hides_changes_nothing_under_it(gate, monkeypatch):
    torch.manual_seed(0)
    model = seq2exp(mask="hard", gate=gate).double().eval()
    codes, signal, rows, signals, changed = make_variants()
    with torch.no_grad():
        mask = (torch.rand(1, NUM_BINS, generator=torch.Generator().manual_seed(3)) < 0.5).double()
        monkeypatch.setattr(model, "_draw", lambda call, *_, **__: mask.expand(len(call[0]), -1))
        shared = share_window(model, call(codes, signal))
        reference = shared(call(codes, signal), torch.zeros_like(changed[:1]))
        monkeypatch.undo()
        held = reference.mask_BN
        found = shared(call(rows, signals, held.expand(64, -1)), changed)
        whole = model(rows, signals, mask_BN=held.expand(64, -1))
    torch.testing.assert_close(found.expression_BK, whole.expression_BK, rtol=0, atol=1e-11)
    hidden = ~(changed & (held > 0)).any(1)
    assert 10 < hidden.sum() < 60
    same = (found.expression_BK == reference.expression_BK).all(1)
    # Scaled to 0, the bin itself is hidden; whether rounding agrees bit for bit is not promised.
    assert same[63]
    if gate != "multiply":
        assert same[hidden].all()
        assert not same[~hidden].any()


def test_the_first_block_scans_from_the_edit_on(monkeypatch):
    torch.manual_seed(0)
    block = BiMambaBlock(16, d_state=2).double().eval()
    hidden = torch.randn(1, 200, 16, dtype=torch.float64)
    edited, changed = hidden.repeat(2, 1, 1), torch.zeros(2, 200, dtype=torch.bool)
    edited[0, 119:122] += 1
    edited[1, 120] -= 2
    changed[:, 120] = True
    with torch.no_grad():
        first = FirstBlock(block, hidden)
        lengths = []
        for way in first.ways:
            scan = way._scan
            monkeypatch.setattr(
                way,
                "_scan",
                lambda s, parts, scan=scan: (
                    lengths.append(parts["u_BLE"].shape[1]) or scan(s, parts)
                ),
            )
        found = first(edited, changed, (1, 1))
        whole = block(edited)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
    # From the state kept at 96 to the end; from the one at 128 back to the start.
    assert lengths == [104, 128]


@pytest.mark.parametrize("reads", [(1, 3), (3, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("at", [0, 63, 120, 199])
def test_the_first_block_reaches_as_far_as_bins_that_read_the_edit(reads, at):
    """A bin reads some before and some behind itself: an edit changes those behind, and before."""
    torch.manual_seed(0)
    block = BiMambaBlock(8, d_state=2).double().eval()
    hidden = torch.randn(1, 200, 8, dtype=torch.float64)
    edited, changed = hidden.clone(), torch.zeros(1, 200, dtype=torch.bool)
    edited[0, max(at - reads[1], 0) : at + reads[0] + 1] += 1
    changed[0, at] = True
    with torch.no_grad():
        found, whole = FirstBlock(block, hidden)(edited, changed, reads), block(edited)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_short_and_long_stretches_are_not_mixed():
    changed = torch.zeros(4, 64, dtype=torch.bool)
    changed[0, 10] = changed[1, 62] = True
    changed[2, 20:] = True
    changed[3, ::2] = True
    found = find_stretches(changed, reads=(1, 1))
    shapes = sorted(tuple(some.index_MP.shape) for some in found)
    assert shapes == [(2, 5), (2, 64)]
    rows = {tuple(some.row_M1[:, 0].tolist()) for some in found}
    assert rows == {(0, 1), (2, 3)}
    assert [int(s.inside_MP.sum()) for s in found] == [3 + 3, 45 + 64]
