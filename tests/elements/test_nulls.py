from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.samples import GeneSamples, SampleConfig, collate
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import gene_masks
from seq2exp.elements.nulls import NullConfig, NullInputs, null_masks, replaced_tracks, resolve_null
from tests.elements.fakes import fake_run
from tests.toys import ToyPlan, toy_dataset

ROWS = np.arange(6, 14)
CONFIG = SampleConfig(window_bp=1024, bin_size=32, contacts=True)


@pytest.fixture
def contact_run(dataset):
    return fake_run(dataset, config=CONFIG)


def real_batch(dataset, config=CONFIG):
    samples = GeneSamples(dataset, dataclasses.replace(config, samples=[]), ROWS)
    return collate([samples[i] for i in range(len(samples))])


def changed(run, dataset, kind, batch=None, **more):
    inputs = NullInputs(run, dataset, ROWS, kind=kind, **more)
    batch = batch or real_batch(dataset)
    return batch, inputs.change(batch), inputs


@pytest.mark.parametrize("kind", ["background", "mean", "median", "shuffled", "sequence"])
def test_only_the_evidence_changes(contact_run, dataset, kind):
    before, after, _ = changed(contact_run, dataset, kind)
    # The contact profile is a prior on place, no evidence; it is the last track.
    assert torch.equal(before.signal_BNT[..., -1], after.signal_BNT[..., -1])
    for name in ("features_BF", "blacklist_BN", "valid_BN", "index_B"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert not torch.equal(before.codes_BL, after.codes_BL)
    counts = [torch.bincount(codes, minlength=5) for codes in before.codes_BL.long()]
    for codes, count in zip(after.codes_BL.long(), counts, strict=True):
        assert torch.equal(torch.bincount(codes, minlength=5), count)
    same = torch.equal(before.signal_BNT.nan_to_num(), after.signal_BNT.nan_to_num())
    # A window of 1,024 bases is one block: there is nothing to exchange it with.
    assert same == (kind in ("sequence", "shuffled"))
    # The windows at contig ends stay without tracks where they were.
    assert torch.equal(before.signal_BNT.isnan(), after.signal_BNT.isnan()) or kind == "shuffled"


def test_mean_and_median_are_those_of_the_window(contact_run, dataset):
    for kind, measure in (("mean", np.nanmean), ("median", np.nanmedian)):
        before, after, _ = changed(contact_run, dataset, kind)
        expected = measure(before.signal_BNT[..., :2].numpy(), axis=1)
        np.testing.assert_allclose(after.signal_BNT[:, 7, :2].numpy(), expected, rtol=1e-6)


def test_shuffled_blocks_change_places_together(contact_run, dataset):
    """Blocks of 1,024 / 32 = 32 bins are the whole window here, so nothing can move."""
    before, after, inputs = changed(contact_run, dataset, "shuffled")
    assert inputs.block == 32
    assert torch.equal(before.signal_BNT.nan_to_num(), after.signal_BNT.nan_to_num())
    inputs.block = 4
    moved = inputs.change(before)
    for old, new in zip(before.signal_BNT.numpy(), moved.signal_BNT.numpy(), strict=True):
        blocks = {part.tobytes() for part in old[:, :2].reshape(8, 8)}
        assert {part.tobytes() for part in new[:, :2].reshape(8, 8)} == blocks
    assert not torch.equal(before.signal_BNT.nan_to_num(), moved.signal_BNT.nan_to_num())


def test_background_holds_no_peak(contact_run, dataset):
    """Every null value is a real one, of a stretch in which no track exceeds its cutoff."""
    rows = ROWS
    inputs = NullInputs(contact_run, dataset, rows, kind="background")
    pool = inputs.background
    known = pool.signal_PT[np.isfinite(pool.signal_PT).all(axis=1)]
    low, median = np.quantile(known, [0.16, 0.5], axis=0)
    cutoff = median + 8 * (median - low)
    for start in pool.starts:
        block = pool.signal_PT[start : start + inputs.block]
        assert (block <= cutoff).all()
        assert start // 32 == (start + inputs.block - 1) // 32  # of one window
    assert (known > cutoff).any()
    assert 0 < pool.share < 1


def test_numbers_depend_on_seed_draw_and_gene_only(run, dataset):
    one = null_masks(run, dataset, ROWS, kind="mean", batch_size=3)
    same = null_masks(run, dataset, ROWS, kind="mean", batch_size=16)
    np.testing.assert_array_equal(one.mask, same.mask)
    back = null_masks(run, dataset, ROWS[::-1], kind="mean", batch_size=4)
    np.testing.assert_array_equal(one.mask, back.mask[::-1])
    batch = real_batch(dataset)
    first = NullInputs(run, dataset, ROWS, kind="sequence").change(batch)
    for more in ({"seed": 1}, {"draw": 1}):
        other = NullInputs(run, dataset, ROWS, kind="sequence", **more).change(batch)
        assert not torch.equal(first.codes_BL, other.codes_BL)
    assert not torch.equal(first.codes_BL[0], first.codes_BL[1])


def test_members_see_one_draw(dataset):
    run = fake_run(dataset, gains=(1.0, 3.0))
    inputs = NullInputs(run, dataset, ROWS, kind="mean")
    batch = real_batch(dataset, run.card.data)
    outputs = [inputs(model, batch) for model in run.models]
    counts = [output.alpha_BN - 1 for output in outputs]
    torch.testing.assert_close(3 * counts[0], counts[1], equal_nan=True)


def test_a_mask_that_reads_dnase_becomes_flat(run, dataset):
    """The fake mask is a function of DNase alone, which is constant in a window under this null."""
    real = gene_masks(run, dataset, ROWS)
    null = null_masks(run, dataset, ROWS, kind="mean")
    np.testing.assert_array_equal(real.forced, null.forced)
    for values, flags in zip(null.mask, real.forced, strict=True):
        learned = values[flags == 0]
        assert np.unique(learned[np.isfinite(learned)]).size <= 1
    assert np.unique(real.mask[2][real.forced[2] == 0]).size > 5


def test_a_model_without_tracks_has_the_sequence_null_only(tmp_path):
    data = Dataset(toy_dataset(tmp_path / "toy", ToyPlan(tracks=())))
    run = fake_run(data, config=SampleConfig(window_bp=1024, bin_size=32, features=[]))
    assert replaced_tracks(run) == []
    assert resolve_null(run, None) == "sequence"
    with pytest.raises(ConfigError, match="--null sequence"):
        resolve_null(run, "shuffled")


def test_unknown_nulls_and_given_masks_are_refused(run):
    assert resolve_null(run, None) == "background"
    with pytest.raises(ConfigError, match="background, mean, median, shuffled, sequence"):
        resolve_null(run, "flat")
    with pytest.raises(ConfigError, match="null_draws"):
        NullConfig(draws=0)
    run.models[0].config = SimpleNamespace(promoter_bp=256, mask="peaks")
    with pytest.raises(ConfigError, match="not learned"):
        resolve_null(run, "mean")


def test_tracks_without_a_quiet_stretch_are_an_error(run, dataset, monkeypatch):
    def missing(self, gene, window):
        return np.full((32, 2), np.nan, dtype=np.float32)

    monkeypatch.setattr(GeneSamples, "signal", missing)
    with pytest.raises(InputError, match="null median"):
        NullInputs(run, dataset, ROWS, kind="background")
    batch = real_batch(dataset, run.card.data)
    after = NullInputs(run, dataset, ROWS, kind="median").change(batch)
    assert after.signal_BNT.isnan().all()
