"""Which loci a report shows: one where the map works best, a typical one, one where it fails."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.precision import average_precision
from seq2exp.elements.truth import Truth

__all__ = ["SPLITS", "Locus", "choose_loci", "spread_loci"]

# Held-out genes come first: what a model was trained on shows little.
SPLITS = ("test", "valid", "train", "excluded")
"""Order in which genes are shown."""


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
    scores, what = _scores(masks, elements, truth, genes)
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


def spread_loci(
    masks: GeneMasks,
    elements: pd.DataFrame,
    truth: Truth | None = None,
    *,
    number: int,
    skip: Container[str] = (),
) -> list[Locus]:
    """Choose up to ``number`` genes for locus pages, evenly over the order of `choose_loci`.

    Held-out genes first (test, then valid), then those of training, each group in its own order:
    only when all genes of a group are shown is the next one used.

    Parameters
    ----------
    masks, elements, truth
        As in :func:`choose_loci`.
    number : int
    skip : container of str
        Genes that are shown already; they keep their rank.
    """
    names = masks.genes["gene_id"].astype(str).to_numpy()
    found: list[Locus] = []
    for split in SPLITS:
        genes = np.flatnonzero((masks.genes["split"] == split).to_numpy())
        if number <= len(found) or not genes.size:
            continue
        scores, what = _scores(masks, elements, truth, genes)
        order = sorted(scores, key=lambda gene: (-scores[gene], gene))
        free = [place for place, gene in enumerate(order) if names[gene] not in skip]
        if not free:
            continue
        wanted = min(number - len(found), len(free))
        for step in np.linspace(0, len(free) - 1, wanted).round().astype(int):
            gene = order[free[step]]
            value = what.format(value=scores[gene])
            reason = f"Rank {free[step] + 1} of {len(order)} {split} genes: {value}."
            found.append(Locus(gene_id=str(names[gene]), title=split, reason=reason))
    return found


def _scores(
    masks: GeneMasks, elements: pd.DataFrame, truth: Truth | None, genes: NDArray[np.int64]
) -> tuple[dict[int, float], str]:
    """Return what orders the genes, and the words for it."""
    if truth is not None:
        values = {int(gene): _precision(masks, int(gene), truth) for gene in genes}
        known = {gene: value for gene, value in values.items() if np.isfinite(value)}
        return known, "average precision of the mask of this gene {value:.2f}"
    distal = elements[elements["element_class"] == "distal"]
    counts = distal["gene_id"].value_counts()
    names = masks.genes["gene_id"].to_numpy()
    return {int(g): float(counts.get(names[g], 0)) for g in genes}, (
        "{value:.0f} distal elements called"
    )


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
