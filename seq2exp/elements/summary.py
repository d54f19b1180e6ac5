"""What summary.json says of a map."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.elements.calling import CallConfig
from seq2exp.elements.formats import LINK_COLUMNS
from seq2exp.elements.masks import FREE, GeneMasks

__all__ = ["map_summary"]

_BANDS = (0, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


def map_summary(
    masks: GeneMasks,
    elements: pd.DataFrame,
    union: pd.DataFrame,
    threshold: float,
    config: CallConfig,
) -> dict[str, Any]:
    """Return the settings and counts of a map.

    Parameters
    ----------
    masks : GeneMasks
    elements, union : DataFrame
        Called elements, per gene and joined over genes.
    threshold : float
        Infinite where nothing is called; then None in the result.
    config : CallConfig
    """
    distal = elements[elements["element_class"] == "distal"]
    per_gene = distal["gene_id"].value_counts().reindex(masks.genes["gene_id"], fill_value=0)
    learned, called = 0, 0
    for genes in masks.chunks():
        free = np.asarray(masks.forced[genes]) == FREE
        learned += int(free.sum())
        called += int((free & (np.asarray(masks.mask[genes]) >= threshold)).sum())
    length = (distal["end"] - distal["start"]).to_numpy()
    return {
        "assembly": masks.info["assembly"],
        "num_members": masks.info["num_members"],
        "promoter_bp": masks.info["promoter_bp"],
        "bin_size": masks.bin_size,
        "calling": config.to_dict(),
        "threshold": threshold if np.isfinite(threshold) else None,
        "genes": len(masks),
        "genes_by_split": _counts(masks.genes["split"]),
        "elements": _counts(elements["element_class"]),
        "union_elements": _counts(union["element_class"]),
        "union_bases": int((union["end"] - union["start"]).sum()),
        "learned_bins": learned,
        "called_bins": called,
        "called_fraction": called / learned if learned else 0.0,
        "distal_per_gene": {
            "mean": float(per_gene.mean()),
            "median": float(per_gene.median()),
            "max": int(per_gene.max()),
            "genes_without": int((per_gene == 0).sum()),
        },
        "distal_length_bp": _quartiles(length),
        "distal_by_distance": _by_distance(distal["distance"].to_numpy()),
        "columns": {
            "elements.bed.gz": list(elements.columns),
            "union.bed.gz": list(union.columns),
            "links.bedpe.gz": list(LINK_COLUMNS),
        },
    }


def _counts(values: Iterable[object]) -> dict[str, int]:
    found = pd.Series(list(values), dtype=object).value_counts()
    return {str(name): int(count) for name, count in found.items()}


def _quartiles(values: NDArray[np.int64]) -> dict[str, float]:
    if values.size == 0:
        return {}
    found = np.quantile(values, [0.25, 0.5, 0.75])
    return dict(zip(("q25", "median", "q75"), map(float, found), strict=True))


def _by_distance(distance: NDArray[np.int64]) -> dict[str, int]:
    edges = [*_BANDS, np.inf]
    counts = np.histogram(np.abs(distance), bins=edges)[0]
    names = [f"{low}-{high:g}" for low, high in itertools.pairwise(edges)]
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}
