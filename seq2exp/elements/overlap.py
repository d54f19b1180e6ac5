"""Called elements against any set of intervals, base by base: overlap, Jaccard, enrichment.

Only bases that are learned for some gene count: elsewhere nothing could be called. They are laid
end to end, contig by contig, so that forced promoters and the space between windows drop out. In
this space the intervals are shifted round the circle to get the null: that keeps their lengths,
their spacing and their clustering, and breaks only where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import intersect, merge
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.training.metrics import Estimate, interval

__all__ = ["LearnedSpace", "overlap_rows"]

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]
Float = NDArray[np.float64]
# Numbers held at once; more shifts are worked through in parts.
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Learned bases of one contig: where they lie, and where each run of them begins in the space.

    Attributes
    ----------
    learned : (int64 array, int64 array)
    offset : int64 array
        Learned bases before each run.
    length : int
        Of the contig.
    """

    learned: Intervals
    offset: NDArray[np.int64]
    length: int

    @property
    def size(self) -> int:
        return int((self.learned[1] - self.learned[0]).sum())

    def place(self, intervals: Intervals) -> Intervals:
        """Return the learned part of intervals, in the space."""
        starts, ends = intersect(self.learned, intervals, length=self.length)
        run = np.searchsorted(self.learned[0], starts, side="right") - 1
        shift = self.offset[run] - self.learned[0][run] if starts.size else starts
        return merge(starts + shift, ends + shift)


class LearnedSpace:
    """The bases that are learned for any of some genes, laid end to end.

    Parameters
    ----------
    masks : GeneMasks
    genes : int64 array, optional
        Rows of the masks; all by default.
    """

    def __init__(self, masks: GeneMasks, genes: NDArray[np.int64] | None = None) -> None:
        rows = np.arange(len(masks), dtype=np.int64) if genes is None else genes
        contigs = masks.genes["contig"].astype(str).to_numpy()[rows]
        self.block_bp = masks.num_bins * masks.bin_size
        self.contigs: dict[str, _Stretch] = {}
        for contig in dict.fromkeys(contigs.tolist()):
            here = rows[contigs == contig]
            starts, ends = masks.intervals_of(here)
            free = (np.asarray(masks.forced[here]) == FREE) & (ends > starts)
            learned = merge(starts[free], ends[free])
            offset = np.concatenate(([0], np.cumsum(learned[1] - learned[0])))[:-1]
            length = int(masks.genes["contig_length"].iloc[here[0]])
            self.contigs[contig] = _Stretch(learned, offset.astype(np.int64), length)

    def place(self, frame: pd.DataFrame) -> dict[str, Intervals]:
        """Return the learned part of intervals (chrom, start, end), per contig, in the space."""
        return {name: stretch.place(_of(frame, name)) for name, stretch in self.contigs.items()}


def overlap_rows(
    space: LearnedSpace,
    called: pd.DataFrame,
    true: pd.DataFrame,
    *,
    name: str,
    split: str = "all",
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return how two sets of intervals overlap on the learned bases.

    With C the called and T the true learned bases of L: ``base_precision = |C and T| / |C|``,
    ``base_recall = |C and T| / |T|``, ``jaccard = |C and T| / |C or T|``, ``enrichment =
    base_precision / (|T| / |L|)``. Intervals come from resamples of blocks of the space, each one
    window long. ``enrichment_null`` is the mean enrichment of true intervals that were shifted at
    random, with the range of 95 % of them; ``enrichment_p`` is the share of shifts (the real place
    counted as one) that reach the enrichment.

    Parameters
    ----------
    space : LearnedSpace
    called, true : DataFrame
        ``chrom, start, end``; may overlap.
    name, split : str
        Written into the rows.
    num_resamples : int
        Of blocks, and shifts.
    seed : int

    Returns
    -------
    list of dict
        ``name, metric, split, value, low, high, n``; n is the number of blocks, or of shifts.
        NaN is None.
    """
    random = np.random.default_rng(seed)
    first, second = space.place(called), space.place(true)
    both = {
        contig: intersect(first[contig], second[contig], length=max(stretch.size, 1))
        for contig, stretch in space.contigs.items()
    }
    blocks = _blocks(space, (first, second, both))
    total = blocks.sum(axis=0)
    draws = random.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), num_resamples)
    values, spread = _ratios(total), _ratios((draws @ blocks).T)
    rows = []
    for metric in values:
        resampled = spread[metric] if total[2] else np.empty(0)
        estimate = interval(float(values[metric]), resampled, n=len(blocks))
        rows.append(estimate.row(name, metric, split=split))
    expected = total[1] * total[2] / total[0] if total[0] else 0.0
    if expected:
        null = _shifted(space, first, second, random, num_resamples) / expected
        mean = interval(float(null.mean()), null, n=null.size)
        rows.append(mean.row(name, "enrichment_null", split=split))
        reached = (1 + int((null >= float(values["enrichment"])).sum())) / (1 + null.size)
        rows.append(Estimate(reached, n=null.size).row(name, "enrichment_p", split=split))
    return rows


def _blocks(space: LearnedSpace, sets: tuple[Mapping[str, Intervals], ...]) -> Float:
    """Return bases per block: learned, and of each set; shape (num_blocks, 1 + num_sets)."""
    parts = []
    for contig, stretch in space.contigs.items():
        num = max(round(stretch.size / space.block_bp), 1)
        edges = np.linspace(0, stretch.size, num + 1)
        columns = [edges, *(_covered(chosen[contig], edges) for chosen in sets)]
        parts.append(np.diff(np.stack(columns, axis=1), axis=0))
    return np.concatenate(parts)


def _covered(intervals: Intervals, positions: Float) -> Float:
    """Return the bases of disjoint, sorted intervals below each position."""
    starts, ends = intervals
    if starts.size == 0:
        return np.zeros(positions.shape)
    places = np.stack((starts, ends), axis=1).ravel()
    reached = np.cumsum(ends - starts)
    counts = np.stack((reached - (ends - starts), reached), axis=1).ravel()
    covered: Float = np.interp(positions, places, counts, left=0.0, right=float(reached[-1]))
    return covered


def _shifted(
    space: LearnedSpace,
    called: Mapping[str, Intervals],
    true: Mapping[str, Intervals],
    random: np.random.Generator,
    num_shifts: int,
) -> Float:
    """Return shared bases after shifting the true intervals of every contig round its circle."""
    shared = np.zeros(num_shifts)
    for contig, stretch in space.contigs.items():
        size, (starts, ends) = stretch.size, true[contig]
        shifts = random.integers(0, max(size, 1), num_shifts)
        if starts.size == 0 or called[contig][0].size == 0:
            continue
        whole = float(_covered(called[contig], np.array([float(size)]))[0])

        def below(
            places: Float, *, contig: str = contig, size: int = size, whole: float = whole
        ) -> Float:
            turns, rest = np.divmod(places, size)
            return turns * whole + _covered(called[contig], rest)

        step = max(1, _CHUNK // starts.size)
        for first in range(0, num_shifts, step):
            part = shifts[first : first + step, None].astype(np.float64)
            shared[first : first + step] += (below(ends + part) - below(starts + part)).sum(axis=1)
    return shared


def _of(frame: pd.DataFrame, contig: str) -> Intervals:
    here = frame[frame["chrom"] == contig]
    return merge(here["start"].to_numpy(np.int64), here["end"].to_numpy(np.int64))


def _ratios(bases: Float) -> dict[str, Float]:
    """Return the ratios of learned, called, true and shared bases; NaN where undefined."""
    learned, called, true, shared = bases
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(called > 0, shared / called, np.nan)
        return {
            "base_precision": precision,
            "base_recall": np.where(true > 0, shared / true, np.nan),
            "jaccard": np.where(called + true > 0, shared / (called + true - shared), np.nan),
            "enrichment": np.where(true > 0, precision * learned / true, np.nan),
        }
