"""Runs of intervals above a cutoff: the run-length rule of peak callers.

The rule is that of MACS3 ``bdgpeakcall`` (documented behaviour): keep intervals whose value
reaches the cutoff, break a run where the next start lies more than ``max_gap`` behind the previous
end, keep runs of at least ``min_length``, and call the largest value of a run its summit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Runs", "call_runs"]


@dataclass(frozen=True, eq=False)
class Runs:
    """Called runs, in the order of the input.

    Attributes
    ----------
    start, end, summit : int64 arrays
        0-based half-open; the summit is the centre of the highest interval (the middle one of
        several).
    height : float64 array
        Largest value.
    mean : float64 array
        Mean over the covered bases of the run, bridged gaps included.
    group : int64 array
        Group of the run.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    summit: NDArray[np.int64]
    height: NDArray[np.float64]
    mean: NDArray[np.float64]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.start.size)


def call_runs(
    starts: ArrayLike,
    ends: ArrayLike,
    values: ArrayLike,
    *,
    cutoff: float,
    max_gap: int = 0,
    min_length: int = 1,
    groups: ArrayLike | None = None,
) -> Runs:
    """Call runs of intervals whose value reaches a cutoff.

    Parameters
    ----------
    starts, ends : int arrays, shape (num_intervals,)
        Disjoint and sorted within each group, 0-based half-open.
    values : float array, shape (num_intervals,)
        NaN never reaches the cutoff.
    cutoff : float
        Smallest value kept.
    max_gap : int
        Largest distance in bases over which a run goes on.
    min_length : int
        Smallest length in bases of a reported run.
    groups : int array, shape (num_intervals,), optional
        Runs never cross from one group to the next; equal groups must be adjacent.
    """
    start, end = np.asarray(starts, dtype=np.int64), np.asarray(ends, dtype=np.int64)
    value = np.asarray(values, dtype=np.float64)
    group = np.zeros(start.size, np.int64) if groups is None else np.asarray(groups, np.int64)
    kept = np.flatnonzero((value >= cutoff) & (end > start))
    if kept.size == 0:
        empty, none = np.empty(0, np.int64), np.empty(0, np.float64)
        return Runs(empty, empty, empty, none, none, empty)
    new = np.ones(kept.size, dtype=np.bool_)
    new[1:] = (start[kept[1:]] - end[kept[:-1]] > max_gap) | (group[kept[1:]] != group[kept[:-1]])
    first = np.flatnonzero(new)
    last = np.append(first[1:], kept.size) - 1
    low, high = kept[first], kept[last]
    long = end[high] - start[low] >= min_length
    first, last, low, high = first[long], last[long], low[long], high[long]
    if first.size == 0:
        return call_runs([], [], [], cutoff=cutoff)
    height = np.maximum.reduceat(value[kept], np.flatnonzero(new))[long]
    return Runs(
        start=start[low],
        end=end[high],
        summit=_summits(start, end, value, kept, first, last, height),
        height=height,
        mean=_covered_mean(start, end, value, low, high),
        group=group[low],
    )


def _summits(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    value: NDArray[np.float64],
    kept: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    height: NDArray[np.float64],
) -> NDArray[np.int64]:
    counts = last - first + 1
    run = np.repeat(np.arange(first.size), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    member = kept[np.repeat(first, counts) + inside]
    top = value[member] == height[run]
    tied, owner = member[top], run[top]
    num_tied = np.bincount(owner, minlength=first.size)
    middle = np.cumsum(num_tied) - num_tied + (num_tied - 1) // 2
    chosen = tied[middle]
    centre: NDArray[np.int64] = (start[chosen] + end[chosen]) // 2
    return centre


def _covered_mean(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    value: NDArray[np.float64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> NDArray[np.float64]:
    known = np.isfinite(value)
    length = np.where(known, end - start, 0).astype(np.float64)
    mass = np.concatenate(([0.0], np.cumsum(np.where(known, value, 0.0) * length)))
    covered = np.concatenate(([0.0], np.cumsum(length)))
    mean: NDArray[np.float64] = (mass[high + 1] - mass[low]) / (covered[high + 1] - covered[low])
    return mean
