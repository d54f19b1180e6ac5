"""From masks and null masks to a threshold at a stated false-discovery level.

A discovery is a called distal element. At threshold t, with R(t) elements called from the masks and
V(t) from the null masks of all D draws together, both by the same rule,

    FDR(t) = pi0 * (V(t) + 1) / (D * R(t))

The one keeps a null of finite size from stating 0. pi0 is the share of learned bins that look like
the null (Storey 2002, J. R. Stat. Soc. B 64:479): a null bin has a p-value below ``lam`` with
probability ``lam``, so

    pi0 = P(mask <= c) / (1 - lam),   c: value that a share lam of null bins exceeds

The q-value of an element of height h is the smallest FDR(t) over thresholds t <= h (Storey and
Tibshirani 2003). Thresholds stop where R(t) (1 - FDR(t)), the number of true elements called, is
largest: below it elements grow together and what is added is false. A level above the rate at that
threshold gets that threshold, and its rate is what is stated.

The null says how often something is called where there is no element of any kind. It cannot say
which of the true elements act on the gene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.runs import Runs, call_runs
from seq2exp.elements.masks import FREE, GeneMasks

__all__ = [
    "FdrCurve",
    "count_runs",
    "distal_runs",
    "fdr_curve",
    "fdr_summary",
    "gene_stretches",
    "learned_histogram",
    "null_share",
    "threshold_grid",
]

_LAMBDA = 0.05
_NUM_THRESHOLDS = 512
_BANDS_BP = (0, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


@dataclass(frozen=True, eq=False)
class FdrCurve:
    """False-discovery rate by threshold.

    Attributes
    ----------
    threshold : float64 array, shape (num_thresholds,)
        Rising.
    observed : int64 array, shape (num_thresholds,)
        Elements called from the masks.
    null : float64 array, shape (num_thresholds,)
        Elements called from the null masks, mean over draws.
    pi0 : float
        Share of learned bins that look like the null.
    num_draws : int
    """

    threshold: NDArray[np.float64]
    observed: NDArray[np.int64]
    null: NDArray[np.float64]
    pi0: float
    num_draws: int

    @classmethod
    def useful(
        cls,
        threshold: NDArray[np.float64],
        observed: NDArray[np.int64],
        null: NDArray[np.float64],
        *,
        pi0: float = 1.0,
        num_draws: int = 1,
    ) -> FdrCurve:
        """Return the curve from the threshold on at which most true elements are called."""
        true = observed * (1 - _rate(pi0, null, num_draws, observed))
        first = int(observed.size - 1 - np.argmax(true[::-1]))
        return cls(threshold[first:], observed[first:], null[first:], pi0, num_draws)

    @property
    def fdr(self) -> NDArray[np.float64]:
        """FDR(t), at most 1."""
        return _rate(self.pi0, self.null, self.num_draws, self.observed)

    @property
    def q_value(self) -> NDArray[np.float64]:
        """Smallest FDR at or below each threshold."""
        return np.minimum.accumulate(self.fdr)

    def at(self, height: ArrayLike) -> NDArray[np.float64]:
        """Return the q-value of elements of these heights; 1 below the lowest threshold."""
        place = np.searchsorted(self.threshold, np.asarray(height, np.float64), side="right") - 1
        values: NDArray[np.float64] = np.where(place >= 0, self.q_value[place.clip(0)], 1.0)
        return values

    def choose(self, level: float) -> float | None:
        """Return the smallest threshold whose FDR is at most ``level``; None where there is none.

        Raises
        ------
        ConfigError
            ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ConfigError(
                facts("elements.fdr", found=level, expected="0 < value < 1", fix="change it")
            )
        good = np.flatnonzero((self.fdr <= level) & (self.observed > 0))
        return float(self.threshold[good[0]]) if good.size else None

    def value(self, threshold: float) -> float:
        """Return FDR(t) at the largest tabulated threshold that is not above t."""
        place = int(np.searchsorted(self.threshold, threshold, side="right")) - 1
        return float(self.fdr[max(place, 0)])


def _rate(pi0: float, null: ArrayLike, draws: int, observed: ArrayLike) -> NDArray[np.float64]:
    expected = pi0 * (np.asarray(null, np.float64) + 1 / draws)
    rate: NDArray[np.float64] = np.minimum(expected / np.maximum(observed, 1), 1.0)
    return rate


def learned_histogram(masks: GeneMasks, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return how many learned bins hold each float16 value, by its bit pattern.

    Bit patterns of numbers that are not negative have the order of the numbers, so one histogram
    holds all genes, or those of ``rows``.
    """
    counts = np.zeros(1 << 16, dtype=np.int64)
    for chunk in masks.chunks():
        genes = chunk if rows is None else np.intersect1d(chunk, rows)
        learned = np.asarray(masks.mask[genes])[np.asarray(masks.forced[genes]) == FREE]
        counts += np.bincount(np.abs(learned).view(np.uint16), minlength=counts.size)
    return counts


def null_share(
    observed: NDArray[np.int64], null: NDArray[np.int64], *, lam: float = _LAMBDA
) -> float:
    """Return pi0 from histograms of :func:`learned_histogram`, at most 1.

    Parameters
    ----------
    observed, null : int64 arrays, shape (65536,)
        Learned bins by value.
    lam : float
        Share of the null that counts as extreme.
    """
    if not observed.sum() or not null.sum():
        return 1.0
    below = np.cumsum(null) / null.sum()
    cut = int(np.searchsorted(below, 1 - lam))
    share = observed[: cut + 1].sum() / observed.sum() / below[cut]
    return float(min(1.0, share))


def count_runs(
    masks: GeneMasks,
    thresholds: NDArray[np.float64],
    *,
    max_gap: int,
    min_length: int,
    keep: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return how many distal elements are called at each threshold.

    Parameters
    ----------
    masks : GeneMasks
    thresholds : float64 array, shape (num_thresholds,)
    max_gap, min_length : int
        As in :func:`seq2exp.core.runs.call_runs`, bp.
    keep : bool array, shape (num_genes,), optional
        Genes to count; all by default.
    """
    counts = np.zeros(thresholds.size, dtype=np.int64)
    for genes in masks.chunks():
        chosen = genes if keep is None else genes[keep[genes]]
        start, end, value, group = (part.ravel() for part in gene_stretches(masks, chosen))
        for place in np.argsort(thresholds):
            # What lies below one threshold lies below the next, so the arrays shrink.
            kept = (value >= thresholds[place]) & (end > start)
            start, end, value, group = start[kept], end[kept], value[kept], group[kept]
            counts[place] += _num_runs(start, end, group, max_gap=max_gap, min_length=min_length)
    return counts


def _num_runs(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    group: NDArray[np.int64],
    *,
    max_gap: int,
    min_length: int,
) -> int:
    """Count the runs that :func:`seq2exp.core.runs.call_runs` makes of kept intervals."""
    if start.size == 0:
        return 0
    new = np.ones(start.size, dtype=np.bool_)
    new[1:] = (start[1:] - end[:-1] > max_gap) | (group[1:] != group[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], start.size) - 1
    return int((end[last] - start[first] >= min_length).sum())


def gene_stretches(
    masks: GeneMasks, genes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return starts, ends, values (NaN where forced) and groups of the bins of genes.

    Every forced stretch starts a new group, so no gap bridges a promoter.
    """
    starts, ends = masks.intervals_of(genes)
    free = np.asarray(masks.forced[genes]) == FREE
    values = np.where(free, np.asarray(masks.mask[genes], dtype=np.float64), np.nan)
    side = np.cumsum(~free, axis=1)
    return starts, ends, values, np.arange(genes.size)[:, None] * (masks.num_bins + 1) + side


def distal_runs(
    masks: GeneMasks, genes: NDArray[np.int64], threshold: float, *, max_gap: int, min_length: int
) -> Runs:
    """Call runs; ``group // (num_bins + 1)`` is the place of a gene in ``genes``."""
    starts, ends, values, groups = gene_stretches(masks, genes)
    return call_runs(
        starts.ravel(),
        ends.ravel(),
        values.ravel(),
        cutoff=threshold,
        max_gap=max_gap,
        min_length=min_length,
        groups=groups.ravel(),
    )


def fdr_curve(
    masks: GeneMasks,
    nulls: Sequence[GeneMasks],
    *,
    max_gap: int = 0,
    min_length: int = 100,
    num_thresholds: int = _NUM_THRESHOLDS,
) -> FdrCurve:
    """Return the false-discovery rate of called elements by threshold.

    Parameters
    ----------
    masks : GeneMasks
    nulls : sequence of GeneMasks
        Null masks of the same genes, one per draw.
    max_gap, min_length : int
        The calling rule, bp.
    num_thresholds : int
        At most so many, at values that occur: evenly spaced in the logarithm of the share of
        learned bins that reach them, from a half down to a single bin.

    Raises
    ------
    InputError
        No null, other genes or bins than the masks, or no learned bin at all.
    """
    _require_same(masks, nulls)
    observed_bins = learned_histogram(masks)
    total = int(observed_bins.sum())
    if total == 0:
        raise InputError(
            facts(
                "false-discovery level",
                found="no learned bin: every bin is promoter, excluded or outside its contig",
                expected="windows wider than the forced promoter",
                fix="use a run with wider windows, or other genes",
                count=0,
            )
        )
    null_bins = sum((learned_histogram(null) for null in nulls), np.zeros_like(observed_bins))
    thresholds = threshold_grid(observed_bins, num_thresholds)
    rule: dict[str, Any] = {"max_gap": max_gap, "min_length": min_length}
    observed = count_runs(masks, thresholds, **rule)
    null = np.mean([count_runs(draw, thresholds, **rule) for draw in nulls], axis=0)
    pi0 = null_share(observed_bins, null_bins)
    return FdrCurve.useful(thresholds, observed, null, pi0=pi0, num_draws=len(nulls))


def threshold_grid(counts: NDArray[np.int64], num: int) -> NDArray[np.float64]:
    """Return at most ``num`` values that occur in a histogram of :func:`learned_histogram`, rising.

    They are evenly spaced in the logarithm of the share of bins that reach them, from a half down
    to a single bin.
    """
    above = np.cumsum(counts[::-1])[::-1]
    shares = np.geomspace(0.5, 1 / above[0], num)
    # The last pattern that at least so many bins reach; it occurs, since the count drops behind it.
    bits = np.unique([np.flatnonzero(above >= share * above[0])[-1] for share in shares])
    values: NDArray[np.float64] = bits.astype(np.uint16).view(np.float16).astype(np.float64)
    return values[values > 0]


def _require_same(masks: GeneMasks, nulls: Sequence[GeneMasks]) -> None:
    for null in nulls:
        same_genes = list(null.genes["gene_id"]) == list(masks.genes["gene_id"])
        if not same_genes or null.mask.shape != masks.mask.shape:
            raise InputError(
                facts(
                    "null masks",
                    found=f"{len(null)} genes of {null.num_bins} bins, or genes in another order",
                    expected=f"the {len(masks)} genes of {masks.num_bins} bins of the masks",
                    fix="make them from the same run, dataset and rows",
                )
            )
    if not nulls:
        raise InputError(
            facts("null masks", found="none", expected="at least one draw", fix="draw one", count=0)
        )


def fdr_summary(
    curve: FdrCurve,
    masks: GeneMasks,
    nulls: Sequence[GeneMasks],
    *,
    threshold: float | None,
    max_gap: int,
    min_length: int,
) -> dict[str, Any]:
    """Return the entries of summary.json: the curve, and the level per split and distance band.

    A band holds the elements whose nearest base lies so far from the TSS.
    """
    counts: dict[str, Any] = {
        "pi0": curve.pi0,
        "num_draws": curve.num_draws,
        "unit": "called distal element that overlaps no element of any kind",
        "curve": {
            "threshold": curve.threshold.tolist(),
            "observed": curve.observed.tolist(),
            "null": curve.null.tolist(),
            "fdr": curve.fdr.tolist(),
        },
    }
    if threshold is None:
        return counts
    rule: dict[str, Any] = {"max_gap": max_gap, "min_length": min_length}
    splits = masks.genes["split"].astype(str).to_numpy()
    at = np.array([threshold])

    def level(observed: float, null: float) -> dict[str, float | None]:
        fdr = float(_rate(curve.pi0, null, curve.num_draws, observed)) if observed else None
        return {"observed": observed, "null": null, "fdr": fdr}

    by_split = {}
    for name in dict.fromkeys(splits):
        keep = splits == name
        seen = int(count_runs(masks, at, keep=keep, **rule)[0])
        null = np.mean([count_runs(draw, at, keep=keep, **rule)[0] for draw in nulls])
        by_split[name] = level(seen, float(null))
    seen_bands = _by_band(masks, threshold, **rule)
    null_bands = np.mean([_by_band(draw, threshold, **rule) for draw in nulls], axis=0)
    edges = [f"{band}+" for band in _BANDS_BP]
    by_band = {
        name: level(int(seen), float(null))
        for name, seen, null in zip(edges, seen_bands, null_bands, strict=True)
        if seen or null
    }
    return counts | {"by_split": by_split, "by_distance_bp": by_band}


def _by_band(
    masks: GeneMasks, threshold: float, *, max_gap: int, min_length: int
) -> NDArray[np.int64]:
    counts = np.zeros(len(_BANDS_BP), dtype=np.int64)
    for genes in masks.chunks():
        runs = distal_runs(masks, genes, threshold, max_gap=max_gap, min_length=min_length)
        tss = masks.genes["tss"].to_numpy(np.int64)[genes[runs.group // (masks.num_bins + 1)]]
        distance = np.maximum(np.maximum(runs.start - tss, tss - runs.end + 1), 0)
        counts += np.histogram(distance, bins=[*_BANDS_BP, np.inf])[0]
    return counts
