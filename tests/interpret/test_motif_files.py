"""Motif files: the same matrix in every format, and every break named with its line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from data_prep.simulate.motifs import MOTIFS
from data_prep.simulate.motifs import meme_text as simulated_meme
from seq2exp.core.errors import FormatError, InputError
from seq2exp.interpret.motif_files import MotifMatrix, meme_text, read_motifs

COUNTS = np.array([[8, 0, 2, 0], [0, 10, 0, 0], [1, 2, 3, 4]], dtype=float)
JASPAR = """>MA0001.1 AGL
A [ 8 0 1 ]
C [ 0 10 2 ]
G [ 2 0 3 ]
T [ 0 0 4 ]
"""
RAW = """>MA0001.1\tAGL
8 0 1
0 10 2
2 0 3
0 0 4
"""
TRANSFAC = """AC MA0001.1
XX
ID MA0001.1
NA AGL
P0 A C G T
01 8 0 2 0 A
02 0 10 0 0 C
03 1 2 3 4 N
XX
//
"""
MEME = """MEME version 4

ALPHABET= ACGT

MOTIF MA0001.1 AGL
letter-probability matrix: alength= 4 w= 3 nsites= 10 E= 0
0.8 0.0 0.2 0.0
0.0 1.0 0.0 0.0
0.1 0.2 0.3 0.4
"""


def read(tmp_path, text, name="x.txt"):
    path = tmp_path / name
    path.write_text(text)
    return read_motifs(path)


@pytest.mark.parametrize("text", [JASPAR, RAW, TRANSFAC, MEME, MEME.replace(" w= 3", "")])
def test_one_matrix_in_every_format(tmp_path, text):
    (motif,) = read(tmp_path, text)
    assert (motif.name, motif.alt_name, motif.width) == ("MA0001.1", "AGL", 3)
    np.testing.assert_allclose(motif.probabilities, COUNTS / 10, atol=1e-12)
    assert motif.num_sites == pytest.approx(10)


def test_the_simulators_matrices_survive_writing_and_reading(tmp_path):
    (tmp_path / "a.meme").write_text(simulated_meme())
    motifs = read_motifs(tmp_path / "a.meme")
    assert [motif.name for motif in motifs] == [motif.name for motif in MOTIFS]
    for found, planted in zip(motifs, MOTIFS, strict=True):
        np.testing.assert_allclose(found.probabilities, planted.probabilities, atol=1e-5)
    (tmp_path / "b.meme").write_text(meme_text(motifs))
    again = read_motifs(tmp_path / "b.meme")
    for first, second in zip(motifs, again, strict=True):
        np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-7)
    (tmp_path / "c.meme.gz").write_bytes(gzip.compress((tmp_path / "b.meme").read_bytes()))
    assert len(read_motifs(tmp_path / "c.meme.gz")) == len(MOTIFS)


def test_rows_that_nearly_sum_to_one_are_renormalised_and_counts_become_shares(tmp_path):
    rounded = MEME.replace("0.1 0.2 0.3 0.4", "0.1 0.2 0.3 0.38")
    (motif,) = read(tmp_path, rounded)
    np.testing.assert_allclose(motif.probabilities.sum(1), 1)
    counted = MEME.replace("0.8 0.0 0.2 0.0", "8 0 2 0").replace("0.0 1.0 0.0 0.0", "0 10 0 0")
    (motif,) = read(tmp_path, counted.replace("0.1 0.2 0.3 0.4", "1 2 3 4"))
    np.testing.assert_allclose(motif.probabilities, COUNTS / 10)


def test_names_cannot_break_the_file_that_is_written():
    text = meme_text([MotifMatrix("a b\nMOTIF c", "", np.full((2, 4), 0.25))])
    assert text.count("MOTIF") == 2  # both in the one name
    assert "MOTIF a_b_MOTIF_c\n" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MEME.replace("0.0 1.0 0.0 0.0", "0.0 1.0 0.0"), ["line 8", "four numbers"]),
        (MEME.replace("0.0 1.0 0.0 0.0", "0.0 x 0.0 0.0"), ["line 8", "not negative"]),
        (MEME.replace("0.0 1.0 0.0 0.0", "0.0 nan 0.0 0.0"), ["line 8", "not negative"]),
        (MEME.replace("0.0 1.0 0.0 0.0", "-1 1.0 0.0 1.0"), ["line 8", "not negative"]),
        (MEME.replace("0.0 1.0 0.0 0.0", "0.0 0.4 0.0 0.0"), ["line 8", "sums to 0.4"]),
        (MEME.replace("0.0 1.0 0.0 0.0", "0 0 0 0"), ["line 8", "sums to 0"]),
        (MEME.replace("w= 3", "w= 4"), ["line 6", "4 rows"]),
        (MEME.replace("w= 3", "w= zero"), ["line 6", "positive"]),
        (MEME.replace("alength= 4", "alength= 20"), ["line 6", "alength= 4"]),
        (MEME.replace("MOTIF MA0001.1 AGL\n", ""), ["line 5", "a line MOTIF"]),
        (MEME.replace("MOTIF MA0001.1 AGL", "MOTIF"), ["line 5", "a name"]),
        (MEME.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY"), ["line 3", "ALPHABET= ACGT"]),
        (MEME + MEME.partition("\n\nMOTIF")[2].join(["MOTIF", ""]), ["same name", "MA0001.1"]),
        (JASPAR.replace("T [ 0 0 4 ]\n", ""), ["line 1", "four rows"]),
        (JASPAR.replace("T [ 0 0 4 ]", "T [ 0 0 ]"), ["line 1", "equal length"]),
        (JASPAR.replace("T [", "U ["), ["line 5", "the row of T"]),
        (JASPAR.replace("C [ 0 10 2 ]", "C [ 0 ten 2 ]"), ["line 3", "not negative"]),
        (JASPAR.replace(">MA0001.1 AGL", ">"), ["line 1", "a name"]),
        (TRANSFAC.replace("P0 A C G T", "P0 A C D E"), ["line 5", "P0 A C G T"]),
        (TRANSFAC.replace("02 0 10 0 0 C", "02 0 10"), ["line 7", "four counts"]),
        ("hello\nworld\n", ["line 1", "MEME version 4"]),
    ],
)
def test_broken_files_name_their_line(tmp_path, text, words):
    with pytest.raises(FormatError) as error:
        read(tmp_path, text, "broken.meme")
    assert "broken.meme" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_files_without_motifs(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_motifs(tmp_path / "absent.meme")
    for text in ("", "# comment\n\n", "MEME version 4\n\nALPHABET= ACGT\n"):
        with pytest.raises(InputError, match="no motif"):
            read(tmp_path, text)
    (tmp_path / "binary.meme").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(FormatError, match="motifs as text"):
        read_motifs(tmp_path / "binary.meme")
