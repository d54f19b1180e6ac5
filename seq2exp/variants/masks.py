"""Bins that a score counts: around a variant, or in the exons of a gene.

Shapes: N bins of the window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.intervals import Window, coverage_mask

__all__ = ["CENTRE_WIDTH", "centre_bins", "centre_mask", "gene_mask"]

CENTRE_WIDTH = 501
"""Bases of a centre mask by default; AlphaGenome takes 2,001 for histone marks."""

Bools = NDArray[np.bool_]


def centre_bins(
    offset: int, *, num_bins: int, bin_size: int, width: int = CENTRE_WIDTH
) -> tuple[int, int]:
    """Return the range of bins around a place of a window, half-open.

    Of ``k = ceil(width / bin_size)`` bins, ``k // 2`` are before the bin of the place; fewer at
    the ends of the window (google-deepmind/alphagenome_research, center_mask.py).

    Parameters
    ----------
    offset : int
        Bases from the start of the window.
    num_bins, bin_size : int
    width : int
        Bases.

    Raises
    ------
    ConfigError
        The width is below one base.
    """
    if width < 1:
        raise ConfigError(
            facts("width of the centre mask", found=width, expected="at least 1 bp", fix="use 501")
        )
    centre, size = offset // bin_size, -(-width // bin_size)
    first = centre - size // 2
    return min(max(first, 0), num_bins), min(max(first + size, 0), num_bins)


def centre_mask(
    window: Window, position: int, *, bin_size: int, width: int = CENTRE_WIDTH
) -> Bools:
    """Return the bins around a position of the genome, in model direction, shape (N,).

    Parameters
    ----------
    window : Window
    position : int
        0-based; outside of the window no bin counts, however near it is.
    bin_size, width : int
        Bases.
    """
    num_bins = _num_bins(window, bin_size)
    inside = np.zeros(num_bins, np.bool_)
    if window.start <= position < window.end:
        first, last = centre_bins(
            position - window.start, num_bins=num_bins, bin_size=bin_size, width=width
        )
        inside[first:last] = True
    return inside[::-1].copy() if window.reverse else inside


def gene_mask(window: Window, starts: ArrayLike, ends: ArrayLike, *, bin_size: int) -> Bools:
    """Return the bins that intervals touch, such as exons, in model direction, shape (N,).

    Parameters
    ----------
    window : Window
    starts, ends : int arrays
        0-based half-open; parts outside of the window are left out.
    bin_size : int
    """
    first, last = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    if first.shape != last.shape or (last < first).any():
        raise InputError(
            facts("intervals of a gene", found="ends before starts, or another number of them",
                  expected="one end for each start, not before it", fix="mend the annotation")
        )  # fmt: skip
    num_bins = _num_bins(window, bin_size)
    bases = coverage_mask(first, last, window.start, window.end)
    inside = np.asarray(bases.reshape(num_bins, bin_size).any(axis=1))
    return inside[::-1].copy() if window.reverse else inside


def _num_bins(window: Window, bin_size: int) -> int:
    if bin_size < 1 or window.length % bin_size:
        raise InputError(
            facts("bins of a window", found=f"{window.length} bases in bins of {bin_size}",
                  expected="a whole number of bins", fix="choose a multiple of the bin")
        )  # fmt: skip
    return window.length // bin_size
