"""A false-discovery level read from elements whose action is known, in place of a null.

A null without evidence can tell elements from background, but not which of them act on a gene.
Pairs of element and gene that were tested can: with R(t) called elements of the labelled genes of
which something is known, and V(t) of them that share no base with an element that acts on their
gene,

    FDR(t) = (V(t) + 1) / R(t)

The one keeps a small list from stating 0 (Barber and Candes 2015, Ann. Statist. 43:2055). Of a
list that names acting elements (links, a simulation) every call of a listed gene is known; of a
table of tests only a call that shares a base with a tested element is.

The level holds for other genes as far as they resemble the labelled ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Intervals, merge, touching
from seq2exp.core.runs import call_runs
from seq2exp.elements.fdr import FdrCurve, gene_stretches, learned_histogram, threshold_grid
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.references import ReadConfig, Reference

__all__ = [
    "LABEL_SPLITS",
    "LabelConfig",
    "Labels",
    "label_curve",
    "label_summary",
    "labelled_genes",
]

LABEL_SPLITS = ("train", "valid")
"""Splits whose labels are used, so that those of the test genes can judge the level."""

_NUM_THRESHOLDS = 256


@dataclass(frozen=True)
class LabelConfig:
    """Where labels come from."""

    path: Path
    """Any file that ``elements compare --with`` reads."""
    read: ReadConfig = field(default_factory=ReadConfig)
    """How it is read."""
    splits: tuple[str, ...] = LABEL_SPLITS
    """Genes of these splits only."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels that were read.

    Attributes
    ----------
    reference : Reference
    splits : tuple of str
        Genes of these splits count.
    """

    reference: Reference
    splits: tuple[str, ...] = LABEL_SPLITS


def labelled_genes(genes: pd.DataFrame, labels: Labels) -> NDArray[np.int64]:
    """Return the rows of the genes of which the labels say something.

    Parameters
    ----------
    genes : DataFrame
        gene_id, contig and split of the genes of a map.
    labels : Labels

    Raises
    ------
    InputError
        There is none.
    """
    reference, splits = labels.reference, labels.splits
    chosen = genes["split"].astype(str).isin(splits).to_numpy()
    known = reference.truth.elements
    if reference.per_gene:
        listed = genes["gene_id"].astype(str).isin(known["gene_id"].dropna().astype(str))
    else:
        listed = genes["contig"].astype(str).isin(known["chrom"].astype(str))
    rows = np.flatnonzero(chosen & listed.to_numpy())
    if rows.size == 0:
        raise InputError(
            facts(
                f"labels {reference.path}",
                found=f"no mapped gene of {' or '.join(splits)}; {int(listed.sum())} of others",
                expected="at least one",
                fix="map these splits too, or name the splits of the labelled genes with "
                "--label-split",
                count=0,
            )
        )
    return rows


def label_curve(
    masks: GeneMasks,
    labels: Labels,
    *,
    max_gap: int = 0,
    min_length: int = 100,
    num_thresholds: int = _NUM_THRESHOLDS,
) -> FdrCurve:
    """Return the false-discovery rate of called elements by threshold.

    Parameters
    ----------
    masks : GeneMasks
    labels : Labels
    max_gap, min_length : int
        The calling rule, bp.
    num_thresholds : int
        At most so many.

    Returns
    -------
    FdrCurve
        ``observed`` counts the calls of which something is known, ``null`` the false ones.

    Raises
    ------
    InputError
        No labelled gene, or nothing known of any call.
    """
    reference, rows = labels.reference, labelled_genes(masks.genes, labels)
    thresholds = threshold_grid(learned_histogram(masks, rows), num_thresholds)
    acting, known = _known(masks, rows, reference)
    observed = np.zeros(thresholds.size, dtype=np.int64)
    false = np.zeros(thresholds.size, dtype=np.int64)
    size = _span(masks)
    for place in masks.chunks():
        genes = np.intersect1d(place, rows)
        start, end, value, group = (part.ravel() for part in gene_stretches(masks, genes))
        for step, threshold in enumerate(thresholds):
            # What lies below one threshold lies below the next, so the arrays shrink.
            kept = value >= threshold
            start, end, value, group = start[kept], end[kept], value[kept], group[kept]
            runs = call_runs(
                start, end, value, cutoff=threshold, max_gap=max_gap, min_length=min_length,
                groups=group,
            )  # fmt: skip
            offset = genes[runs.group // (masks.num_bins + 1)] * size
            right = touching(runs.start + offset, runs.end + offset, acting)
            told = (
                True if known is None else touching(runs.start + offset, runs.end + offset, known)
            )
            observed[step] += np.count_nonzero(right | told)
            false[step] += np.count_nonzero(told & ~right)
    if observed.max(initial=0) == 0:
        raise InputError(
            facts(
                f"labels {reference.path}",
                found=f"no listed element that a call of {rows.size} genes could touch",
                expected="elements in the windows of these genes, outside their promoters",
                fix="check that the file is of this dataset",
                count=0,
            )
        )
    return FdrCurve.useful(thresholds, observed, false.astype(np.float64))


def _span(masks: GeneMasks) -> int:
    return int(masks.genes["contig_length"].max()) + 1


def _known(
    masks: GeneMasks, rows: NDArray[np.int64], reference: Reference
) -> tuple[Intervals, Intervals | None]:
    """Return what acts, and what is known at all; None where everything is."""
    gene_ids = masks.genes["gene_id"].astype(str).to_numpy()
    contigs = masks.genes["contig"].astype(str).to_numpy()
    parts = [
        reference.truth.of_gene(gene_ids[row], contigs[row]).assign(offset=row * _span(masks))
        for row in rows
    ]
    listed = pd.concat(parts, ignore_index=True)
    acting = _keyed(listed[listed["causal"].astype(bool)])
    return acting, None if reference.covers_bins else _keyed(listed)


def _keyed(listed: pd.DataFrame) -> Intervals:
    offset = listed["offset"].to_numpy(np.int64)
    start, end = (listed[name].to_numpy(np.int64) + offset for name in ("start", "end"))
    return merge(start, end)


def label_summary(
    curve: FdrCurve,
    masks: GeneMasks,
    elements: pd.DataFrame,
    labels: Labels,
    *,
    threshold: float | None,
) -> dict[str, Any]:
    """Return the entries of summary.json: the curve, and the stated level per split.

    The rate is one for all genes; ``observed`` is how many distal elements are called in a split.
    """
    found: dict[str, Any] = {
        "unit": "called distal element that shares no base with an element that acts on its gene",
        "labels": str(labels.reference.path),
        "labelled_genes": int(labelled_genes(masks.genes, labels).size),
        "curve": {
            "threshold": curve.threshold.tolist(),
            "observed": curve.observed.tolist(),
            "false": curve.null.tolist(),
            "fdr": curve.fdr.tolist(),
        },
    }
    if threshold is None:
        return found
    distal = elements.loc[elements["element_class"] == "distal", "gene_id"].astype(str)
    split_of = masks.genes.set_index(masks.genes["gene_id"].astype(str))["split"].astype(str)
    counts = split_of.loc[distal].value_counts()
    rate = curve.value(threshold)
    return found | {
        "by_split": {
            name: {"observed": int(counts.get(name, 0)), "fdr": rate if name in counts else None}
            for name in dict.fromkeys(split_of)
        }
    }
