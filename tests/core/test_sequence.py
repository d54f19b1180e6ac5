from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core import sequence

DNA = st.text(alphabet="ACGTNacgtnRYSWKM", max_size=200)


def test_codes_follow_the_documented_order():
    assert sequence.encode("ACGTN").tolist() == [0, 1, 2, 3, 4]
    assert sequence.encode(b"acgtn").tolist() == [0, 1, 2, 3, 4]


def test_iupac_letters_become_n_and_are_counted_apart_from_n():
    assert sequence.encode("RYSWKMBDHVN").tolist() == [4] * 11
    assert sequence.num_ambiguous("ARnNY") == 2
    assert sequence.encode("U").tolist() == sequence.encode("T").tolist()


def test_protein_letters_are_named():
    assert sequence.invalid_letters("ACGTNRY") == ""
    assert sequence.invalid_letters("MELFQZ") == "EFLQZ"


@given(DNA)
def test_decode_inverts_encode_up_to_n(text):
    expected = "".join(base if base in "ACGT" else "N" for base in text.upper())
    assert sequence.decode(sequence.encode(text)) == expected


@given(DNA)
def test_reverse_complement_equals_string_translation_and_is_an_involution(text):
    codes = sequence.encode(text)
    table = str.maketrans("ACGTN", "TGCAN")
    expected = sequence.decode(codes).translate(table)[::-1]
    assert sequence.decode(sequence.reverse_complement(codes)) == expected
    assert np.array_equal(sequence.reverse_complement(sequence.reverse_complement(codes)), codes)


@given(DNA)
def test_one_hot_rows_name_their_base(text):
    codes = sequence.encode(text)
    rows = sequence.one_hot(codes)
    assert rows.shape == (len(text), 4)
    assert np.array_equal(rows.sum(axis=1), (codes != sequence.N_CODE).astype(np.float32))
    known = codes != sequence.N_CODE
    assert np.array_equal(rows[known].argmax(axis=1), codes[known])


def test_one_hot_fills_a_given_buffer():
    codes = sequence.encode("ACGTN" * 3)
    buffer = np.full((15, 4), 7, dtype=np.float32)
    result = sequence.one_hot(codes, out=buffer)
    assert result is buffer
    assert np.array_equal(buffer, sequence.one_hot(codes))


def test_codes_beyond_n_are_refused():
    with pytest.raises(IndexError):
        sequence.one_hot(np.array([5], dtype=np.uint8))
