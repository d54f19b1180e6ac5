"""Codes for sets of bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core import sequence
from seq2exp.core.errors import InputError
from seq2exp.variation.iupac import (
    BASES_OF_CODE,
    CODE_OF_BASES,
    COMPLEMENT,
    LETTERS,
    decode,
    encode,
    one_hot,
    reverse_complement,
)

TURNED = {"A": "T", "C": "G", "R": "Y", "K": "M", "B": "V", "D": "H", "S": "S", "W": "W", "N": "N"}


def test_every_letter_has_its_opposite():
    pairs = TURNED | {turned: letter for letter, turned in TURNED.items()}
    assert len(pairs) == len(LETTERS) == 15
    for code, letter in enumerate(LETTERS):
        assert LETTERS[COMPLEMENT[code]] == pairs[letter]
        assert CODE_OF_BASES[BASES_OF_CODE[code]] == code


def test_rows_share_one_among_the_bases_they_stand_for():
    rows = one_hot(encode(LETTERS))
    assert rows.dtype == np.float32
    assert rows.shape == (15, 4)
    sums = rows.sum(axis=1)
    assert np.array_equal(sums != 1, np.array(list(LETTERS)) == "N")
    assert one_hot(encode("R")).tolist() == [[0.5, 0, 0.5, 0]]
    assert np.allclose(one_hot(encode("B")), [[0, 1 / 3, 1 / 3, 1 / 3]])
    assert one_hot(encode("N")).tolist() == [[0, 0, 0, 0]]
    assert one_hot(encode("N"), n_value=0.25).sum() == 1
    # The first five are those of the rest of the package.
    assert np.array_equal(one_hot(encode("ACGTN")), sequence.one_hot(sequence.encode("ACGTN")))


@given(st.text(LETTERS + LETTERS.lower(), max_size=60))
def test_turning_twice_is_nothing(text):
    codes = encode(text)
    assert decode(codes) == text.upper()
    assert np.array_equal(reverse_complement(reverse_complement(codes)), codes)
    assert np.array_equal(one_hot(reverse_complement(codes)), one_hot(codes)[::-1, ::-1])


def test_unknown_letters_and_codes_are_refused():
    for text in ("ACX", "A-", "\u00e9"):
        with pytest.raises(InputError, match="at position"):
            encode(text)
    wrong = np.array([3, 15], np.uint8)
    for function in (decode, one_hot, reverse_complement):
        with pytest.raises(InputError, match="code 15"):
            function(wrong)
