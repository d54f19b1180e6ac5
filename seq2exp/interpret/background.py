"""Regions to compare elements with: equal length, similar GC, from the same windows, not called.

Enrichment against arbitrary DNA mostly finds GC content. Every element is therefore compared with
stretches of its own length from where it could have been called, whose GC is nearest to its own, or
with dinucleotide shuffles of itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.intervals import Window, complement, intersect, merge
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.store import Dataset

__all__ = [
    "Background",
    "allowed_places",
    "cut_sequences",
    "matched_regions",
    "shuffled_sequences",
]

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]
# Random places that are looked at per region that is wanted.
_CANDIDATES = 40
# GC of a match may differ by this much.
_GC_TOLERANCE = 0.05
_MAX_N = 0.2


@dataclass(frozen=True, eq=False)
class Background:
    """What elements are compared with.

    Attributes
    ----------
    regions : DataFrame
        chrom, start, end, element (row of the elements); empty for shuffles.
    sequences : list of uint8 arrays
    num_missing : int
        Wanted regions for which no match was found.
    """

    regions: pd.DataFrame
    sequences: list[NDArray[np.uint8]]
    num_missing: int = 0


def cut_sequences(dataset: Dataset, regions: pd.DataFrame) -> list[NDArray[np.uint8]]:
    """Return the base codes of regions (chrom, start, end) on the plus strand."""
    lengths = dataset.manifest.contigs
    return [
        dataset.codes(Window(str(chrom), int(start), int(end), "+", lengths[str(chrom)]))
        for chrom, start, end in zip(
            regions["chrom"], regions["start"], regions["end"], strict=True
        )
    ]


def shuffled_sequences(
    sequences: list[NDArray[np.uint8]], *, per_element: int, seed: int = 0
) -> Background:
    """Return dinucleotide shuffles of every sequence.

    Parameters
    ----------
    sequences : list of uint8 arrays
    per_element : int
        Shuffles of each.
    seed : int
    """
    random = np.random.default_rng(seed)
    shuffled = [
        shuffle_dinucleotides(codes, random) for codes in sequences for _ in range(per_element)
    ]
    return Background(pd.DataFrame(columns=["chrom", "start", "end", "element"]), shuffled)


def matched_regions(
    dataset: Dataset,
    elements: pd.DataFrame,
    allowed: Mapping[str, Intervals],
    *,
    per_element: int = 5,
    seed: int = 0,
) -> Background:
    """Draw regions of the length and GC of each element that overlap neither it nor one another.

    Parameters
    ----------
    dataset : Dataset
    elements : DataFrame
        chrom, start, end.
    allowed : mapping
        Per contig, where regions may lie whole; see `allowed_places`.
    per_element : int
        Regions per element; where fewer are found the loss is counted and warned of.
    seed : int

    Raises
    ------
    InputError
        No region was found at all.
    """
    parts, missing = [], 0
    for number, (contig, here) in enumerate(elements.groupby("chrom", sort=True)):
        places = allowed.get(str(contig), (np.empty(0, np.int64), np.empty(0, np.int64)))
        random = np.random.default_rng((seed, number))
        found = _matches(dataset, str(contig), here, places, per_element, random)
        missing += per_element * len(here) - len(found)
        parts.append(found)
    regions = pd.concat(parts, ignore_index=True)
    if regions.empty:
        raise InputError(
            facts(
                "background",
                found="no region of the length and GC of the elements that is not called",
                expected="room beside the elements",
                fix="use --background shuffled, or fewer elements",
            )
        )
    if missing:
        message = (
            f"background: no match of length and GC (within {_GC_TOLERANCE:.0%}) for {missing:,} "
            f"of {per_element * len(elements):,} wanted regions"
        )
        warnings.warn(message, Seq2ExpWarning, stacklevel=2)
    return Background(regions, cut_sequences(dataset, regions), missing)


def allowed_places(
    dataset: Dataset, inside: pd.DataFrame, outside: pd.DataFrame
) -> dict[str, Intervals]:
    """Return per contig the bases that lie in `inside` and not in `outside`.

    Parameters
    ----------
    dataset : Dataset
    inside, outside : DataFrame
        chrom, start, end; may overlap and reach beyond the contig.
    """
    places = {}
    for contig, group in inside.groupby("chrom"):
        length = dataset.manifest.contigs[str(contig)]
        taken = outside[outside["chrom"] == contig]
        free = complement(taken["start"], taken["end"], length=length)
        window = merge(group["start"].clip(0, length), group["end"].clip(0, length))
        places[str(contig)] = intersect(window, free, length=length)
    return places


def _matches(
    dataset: Dataset,
    contig: str,
    elements: pd.DataFrame,
    places: Intervals,
    per_element: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    length = dataset.manifest.contigs[contig]
    codes = dataset.codes(Window(contig, 0, length, "+", length))
    gc = np.concatenate(([0], np.cumsum((codes == 1) | (codes == 2))))
    unknown = np.concatenate(([0], np.cumsum(codes == N_CODE)))
    free = np.zeros(length, dtype=np.bool_)
    for start, end in zip(*places, strict=True):
        free[start:end] = True
    rows = []
    spans = zip(elements.index, elements["start"], elements["end"], strict=True)
    for index, start, end in spans:
        size = int(end - start)
        wanted = _share(gc, unknown, np.array([start]), size)[0]
        drawn = _draw(places, size, _CANDIDATES * per_element, random)
        drawn = drawn[unknown[drawn + size] - unknown[drawn] <= _MAX_N * size]
        distance = np.abs(_share(gc, unknown, drawn, size) - wanted)
        taken = 0
        for at in np.argsort(distance, kind="stable"):
            first = int(drawn[at])
            if taken == per_element or not distance[at] <= _GC_TOLERANCE:
                break
            if free[first : first + size].all():
                free[first : first + size] = False
                rows.append((contig, first, first + size, index))
                taken += 1
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "element"])


def _share(
    gc: NDArray[np.int64], unknown: NDArray[np.int64], starts: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """GC of the known bases of stretches; NaN where there are none."""
    known = size - (unknown[starts + size] - unknown[starts])
    counts = gc[starts + size] - gc[starts]
    share: NDArray[np.float64] = np.divide(
        counts, known, out=np.full(len(starts), np.nan), where=known > 0
    )
    return share


def _draw(
    places: Intervals, size: int, count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw first bases of stretches that fit, every one equally likely."""
    starts, ends = places
    room = np.maximum(ends - starts - size + 1, 0)
    total = int(room.sum())
    if not total:
        return np.empty(0, dtype=np.int64)
    upto = np.cumsum(room)
    at = random.integers(0, total, count)
    which = np.searchsorted(upto, at, side="right")
    first: NDArray[np.int64] = starts[which] + at - (upto[which] - room[which])
    return np.unique(first) if count > total else first
