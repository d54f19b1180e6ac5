"""Edits of a window: shuffles keep dinucleotides, true deletions read the genome, decoys match."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import N_CODE, reverse_complement
from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.deletion import DeletionConfig, Destroyer, background, true_deletion
from seq2exp.interpret.edits import open_window
from seq2exp.interpret.sites import decoys
from tests.dinucleotides import dinucleotide_counts
from tests.toys import add_elements, toy_dataset

CONFIG = SampleConfig(window_bp=1024, bin_size=32, contacts=True)
TSS = 512


@pytest.fixture(scope="module")
def with_elements(tmp_path_factory):
    root = toy_dataset(tmp_path_factory.mktemp("deletion") / "toy")
    return Dataset(add_elements(root))


def window_of(dataset, row, config=CONFIG):
    samples = GeneSamples(dataset, config, [])
    return open_window(samples, row, promoter_bp=128), samples


def destroyer(gene, samples, method="shuffle", **changes):
    none = np.zeros(gene.reference.valid.shape, dtype=bool)
    return Destroyer(
        gene, samples, DeletionConfig(method, **changes), background_T=background(gene, none)
    )


# Shuffles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 50, 500])
def test_a_shuffle_keeps_dinucleotides_and_ends(length):
    random = np.random.default_rng(length)
    codes = random.integers(0, 4, length).astype(np.uint8)
    found = shuffle_dinucleotides(codes, random)
    assert np.array_equal(dinucleotide_counts(found), dinucleotide_counts(codes))
    assert np.array_equal(found[[0, -1][:length]], codes[[0, -1][:length]])
    if length >= 50:
        assert (found != codes).mean() > 0.5


def test_n_stays_where_it_is_and_repeats_cannot_change():
    codes = np.array([0, 1, 2, 3, 0, 4, 4, 2, 2, 2, 2, 2, 1, 4], dtype=np.uint8)
    found = shuffle_dinucleotides(codes, np.random.default_rng(0))
    assert np.array_equal(found == N_CODE, codes == N_CODE)
    assert np.array_equal(found[7:13], codes[7:13])


def test_every_shuffle_of_a_short_sequence_is_equally_likely():
    """AACAGA is made of the loops A-A, A-C-A and A-G-A, which can follow in 3! orders."""
    codes = np.array([0, 0, 1, 0, 2, 0], dtype=np.uint8)
    random = np.random.default_rng(0)
    found = [tuple(shuffle_dinucleotides(codes, random).tolist()) for _ in range(3000)]
    counts = np.array([found.count(one) for one in set(found)])
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 4.5 * np.sqrt(500 * 5 / 6)


def test_shuffles_depend_on_seed_gene_and_place_only(dataset):
    gene, samples = window_of(dataset, 3)
    first = destroyer(gene, samples).destroy([(100, 200)])
    destroyer(gene, samples).destroy([(300, 400)])
    again = destroyer(gene, samples).destroy([(100, 200)])
    assert all(np.array_equal(a.codes, b.codes) for a, b in zip(first, again, strict=True))
    assert len({edit.codes.tobytes() for edit in first}) == 5
    other = destroyer(gene, samples, seed=1).destroy([(100, 200)])
    assert not np.array_equal(first[0].codes, other[0].codes)
    outside = np.ones(1024, dtype=bool)
    outside[100:200] = False
    assert all(np.array_equal(e.codes[outside], gene.reference.codes[outside]) for e in first)


@pytest.mark.parametrize(("method", "value"), [("n", np.nan), ("shuffle", None)])
def test_tracks_fall_back_but_contacts_stay(dataset, method, value):
    gene, samples = window_of(dataset, 3)
    edit = destroyer(gene, samples, method).destroy([(100, 200)])[0]
    touched = gene.bin_mask([(100, 200)])
    assert touched.nonzero()[0].tolist() == [3, 4, 5, 6]
    quiet = ~gene.bin_mask([gene.promoter]) & gene.reference.valid
    expected = np.median(gene.reference.signal[quiet, :2], axis=0) if value is None else value
    np.testing.assert_allclose(edit.signal[touched, :2], np.broadcast_to(expected, (4, 2)))
    np.testing.assert_array_equal(edit.signal[~touched], gene.reference.signal[~touched])
    np.testing.assert_array_equal(edit.signal[:, 2], gene.reference.signal[:, 2])


@pytest.mark.parametrize("method", ["shuffle", "n", "mask"])
def test_what_is_put_back_is_the_original(dataset, method):
    gene, samples = window_of(dataset, 4)
    maker = destroyer(gene, samples, method)
    for edit in maker.destroy(gene.outside(gene.promoter)):
        whole = maker.put_back(maker.put_back(edit, (0, 448)), (576, 1024))
        for name in ("codes", "signal"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(gene.reference, name))
        assert whole.closed is None or not whole.closed.any()


# True deletions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [4, 5])
@pytest.mark.parametrize("span", [(64, 160), (101, 171), (640, 704), (701, 771)])
def test_a_true_deletion_is_the_window_of_a_genome_without_the_stretch(dataset, row, span):
    gene, samples = window_of(dataset, row)
    edit = true_deletion(gene, samples, span)
    contig = dataset.sites[row][0]
    far = 300
    genome = dataset.codes(type(gene.window)(
        contig, gene.window.start - far, gene.window.end + far, gene.window.strand,
        gene.window.contig_length,
    ))  # fmt: skip
    without = np.delete(genome, np.arange(span[0] + far, span[1] + far))
    # The base of the TSS keeps its index: upstream deletions move it back by their length.
    at = far + TSS - (span[1] - span[0] if span[1] <= TSS else 0)
    assert np.array_equal(edit.codes, without[at - TSS : at + TSS])
    assert edit.codes[TSS] == gene.reference.codes[TSS]


@pytest.mark.parametrize("row", [4, 5])
@pytest.mark.parametrize("span", [(64, 160), (101, 171), (701, 771)])
def test_tracks_move_with_the_bases_of_a_true_deletion(dataset, row, span):
    gene, samples = window_of(dataset, row)
    edit = true_deletion(gene, samples, span)
    length, far = span[1] - span[0], 300
    wide = type(gene.window)(
        gene.window.contig, gene.window.start - far, gene.window.end + far, gene.window.strand,
        gene.window.contig_length,
    )  # fmt: skip
    per_base = dataset.track_bins(wide, bin_size=1).astype(np.float64)
    kept = np.delete(per_base, np.arange(span[0] + far, span[1] + far), axis=0)
    at = far - (length if span[1] <= TSS else 0)
    expected = kept[at : at + 1024].reshape(32, 32, -1).mean(axis=1)
    np.testing.assert_allclose(edit.signal[:, :2], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(edit.signal[:, 2], gene.reference.signal[:, 2])


def test_a_true_deletion_has_a_side(dataset):
    gene, samples = window_of(dataset, 4)
    with pytest.raises(ConfigError, match="on one side of the TSS"):
        true_deletion(gene, samples, (500, 520))


@pytest.mark.parametrize("row", [4, 5])
def test_candidate_elements_go_move_and_come_back(with_elements, row):
    config = SampleConfig(window_bp=1024, bin_size=32, elements="peaks")
    gene, samples = window_of(with_elements, row, config)
    before = gene.reference.elements
    upstream = before[before[:, 1] <= TSS - 64][0]
    span = (int(upstream[0]) - 5, int(upstream[1]) + 5)
    edit = destroyer(gene, samples, "n").destroy([span])[0]
    there = {tuple(pair) for pair in edit.elements.tolist() if pair[1] > 0}
    assert there == {tuple(pair) for pair in before.tolist()} - {tuple(upstream.tolist())}
    back = destroyer(gene, samples, "n").put_back(edit, span)
    assert np.array_equal(back.elements, before)
    cut = true_deletion(gene, samples, span)
    near = {tuple(pair) for pair in cut.elements.tolist() if pair[0] >= span[1]}
    assert near == {tuple(pair) for pair in before.tolist() if pair[0] >= span[1]}
    length = span[1] - span[0]
    farther = {tuple(pair) for pair in before.tolist() if pair[1] <= span[0]}
    moved = {tuple(pair) for pair in cut.elements.tolist() if pair[1] <= span[1]}
    assert {(a + length, b + length) for a, b in farther} <= moved


# Decoys -----------------------------------------------------------------------------------------


def test_decoys_match_length_and_distance_and_touch_nothing(dataset):
    gene, _ = window_of(dataset, 6)
    spans, taken = [(64, 128), (300, 340)], [(800, 900)]
    found = decoys(gene, spans, per_site=2, taken=taken)
    assert [len(one) for one in found] == [2, 2]
    every = [span for one in found for span in one]
    assert found == decoys(gene, spans, per_site=2, taken=taken)
    assert found != decoys(gene, spans, per_site=2, taken=taken, seed=1)
    for mine, (start, stop) in zip(found, spans, strict=True):
        assert all(b - a == stop - start and a % 32 == start % 32 for a, b in mine)
    for a, b in every:
        others = [*spans, *taken, gene.promoter, *(span for span in every if span != (a, b))]
        assert all(b <= start or a >= stop for start, stop in others)


def test_a_full_window_has_no_decoys(dataset):
    gene, _ = window_of(dataset, 6)
    assert decoys(gene, [(0, 400)], per_site=2, taken=[(400, 1024)]) == [[]]


def test_minus_strand_windows_are_read_backwards(dataset):
    gene, _ = window_of(dataset, 5)
    assert gene.window.reverse
    span = gene.to_model(*gene.window.genome_interval(64, 128))
    assert span == (64, 128)
    low, high = gene.window.genome_interval(64, 128)
    plus = type(gene.window)(gene.window.contig, low, high, "+", gene.window.contig_length)
    assert np.array_equal(gene.reference.codes[64:128], reverse_complement(dataset.codes(plus)))


def test_settings_are_checked():
    for bad in ({"method": "cut"}, {"num_shuffles": 0}):
        with pytest.raises(ConfigError, match=r"check\."):
            DeletionConfig(**bad)
