"""Bins of many genes side by side: label, distance, and the scores of the mask and its rivals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.truth import Truth

__all__ = ["MODEL", "ScoredBins", "score_bins"]

MODEL = "mask"


@dataclass(frozen=True, eq=False)
class ScoredBins:
    """Learned bins of genes; forced ones are left out for every method alike.

    Attributes
    ----------
    gene : int64 array, shape (num_bins,)
        ``0 <= gene < num_genes``.
    distance : float64 array, shape (num_bins,)
        Bases between the centre of the bin and the TSS.
    label : bool array, shape (num_bins,)
        The bin overlaps a true element of the gene.
    scores : dict of float32 arrays, each of shape (num_bins,)
    pairs : ScoredBins or None
        The same for whole candidate elements, where the truth names candidates.
    start : int64 array, shape (num_bins,), or None
        First base of each bin, which may lie before the contig; None for candidate elements.
    num_genes : int
    """

    gene: NDArray[np.int64]
    distance: NDArray[np.float64]
    label: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float32]]
    num_genes: int
    pairs: ScoredBins | None = None
    start: NDArray[np.int64] | None = None

    def where(self, keep: NDArray[np.bool_]) -> ScoredBins:
        """Return some of the bins; genes keep their numbers."""
        scores = {name: values[keep] for name, values in self.scores.items()}
        return ScoredBins(
            self.gene[keep],
            self.distance[keep],
            self.label[keep],
            scores,
            self.num_genes,
            start=None if self.start is None else self.start[keep],
        )


def score_bins(
    masks: GeneMasks, dataset: Dataset, truth: Truth, genes: NDArray[np.int64]
) -> ScoredBins:
    """Score the learned bins of genes.

    Parameters
    ----------
    masks : GeneMasks
    dataset : Dataset
    truth : Truth
    genes : int64 array
        Rows of ``masks``.
    """
    rivals = Rivals(masks, dataset)
    bins = [_gene_bins(masks, rivals, truth, int(gene), n) for n, gene in enumerate(genes)]
    whole = _join([part for part, _ in bins], genes.size)
    pairs = [part for _, part in bins if part is not None]
    if not pairs:
        return whole
    return replace(whole, pairs=_join(pairs, genes.size))


def _join(parts: list[ScoredBins], num_genes: int) -> ScoredBins:
    names = list(parts[0].scores)
    starts: list[Any] = [part.start for part in parts]
    return ScoredBins(
        gene=np.concatenate([part.gene for part in parts]),
        distance=np.concatenate([part.distance for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in names},
        num_genes=num_genes,
        start=None if starts[0] is None else np.concatenate(starts),
    )


def _gene_bins(
    masks: GeneMasks, rivals: Rivals, truth: Truth, gene: int, number: int
) -> tuple[ScoredBins, ScoredBins | None]:
    row = masks.genes.iloc[gene]
    start, tss = int(row["start"]), int(row["tss"])
    free = np.asarray(masks.forced[gene]) == FREE
    scores = {MODEL: np.asarray(masks.mask[gene], dtype=np.float64), **rivals.scores(gene)}
    found = truth.of_gene(str(row["gene_id"]), str(row["contig"]))
    label = _covered(found[found["causal"]], start, masks)
    centre = start + (np.arange(masks.num_bins) + 0.5) * masks.bin_size
    bins = ScoredBins(
        gene=np.full(masks.num_bins, number, dtype=np.int64),
        distance=np.abs(centre - tss - 0.5),
        label=label,
        scores={name: values.astype(np.float32) for name, values in scores.items()},
        num_genes=number + 1,
        start=start + np.arange(masks.num_bins, dtype=np.int64) * masks.bin_size,
    )
    return bins.where(free), _gene_pairs(bins, free, found, start, masks)


def _covered(elements: pd.DataFrame, start: int, masks: GeneMasks) -> NDArray[np.bool_]:
    """Return which bins any of the elements overlaps."""
    steps = np.zeros(masks.num_bins + 1, dtype=np.int64)
    first, last = _bin_span(elements, start, masks)
    np.add.at(steps, first, 1)
    np.add.at(steps, last, -1)
    return np.cumsum(steps[:-1]) > 0


def _bin_span(
    elements: pd.DataFrame, start: int, masks: GeneMasks
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    size, num_bins = masks.bin_size, masks.num_bins
    first = ((elements["start"].to_numpy(np.int64) - start) // size).clip(0, num_bins)
    last = (-((start - elements["end"].to_numpy(np.int64)) // size)).clip(0, num_bins)
    return first, np.maximum(first, last)


def _gene_pairs(
    bins: ScoredBins, free: NDArray[np.bool_], found: pd.DataFrame, start: int, masks: GeneMasks
) -> ScoredBins | None:
    """Return the candidate elements of a gene with the mean score of their learned bins.

    Only a truth that also names candidates that do nothing makes a fair table of pairs.
    """
    candidates = found[found["gene_id"].notna() & (found["kind"] != "promoter")]
    first, last = _bin_span(candidates, start, masks)
    cumulative = np.concatenate(([0], np.cumsum(free)))
    covered = cumulative[last] - cumulative[first]
    kept = covered > 0
    if not kept.any():
        return None
    first, last, covered = first[kept], last[kept], covered[kept]

    def mean(values: NDArray[np.floating]) -> NDArray[np.float32]:
        total = np.concatenate(([0.0], np.cumsum(np.where(free, values, 0), dtype=np.float64)))
        result: NDArray[np.float32] = ((total[last] - total[first]) / covered).astype(np.float32)
        return result

    return ScoredBins(
        gene=np.full(first.size, bins.gene[0], dtype=np.int64),
        distance=mean(bins.distance).astype(np.float64),
        label=candidates["causal"].to_numpy(dtype=np.bool_)[kept],
        scores={name: mean(values) for name, values in bins.scores.items()},
        num_genes=bins.num_genes,
    )
