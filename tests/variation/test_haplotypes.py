"""Haplotypes against the golden cases, a slow builder of texts, and bcftools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window, tss_window
from seq2exp.core.sequence import encode
from seq2exp.variation.haplotypes import build, needed_interval, unique_haplotypes
from seq2exp.variation.iupac import decode
from seq2exp.variation.table import Variants
from tests.variation.slow import (
    bcftools,
    consensus,
    cut,
    drops,
    edit,
    needs_bcftools,
    opposite,
    place_of_tss,
    random_reference,
    random_rows,
    write_vcf,
)

R = "AACCGGTTACGTTGCAAGTCCATGCATTGCAGGATC"
TSS = 16
# Variants, the window in plus direction, the first positions of its map.
GOLDEN = [
    ([], "ACGTTGCAAGTCCATG", range(8, 24)),
    ([(10, "G", "T")], "ACTTTGCAAGTCCATG", range(8, 24)),
    ([(11, "TTG", "T")], "TTACGTCAAGTCCATG", [6, 7, 8, 9, 10, 11, *range(14, 24)]),
    ([(11, "T", "TAAC")], "TAACTGCAAGTCCATG", [11, -1, -1, -1, *range(12, 24)]),
    ([(19, "CCA", "C")], "ACGTTGCAAGTCTGCA", [*range(8, 20), 22, 23, 24, 25]),
    ([(19, "C", "CGG")], "ACGTTGCAAGTCGGCA", [*range(8, 20), -1, -1, 20, 21]),
    (
        [(11, "TTG", "T"), (19, "C", "CGG"), (22, "T", "A")],
        "TTACGTCAAGTCGGCA",
        [6, 7, 8, 9, 10, 11, *range(14, 20), -1, -1, 20, 21],
    ),
]


def one(rows, window, tss, *, actions=None, reference=R, **options):
    """Build one haplotype that carries every row."""
    table = Variants.from_alleles(rows)
    actions = np.array([actions or [1] * len(rows)], np.uint8).reshape(1, len(rows))
    return build(encode(reference), table, actions, window, tss, **options)


def text(haplotypes, number=0):
    return decode(haplotypes.codes_HL[number])


@pytest.mark.parametrize(("rows", "expected", "places"), GOLDEN)
def test_golden_cases(rows, expected, places):
    plus = one(rows, Window("c", 8, 24, "+", 36), TSS)
    assert text(plus) == expected
    assert plus.reference_map()[0].tolist() == list(places)
    assert plus.tss_index == 8
    # The same genomic window read from the other strand.
    minus = one(rows, Window("c", 8, 24, "-", 36), TSS)
    assert text(minus) == opposite(expected)
    assert minus.reference_map()[0].tolist() == list(places)[::-1]
    assert minus.tss_index == 7
    for found, base in ((plus, "A"), (minus, "T")):
        assert text(found)[found.tss_index] == base
        assert found.anchor_H.tolist() == [TSS]
        assert found.num_overlap_dropped_H.tolist() == [0]
        assert found.pad_left_H.tolist() == found.pad_right_H.tolist() == [0]
    # Windows as training takes them have the TSS at the same index on both strands.
    for strand in "+-":
        found = one(rows, tss_window("c", TSS, strand, length=16, contig_length=36), TSS)
        assert found.tss_index == 8
        assert found.reference_map()[0, 8] == TSS


def test_a_variant_pushed_out_of_the_window_does_not_count():
    rows = GOLDEN[-1][0]
    assert one(rows, Window("c", 8, 24, "+", 36), TSS).num_applied_H.tolist() == [2]
    assert one(rows, Window("c", 7, 25, "+", 36), TSS).num_applied_H.tolist() == [3]


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    reference = random_reference(random, draw(st.integers(12, 90)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(reference) - 1))
        reference = reference[:at] + "NN" + reference[at + 2 :]
    rows = random_rows(random, reference, draw(st.integers(0, 30)))
    num = draw(st.integers(1, 4))
    actions = (random.random((num, len(rows))) < draw(st.floats(0, 1))).astype(np.uint8)
    if draw(st.booleans()):
        actions *= random.integers(1, 3, actions.shape, dtype=np.uint8)
        single = [len(ref) == len(alt) == 1 and ref != "N" for _, ref, alt in rows]
        codes = random.random(actions.shape) < 0.2
        # Two alternatives of one unphased call are one code, which is tested by hand.
        first = [i == 0 or rows[i - 1][0] != row[0] for i, row in enumerate(rows)]
        actions[codes & (actions > 0) & np.array(single, bool) & np.array(first, bool)] = 3
        actions[:, ~np.array(first, bool)] %= 3
    tss = draw(st.integers(0, len(reference) - 1))
    length = draw(st.integers(1, 40))
    start = tss - draw(st.integers(0, length - 1))
    strand = draw(st.sampled_from("+-"))
    return reference, rows, actions, Window("c", start, start + length, strand, len(reference)), tss


@settings(max_examples=600, deadline=None)
@given(cases(), st.sampled_from(["first", "longest"]))
def test_any_haplotype_equals_the_slow_builder(case, overlap):
    reference, rows, actions, window, tss = case
    codes = encode(reference)
    table = Variants.from_alleles(rows)
    given_actions = actions.copy()
    found = build(codes, table, actions, window, tss, overlap=overlap)
    places = found.reference_map()
    assert found.codes_HL.shape == (len(actions), window.length)
    assert np.array_equal(actions, given_actions)
    for h, carried in enumerate(actions.tolist()):
        edited = edit(reference, rows, carried, overlap)
        expected, numbers = cut(edited, tss, window.start, window.length, window.strand)
        assert text(found, h) == expected
        assert places[h].tolist() == numbers
        deleted = tss not in edited.places
        assert found.tss_deleted_H[h] == deleted
        if not deleted:
            assert places[h, found.tss_index] == tss == found.anchor_H[h]
        first = place_of_tss(edited, tss, window.strand) - (tss - window.start)
        last = first + window.length
        assert found.pad_left_H[h] == min(max(-first, 0), window.length)
        if first < len(edited.letters):
            assert found.pad_right_H[h] == max(last - len(edited.letters), 0)
    # Only what touches the window and a little around it is needed, and it says so.
    start, end, low, high = needed_interval(window, table, overlap=overlap)
    part = build(
        codes, table.between(low, high), actions[:, low:high], window, tss,
        overlap=overlap, known=(start, end),
    )  # fmt: skip
    assert np.array_equal(part.codes_HL, found.codes_HL)
    assert np.array_equal(part.facts_HF[:, 1:], found.facts_HF[:, 1:])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_buffers_batches_and_threads_change_nothing(case):
    reference, rows, actions, window, tss = case
    table = Variants.from_alleles(rows)
    plain = build(encode(reference), table, actions, window, tss)
    buffer = np.full((len(actions) + 2, window.length), 77, np.uint8)
    reused = build(encode(reference), table, actions, window, tss, out_HL=buffer)
    assert np.shares_memory(reused.codes_HL, buffer)
    assert (buffer[len(actions) :] == 77).all()
    parallel = build(encode(reference), table, actions, window, tss, parallel=True)
    for other in (reused, parallel):
        assert np.array_equal(other.codes_HL, plain.codes_HL)
        assert np.array_equal(other.reference_map(), plain.reference_map())
        assert np.array_equal(other.facts_HF, plain.facts_HF)
    for h in range(len(actions)):
        single = build(encode(reference), table, actions[h : h + 1], window, tss)
        assert np.array_equal(single.codes_HL[0], plain.codes_HL[h])


# The rule for records that touch, as bcftools 1.16 was seen to follow it.
TOUCHING = [
    ([(11, "T", "A"), (11, "T", "TCC")], "AACCGGTTACGACCTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "T", "TCC"), (11, "T", "A")], "AACCGGTTACGTCCTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "TCC"), (11, "T", "TAA")], "AACCGGTTACGTCCTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "TTG", "T")], "AACCGGTTACGACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (11, "T", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (12, "T", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (13, "G", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (13, "G", "GAAA")], "AACCGGTTACGTAAACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (14, "C", "A")], "AACCGGTTACGTAAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (13, "GCA", "G")], "AACCGGTTACGTAGTCCATGCATTGCAGGATC", 0),
    ([(11, "T", "TCC"), (12, "T", "TAA")], "AACCGGTTACGTCCTAAGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CC"), (12, "T", "A")], "AACCGGTTACGCCGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TT", "CC"), (12, "T", "TAAA")], "AACCGGTTACGCCAAAGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CC"), (13, "GC", "TT")], "AACCGGTTACGCCTTAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "C"), (13, "G", "GAA")], "AACCGGTTACGCAACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CCC"), (12, "T", "TAA")], "AACCGGTTACGCCCGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "T", "C")], "AACCGGTTACGATGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "TAA"), (11, "TTG", "T")], "AACCGGTTACGTAATGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "TTG", "T"), (13, "G", "GCC")],
     "AACCGGTTACGACCCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (13, "G", "GAAA"), (13, "GCA", "G")],
     "AACCGGTTACGTAAACAAGTCCATGCATTGCAGGATC", 1),
    ([(0, "AAC", "C"), (2, "C", "CTT")], "CTTCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(0, "A", "GGA"), (0, "A", "ATT")], "GGAACCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(0, "A", "GGA"), (1, "A", "T")], "GGATCCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(35, "C", "CAA")], R + "AA", 0),
    ([(34, "TC", "T"), (35, "C", "A")], R[:-1], 1),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected", "dropped"), TOUCHING)
def test_records_that_touch(rows, expected, dropped):
    window = Window("c", 0, len(expected) + 5, "+", 36)
    # Anchored at a base before all of them, or behind for those at the start.
    tss = 3 if rows[0][0] else 20
    first = "".join(edit(R, rows, [1] * len(rows)).letters).index
    found = one(rows, Window("c", -40, 100, "+", 36), tss)
    assert text(found).strip("N") == expected
    assert found.num_overlap_dropped_H.tolist() == [dropped]
    assert len(drops(rows, [1] * len(rows))) == dropped
    assert found.num_applied_H.tolist() == [len(rows) - dropped]
    assert window.length
    assert callable(first)
    if dropped:
        with pytest.raises(InputError, match="overlap on one haplotype"):
            one(rows, Window("c", -40, 100, "+", 36), tss, overlap="error")
    else:
        assert len(one(rows, Window("c", -40, 100, "+", 36), tss, overlap="error")) == 1
