"""Words and track bins against naive counting, on both strands and beyond contig ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.baselines.features import (
    GeneFeatures,
    KmerSpan,
    TrackSpan,
    kmer_counts,
    kmer_spans,
    track_spans,
)
from seq2exp.core.errors import InputError
from seq2exp.core.sequence import decode, encode
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from tests.toys import ToyPlan, toy_dataset

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def naive(text: str, k: int) -> list[int]:
    words = ["".join(word) for word in itertools.product("ACGT", repeat=k)]
    found = [text[i : i + k] for i in range(len(text) - k + 1)]
    return [found.count(word) for word in words]


def gene_text(dataset: Dataset, gene: int, *, upstream: int, downstream: int) -> str:
    """Read the bases around a TSS by plain string slicing, as the gene reads them."""
    row = dataset.genes.iloc[gene]
    contig = np.load(dataset.root / "sequence" / f"{row.contig}.npy")
    padded = "N" * 5000 + decode(contig) + "N" * 5000
    tss = int(row.tss) + 5000
    if row.strand == "+":
        return padded[tss - upstream : tss + downstream]
    text = padded[tss - downstream + 1 : tss + upstream + 1]
    return text[::-1].translate(COMPLEMENT)


@given(st.lists(st.text("ACGTN", min_size=12, max_size=12), min_size=1, max_size=4))
def test_counts_equal_naive_counting_and_words_with_n_are_skipped(texts):
    codes = np.stack([encode(text) for text in texts])
    for k in (1, 3, 5):
        expected = [naive(text, k) for text in texts]
        np.testing.assert_array_equal(kmer_counts(codes, k=k), expected)


def test_windows_shorter_than_the_word_hold_none():
    assert kmer_counts(encode("ACG")[None], k=5).sum() == 0
    with pytest.raises(InputError, match="between 1 and 12"):
        kmer_counts(encode("ACG")[None], k=13)


def test_chunks_do_not_change_counts(monkeypatch):
    codes = np.random.default_rng(0).integers(0, 5, (7, 40)).astype(np.uint8)
    whole = kmer_counts(codes)
    monkeypatch.setattr("seq2exp.baselines.features._CHUNK", 80)
    np.testing.assert_array_equal(kmer_counts(codes), whole)


@pytest.mark.parametrize(("upstream", "downstream"), [(300, 300), (500, 1000), (40, 7)])
def test_gene_words_on_both_strands_and_at_contig_ends(toy, upstream, downstream):
    features = GeneFeatures(toy, SampleConfig(window_bp=4096))
    rows = np.array([0, 1, 2, 3, 22, 23, 40, 43])
    assert set(toy.genes["strand"].iloc[rows]) == {"+", "-"}
    joint = features.kmers(rows, KmerSpan(upstream, downstream, k=3))
    both = features.kmers(rows, KmerSpan(upstream, downstream, separate=True, k=3))
    for i, gene in enumerate(rows):
        text = gene_text(toy, int(gene), upstream=upstream, downstream=downstream)
        np.testing.assert_array_equal(joint[i], naive(text, 3))
        sides = naive(text[:upstream], 3) + naive(text[upstream:], 3)
        np.testing.assert_array_equal(both[i], sides)


def test_phased_words_are_codons_of_the_stretch_after_the_tss(toy):
    features = GeneFeatures(toy, SampleConfig(window_bp=2048))
    rows = np.array([4, 5])
    found = features.kmers(rows, KmerSpan(0, 101, k=3, phased=True)).reshape(2, 3, 64)
    words = ["".join(word) for word in itertools.product("ACGT", repeat=3)]
    for i, gene in enumerate(rows):
        text = gene_text(toy, int(gene), upstream=0, downstream=101)
        for phase in range(3):
            codons = [text[j : j + 3] for j in range(phase, 99, 3)]
            np.testing.assert_array_equal(found[i, phase], [codons.count(word) for word in words])


def test_root_is_the_square_root_of_counts(toy):
    features = GeneFeatures(toy, SampleConfig(window_bp=2048))
    plain = features.kmers(np.array([3]), KmerSpan(200, 200))
    np.testing.assert_allclose(
        features.kmers(np.array([3]), KmerSpan(200, 200, root=True)), np.sqrt(plain)
    )


def test_track_bins_are_log_scaled_means_in_reading_direction(tmp_path):
    dataset = Dataset(toy_dataset(tmp_path / "toy", ToyPlan(bin_size=1)))
    features = GeneFeatures(dataset, SampleConfig(window_bp=512, tracks=["H3K27ac"]))
    assert features.track_names == ["H3K27ac"]
    rows = np.array([4, 5])
    found = features.track_bins(rows, TrackSpan(32, 4))
    assert found.shape == (2, 4)
    for i, gene in enumerate(rows):
        row = dataset.genes.iloc[gene]
        signal = np.load(dataset.root / "tracks" / f"{row.contig}.npy")[:, 1].astype(np.float64)
        tss = int(row.tss)
        forward, backward = signal[tss - 64 : tss + 64], signal[tss - 63 : tss + 65][::-1]
        bases = forward if row.strand == "+" else backward
        np.testing.assert_allclose(found[i], np.log1p(bases.reshape(4, 32).mean(1)), rtol=1e-5)


def test_contacts_are_a_track_when_the_model_reads_them(tmp_path):
    dataset = Dataset(toy_dataset(tmp_path / "toy", ToyPlan(contacts=True)))
    rows = np.arange(5)
    without = GeneFeatures(dataset, SampleConfig(window_bp=1024))
    linked = GeneFeatures(dataset, SampleConfig(window_bp=1024, contacts=True))
    assert linked.track_names == ["DNase", "H3K27ac", "contact"]
    shape = linked.track_bins(rows, TrackSpan(128, 4)).reshape(5, 4, 3)
    plain = without.track_bins(rows, TrackSpan(128, 4)).reshape(5, 4, 2)
    np.testing.assert_array_equal(shape[:, :, :2], plain)
    # The toy profile is 1 / (1 + distance in bins of 500 bases), stored in genome direction.
    assert shape[:, 2, 2] == pytest.approx(
        np.where(dataset.genes["strand"].iloc[rows] == "+", 1.0, 0.5)
    )


def test_promoter_signal_is_the_mean_track_and_the_track_features(toy):
    features = GeneFeatures(toy, SampleConfig(window_bp=4096))
    rows = np.array([4, 5])
    found = features.promoter(rows)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found[:, 2], toy.genes["promoter_DNase"].iloc[rows], rtol=1e-6)
    fine = np.expm1(features.track_bins(rows, TrackSpan(1, 1000)).reshape(2, 1000, 2))
    np.testing.assert_allclose(found[:, :2], np.log1p(fine.mean(axis=1)), rtol=1e-4)


def test_what_the_model_reads_decides_unless_it_reads_nothing(toy):
    chosen = GeneFeatures(toy, SampleConfig(window_bp=1024, features=["gc_promoter"]))
    assert chosen.scalar_names == ["gc_promoter"]
    # A model without tracks and scalars must still beat controls that use them.
    blind = GeneFeatures(toy, SampleConfig(window_bp=1024, features=[], tracks=[]))
    assert len(blind.scalar_names) == 3
    assert blind.track_names == ["DNase", "H3K27ac"]
    assert blind.missing() == {}


@pytest.mark.parametrize("window_bp", [256, 1024, 4096, 16384, 200_000])
def test_no_control_looks_beyond_the_window_of_the_model(window_bp):
    for span in kmer_spans(window_bp):
        assert 0 < span.upstream <= window_bp // 2
        assert 0 < span.downstream <= window_bp // 2
    spans = track_spans(window_bp, bin_size=32)
    assert spans
    for span in spans:
        assert span.bin_bp * span.num_bins <= window_bp
        assert span.num_bins % 2 == 0
        assert span.bin_bp >= 32
    assert max(span.bin_bp * span.num_bins for span in spans) > 0.99 * window_bp
