"""Bad or awkward variants and cohorts (F13 to F18 of the catalogue)."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import tss_window
from seq2exp.core.sequence import decode, encode
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants

REFERENCE = "AACCGGTTACGTTGCAAGTCCATGCATTGCAGGATCTTGACCATGGCATTAACGGATACC"
TSS, LENGTH = 30, 20


def built(rows, strand="+", **options):
    window = tss_window("c", TSS, strand, length=LENGTH, contig_length=len(REFERENCE))
    actions = np.ones((1, len(rows)), np.uint8)
    table = Variants.from_alleles(rows)
    return build(encode(REFERENCE), table, actions, window, TSS, **options)


def test_f16_of_overlapping_variants_the_first_applies_and_the_rest_is_counted():
    rows = [(24, "CATT", "C"), (25, "A", "G"), (26, "T", "TGG"), (28, "G", "C")]
    found = built(rows)
    assert found.num_overlap_dropped_H.tolist() == [2]
    assert found.num_applied_H.tolist() == [2]
    assert decode(found.codes_HL[0]) == REFERENCE[17:25] + "C" + REFERENCE[29:40]
    with pytest.raises(InputError, match=r"2 in all; first: haplotype 0\. Fix: choose overlap"):
        built(rows, overlap="error")


@pytest.mark.parametrize("strand", ["+", "-"])
def test_f16_indels_never_move_the_tss_nor_change_the_length(strand):
    plain = built([], strand)
    for rows in (
        [(22, REFERENCE[22:29], REFERENCE[22])],
        [(22, REFERENCE[22], REFERENCE[22] + "ACGTACG")],
        [(33, REFERENCE[33:38], REFERENCE[33])],
        [(22, REFERENCE[22:29], REFERENCE[22]), (33, REFERENCE[33], REFERENCE[33] + "TTT")],
    ):
        found = built(rows, strand)
        assert found.codes_HL.shape == (1, LENGTH)
        assert found.tss_index == LENGTH // 2 == plain.tss_index
        assert found.reference_map()[0, LENGTH // 2] == TSS
        assert found.codes_HL[0, LENGTH // 2] == plain.codes_HL[0, LENGTH // 2]
        # Deletions are made up for by the reference, never by N.
        assert (found.codes_HL < 4).all()
        assert not np.array_equal(found.codes_HL, plain.codes_HL)
