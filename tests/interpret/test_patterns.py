"""Found patterns beside known motifs; TF-MoDISco, where installed, finds what lies there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.core.sequence import encode, one_hot
from seq2exp.interpret.modisco import RegionArrays, run_modisco
from seq2exp.interpret.motif_files import MotifMatrix
from seq2exp.interpret.patterns import consensus, likeness, pattern_table


def sharp(word, *, share=0.94):
    """Probabilities of a word: `share` for its base, the rest for the others."""
    rest = (1 - share) / 3
    return one_hot(encode(word)).astype(np.float64) * (share - rest) + rest


def flanked(matrix, before, after):
    quarter = np.full((1, 4), 0.25)
    return np.concatenate([np.repeat(quarter, before, 0), matrix, np.repeat(quarter, after, 0)])


FOXA, GATA = sharp("TGTTTACA"), sharp("AGATAAG")


@pytest.mark.parametrize("before", [0, 3, 11])
def test_a_motif_is_found_in_its_flanks_on_either_strand(before):
    found = likeness(flanked(FOXA, before, 4), FOXA)
    assert found.correlation == pytest.approx(1)
    assert (found.offset, found.strand) == (before, "+")
    turned = likeness(flanked(FOXA, before, 4)[::-1, ::-1], FOXA)
    assert turned.correlation == pytest.approx(1)
    assert (turned.offset, turned.strand) == (4, "-")


def test_the_correlation_is_that_of_all_cells_about_a_quarter():
    """One of eight columns differs: seven cells agree, in that one the two bases are exchanged."""
    other = FOXA.copy()
    other[3, [0, 3]] = other[3, [3, 0]]
    # Of a column, squares sum to a = (0.94 - 1/4)^2 + 3 (0.02 - 1/4)^2, of the differing one
    # products to 2 (0.69)(-0.23) + 2 (0.23)^2.
    column = 0.69**2 + 3 * 0.23**2
    expected = (7 * column + 2 * 0.69 * -0.23 + 2 * 0.23**2) / (8 * column)
    assert likeness(other, FOXA).correlation == pytest.approx(expected)


def test_a_part_of_a_motif_must_be_three_quarters_of_it():
    assert likeness(FOXA[:6], FOXA).correlation == pytest.approx(1)
    # Five of eight columns are too few; no alignment is left.
    assert likeness(FOXA[:5], FOXA).correlation == -1


def test_columns_without_information_say_nothing():
    assert likeness(np.full((12, 4), 0.25), FOXA).correlation == -1
    assert consensus(np.full((5, 4), 0.25)) == ""
    middle = np.concatenate([GATA[:3], np.full((2, 4), 0.25), GATA[3:]])
    assert consensus(flanked(middle, 4, 6)) == "AGANNTAAG"


def test_the_table_names_the_motif_most_like_each_pattern():
    patterns = [
        MotifMatrix("pos_patterns.pattern_0", "", flanked(GATA[::-1, ::-1], 6, 2)),
        MotifMatrix("neg_patterns.pattern_0", "", flanked(FOXA, 1, 1)),
    ]
    known = [MotifMatrix("FOXA", "", FOXA), MotifMatrix("GATA", "", GATA)]
    table = pattern_table(patterns, {"pos_patterns.pattern_0": 70}, known)
    assert table["motif"].tolist() == ["GATA", "FOXA"]
    assert table["strand"].tolist() == ["-", "+"]
    assert table["seqlets"].tolist() == [70, 0]
    assert table["consensus"].tolist() == ["CTTATCT", "TGTTTACA"]
    bare = pattern_table(patterns, {})
    assert bare["motif"].tolist() == ["", ""]
    assert bare["correlation"].isna().all()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--known-motifs", "m.meme"], ["--known-motifs", "--tfmodisco"]),
        (["--tfmodisco", "--max-seqlets", "50"], ["--max-seqlets", "101 or more"]),
    ],
)
def test_wishes_that_make_no_sense_are_refused(tmp_path, capsys, more, words):
    line = ["attribute", str(tmp_path), "--gene", "x", "--out", str(tmp_path / "out"), *more]
    assert main(line) == 2
    (error,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error: ")]
    for word in words:
        assert word in error


def test_modisco_finds_planted_words_and_names_them(tmp_path):
    """Two words in random sequence give all contributions; the third motif is nowhere."""
    pytest.importorskip("modiscolite")
    random = np.random.default_rng(0)
    codes = random.integers(0, 4, (300, 120)).astype(np.uint8)
    share = random.normal(0, 0.02, codes.shape)
    for row in range(300):
        for start, word in ((20, "TGTTTACA"), (70, "AGATAAGC")):
            place = start + int(random.integers(0, 12))
            codes[row, place : place + 8] = encode(word)
            share[row, place : place + 8] = random.uniform(0.8, 1.2, 8)
    bases = np.stack([one_hot(line).T for line in codes])
    arrays = RegionArrays(
        pd.DataFrame({"name": range(300)}), bases, (bases * share[:, None]).astype(np.float32)
    )
    known = [
        MotifMatrix("ETS", "", sharp("CCGGAAGT")),
        MotifMatrix("FOXA", "", FOXA),
        MotifMatrix("GATA", "", sharp("AGATAAGC")),
    ]
    table = run_modisco(arrays, tmp_path, known=known)
    assert {"modisco.h5", "modisco.meme", "patterns.tsv"} == {p.name for p in tmp_path.iterdir()}
    assert len(table) >= 1
    assert table["pattern"].str.startswith("pos_patterns.pattern_").all()
    assert set(table["motif"]) <= {"FOXA", "GATA"}
    assert (table["correlation"] > 0.95).all()
    # The library keeps no pattern of fewer.
    assert (table["seqlets"] >= 20).all()
    written = pd.read_csv(tmp_path / "patterns.tsv", sep="\t")
    assert written["motif"].tolist() == table["motif"].tolist()
