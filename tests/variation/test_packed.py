"""Haplotypes from bits equal those from arrays of alleles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode, encode
from seq2exp.variation.haplotypes import build, needed_interval
from seq2exp.variation.packed import PackedHaplotypes
from seq2exp.variation.table import Variants
from tests.variation.slow import random_reference, random_rows


def plane(alleles_HM, width):
    """Return bits in blocks of `width` bytes, haplotypes in the rows of each."""
    num, size = alleles_HM.shape
    blocks = -(-size // (8 * width))
    padded = np.zeros((num, blocks * 8 * width), np.uint8)
    padded[:, :size] = alleles_HM
    packed = np.packbits(padded, axis=1).reshape(num, blocks, width)
    return np.ascontiguousarray(packed.transpose(1, 0, 2))


def reach(table):
    return np.maximum.accumulate(table.end_M)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.integers(1, 4))
def test_bits_give_what_alleles_give(seed, missing, filtered, threads):
    random = np.random.default_rng(seed)
    reference = random_reference(random, int(random.integers(60, 900)))
    codes, size = encode(reference), len(reference)
    table = Variants.from_alleles(random_rows(random, reference, int(random.integers(0, 200))))
    alleles = (random.random((6, len(table))) < random.random()).astype(np.uint8)
    absent = random.random(alleles.shape) < (0.2 if missing else 0)
    keep = random.random(len(table)) < (0.6 if filtered else 1)
    width = int(random.integers(1, 6))
    packed = PackedHaplotypes(
        codes, table, reach(table), plane(alleles, width),
        missing_KRW=plane(absent.astype(np.uint8), width) if missing else None,
        keep_M=keep if filtered else None,
    )  # fmt: skip
    actions = alleles * ~absent * keep
    length = int(random.integers(1, 120))
    tss = random.integers(0, size, 5)
    starts = tss - random.integers(0, length, 5)
    strands = random.choice(["+", "-"], 5)
    windows = [
        Window("c", int(a), int(a) + length, strand, size)
        for a, strand in zip(starts, strands, strict=True)
    ]
    rows = random.integers(0, 6, (5, 2))
    genes = list(random.choice(["+", "-"], 5)) if filtered else None
    found = packed.build(rows, windows, tss.tolist(), gene_strands=genes, threads=threads)
    assert len(found) == 5
    for b, window in enumerate(windows):
        expected = build(
            codes, table, actions[rows[b]].astype(np.uint8), window, int(tss[b]),
            gene_strand=None if genes is None else genes[b],
        )  # fmt: skip
        assert np.array_equal(found[b].codes_HL, expected.codes_HL)
        assert np.array_equal(found[b].reference_map(), expected.reference_map())
        assert np.array_equal(found[b].facts_HF, expected.facts_HF)
        assert found[b].tss_index == expected.tss_index
        track = random.random((size, 1)).astype(np.float32)
        moved = [
            built.move_bins(track, start=0, bin_size=1, out_bin_size=1)
            for built in (found[b], expected)
        ]
        assert np.array_equal(*moved, equal_nan=True)


def test_more_variants_than_there_was_room_for():
    random = np.random.default_rng(0)
    codes = random.integers(0, 4, 30_000).astype(np.uint8)
    position = np.arange(0, 29_000, 2)
    offset = np.arange(len(position) + 1)
    table = Variants(position, np.ones(len(position), np.int32), offset, (codes[position] + 1) % 4)
    packed = PackedHaplotypes(
        codes, table, reach(table), plane(np.ones((2, len(position)), np.uint8), 1024)
    )
    window = Window("c", 100, 28_000, "-", 30_000)
    buffer = np.zeros((1, 2, 27_900), np.uint8)
    for _ in range(2):
        found = packed.build(np.array([[0, 1]]), [window], [14_000], out_BPL=buffer)[0]
        assert np.shares_memory(found.codes_HL, buffer)
        assert found.num_applied_H.tolist() == [13_950, 13_950]
        expected = build(codes, table, np.ones((2, len(position)), np.uint8), window, 14_000)
        assert np.array_equal(found.codes_HL, expected.codes_HL)


def test_deletions_far_outside_are_read_when_they_are_needed():
    random = np.random.default_rng(1)
    reference = random_reference(random, 20_000)
    # Each brings the next into reach.
    rows = [(at, reference[at : at + 900], reference[at]) for at in range(2_000, 18_000, 1_000)]
    table = Variants.from_alleles(rows)
    packed = PackedHaplotypes(
        encode(reference), table, reach(table), plane(np.ones((1, len(rows)), np.uint8), 2)
    )
    window = Window("c", 9_400, 10_400, "+", 20_000)
    found = packed.build(np.array([[0]]), [window], [9_950])[0]
    expected = build(encode(reference), table, np.ones((1, len(rows)), np.uint8), window, 9_950)
    assert np.array_equal(found.codes_HL, expected.codes_HL)
    assert found.num_applied_H[0] > 5


def test_what_does_not_fit_is_refused():
    codes, table = encode("ACGTACGTAC"), Variants.from_alleles([(3, "T", "A"), (8, "A", "AC")])
    bits, window = plane(np.ones((2, 2), np.uint8), 1), Window("c", 2, 6, "+", 10)
    packed = PackedHaplotypes(codes, table, reach(table), bits)
    rows = np.array([[0, 1]])
    for wrong in (
        {"reach_M": reach(table)[:1]},
        {"alleles_KRW": bits[:0]},
        {"missing_KRW": bits[:, :1]},
        {"keep_M": np.ones(3, bool)},
    ):
        arguments = {"reach_M": reach(table), "alleles_KRW": bits} | wrong
        with pytest.raises(InputError, match="bits of genotypes"):
            PackedHaplotypes(codes, table, **arguments)
    with pytest.raises(InputError, match="rows 0 to 2"):
        packed.build(rows * 2, [window], [4])
    with pytest.raises(InputError, match="TSS 6"):
        packed.build(rows, [window], [6])
    with pytest.raises(InputError, match="5 bases on a contig of 10, expected 4"):
        packed.build(np.repeat(rows, 2, axis=0), [window, Window("c", 2, 7, "+", 10)], [4, 4])
    with pytest.raises(InputError, match="on a contig of 11"):
        packed.build(rows, [Window("c", 2, 6, "+", 11)], [4])
    with pytest.raises(InputError, match="0 windows"):
        packed.build(rows[:0], [], [])
    with pytest.raises(InputError, match="buffer"):
        packed.build(rows, [window], [4], out_BPL=np.empty((2, 4), np.uint8))
    late = Variants.from_alleles([(9, "CA", "C")])
    wrong = PackedHaplotypes(codes, late, reach(late), plane(np.ones((2, 1), np.uint8), 1))
    with pytest.raises(InputError, match="leaves the contig"):
        wrong.build(rows, [window], [4])


def test_a_record_far_before_the_window_decides_what_applies_inside():
    """The first deletion keeps the second one out, and so the substitution inside that one in."""
    random = np.random.default_rng(4)
    reference = random_reference(random, 600)
    other = "A" if reference[300] != "A" else "C"
    rows = [
        (100, reference[100:111], reference[100]),
        (105, reference[105:306], reference[105]),
        (300, reference[300], other),
    ]
    table, codes = Variants.from_alleles(rows), encode(reference)
    window = Window("c", 250, 350, "+", 600)
    expected = reference[250:300] + other + reference[301:350]
    start, end, first, last = needed_interval(window, table)
    assert (first, last) == (0, 3)
    actions = np.ones((1, 3), np.uint8)
    found = build(codes, table, actions, window, 320, known=(start, end))
    assert decode(found.codes_HL[0]) == expected
    packed = PackedHaplotypes(codes, table, reach(table), plane(actions, 1))
    bits = packed.build(np.zeros((1, 1), np.int64), [window], [320])
    assert decode(bits[0].codes_HL[0]) == expected
    # With `longest` a record beyond the window can push one inside it out.
    rows = [(195, reference[195:206], "ACGTACGTACG"), (203, reference[203:234], reference[203])]
    table, window = Variants.from_alleles(rows), Window("c", 100, 200, "+", 600)
    assert needed_interval(window, table, overlap="longest")[2:] == (0, 2)
