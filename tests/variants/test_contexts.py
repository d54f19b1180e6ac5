"""Shuffled surroundings of a variant."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import N_CODE
from seq2exp.variants.align import Indel
from seq2exp.variants.contexts import (
    shuffled_flanks,
    variant_random,
    with_flanks,
)
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants
from tests.dinucleotides import dinucleotide_counts

GENOME = np.random.default_rng(0).integers(0, 4, 600).astype(np.uint8)
APPLY = np.array([[0], [1]], dtype=np.uint8)


def letters(codes):
    return "".join("ACGT"[code] for code in codes)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("shift", [-3, 0, 40])
@pytest.mark.parametrize(
    ("position", "kept", "alt"),
    [(300, 1, "ACGTT"), (300, 9, "A"), (300, 3, "TGACC"), (300, 1, "T"), (259, 1, "T"),
     (200, 1, "AAA"), (372, 4, "G")],
)  # fmt: skip
def test_windows_are_those_of_a_genome_that_was_shuffled(strand, shift, position, kept, alt):
    """Put into finished windows on any strand, or into the genome before: the same sequences."""
    end = position + kept
    flanks = shuffled_flanks(
        GENOME, position, end, random=np.random.default_rng(1), num=3, flank=70
    )
    window = Window("chr1", 190 + shift, 380 + shift, strand, 600)
    ref = letters(GENOME[position:end])
    variants = Variants.from_alleles([(position, ref, alt)])
    made = build(GENOME, variants, APPLY, window, 270)
    for row in range(2):
        where = made.reference_map()[row]
        found = with_flanks(made.codes_HL[row], where, flanks, reverse=window.reverse)
        for draw in range(3):
            genome = GENOME.copy()
            genome[position - 70 : position] = flanks.before_KF[draw]
            genome[end : end + 70] = flanks.after_KF[draw]
            expected = build(genome, variants, APPLY[row : row + 1], window, 270)
            np.testing.assert_array_equal(found[draw], expected.codes_HL[0])
            assert (found[draw] != made.codes_HL[row]).any()


def test_each_side_keeps_its_pairs_of_bases_and_the_bases_next_to_the_variant():
    before, after, *_ = shuffled_flanks(
        GENOME, 300, 302, random=np.random.default_rng(2), num=8, flank=100
    )
    for draws, there in ((before, GENOME[200:300]), (after, GENOME[302:402])):
        assert len({row.tobytes() for row in draws}) == 8
        for row in draws:
            np.testing.assert_array_equal(dinucleotide_counts(row), dinucleotide_counts(there))
            assert (row[0], row[-1]) == (there[0], there[-1])


def test_fewer_bases_are_shuffled_at_the_ends_of_a_contig_and_n_stay():
    genome = GENOME.copy()
    genome[10:14] = N_CODE
    random = np.random.default_rng(3)
    before, after, *_ = shuffled_flanks(genome, 40, 41, random=random, num=2, flank=100)
    assert (before.shape, after.shape) == ((2, 40), (2, 100))
    assert (before[:, 10:14] == N_CODE).all()
    first = shuffled_flanks(genome, 0, 1, random=random, num=2, flank=100)
    assert first.before_KF.shape == (2, 0)
    found = with_flanks(genome[:50], np.arange(50), first)
    assert (found[:, 0] == genome[0]).all()
    np.testing.assert_array_equal(found[:, 1:], first.after_KF[:, :49])


def test_random_numbers_are_those_of_the_variant():
    def first(*key):
        return variant_random(*key).integers(1 << 62)

    key = (0, "chr1", 100, "A", "G")
    assert first(*key) == first(*key)
    others = [(1, *key[1:]), (0, "chr11", 100, "A", "G"), (0, "chr1", 1100, "A", "G"),
              (0, "chr1", 100, "AG", ""), (0, "chr1", 100, "G", "A")]  # fmt: skip
    assert len({first(*other) for other in [key, *others]}) == 6


def test_what_cannot_be_shuffled_is_refused():
    random = np.random.default_rng(4)
    with pytest.raises(ConfigError, match="0 draws"):
        shuffled_flanks(GENOME, 3, 4, random=random, num=0)
    with pytest.raises(InputError, match="inside of a contig of 600"):
        shuffled_flanks(GENOME, 599, 601, random=random, num=1)


def test_the_last_shared_base_of_an_indel_is_its_anchor():
    assert (Indel(5, 1, 4).last, Indel(5, 4, 1).last, Indel(5, 3, 3).last) == (5, 5, 7)
