"""Precision and recall of ranked bins, safe under ties, with resamples of genes.

Average precision is the area under the step-wise precision-recall curve,
``AP = sum_k (R_k - R_{k-1}) P_k`` over distinct scores k from high to low: tied bins enter
together. Every function takes weights, because a bootstrap resample of genes is a weight per bin.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking", "average_precision", "cut_to_budget"]

Float = NDArray[np.float64]
# Numbers held at once; more resamples are worked through in parts.
_CHUNK = 8_000_000


def average_precision(label: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Return the average precision of a score; NaN without a positive label."""
    return Ranking(label, score, np.zeros(len(label), np.int64), num_genes=1).average_precision()


def cut_to_budget(score: NDArray[np.floating], budget: float) -> NDArray[np.floating]:
    """Return the score with everything outside the best ``budget`` of the bins tied last.

    Bins tied at the border are all left out, so at most the budget is used.
    """
    allowed = int(np.floor(budget * score.size))
    lowest = score.min() - 1 if score.size else 0.0
    if allowed >= score.size:
        return score
    border = np.partition(score, score.size - allowed - 1)[score.size - allowed - 1]
    return np.where(score > border, score, np.asarray(lowest, dtype=score.dtype))


class Ranking:
    """Bins sorted by a score once, for any number of resamples of genes.

    Only scores that some positive bin has change the area. Per gene, the bins and positives that
    rank at or above each of them make two small tables, and a resample is one product with its
    gene counts.

    Parameters
    ----------
    label : bool array, shape (num_bins,)
    score : float array, shape (num_bins,)
        Higher means more likely positive.
    gene : int array, shape (num_bins,)
        Gene of each bin, ``0 <= gene < num_genes``.
    num_genes : int
    """

    def __init__(
        self,
        label: NDArray[np.bool_],
        score: NDArray[np.floating],
        gene: NDArray[np.int64],
        *,
        num_genes: int,
    ) -> None:
        order = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
        ranked = np.asarray(score)[order]
        self.label = np.asarray(label, dtype=np.bool_)[order]
        self.gene = np.asarray(gene)[order]
        self.num_genes = num_genes
        self.group = np.cumsum(np.append(False, ranked[1:] != ranked[:-1])[: ranked.size])

    @cached_property
    def _tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Bins and positives at or above each score of a positive, shape (genes, scores)."""
        steps = np.unique(self.group[self.label])
        place = np.searchsorted(steps, self.group)
        tables = []
        for chosen in (place < steps.size, self.label):
            flat = self.gene[chosen] * max(steps.size, 1) + place[chosen]
            size = self.num_genes * max(steps.size, 1)
            counted = np.bincount(flat, minlength=size).reshape(self.num_genes, -1)
            tables.append(np.cumsum(counted, axis=1).astype(np.float32))
        return tables[0], tables[1]

    def average_precision(self) -> float:
        """Return the average precision, every bin counted once."""
        return float(self.average_precisions(np.ones((1, self.num_genes)))[0])

    def average_precisions(self, counts: Float) -> Float:
        """Return the average precision of resamples.

        Parameters
        ----------
        counts : float array, shape (num_resamples, num_genes)
            How often each resample drew each gene.

        Returns
        -------
        float array, shape (num_resamples,)
            NaN where a resample has no positive bin.
        """
        bins, positives = self._tables
        found = np.full(len(counts), np.nan)
        step = max(1, _CHUNK // bins.shape[1])
        for first in range(0, len(counts), step):
            part = slice(first, first + step)
            # Counts of bins are whole numbers, exact in float32 up to 16 million.
            weight = counts[part].astype(np.float32)
            found[part] = _area(weight @ bins, weight @ positives)
        return found

    def at_budget(self, counts: Float, budget: float) -> tuple[Float, Float]:
        """Return precision and recall of the best ``budget`` of the bins.

        The selection is that of the full set, also in resamples. Bins tied at the border count in
        proportion: the expected value under random tie-breaking.
        """
        selected = self._selected(budget)
        total = _per_gene(self.gene, self.label.astype(np.float64), self.num_genes)
        kept = counts @ _per_gene(self.gene, selected, self.num_genes)
        hits = counts @ _per_gene(self.gene, selected * self.label, self.num_genes)
        return _ratio(hits, kept), _ratio(hits, counts @ total)

    def _selected(self, budget: float) -> Float:
        """Return how much of every bin is inside the budget: 1, 0, or a share at the border."""
        sizes = np.bincount(self.group)
        before = np.cumsum(sizes) - sizes
        share: Float = ((budget * self.group.size - before) / np.maximum(sizes, 1)).clip(0, 1)
        of_bin: Float = share[self.group]
        return of_bin

    def curve(self, *, max_points: int = 500) -> tuple[Float, Float]:
        """Return recall and precision at the scores of positives, thinned for drawing."""
        bins, positives = (table.sum(axis=0, dtype=np.float64) for table in self._tables)
        if not positives.size or not positives[-1]:
            return np.empty(0), np.empty(0)
        step = max(1, positives.size // max_points)
        kept = np.unique(np.append(np.arange(0, positives.size, step), positives.size - 1))
        return (positives / positives[-1])[kept], (positives / bins)[kept]


def _per_gene(gene: NDArray[np.int64], values: Float, num_genes: int) -> Float:
    return np.bincount(gene, weights=values, minlength=num_genes).astype(np.float64)


def _ratio(first: Float, second: Float) -> Float:
    found: Float = np.divide(first, second, out=np.full(first.size, np.nan), where=second > 0)
    return found


def _area(bins: NDArray[np.float32], positives: NDArray[np.float32]) -> Float:
    gained = np.diff(positives, axis=1, prepend=np.float32(0))
    area = np.einsum("rs,rs->r", gained, positives / np.maximum(bins, 1))
    return _ratio(area.astype(np.float64), positives[:, -1].astype(np.float64))
