"""Which loci a report shows: one where the map works best, a typical one, one where it fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.precision import average_precision
from seq2exp.elements.truth import Truth

__all__ = ["Locus", "choose_loci"]


@dataclass(frozen=True)
class Locus:
    """A gene to show, and why."""

    gene_id: str
    title: str
    reason: str


def choose_loci(
    masks: GeneMasks, elements: pd.DataFrame, truth: Truth | None = None, *, number: int = 3
) -> list[Locus]:
    """Choose genes, held-out ones if there are any.

    With a truth the genes are ordered by the average precision of their learned bins: the best,
    the median, the worst. Without one they are ordered by the number of called distal elements.

    Parameters
    ----------
    masks : GeneMasks
    elements : DataFrame
        Called elements.
    truth : Truth, optional
    number : int
        How many to return; evenly spread over the order.
    """
    held_out = np.flatnonzero((masks.genes["split"] == "test").to_numpy())
    genes = held_out if held_out.size else np.arange(len(masks))
    if truth is not None:
        scores = {int(gene): _precision(masks, int(gene), truth) for gene in genes}
        scores = {gene: value for gene, value in scores.items() if np.isfinite(value)}
        what = "average precision of the mask of this gene {value:.2f}"
    else:
        distal = elements[elements["element_class"] == "distal"]
        counts = distal["gene_id"].value_counts()
        scores = {int(g): float(counts.get(masks.genes["gene_id"].iloc[g], 0)) for g in genes}
        what = "{value:.0f} distal elements called"
    order = sorted(scores, key=lambda gene: (-scores[gene], gene))
    if not order:
        return []
    places = np.unique(np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int))
    return [
        Locus(
            gene_id=str(masks.genes["gene_id"].iloc[order[place]]),
            title=_title(int(place), len(order), known=truth is not None),
            reason=f"Rank {place + 1} of {len(order)} genes: "
            + what.format(value=scores[order[place]])
            + ".",
        )
        for place in places
    ]


def _title(place: int, total: int, *, known: bool) -> str:
    if place == 0:
        return "Where the map works best" if known else "Most elements"
    if place == total - 1:
        return "Where it fails" if known else "Fewest elements"
    return "A typical gene"


def _precision(masks: GeneMasks, gene: int, truth: Truth) -> float:
    row = masks.genes.iloc[gene]
    starts, ends = masks.intervals(gene)
    label = np.zeros(masks.num_bins, dtype=np.bool_)
    found = truth.of_gene(str(row["gene_id"]), str(row["contig"]))
    causal = found[found["causal"]]
    for start, end in zip(causal["start"], causal["end"], strict=True):
        label |= (starts < end) & (ends > start)
    free = np.asarray(masks.forced[gene]) == FREE
    return average_precision(label[free], np.asarray(masks.mask[gene], dtype=np.float64)[free])
