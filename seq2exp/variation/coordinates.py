"""The way between haplotype and reference: positions, tracks, masks.

Tracks are kept for the reference and moved onto haplotypes; an inserted base takes the value of its
anchor, the base after which it was inserted (the first of the contig where there is none). Masks
and values of bases go the other way; of a base and those inserted after it the largest counts.

Everything here is in model direction where the window is, and NaN is "no data".

Shapes: H haplotypes, L bases of the window, S segments, N bins, T tracks, R bases of the window of
the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.variation import coordinate_kernels as kernels

__all__ = ["Segments", "masks_to_reference", "move_bins", "reference_map"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Segments:
    """Which bases of the reference those of haplotypes stand for, in genome direction.

    Substituted bases stand for those they replace. Segments of haplotype h are ``num_H[h]`` from
    ``first_H[h]`` on.

    Attributes
    ----------
    hap_S, size_S : int64 arrays
        Place in the haplotype, counted from its left end in genome direction, and bases.
    ref_S : int64 array
        Reference position of the first base; -1 for padding; -2 minus the anchor's position for
        inserted bases.
    first_H, num_H : int64 arrays
    length : int
        Bases of a haplotype.
    reverse : bool
        Haplotypes are read from the other end.
    """

    hap_S: Ints
    ref_S: Ints
    size_S: Ints
    first_H: Ints
    num_H: Ints
    length: int
    reverse: bool

    def __len__(self) -> int:
        return len(self.num_H)


def reference_map(segments: Segments) -> NDArray[np.int32]:
    """Return the reference position of every base of every haplotype, -1 where it has none.

    Returns
    -------
    int32 array, shape (H, L), in model direction
        -1 for inserted bases and beyond the contig.
    """
    out = np.empty((len(segments), segments.length), np.int32)
    kernels.fill_map(*_arrays(segments), segments.reverse, out)
    return out


def move_bins(
    segments: Segments,
    bins_NT: NDArray[np.floating],
    *,
    start: int,
    bin_size: int,
    out_bin_size: int,
) -> NDArray[np.float32]:
    """Return binned tracks of the reference on bins of the haplotypes.

    A bin of the haplotype is the mean over its bases, each with the value of the reference bin that
    holds it or its anchor. Bases without data (NaN, padding, beyond the bins given) do not count; a
    bin without any base that counts is NaN.

    Parameters
    ----------
    segments : Segments
    bins_NT : float array, shape (bins, T)
        Values of the reference in genome direction.
    start : int
        0-based position of the first base of the first bin.
    bin_size, out_bin_size : int
        Bases per bin of the reference and of the haplotype.

    Returns
    -------
    float32 array, shape (H, L / out_bin_size, T), in model direction

    Raises
    ------
    InputError
        The window is no whole number of bins, or the tracks are no table.
    """
    values = np.asarray(bins_NT)
    num_bins = _num_bins(segments.length, out_bin_size)
    if values.ndim != 2 or bin_size < 1:
        raise InputError(
            facts(
                "tracks",
                found=f"shape {values.shape}, bins of {bin_size} bases",
                expected="bins x tracks, bins of at least one base",
                fix="give one column per track",
            )
        )
    tracks = values.shape[1]
    out = np.empty((len(segments), num_bins, tracks), np.float32)
    sums, counts = np.empty((num_bins, tracks)), np.empty((num_bins, tracks))
    values = np.ascontiguousarray(values, dtype=np.float32)
    kernels.fill_bins(
        *_arrays(segments), segments.reverse, values, start, bin_size, out_bin_size, sums, counts,
        out,
    )  # fmt: skip
    return out


def masks_to_reference(
    segments: Segments,
    values_HN: NDArray[np.floating],
    window: Window,
    *,
    bin_size: int = 1,
    out_bin_size: int = 1,
) -> NDArray[np.float32]:
    """Return values of bases or bins of haplotypes on the window of the reference.

    Each base of the reference takes the largest of the values of the base that stands for it and of
    those inserted after it; it has none (NaN) where it is deleted or pushed out of the window.

    Parameters
    ----------
    segments : Segments
    values_HN : float array, shape (H, L / bin_size)
        In model direction.
    window : Window
        The window of the reference that the haplotypes were built for.
    bin_size : int
        Bases per value of a haplotype.
    out_bin_size : int
        Bases per value that is returned: the mean over those that have one.

    Returns
    -------
    float32 array, shape (H, R / out_bin_size), in model direction

    Raises
    ------
    InputError
        Shapes do not fit, or the window is no whole number of bins.
    """
    values = np.asarray(values_HN)
    expected = (len(segments), _num_bins(segments.length, bin_size))
    if values.shape != expected:
        raise InputError(
            facts(
                "masks of haplotypes",
                found=f"shape {values.shape}",
                expected=f"{expected}, haplotypes x bins of {bin_size} bases",
                fix="give a mask for every haplotype",
            )
        )
    num_out = _num_bins(window.length, out_bin_size)
    out = np.empty((len(segments), window.length), np.float32)
    kernels.fill_reference(
        *_arrays(segments), segments.reverse, np.ascontiguousarray(values, dtype=np.float32),
        bin_size, window.start, out,
    )  # fmt: skip
    if out_bin_size == 1:
        return out
    parts = out.reshape(len(segments), num_out, out_bin_size)
    known = ~np.isnan(parts)
    counts = known.sum(axis=2)
    sums = np.where(known, parts, 0).sum(axis=2, dtype=np.float64)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means.astype(np.float32)


def _arrays(segments: Segments) -> tuple[Ints, ...]:
    first_H, num_H = map(np.ascontiguousarray, (segments.first_H, segments.num_H))
    return first_H, num_H, segments.hap_S, segments.ref_S, segments.size_S


def _num_bins(length: int, bin_size: int) -> int:
    if bin_size < 1 or length % bin_size:
        raise InputError(
            facts(
                "bins of a window",
                found=f"{length} bases in bins of {bin_size}",
                expected="a whole number of bins",
                fix="choose a window that is a multiple of the bin",
            )
        )
    return length // bin_size
