"""Predictions for ALT on the bins of REF."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window
from seq2exp.variants.align import Indel, align_alt, stitch
from seq2exp.variants.scorers import SCORERS
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants

NAN = np.nan


def test_goldens():
    """ALT predictions 1 to 8, s = 3."""
    alt = np.arange(1.0, 9)
    inserted, deleted = Indel(3, 1, 3), Indel(3, 3, 1)
    np.testing.assert_array_equal(align_alt(alt, inserted), [1, 2, 3, 6, 7, 8, NAN, NAN])
    np.testing.assert_array_equal(align_alt(alt, deleted), [1, 2, 3, 4, NAN, NAN, 5, 6])
    np.testing.assert_array_equal(
        align_alt(alt, inserted, anchored="right"), [NAN, NAN, 1, 4, 5, 6, 7, 8]
    )
    np.testing.assert_array_equal(
        align_alt(alt, deleted, anchored="right"), [3, 4, 5, 6, NAN, NAN, 7, 8]
    )
    np.testing.assert_array_equal(align_alt(alt, Indel(3, 2, 2)), alt)


def test_what_the_insertion_pushed_out_is_left_out_of_both_alleles():
    """Zeros there would make REF look stronger: the sums of equal predictions must be equal."""
    ref, indel = np.full(8, 2.0), Indel(3, 1, 3)
    aligned = align_alt(np.full(8, 2.0), indel)
    inside = np.ones((1, 8), bool)
    for name in ("diff_sum", "log2_sum", "d1", "d2", "sax", "jsd"):
        assert SCORERS[name].function(ref[None, :, None], aligned[None, :, None], inside) == 0


def test_only_whole_bins_are_moved():
    alt = np.arange(1.0, 9)
    nine = Indel(14, 1, 10)  # 9 bases into bins of 4: two bins and one base
    assert nine.is_binned(4)
    assert not Indel(14, 1, 9).is_binned(4)
    assert not Indel(14, 3, 3).is_binned(4)
    np.testing.assert_array_equal(align_alt(alt, nine, bin_size=4), [1, 2, 3, 6, 7, 8, NAN, NAN])
    np.testing.assert_array_equal(align_alt(alt, Indel(14, 4, 1), bin_size=4), alt)


def test_tracks_beside_each_other_are_moved_alike():
    alt = np.random.default_rng(0).random((12, 3))
    indel = Indel(5, 1, 4)
    for t in range(3):
        np.testing.assert_array_equal(align_alt(alt, indel)[:, t], align_alt(alt[:, t], indel))


@pytest.mark.parametrize(
    "indel", [Indel(20, 1, 7), Indel(20, 8, 1), Indel(20, 3, 5), Indel(20, 2, 2)]
)
@pytest.mark.parametrize("bin_size", [1, 4])
def test_stitched_flanks_stand_where_they_stand_in_the_reference(indel, bin_size):
    """A model that says where in the genome a base lies: both flanks must come out exactly."""
    genome = np.arange(1_000.0)
    ref = genome[100:164]
    before, after = genome[100 : 100 + indel.index], genome[100 + indel.index + indel.ref_length :]
    alt = np.concatenate([genome[: 100 + indel.index], np.full(indel.alt_length, NAN), after])
    change = indel.inserted - indel.deleted
    left, right = alt[100:164], alt[100 + change : 164 + change]
    assert before[0] == left[0]
    assert right[-1] == ref[-1]
    binned = [x.reshape(-1, bin_size).mean(1) for x in (left, right, ref)]
    found = stitch(binned[0], binned[1], indel, bin_size=bin_size)
    first, last = indel.index, indel.index + indel.ref_length + bin_size
    places = np.arange(64 // bin_size) * bin_size
    flanks = (places + bin_size <= first) | (places >= last)
    np.testing.assert_array_equal(found[flanks], binned[2][flanks])
    assert flanks.sum() * bin_size >= 64 - indel.ref_length - 3 * bin_size


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("anchored", ["left", "right"])
def test_it_is_what_the_map_of_haplotypes_says(strand, anchored):
    """For a window that keeps one end: the same as `masks_to_reference` of the haplotype."""
    random = np.random.default_rng(11)
    codes = random.integers(0, 4, 400).astype(np.uint8)
    start, end = 150, 230
    window = Window("chr1", start, end, strand, 400)
    for _ in range(60):
        kept, more = int(random.integers(1, 4)), int(random.integers(0, 9))
        lengths = (kept, kept + more) if random.random() < 0.5 else (kept + more, kept)
        index = int(random.integers(12, 50))
        # The map needs alleles that differ: no base of ALT is that of REF but the anchor.
        ref = codes[start + index : start + index + lengths[0]]
        letters = "ACGT"[ref[0]] + "".join(
            "ACGT"[random.integers(4)] for _ in range(lengths[1] - 1)
        )
        variants = Variants.from_alleles(
            [(start + index, "".join("ACGT"[c] for c in ref), letters)]
        )
        tss = start if anchored == "left" else end - 1
        made = build(codes, variants, np.ones((1, 1), np.uint8), window, tss)
        values = random.random((1, 80)).astype(np.float32)
        expected = made.masks_to_reference(values)[0]
        genome_order = values[0, ::-1] if strand == "-" else values[0]
        found = align_alt(genome_order, Indel(index, *lengths), anchored=anchored)
        np.testing.assert_array_equal(found[::-1] if strand == "-" else found, expected)


def test_substitutions_of_several_bases_and_indels_with_another_first_base_are_not_zero():
    """AAA>G and AA>GCT gave 0 in baskerville, MNVs a column of zeros: an additive model says no."""
    weight = np.array([0.5, 1.0, 2.0, 4.0])
    codes = np.zeros(60, np.uint8)
    window = Window("chr1", 10, 42, "+", 60)
    ref = weight[codes[10:42]]
    for written, lengths in (
        (("AAA", "G"), (3, 1)),
        (("AA", "GCT"), (2, 3)),
        (("AAA", "CGT"), (3, 3)),
    ):
        variants = Variants.from_alleles([(20, *written)])
        made = build(codes, variants, np.ones((1, 1), np.uint8), window, 10)
        sequence = made.codes_HL[0]
        assert (sequence < 4).all(), "a column of zeros"
        indel = Indel(10, *lengths)
        alt = align_alt(weight[sequence], indel)
        kept = ~np.isnan(alt)
        expected = np.where(kept, alt - ref, 0).sum()
        found = SCORERS["diff_sum"].function(
            ref[None, :, None], alt[None, :, None], np.ones((1, 32), bool)
        )
        assert found[0, 0] == pytest.approx(expected)
        assert found[0, 0] > 0


def test_a_variant_that_cannot_be_aligned_is_refused():
    with pytest.raises(InputError, match="inside of a window of 8"):
        align_alt(np.ones(8), Indel(7, 3, 1))
    with pytest.raises(InputError, match="at least one base"):
        align_alt(np.ones(8), Indel(3, 0, 1))
    with pytest.raises(InputError, match="anchored left or right"):
        align_alt(np.ones(8), Indel(3, 1, 2), anchored="both")
