"""Intervals and windows: 0-based, half-open, int64.

A :class:`Window` may reach beyond its contig. It then says how much is missing on either side; the
missing part is padding, and the transcription start site never moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = [
    "Window",
    "complement",
    "coverage_mask",
    "intersect",
    "merge",
    "touching",
    "tss_window",
]

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a contig, possibly longer than the contig, seen from one strand.

    Attributes
    ----------
    contig : str
    start, end : int
        0-based half-open; ``start`` may be negative and ``end`` may exceed the contig.
    strand : str
        ``"-"`` when the model reads the window reverse-complemented, otherwise ``"+"``.
    contig_length : int
        Length of the contig in bases.
    """

    contig: str
    start: int
    end: int
    strand: str
    contig_length: int

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise InputError(
                facts(
                    f"window on {self.contig}",
                    found=f"start {self.start}, end {self.end}",
                    expected="start < end",
                    fix="ask for a window of at least one base",
                )
            )

    @property
    def length(self) -> int:
        """Number of bases, padding included."""
        return self.end - self.start

    @property
    def clipped_start(self) -> int:
        """First base inside the contig."""
        return min(max(self.start, 0), self.contig_length)

    @property
    def clipped_end(self) -> int:
        """One past the last base inside the contig."""
        return max(min(self.end, self.contig_length), 0)

    @property
    def pad_left(self) -> int:
        """Bases missing before the contig begins, in genome direction."""
        return min(max(-self.start, 0), self.length)

    @property
    def pad_right(self) -> int:
        """Bases missing after the contig ends, in genome direction."""
        return min(max(self.end - self.contig_length, 0), self.length)

    @property
    def reverse(self) -> bool:
        """True when the model sees the opposite strand."""
        return self.strand == "-"

    def genome_interval(self, start: int, end: int) -> tuple[int, int]:
        """Return the genome interval of a half-open interval given in model direction."""
        if self.reverse:
            return self.end - end, self.end - start
        return self.start + start, self.start + end


def tss_window(
    contig: str,
    tss: int,
    strand: str,
    *,
    length: int,
    contig_length: int,
    oriented: bool = True,
) -> Window:
    """Return the window whose base ``length // 2``, as the model reads it, is the TSS.

    Reversing an even window moves its centre by one base. Minus-strand windows are therefore
    shifted by one, so that the TSS keeps its index on both strands.

    Parameters
    ----------
    contig : str
    tss : int
        0-based position of the first transcribed base.
    strand : str
        Strand of the gene, ``"+"`` or ``"-"``.
    length : int
        Window length in bases.
    contig_length : int
        Contig length in bases.
    oriented : bool
        Read minus-strand genes reverse-complemented (``strand: gene``); otherwise the window is
        read on the plus strand (``strand: plus``).

    Raises
    ------
    InputError
        The TSS lies outside its contig, the strand is unknown, or the length is not positive.
    """
    if not 0 <= tss < contig_length:
        raise InputError(
            facts(
                f"TSS on {contig}",
                found=f"position {tss}",
                expected=f"0 <= position < {contig_length}",
                fix="check that the annotation and the FASTA are of the same assembly",
            )
        )
    if strand not in ("+", "-"):
        raise InputError(
            facts(
                f"TSS {contig}:{tss}",
                found=f"strand {strand!r}",
                expected="'+' or '-'",
                fix="give every gene a strand",
            )
        )
    seen = "-" if oriented and strand == "-" else "+"
    start = tss - length // 2 if seen == "+" else tss - (length - 1 - length // 2)
    return Window(contig, start, start + length, seen, contig_length)


def merge(starts: ArrayLike, ends: ArrayLike, *, gap: int = 0) -> Intervals:
    """Return the union of intervals, sorted; those at most ``gap`` bases apart are joined.

    Parameters
    ----------
    starts, ends : int arrays, shape (num_intervals,)
        0-based half-open, in any order.
    gap : int
        Largest distance in bases over which two intervals are joined; touching ones always are.

    Returns
    -------
    (int64 array, int64 array)
    """
    start, end = _sorted(starts, ends)
    if start.size == 0:
        return start, end
    reach = np.maximum.accumulate(end)
    first = np.concatenate(([True], start[1:] > reach[:-1] + gap))
    last = np.concatenate((first[1:], [True]))
    return start[first], reach[last]


def touching(
    starts: NDArray[np.int64], ends: NDArray[np.int64], known: Intervals
) -> NDArray[np.bool_]:
    """Return which intervals share a base with a known one.

    Parameters
    ----------
    starts, ends : int64 arrays, shape (num_intervals,)
        0-based half-open, in any order.
    known : (int64 array, int64 array)
        Sorted and disjoint, as :func:`merge` returns them.
    """
    begun = np.searchsorted(known[0], ends, side="left")
    found: NDArray[np.bool_] = begun > np.searchsorted(known[1], starts, side="right")
    return found


def complement(starts: ArrayLike, ends: ArrayLike, *, length: int) -> Intervals:
    """Return the parts of ``[0, length)`` that no interval covers."""
    start, end = merge(starts, ends)
    edges_start = np.concatenate(([0], end)).clip(0, length)
    edges_end = np.concatenate((start, [length])).clip(0, length)
    keep = edges_end > edges_start
    return edges_start[keep], edges_end[keep]


def intersect(first: Intervals, second: Intervals, *, length: int) -> Intervals:
    """Return the bases covered by both sets of intervals on one contig of ``length`` bases."""
    outside_first = complement(*first, length=length)
    outside_second = complement(*second, length=length)
    return complement(
        np.concatenate((outside_first[0], outside_second[0])),
        np.concatenate((outside_first[1], outside_second[1])),
        length=length,
    )


def coverage_mask(starts: ArrayLike, ends: ArrayLike, start: int, end: int) -> NDArray[np.bool_]:
    """Return which bases of ``[start, end)`` are covered by any interval.

    Returns
    -------
    bool array, shape (end - start,)
    """
    length = end - start
    lower = np.clip(np.asarray(starts, dtype=np.int64) - start, 0, length)
    upper = np.clip(np.asarray(ends, dtype=np.int64) - start, 0, length)
    steps = np.zeros(length + 1, dtype=np.int64)
    keep = upper > lower
    np.add.at(steps, lower[keep], 1)
    np.add.at(steps, upper[keep], -1)
    return np.cumsum(steps[:-1]) > 0


def _sorted(starts: ArrayLike, ends: ArrayLike) -> Intervals:
    start = np.asarray(starts, dtype=np.int64)
    end = np.asarray(ends, dtype=np.int64)
    order = np.argsort(start, kind="stable")
    return start[order], end[order]
