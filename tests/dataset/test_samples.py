"""From a gene to a sample: shifts, order, choices, and the shuffled control."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import reverse_complement
from seq2exp.dataset.samples import GeneSamples, SampleConfig, collate, gene_window
from seq2exp.dataset.store import Dataset
from tests.toys import ToyPlan, toy_dataset

FIELDS = ("codes", "signal", "features", "expression", "blacklist", "valid")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("s") / "d", ToyPlan(contacts=True)))


def config(**changes):
    return SampleConfig(**{"window_bp": 512, "bin_size": 32, **changes})


def same(first, second, names=FIELDS):
    return [n for n in names if np.array_equal(getattr(first, n), getattr(second, n), True)]


def starts(samples):
    return [samples._window(int(gene)).start for gene in samples.rows]


def test_shapes_and_types(dataset):
    sample = GeneSamples(dataset, config(contacts=True), [7])[0]
    assert sample.codes.shape == (512,)
    assert sample.signal.shape == (16, 3)
    assert (sample.features.shape, sample.expression.shape) == ((3,), (2,))
    assert (sample.blacklist.shape, sample.valid.shape) == ((16,), (16,))
    assert sample.index == 7
    batch = collate([sample, sample])
    assert len(batch) == 2
    kinds = {"codes_BL": torch.uint8, "signal_BNT": torch.float32, "features_BF": torch.float32,
             "expression_BK": torch.float32, "blacklist_BN": torch.bool, "valid_BN": torch.bool,
             "index_B": torch.int64}  # fmt: skip
    assert {name: getattr(batch, name).dtype for name in kinds} == kinds


def test_shifts_depend_on_seed_epoch_and_gene_only(dataset):
    rows = np.arange(20)
    samples = GeneSamples(dataset, config(jitter_bp=50), rows, jitter=True, seed=4)
    first = starts(samples)
    samples.set_epoch(1)
    second = starts(samples)
    again = GeneSamples(dataset, config(jitter_bp=50), rows[::-1], jitter=True, seed=4)
    other = GeneSamples(dataset, config(jitter_bp=50), rows, jitter=True, seed=5)
    assert starts(again) == first[::-1]
    assert first != second
    assert first != starts(other)
    still = starts(GeneSamples(dataset, config(jitter_bp=50), rows))
    shifts = np.array(first) - np.array(still)
    assert np.abs(shifts).max() <= 50
    assert len(set(shifts.tolist())) > 10
    assert shifts.min() < 0 < shifts.max()


def test_a_shift_moves_sequence_and_tracks_together(dataset):
    """32 bases are one bin: the shifted sample is the unshifted one, moved by one bin."""
    gene = 6
    still = gene_window(dataset, gene, config())
    moved = gene_window(dataset, gene, config(), shift=32)
    a, b = (dataset.track_bins(window, bin_size=32) for window in (still, moved))
    assert dataset.genes["strand"].iloc[gene] == "+"
    assert np.array_equal(dataset.codes(still)[32:], dataset.codes(moved)[:-32])
    np.testing.assert_allclose(a[1:], b[:-1], rtol=1e-6)


def test_samples_come_in_the_order_of_the_rows(dataset):
    rows = [9, 3, 30]
    samples = GeneSamples(dataset, config(), rows)
    assert [samples[i].index for i in range(len(samples))] == rows
    np.testing.assert_array_equal(
        np.stack([samples[i].expression for i in range(3)]), dataset.expression[rows]
    )


def test_chosen_tracks_labels_and_features_come_in_the_asked_order(dataset):
    everything = GeneSamples(dataset, config(), [4])
    chosen = GeneSamples(
        dataset,
        config(tracks=["H3K27ac", "DNase"], samples=["cell_b"], features=["gc_promoter"]),
        [4],
    )
    assert chosen.track_names == ["H3K27ac", "DNase"]
    assert (chosen.sample_names, chosen.feature_names) == (["cell_b"], ["gc_promoter"])
    whole, part = everything[0], chosen[0]
    np.testing.assert_array_equal(part.signal, whole.signal[:, ::-1])
    np.testing.assert_array_equal(part.expression, whole.expression[1:])
    np.testing.assert_array_equal(part.features, whole.features[1:2])


def test_no_tracks_at_all(dataset):
    samples = GeneSamples(dataset, config(tracks=[], features=[]), [0])
    assert samples[0].signal.shape == (16, 0)
    assert samples[0].features.shape == (0,)


@pytest.mark.parametrize(
    ("key", "name"), [("tracks", "DNAse"), ("samples", "cell_c"), ("features", "length")]
)
def test_a_name_that_the_dataset_lacks_is_named_with_what_it_has(dataset, key, name):
    with pytest.raises(ConfigError, match=rf"data\.{key}: found names .*{name}.*some of \w+"):
        GeneSamples(dataset, config(**{key: [name]}), [0])


@pytest.mark.parametrize(
    "changes",
    [{"window_bp": 500}, {"bin_size": 0}, {"window_bp": 0}, {"strand": "both"}, {"jitter_bp": -1}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match=r"data\."):
        config(**changes)


def test_contacts_need_a_dataset_with_contacts(tmp_path):
    bare = Dataset(toy_dataset(tmp_path / "d"))
    with pytest.raises(ConfigError, match=r"data\.contacts"):
        GeneSamples(bare, config(contacts=True), [0])


def test_plus_reads_the_genome_and_gene_reads_along_transcription(dataset):
    """Even windows are centred one base apart, so only the shared bases are compared."""
    minus = int(np.flatnonzero(dataset.genes["strand"] == "-")[2])
    plus_side = GeneSamples(dataset, config(strand="plus"), [minus])[0]
    gene_side = GeneSamples(dataset, config(), [minus])[0]
    assert np.array_equal(reverse_complement(plus_side.codes)[:-1], gene_side.codes[1:])
    assert not np.array_equal(plus_side.codes, gene_side.codes)
    forward = int(np.flatnonzero(dataset.genes["strand"] == "+")[2])
    a, b = (GeneSamples(dataset, config(strand=s), [forward])[0] for s in ("plus", "gene"))
    assert same(a, b) == list(FIELDS)


def test_shuffled_tracks_swap_all_that_comes_from_tracks_and_nothing_else(dataset):
    rows = np.arange(len(dataset.genes))
    plain = GeneSamples(dataset, config(contacts=True), rows)
    mixed = GeneSamples(dataset, config(contacts=True, shuffle_tracks=True), rows)
    donors = mixed.donor
    split = dataset.genes["split"].to_numpy()
    assert sorted(donors) == rows.tolist()
    assert (donors != rows).all()
    assert (split[donors] == split).all()
    from_track = plain.feature_names.index("promoter_DNase")
    for gene in (0, 5, 40):
        own, donor, got = plain[gene], plain[int(donors[gene])], mixed[gene]
        assert same(own, got) == ["codes", "expression", "blacklist", "valid"]
        np.testing.assert_array_equal(got.signal, donor.signal)
        assert got.features[from_track] == donor.features[from_track]
        assert got.features[0] == own.features[0]
    again = GeneSamples(Dataset(dataset.root), config(shuffle_tracks=True), rows)
    assert again.donor.tolist() == donors.tolist()


def test_excluded_and_outside_bins_reach_the_sample(dataset):
    """Gene 0 has its TSS at 300 of chr1; [100, 400) is excluded and bases below 0 do not exist."""
    sample = GeneSamples(dataset, config(window_bp=1024), [0])[0]
    start = 300 - 512
    firsts = np.arange(start, start + 1024, 32)
    assert sample.valid.tolist() == (firsts + 32 > 0).tolist()
    assert sample.blacklist.tolist() == ((firsts < 400) & (firsts + 32 > 100)).tolist()
