"""Variants as flat arrays."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.variation.table import Variants

ROWS = [(3, "A", "T"), (5, "CGT", "C"), (9, "G", "GAA")]


def test_arrays_say_what_the_alleles_say():
    table = Variants.from_alleles(ROWS)
    assert len(table) == 3
    assert table.position_M.tolist() == [3, 5, 9]
    assert table.end_M.tolist() == [4, 8, 10]
    assert table.alt_length_M.tolist() == [1, 1, 3]
    assert table.is_snv_M.tolist() == [True, False, False]
    assert [table.alt(i) for i in range(3)] == ["T", "C", "GAA"]


def test_a_part_keeps_its_alleles_and_shares_its_memory():
    table = Variants.from_alleles(ROWS)
    part = table.between(1, 3)
    assert [part.alt(i) for i in range(len(part))] == ["C", "GAA"]
    assert part.alt_length_M.tolist() == [1, 3]
    assert np.shares_memory(part.position_M, table.position_M)
    assert len(table.between(2, 2)) == 0


@pytest.mark.parametrize("rows", [[(5, "A", "T"), (3, "A", "T")], [(3, "A", "")], [(3, "", "T")]])
def test_disorder_and_empty_alleles_are_refused(rows):
    with pytest.raises(InputError):
        Variants.from_alleles(rows)


def test_arrays_of_different_lengths_are_refused():
    table = Variants.from_alleles(ROWS)
    with pytest.raises(InputError, match="M and M"):
        Variants(table.position_M, table.ref_length_M[:2], table.alt_offset_M1, table.alt_codes_C)
