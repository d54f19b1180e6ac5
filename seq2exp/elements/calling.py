"""From a mask to elements: a threshold or a budget, then the run-length rule of peak callers.

The rule is that of MACS3 ``bdgpeakcall`` (documented behaviour): keep intervals whose value
reaches the cutoff, break a run where the next start lies more than ``max_gap`` behind the previous
end, keep runs of at least ``min_length``, and call the largest value of a run its summit.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import ConfigError, Seq2ExpWarning, facts
from seq2exp.elements.masks import FREE, PROMOTER, GeneMasks

__all__ = [
    "ELEMENT_COLUMNS",
    "CallConfig",
    "Runs",
    "budget_threshold",
    "call_elements",
    "call_runs",
    "merge_elements",
]

ELEMENT_COLUMNS = (
    "chrom",
    "start",
    "end",
    "name",
    "score",
    "strand",
    "mean_mask",
    "max_mask",
    "summit",
    "gene_id",
    "symbol",
    "distance",
    "element_class",
)


@dataclass(frozen=True)
class CallConfig:
    """How elements are called."""

    threshold: float | None = None
    """Smallest mask of a called bin; when not given it follows from the budget."""
    budget: float = 0.05
    """Largest share of all learned bins, over all genes together, that may be called."""
    max_gap_bp: int = 0
    """Runs at most this far apart are joined."""
    min_length_bp: int = 100
    """Shorter runs are dropped."""

    def __post_init__(self) -> None:
        checks = {
            "threshold": (self.threshold is None or 0 < self.threshold <= 1, "0 < value <= 1"),
            "budget": (0 < self.budget <= 1, "0 < value <= 1"),
            "max_gap_bp": (self.max_gap_bp >= 0, ">= 0"),
            "min_length_bp": (self.min_length_bp >= 1, ">= 1"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"elements.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change it",
                    )
                )

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the settings as plain values."""
        return asdict(self)


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


def budget_threshold(masks: GeneMasks, budget: float) -> float:
    """Return the smallest value that at most ``budget`` of all learned bins reach.

    Exact and in bounded memory: float16 has few values, and the bit patterns of those that are
    not negative have the order of the numbers, so one histogram holds all genes.
    """
    counts = np.zeros(1 << 16, dtype=np.int64)
    for genes in masks.chunks():
        learned = np.asarray(masks.mask[genes])[np.asarray(masks.forced[genes]) == FREE]
        counts += np.bincount(np.abs(learned).view(np.uint16), minlength=counts.size)
    above = np.cumsum(counts[::-1])[::-1]
    within = np.flatnonzero(above <= budget * above[0])
    bits = np.array([within[0]], dtype=np.uint16)
    # Bit patterns without a bin lie between two values: take the next one that occurs.
    occurring = np.flatnonzero(counts[within[0] :])
    if occurring.size:
        bits = np.array([within[0] + occurring[0]], dtype=np.uint16)
    return float(bits.view(np.float16)[0])


def call_elements(masks: GeneMasks, config: CallConfig | None = None) -> tuple[pd.DataFrame, float]:
    """Call the elements of every gene.

    Forced bins never enter the calls: the promoter is reported once per gene as its own class, and
    runs of learned bins end at it.

    Returns
    -------
    elements : DataFrame
        Columns ``ELEMENT_COLUMNS``, sorted by contig, start, end. ``score`` is 1000 times the mean
        mask. ``distance`` is the signed distance in bases from the TSS to the nearest base of the
        element along transcription (0 where it covers the TSS, negative upstream).
        ``element_class`` is ``promoter`` or ``distal``.
    threshold : float
        The threshold used.
    """
    config = config or CallConfig()
    threshold = config.threshold
    if threshold is None:
        threshold = budget_threshold(masks, config.budget)
    frames = []
    for genes in masks.chunks():
        frames += [_distal(masks, genes, threshold, config), _promoters(masks, genes)]
    elements = pd.concat(frames, ignore_index=True)
    if not (elements["element_class"] == "distal").any():
        warnings.warn(
            facts(
                "elements",
                found=f"no distal element at mask >= {threshold:.4g}",
                expected="at least one",
                fix="raise the budget or lower the threshold and the minimum length",
                count=0,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    ordered = elements.sort_values(["chrom", "start", "end", "gene_id"], kind="stable")
    return ordered.reset_index(drop=True), float(threshold)


def _distal(
    masks: GeneMasks, genes: NDArray[np.int64], threshold: float, config: CallConfig
) -> pd.DataFrame:
    starts, ends = masks.intervals_of(genes)
    forced = np.asarray(masks.forced[genes])
    values = np.where(forced == FREE, np.asarray(masks.mask[genes], dtype=np.float64), np.nan)
    # Every forced stretch starts a new group, so no gap may bridge a promoter.
    side = np.cumsum(forced != FREE, axis=1)
    groups = np.arange(genes.size)[:, None] * (masks.num_bins + 1) + side
    runs = call_runs(
        starts.ravel(),
        ends.ravel(),
        values.ravel(),
        cutoff=threshold,
        max_gap=config.max_gap_bp,
        min_length=config.min_length_bp,
        groups=groups.ravel(),
    )
    owner = genes[runs.group // (masks.num_bins + 1)]
    return _table(masks, owner, runs, "distal")


def _promoters(masks: GeneMasks, genes: NDArray[np.int64]) -> pd.DataFrame:
    starts, ends = masks.intervals_of(genes)
    forced = np.asarray(masks.forced[genes]) == PROMOTER
    runs = call_runs(
        starts.ravel(),
        ends.ravel(),
        forced.ravel().astype(np.float64),
        cutoff=1.0,
        groups=np.repeat(genes, masks.num_bins),
    )
    return _table(masks, runs.group, runs, "promoter")


def _table(
    masks: GeneMasks, owner: NDArray[np.int64], runs: Runs, element_class: str
) -> pd.DataFrame:
    genes = masks.genes.iloc[owner]
    strand = genes["strand"].to_numpy(dtype=object)
    tss = genes["tss"].to_numpy(np.int64)
    gene_id = genes["gene_id"].astype(str).to_numpy(dtype=object)
    place = [f"{start}-{end}" for start, end in zip(runs.start, runs.end, strict=True)]
    summit = np.where(element_class == "promoter", tss, runs.summit)
    return pd.DataFrame(
        {
            "chrom": genes["contig"].astype(str).to_numpy(dtype=object),
            "start": runs.start,
            "end": runs.end,
            "name": [
                f"{gene}|{element_class}|{where}"
                for gene, where in zip(gene_id, place, strict=True)
            ],
            "score": np.rint(1000 * runs.mean).astype(np.int64).clip(0, 1000),
            "strand": strand,
            "mean_mask": runs.mean,
            "max_mask": runs.height,
            "summit": summit,
            "gene_id": gene_id,
            "symbol": genes["symbol"].astype(str).to_numpy(dtype=object),
            "distance": _signed_distance(runs.start, runs.end, tss, strand),
            "element_class": element_class,
        },
        columns=list(ELEMENT_COLUMNS),
    )


def _signed_distance(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    tss: NDArray[np.int64],
    strand: NDArray[np.object_],
) -> NDArray[np.int64]:
    right = np.maximum(start - tss, 0)
    left = np.maximum(tss - (end - 1), 0)
    distance: NDArray[np.int64] = np.where(strand == "-", left - right, right - left)
    return distance


def merge_elements(elements: pd.DataFrame) -> pd.DataFrame:
    """Return the union of elements over genes: overlapping ones become one.

    Returns
    -------
    DataFrame
        chrom, start, end, name, score, strand (``.``), mean_mask and max_mask (largest of the
        merged ones), num_genes, genes (ids joined by commas), element_class (``promoter`` where
        any of them is one).
    """
    ordered = elements.sort_values(["chrom", "start", "end"], kind="stable")
    if ordered.empty:
        columns = ["chrom", "start", "end", "name", "score", "strand"]
        extra = ["mean_mask", "max_mask", "num_genes", "genes", "element_class"]
        return pd.DataFrame(columns=columns + extra)
    reach = ordered.groupby("chrom", sort=False)["end"].cummax().to_numpy()
    start = ordered["start"].to_numpy()
    chrom = ordered["chrom"].to_numpy()
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = (chrom[1:] != chrom[:-1]) | (start[1:] >= reach[:-1])
    grouped = ordered.groupby(np.cumsum(new) - 1, sort=True)
    merged = grouped.agg(
        chrom=("chrom", "first"),
        start=("start", "min"),
        end=("end", "max"),
        score=("score", "max"),
        mean_mask=("mean_mask", "max"),
        max_mask=("max_mask", "max"),
        num_genes=("gene_id", "nunique"),
        genes=("gene_id", lambda ids: ",".join(sorted(set(ids)))),
        promoter=("element_class", lambda kinds: bool((kinds == "promoter").any())),
    )
    merged.insert(3, "name", [f"E{number + 1:06d}" for number in range(len(merged))])
    merged.insert(5, "strand", ".")
    merged["element_class"] = np.where(merged.pop("promoter"), "promoter", "distal")
    return merged
