"""The stated false-discovery level against the true one, where a truth is known.

The unit is a called distal element. Two true rates are told apart, since a null of inputs without
evidence speaks of the first only:

``fdr_no_element``
    share of called elements that share no base with any element of the truth, whatever its kind
    and its gene;
``fdr_not_causal``
    share that share no base with an element that is causal for the gene they were called for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import merge, touching
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.truth import Truth
from seq2exp.training.metrics import Estimate, interval

__all__ = ["false_calls", "false_rate", "level_rows", "touches"]

_NAME = "called elements"
_RESAMPLES = 1000


def touches(elements: pd.DataFrame, known: pd.DataFrame, *, by: str = "chrom") -> NDArray[np.bool_]:
    """Return which elements share a base with a known one of the same ``by``.

    Parameters
    ----------
    elements, known : DataFrame
        start, end and the column ``by``.
    by : str
        ``chrom``, or ``gene_id`` to compare within genes.
    """
    found = np.zeros(len(elements), dtype=np.bool_)
    groups = known.groupby(by).indices
    for name, rows in elements.groupby(by).indices.items():
        if name not in groups:
            continue
        here = known.iloc[groups[name]]
        merged = merge(here["start"].to_numpy(np.int64), here["end"].to_numpy(np.int64))
        start, end = (elements[side].to_numpy(np.int64)[rows] for side in ("start", "end"))
        found[rows] = touching(start, end, merged)
    return found


def false_calls(elements: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Return gene_id, no_element and not_causal of every called distal element."""
    distal = elements[elements["element_class"] == "distal"].reset_index(drop=True)
    known = truth.elements
    causal = known[known["causal"]]
    own = touches(distal, causal[causal["gene_id"].notna()], by="gene_id")
    # An element that is true for every gene names none.
    own |= touches(distal, causal[causal["gene_id"].isna()])
    return pd.DataFrame(
        {
            "gene_id": distal["gene_id"],
            "no_element": ~touches(distal, known),
            "not_causal": ~own,
        }
    )


def level_rows(
    masks: GeneMasks,
    elements: pd.DataFrame,
    stated: dict[str, Any],
    *,
    truth: Truth | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return rows of the stated level and, with a truth, of the true rates, per split.

    Parameters
    ----------
    masks : GeneMasks
    elements : DataFrame
        Called elements of these masks.
    stated : dict
        Entry ``fdr`` of summary.json.
    truth : Truth, optional
    seed : int
        Of the 1,000 resamples of genes behind the 95 % intervals.

    Returns
    -------
    list of dict
        ``name, metric, split, value, low, high, n``; n is the number of called elements.
    """
    rows = []
    for split, level in stated.get("by_split", {}).items():
        if level["fdr"] is not None:
            stated_level = Estimate(level["fdr"], n=level["observed"])
            rows.append(stated_level.row(_NAME, "fdr_stated", split=split))
    if truth is None:
        return rows
    found = false_calls(elements, truth)
    split_of = masks.genes.set_index(masks.genes["gene_id"].astype(str))["split"].astype(str)
    found["split"] = split_of.loc[found["gene_id"]].to_numpy()
    for split in dict.fromkeys(split_of):
        here = found[found["split"] == split]
        if here.empty:
            continue
        num_genes = int((split_of == split).sum())
        for name in ("no_element", "not_causal"):
            rate = false_rate(here, name, num_genes=num_genes, seed=seed)
            rows.append(rate.row(_NAME, f"fdr_{name}", split=split))
    return rows


def false_rate(calls: pd.DataFrame, name: str, *, num_genes: int, seed: int = 0) -> Estimate:
    """Return the share of false calls and its 95 % interval.

    Genes are resampled: calls of one gene are no independent units.

    Parameters
    ----------
    calls : DataFrame
        As :func:`false_calls` returns it.
    name : str
        ``no_element`` or ``not_causal``.
    num_genes : int
        Genes that were looked at; those without a call are drawn too and add nothing.
    seed : int
    """
    per_gene = calls.groupby("gene_id")[name].agg(["sum", "size"]).to_numpy(np.float64)
    padded = np.zeros((max(num_genes, len(per_gene)), 2))
    padded[: len(per_gene)] = per_gene
    random = np.random.default_rng(seed)
    draws = random.multinomial(len(padded), np.full(len(padded), 1 / len(padded)), _RESAMPLES)
    false, total = (draws @ padded).T
    rates = false[total > 0] / total[total > 0]
    return interval(float(calls[name].mean()), rates, n=len(calls))
