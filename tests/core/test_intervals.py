from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import (
    Window,
    complement,
    coverage_mask,
    intersect,
    merge,
    tss_window,
)

LENGTH = 60
INTERVALS = st.lists(
    st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 15)).map(
        lambda pair: (pair[0], min(pair[0] + pair[1], LENGTH))
    ),
    max_size=8,
)


def bases(intervals) -> set[int]:
    return {base for start, end in intervals for base in range(start, end)}


def columns(intervals):
    array = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


@given(INTERVALS)
def test_merge_covers_the_same_bases_without_touching_intervals(intervals):
    starts, ends = merge(*columns(intervals))
    assert bases(zip(starts, ends, strict=True)) == bases(intervals)
    assert (starts[1:] > ends[:-1]).all()


def test_merge_joins_over_a_gap_of_exactly_that_size():
    assert [x.tolist() for x in merge([0, 12], [10, 20], gap=2)] == [[0], [20]]
    assert [x.tolist() for x in merge([0, 12], [10, 20], gap=1)] == [[0, 12], [10, 20]]


def test_merge_keeps_a_long_interval_that_holds_later_ones():
    assert [x.tolist() for x in merge([0, 1, 5], [50, 2, 6])] == [[0], [50]]


@given(INTERVALS)
def test_complement_is_the_rest(intervals):
    starts, ends = complement(*columns(intervals), length=LENGTH)
    assert bases(zip(starts, ends, strict=True)) == set(range(LENGTH)) - bases(intervals)


@given(INTERVALS, INTERVALS)
def test_intersect_equals_set_intersection(first, second):
    starts, ends = intersect(columns(first), columns(second), length=LENGTH)
    assert bases(zip(starts, ends, strict=True)) == bases(first) & bases(second)


@given(INTERVALS, st.integers(-10, LENGTH), st.integers(1, 40))
def test_coverage_mask_equals_membership(intervals, start, length):
    mask = coverage_mask(*columns(intervals), start, start + length)
    covered = bases(intervals)
    assert mask.tolist() == [base in covered for base in range(start, start + length)]


@given(st.integers(0, 99), st.sampled_from("+-"), st.integers(1, 300), st.booleans())
def test_the_tss_has_the_same_index_on_both_strands(tss, strand, length, oriented):
    window = tss_window("c", tss, strand, length=length, contig_length=100, oriented=oriented)
    assert window.length == length
    positions = np.arange(window.start, window.end)
    seen = positions[::-1] if window.reverse else positions
    assert seen[length // 2] == tss


@given(st.integers(0, 99), st.sampled_from("+-"), st.integers(1, 300))
def test_padding_and_clipping_add_up(tss, strand, length):
    window = tss_window("c", tss, strand, length=length, contig_length=100)
    inside = [p for p in range(window.start, window.end) if 0 <= p < 100]
    assert (window.clipped_start, window.clipped_end) == (inside[0], inside[-1] + 1)
    assert window.pad_left + len(inside) + window.pad_right == length


def test_genome_interval_of_a_reversed_window():
    window = Window("c", 100, 110, "-", 1000)
    assert window.genome_interval(0, 3) == (107, 110)
    assert Window("c", 100, 110, "+", 1000).genome_interval(0, 3) == (100, 103)


@pytest.mark.parametrize("tss", [-1, 100])
def test_a_tss_outside_its_contig_is_refused(tss):
    with pytest.raises(InputError, match=r"0 <= position < 100.*same assembly"):
        tss_window("c", tss, "+", length=10, contig_length=100)


def test_an_unknown_strand_and_an_empty_window_are_refused():
    with pytest.raises(InputError, match="strand"):
        tss_window("c", 5, ".", length=10, contig_length=100)
    with pytest.raises(InputError, match="start < end"):
        Window("c", 5, 5, "+", 10)
