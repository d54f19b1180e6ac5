"""Tracks moved onto haplotypes and masks moved back, against loops over single bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import encode
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants
from tests.variation.slow import anchors, edit
from tests.variation.test_haplotypes import R, cases


@settings(max_examples=200, deadline=None)
@given(cases())
def test_moving_there_and_back_equals_loops_over_bases(case):
    reference, rows, actions, window, tss = case
    random = np.random.default_rng(len(reference))
    length = window.length
    out_bin = next(b for b in (4, 3, 2, 1) if length % b == 0)
    start, bin_size = int(random.integers(-5, 20)), int(random.integers(1, 7))
    bins = random.random((int(random.integers(1, 12)), 2)).astype(np.float32)
    bins[random.random(bins.shape) < 0.2] = np.nan
    table = Variants.from_alleles(rows)
    built = build(encode(reference), table, actions, window, tss)
    moved = built.move_bins(bins, start=start, bin_size=bin_size, out_bin_size=out_bin)
    masks = random.random((len(actions), length // out_bin)).astype(np.float32)
    back = built.masks_to_reference(masks, bin_size=out_bin)
    for h, carried in enumerate(actions.tolist()):
        edited = edit(reference, rows, carried)
        held = anchors(edited, tss, window.start, length, window.strand)
        values = np.full((length, 2), np.nan)
        pooled = np.full(length, np.nan)
        for i, place in enumerate(held):
            if place is None:
                continue
            number = (place - start) // bin_size
            if 0 <= number < len(bins):
                values[i] = bins[number]
            to = place - window.start
            to = length - 1 - to if window.strand == "-" else to
            if 0 <= to < length:
                pooled[to] = np.nanmax([pooled[to], masks[h, i // out_bin]])
        parts = values.reshape(-1, out_bin, 2)
        expected = np.full(parts.shape[::2], np.nan)
        some = ~np.isnan(parts).all(axis=1)
        expected[some] = np.nanmean(np.where(some[:, None], parts, 0), axis=1)[some]
        np.testing.assert_allclose(moved[h], expected, rtol=1e-5)
        np.testing.assert_array_equal(back[h], pooled.astype(np.float32))


def built_with(rows, strand="+", window=(8, 24)):
    table = Variants.from_alleles(rows)
    return build(
        encode(R), table, np.ones((1, len(rows)), np.uint8), Window("c", *window, strand, 36), 16
    )


TRACK = np.arange(36, dtype=np.float32)[:, None]


def test_an_inserted_base_takes_the_value_of_its_anchor():
    built = built_with([(11, "T", "TAAC")])
    moved = built.move_bins(TRACK, start=0, bin_size=1, out_bin_size=1)[0, :, 0]
    assert moved.tolist() == [11, 11, 11, 11, *range(12, 24)]
    minus = built_with([(11, "T", "TAAC")], "-")
    turned = minus.move_bins(TRACK, start=0, bin_size=1, out_bin_size=1)[0, :, 0]
    assert turned.tolist() == moved.tolist()[::-1]
    # In bins of four: the first holds the anchor and three inserted bases.
    assert built.move_bins(TRACK, start=0, bin_size=1, out_bin_size=4)[0, :, 0].tolist() == [
        11, 13.5, 17.5, 21.5]  # fmt: skip


def test_the_anchor_counts_also_when_it_is_deleted():
    built = built_with([(11, "TTG", "T"), (13, "G", "GAA")])
    assert built.reference_map()[0].tolist() == [8, 9, 10, 11, -1, -1, *range(14, 24)]
    moved = built.move_bins(TRACK, start=0, bin_size=1, out_bin_size=1)[0, :, 0]
    assert moved.tolist() == [8, 9, 10, 11, 13, 13, *range(14, 24)]
    back = built.masks_to_reference(np.arange(16)[None])[0]
    expected = [0, 1, 2, 3, np.nan, 5, *range(6, 16)]
    assert np.array_equal(back, np.array(expected, np.float32), equal_nan=True)


def test_bases_before_the_first_of_the_contig_take_its_value():
    built = built_with([(0, "A", "GGA")], window=(-2, 18))
    assert built.reference_map()[0].tolist() == [*[-1] * 2, *range(18)]
    moved = built.move_bins(TRACK, start=0, bin_size=1, out_bin_size=1)[0, :, 0]
    assert moved.tolist() == [0, 0, *range(18)]


def test_unknown_bases_stay_out_of_the_mean():
    track = TRACK.copy()
    track[[9, 12, 13, 14, 15]] = np.nan
    built = built_with([])
    moved = built.move_bins(track, start=0, bin_size=1, out_bin_size=4)[0, :, 0]
    np.testing.assert_allclose(moved, [(8 + 10 + 11) / 3, np.nan, 17.5, 21.5])
    # Beyond the bins given nothing is known, nor beyond the contig.
    moved = built.move_bins(track[:18], start=0, bin_size=1, out_bin_size=4)[0, :, 0]
    np.testing.assert_allclose(moved, [(8 + 10 + 11) / 3, np.nan, 16.5, np.nan])
    edge = built_with([], window=(-4, 20)).move_bins(TRACK, start=0, bin_size=1, out_bin_size=8)
    assert edge[0, :, 0].tolist() == [1.5, 7.5, 15.5]


def test_stored_bins_that_do_not_fit_are_weighted_by_bases():
    # Stored bins of 6 from position 2: [2, 8), [8, 14), [14, 20), [20, 26).
    bins = np.array([[1.0], [2.0], [4.0], [8.0]], np.float16)
    moved = built_with([]).move_bins(bins, start=2, bin_size=6, out_bin_size=8)
    assert moved[0, :, 0].tolist() == [(6 * 2 + 2 * 4) / 8, (4 * 4 + 4 * 8) / 8]
    assert moved.dtype == np.float32
    # A deletion of 12 and 13 brings 6 and 7 in.
    moved = built_with([(11, "TTG", "T")]).move_bins(bins, start=2, bin_size=6, out_bin_size=8)
    assert moved[0, 0, 0] == (2 * 1 + 4 * 2 + 2 * 4) / 8


@pytest.mark.parametrize("strand", ["+", "-"])
def test_masks_go_back_to_where_they_came_from(strand):
    built = built_with([(11, "TTG", "T"), (19, "C", "CGG")], strand)
    places = built.reference_map()[0]
    mask = np.random.default_rng(0).random((1, 16)).astype(np.float32)
    back = built.masks_to_reference(mask)[0]
    back = back[::-1] if strand == "-" else back
    plus = mask[0, ::-1] if strand == "-" else mask[0]
    places = places[::-1] if strand == "-" else places
    where = {place: i for i, place in enumerate(places.tolist())}
    for position in range(8, 24):
        value = back[position - 8]
        if position in (12, 13, 22, 23):
            assert np.isnan(value)
        elif position == 19:
            assert value == plus[where[19] : where[19] + 3].max()
        else:
            assert value == plus[where[position]]
    pooled = built.masks_to_reference(mask, out_bin_size=4)[0]
    pooled = pooled[::-1] if strand == "-" else pooled
    np.testing.assert_allclose(pooled[0], back[:4].mean(), rtol=1e-6)
    np.testing.assert_allclose(pooled[1], np.nanmean(back[4:8]), rtol=1e-6)
    # Bins of the haplotype hold for each of their bases.
    coarse = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    spread = built.masks_to_reference(coarse, bin_size=4)
    assert np.array_equal(
        spread, built.masks_to_reference(np.repeat(coarse, 4, axis=1)), equal_nan=True
    )


def test_a_window_that_lost_all_its_bases_has_no_mean():
    built = built_with([(11, R[11:16], R[11])])
    back = built.masks_to_reference(np.ones((1, 16)), out_bin_size=4)
    assert np.array_equal(back, np.array([[1, np.nan, 1, 1]], np.float32), equal_nan=True)


def test_bins_that_do_not_fit_are_refused():
    built = built_with([])
    with pytest.raises(InputError, match="whole number"):
        built.move_bins(TRACK, start=0, bin_size=1, out_bin_size=5)
    for wrong in (TRACK[:, 0], TRACK[None]):
        with pytest.raises(InputError, match="bins x tracks"):
            built.move_bins(wrong, start=0, bin_size=1, out_bin_size=4)
    with pytest.raises(InputError, match=r"\(1, 4\)"):
        built.masks_to_reference(np.ones((1, 16)), bin_size=4)
    with pytest.raises(InputError, match="whole number"):
        built.masks_to_reference(np.ones((1, 16)), out_bin_size=3)
