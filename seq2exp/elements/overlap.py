"""Called elements against any set of intervals: how many meet, and how many would by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import intersect, merge
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.truth import Truth

__all__ = ["overlap_table"]

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]


def overlap_table(
    masks: GeneMasks,
    elements: pd.DataFrame,
    truth: Truth,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare called distal elements with intervals, base by base and element by element.

    Only bases that are learned for some gene count: elsewhere nothing could be called. With C the
    called and T the true learned bases, ``precision = |C and T| / |C|``,
    ``recall = |C and T| / |T|`` and ``enrichment = precision / (|T| / |learned|)``. Enrichment is
    1 for calls placed at random. Intervals resample contigs where there are five or more; genes
    share bases, so they are no independent units. With fewer contigs ``low`` and ``high`` are None.

    Parameters
    ----------
    masks : GeneMasks
    elements : DataFrame
        Called elements of these masks.
    truth : Truth
    num_resamples : int
    seed : int

    Returns
    -------
    list of dict
        ``name, metric, split, value, low, high, n``; n is the number of called elements for
        ``elements_overlapping``, of contigs otherwise.
    """
    distal = elements[elements["element_class"] == "distal"]
    known = truth.elements[truth.elements["causal"]]
    contigs = list(dict.fromkeys(masks.genes["contig"].astype(str)))
    bases = np.array([_bases(masks, distal, known, contig) for contig in contigs], dtype=float)
    rows = []
    random = np.random.default_rng(seed)
    draws = random.multinomial(len(contigs), [1 / len(contigs)] * len(contigs), num_resamples)
    for metric, place in (("base_precision", 0), ("base_recall", 1), ("enrichment", 2)):
        value = _ratios(bases.sum(axis=0))[place]
        low = high = None
        if len(contigs) >= 5:
            found = np.array([_ratios(counts @ bases)[place] for counts in draws])
            found = found[np.isfinite(found)]
            if found.size:
                low, high = map(float, np.quantile(found, [0.025, 0.975]))
        rows.append(_row(truth, metric, value, low, high, len(contigs)))
    rows.append(
        _row(truth, "elements_overlapping", _touching(distal, known), None, None, len(distal))
    )
    return rows


def _row(
    truth: Truth, metric: str, value: float, low: float | None, high: float | None, n: int
) -> dict[str, Any]:
    finite = float(value) if np.isfinite(value) else None
    return {
        "name": f"elements / {truth.name}",
        "metric": metric,
        "split": "all",
        "value": finite,
        "low": low,
        "high": high,
        "n": n,
    }


def _bases(
    masks: GeneMasks, distal: pd.DataFrame, known: pd.DataFrame, contig: str
) -> tuple[int, int, int, int]:
    """Return learned, called, true, and called true bases of a contig."""
    genes = np.flatnonzero(masks.genes["contig"].to_numpy() == contig)
    length = int(masks.genes["contig_length"].iloc[genes[0]])
    starts, ends = masks.intervals_of(genes)
    free = (np.asarray(masks.forced[genes]) == FREE) & (ends > starts)
    learned = merge(starts[free], ends[free])
    called = intersect(learned, _of(distal, contig), length=length)
    true = intersect(learned, _of(known, contig), length=length)
    both = intersect(called, true, length=length)
    return _size(learned), _size(called), _size(true), _size(both)


def _of(frame: pd.DataFrame, contig: str) -> Intervals:
    here = frame[frame["chrom"] == contig]
    return merge(here["start"].to_numpy(np.int64), here["end"].to_numpy(np.int64))


def _size(intervals: Intervals) -> int:
    return int((intervals[1] - intervals[0]).sum())


def _ratios(bases: NDArray[np.floating]) -> tuple[float, float, float]:
    learned, called, true, both = (float(value) for value in bases)
    precision = both / called if called else float("nan")
    recall = both / true if true else float("nan")
    enrichment = precision * learned / true if true else float("nan")
    return precision, recall, enrichment


def _touching(distal: pd.DataFrame, known: pd.DataFrame) -> float:
    """Return the share of called elements that meet any true one."""
    if distal.empty:
        return float("nan")
    hits = 0
    for contig, group in distal.groupby("chrom"):
        starts, ends = _of(known, str(contig))
        first = np.searchsorted(ends, group["start"].to_numpy(np.int64), side="right")
        last = np.searchsorted(starts, group["end"].to_numpy(np.int64))
        hits += int((last > first).sum())
    return hits / len(distal)
