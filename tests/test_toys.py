"""The toy dataset is what the other tests believe it is."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.dataset.samples import SampleConfig, gene_window
from seq2exp.dataset.store import Dataset
from tests.toys import MOTIF, ToyPlan, toy_dataset


def test_it_opens_as_a_dataset_and_is_reproducible(tmp_path):
    first = Dataset(toy_dataset(tmp_path / "a"), verify_checksums=True)
    second = Dataset(toy_dataset(tmp_path / "b"))
    other = Dataset(toy_dataset(tmp_path / "c", ToyPlan(seed=1)))
    assert first.manifest.checksum == second.manifest.checksum != other.manifest.checksum
    assert len(first.genes) == 44
    assert first.expression.shape == (44, 2)
    assert np.isnan(first.expression[:, 1]).sum() == 3
    assert first.features.shape == (44, 3)
    assert set(first.genes["strand"]) == {"+", "-"}


@pytest.mark.parametrize("strand", ["+", "-"])
def test_motifs_and_peaks_lie_where_the_gene_reads_them(tmp_path, strand):
    dataset = Dataset(toy_dataset(tmp_path / "toy"))
    config = SampleConfig(window_bp=512, bin_size=16)
    found, profiles = [], []
    for gene in np.flatnonzero(dataset.genes["strand"] == strand):
        window = gene_window(dataset, int(gene), config)
        codes = dataset.codes(window)
        found.append((codes[256 + 20 : 256 + 25] == MOTIF).all())
        profiles.append(dataset.track_bins(window, bin_size=16)[:, 0])
    mean = np.mean(profiles, axis=0)
    assert mean[14:18].mean() > 3 * mean[:4].mean()
    assert abs(np.average(np.arange(32), weights=(mean - mean.min()) ** 2) - 15.5) < 1
    # Five of six numbers of motifs, 0 to 5, put one at +20.
    assert 0.6 < np.mean(found) < 1


def test_variants_of_the_plan(tmp_path):
    plain = ToyPlan(tracks=(), samples=(), features=False)
    bare = Dataset(toy_dataset(tmp_path / "bare", plain))
    assert bare.num_tracks == 0
    assert bare.expression.shape == (44, 0)
    assert bare.manifest.features == []
    linked = Dataset(toy_dataset(tmp_path / "linked", ToyPlan(contacts=True)))
    window = gene_window(linked, 5, SampleConfig(window_bp=2048))
    assert linked.contact_bins(5, window, bin_size=64).max() == pytest.approx(1.0)
