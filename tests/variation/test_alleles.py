"""Normalisation, classes and REF status of alleles.

The slow independent form: the allele is put into the text of the whole contig, and the two texts
are compared from the end, then from the beginning.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.sequence import encode
from seq2exp.variation.alleles import (
    CLASSES,
    SEQUENCE_CLASSES,
    STATUSES,
    Allele,
    Record,
    classify,
    normalise,
    normalise_all,
    ref_status,
    split,
)

#          0         1         2         3
#          0123456789012345678901234567890123456789
CONTIG = "GGGCACACACATTTTGATTACAGATTACACCGTNNACGTAC"
CODES = encode(CONTIG)

# Position, REF, ALT -> class, normalised position, REF, ALT.
HAND = [
    ((14, "T", "C"), "snv", (14, "T", "C")),
    ((14, "t", "c"), "snv", (14, "T", "C")),
    ((14, "TG", "TC"), "snv", (15, "G", "C")),
    ((14, "TG", "CG"), "snv", (14, "T", "C")),
    ((13, "TTGAT", "TTCAT"), "snv", (15, "G", "C")),
    ((15, "GA", "CT"), "mnv", (15, "GA", "CT")),
    ((15, "GAT", "CAA"), "mnv", (15, "GAT", "CAA")),
    ((14, "TGATT", "TCAAT"), "mnv", (15, "GAT", "CAA")),
    ((15, "GA", "TCC"), "delins", (15, "GA", "TCC")),
    ((14, "TGA", "TTCC"), "delins", (15, "GA", "TCC")),
    ((15, "GATT", "CT"), "delins", (15, "GAT", "C")),
    ((15, "GA", "C"), "delins", (15, "GA", "C")),
    ((5, "CAC", "C"), "del", (2, "GCA", "G")),
    ((2, "GCACA", "G"), "del", (2, "GCACA", "G")),
    ((3, "CACA", "CA"), "del", (2, "GCA", "G")),
    ((7, "CACAT", "CAT"), "del", (2, "GCA", "G")),
    ((14, "T", "TT"), "ins", (10, "A", "AT")),
    ((12, "T", "TTTT"), "ins", (10, "A", "ATTT")),
    ((8, "A", "ACA"), "ins", (2, "G", "GCA")),
    ((15, "G", "GC"), "ins", (15, "G", "GC")),
    ((15, "GAT", "GAAT"), "ins", (15, "G", "GA")),
    ((1, "GG", "G"), "del", (0, "GG", "G")),
    ((0, "GGGC", "C"), "del", (0, "GGGC", "C")),
    ((0, "G", "TG"), "ins", (0, "G", "TG")),
    ((2, "G", "GG"), "ins", (0, "G", "GG")),
    ((16, "-", "C"), "ins", (15, "G", "GC")),
    ((0, "-", "T"), "ins", (0, "G", "TG")),
    ((5, "CA", "-"), "del", (2, "GCA", "G")),
    ((16, "ATTACAG", "-"), "del", (14, "TGATTACA", "T")),
    ((40, "C", "CA"), "ins", (40, "C", "CA")),
    ((39, "AC", "A"), "del", (39, "AC", "A")),
    ((35, "ACG", "CG"), "del", (35, "AC", "C")),
    ((27, "CACC", "C"), "del", (26, "ACAC", "A")),
]


def slowly(position: int, ref: str, alt: str) -> tuple[int, str, str]:
    ref, alt = (allele.upper().replace("-", "") for allele in (ref, alt))
    old, new = CONTIG, CONTIG[:position] + alt + CONTIG[position + len(ref) :]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    old, new = old[start:], new[start:]
    if old and new:
        return start, old, new
    if start and CONTIG[start - 1] != "N":
        return start - 1, CONTIG[start - 1] + old, CONTIG[start - 1] + new
    after = CONTIG[start + len(old)]
    return start, old + after, new + after


@pytest.mark.parametrize(("given", "kind", "expected"), HAND)
def test_hand_cases(given, kind, expected):
    assert len(HAND) >= 30
    assert slowly(*given) == expected
    assert classify(*given[1:]) == kind
    assert normalise(Allele(*given), CODES) == expected
    assert normalise(Allele(*expected), CODES) == expected
    assert classify(*expected[1:]) == kind
    if "N" not in CONTIG[given[0] : given[0] + len(given[1])]:
        assert ref_status(Allele(*given), CODES) == "ok"


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 33),
    st.integers(0, 8),
    st.text("ACGT", max_size=8),
    st.booleans(),
)
def test_any_allele_equals_the_slow_form(position, length, alt, lower):
    ref = CONTIG[position : position + length]
    if "N" in ref or ref == alt:
        return
    given = Allele(position, ref or "-", alt or "-")
    if lower:
        given = Allele(position, given.ref.lower(), given.alt.lower())
    assert normalise(given, CODES) == slowly(position, ref, alt)


def test_nothing_moves_over_a_base_that_is_not_known():
    codes = encode("NNNAAA")
    assert normalise(Allele(5, "A", "AA"), codes) == (3, "A", "AA")
    assert normalise(Allele(5, "A", "CA"), codes) == (4, "A", "AC")
    assert normalise(Allele(3, "A", "CA"), codes) == (3, "A", "CA")
    # Nothing known on either side: the anchor is what there is.
    assert normalise(Allele(1, "A", "-"), encode("NAN")) == (0, "NA", "N")


def test_an_allele_that_changes_nothing_is_one_base():
    assert classify("GAT", "gat") == "same"
    assert normalise(Allele(15, "GAT", "gat"), CODES) == (15, "G", "G")
    assert classify("-", "-") == "same"


@pytest.mark.parametrize(
    ("alt", "kind"),
    [
        *(("*", "star"), (".", "missing_alt"), ("", "missing_alt"), ("<*>", "ref_block")),
        *(("<NON_REF>", "ref_block"), ("<DEL>", "symbolic"), ("<INS:ME:ALU>", "symbolic")),
        *(("G]17:198982]", "symbolic"), ("]13:123456]T", "symbolic"), ("G.", "symbolic")),
        *((".TGC", "symbolic"), ("R", "allele_non_acgt"), ("AN", "allele_non_acgt")),
        *(("U", "allele_non_acgt"), ("A-", "allele_non_acgt"), ("A,T", "allele_non_acgt")),
    ],
)
def test_what_is_no_sequence_has_a_class_and_is_never_bases(alt, kind):
    assert classify("G", alt) == kind
    assert kind in CLASSES
    with pytest.raises(InputError, match=kind):
        normalise(Allele(15, "G", alt), CODES)


def test_a_reference_allele_with_other_letters_is_no_sequence_either():
    assert classify("N", "A") == classify("R", "A") == classify("GR", "G") == "allele_non_acgt"


@pytest.mark.parametrize(
    ("allele", "status"),
    [
        *(((15, "G", "C"), "ok"), ((15, "gatt", "g"), "ok"), ((15, "C", "G"), "swapped")),
        *(((15, "C", "T"), "mismatch"), ((15, "GC", "GA"), "swapped")),
        ((33, "A", "C"), "ref_has_n"),
        *(((32, "TAC", "T"), "ref_has_n"), ((41, "A", "C"), "out_of_bounds")),
        *(((40, "CA", "C"), "out_of_bounds"), ((-1, "A", "C"), "out_of_bounds")),
        *(((15, "C", "<DEL>"), "mismatch"), ((15, "C", "*"), "mismatch")),
        ((15, "-", "C"), "ok"),
        *(((15, "GA", "GATTACA"), "ok"), ((15, "R", "C"), "mismatch")),
        ((15, "C", "N"), "mismatch"),
        *(((41, "-", "C"), "out_of_bounds"), ((15, "GACC", "GATT"), "swapped")),
    ],
)  # fmt: skip
def test_the_genome_judges_the_reference_allele(allele, status):
    assert ref_status(Allele(*allele), CODES) == status
    assert ref_status(Allele(*allele), None) == "no_contig"


def test_outside_the_contig_nothing_is_normalised():
    with pytest.raises(InputError, match="inside a contig of 41"):
        normalise(Allele(40, "CA", "C"), CODES)


def test_a_record_is_split_in_the_order_of_its_alleles():
    record = Record(15, "GAT", ("CAT", "G", "<DEL>", "GAAT"))
    alleles = split(record)
    assert alleles == [(15, "GAT", alt) for alt in record.alts]
    kinds = [classify(allele.ref, allele.alt) for allele in alleles]
    assert kinds == ["snv", "del", "symbolic", "ins"]
    assert normalise(alleles[0], CODES) == (15, "G", "C")


def test_many_at_once_equal_one_by_one():
    random = np.random.default_rng(0)
    rows = [given for given, _, _ in HAND]
    rows += [(15, "G", alt) for alt in ("*", "<DEL>", ".", "N", "u", "R", "g", "GA")]
    rows += [(33, "N", "A"), (33, "A", "C"), (50, "A", "C"), (-1, "A", "C"), (15, "C", "A")]
    rows += [(15, "C", "G"), (40, "CA", "C"), (15, "\u00e9", "A"), (15, "", "A")]
    for at in random.integers(0, 40, 300):
        rows.append((int(at), "ACGTacgtN"[random.integers(9)], "ACGTacgtN"[random.integers(9)]))
    for codes in (CODES, None):
        many = normalise_all(
            np.array([row[0] for row in rows]),
            [row[1] for row in rows],
            [row[2] for row in rows],
            reference_codes=codes,
        )
        for i, row in enumerate(rows):
            allele = Allele(*row)
            kind, status = classify(*row[1:]), ref_status(allele, codes)
            assert (CLASSES[many.class_M[i]], STATUSES[many.status_M[i]]) == (kind, status)
            usable = kind in SEQUENCE_CLASSES and status == "ok"
            expected = normalise(allele, codes) if usable else allele
            assert (many.position_M[i], many.refs[i], many.alts[i]) == expected
            moved = usable and expected != (row[0], row[1].upper(), row[2].upper())
            assert many.changed_M[i] == moved
    assert len(normalise_all(np.zeros(0, np.int64), [], [], reference_codes=CODES).refs) == 0


@pytest.mark.skipif(not shutil.which("bcftools"), reason="bcftools is not installed")
def test_bcftools_norm_writes_the_same(tmp_path):
    fasta, vcf = tmp_path / "c.fa", tmp_path / "c.vcf"
    fasta.write_text(f">c\n{CONTIG}\n")
    rows = sorted((given, expected) for given, _, expected in HAND if "-" not in given)
    lines = ["##fileformat=VCFv4.2", f"##contig=<ID=c,length={len(CONTIG)}>"]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for i, ((position, ref, alt), _) in enumerate(rows):
        lines.append(f"c\t{position + 1}\tv{i}\t{ref}\t{alt}\t.\t.\t.")
    vcf.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["bcftools", "norm", "-f", fasta, "-m", "-any", vcf],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        if not line.startswith("#"):
            _, position, name, ref, alt, *_ = line.split("\t")
            found[name] = (int(position) - 1, ref.upper(), alt.upper())
    assert len(found) > 25
    # Behind N it takes N for the anchor, which we do not.
    different = {name: allele for name, allele in found.items() if "N" in allele[1]}
    expected = {f"v{i}": normalised for i, (_, normalised) in enumerate(rows)}
    assert list(different.values()) == [(34, "NA", "N")]
    assert expected | different == found
    assert [expected[name] for name in different] == [(35, "AC", "C")]
