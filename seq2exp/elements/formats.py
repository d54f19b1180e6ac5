"""Called elements in the columns of other tools: links (BEDPE) and narrowPeak."""

from __future__ import annotations

import numpy as np
import pandas as pd

from seq2exp.elements.masks import GeneMasks

__all__ = ["LINK_COLUMNS", "links_table", "narrow_peaks"]

LINK_COLUMNS = (
    "chrom1",
    "start1",
    "end1",
    "chrom2",
    "start2",
    "end2",
    "name",
    "score",
    "strand1",
    "strand2",
    "gene_id",
    "symbol",
    "distance",
    "element_class",
    "mean_mask",
)


def narrow_peaks(elements: pd.DataFrame) -> pd.DataFrame:
    """Return distal elements in the ten columns of ENCODE narrowPeak.

    ``signalValue`` is the largest mask, ``pValue`` -1 (none), ``qValue`` minus log10 of the q-value
    (-1 without one; at most 10, since a null of finite size cannot say 0), ``peak`` the summit
    counted from the start.
    """
    distal = elements[elements["element_class"] == "distal"]
    q_value = distal["q_value"].to_numpy(np.float64)
    logs = np.where(np.isnan(q_value), -1.0, -np.log10(np.fmax(q_value, 1e-10)))
    return pd.DataFrame(
        {
            **{name: distal[name] for name in ("chrom", "start", "end", "name", "score")},
            "strand": ".",
            "signalValue": distal["max_mask"],
            "pValue": -1,
            "qValue": logs,
            "peak": distal["summit"] - distal["start"],
        }
    )


def links_table(elements: pd.DataFrame, masks: GeneMasks) -> pd.DataFrame:
    """Return one row per element and gene: the element, and the base of the gene's TSS."""
    tss = masks.genes.set_index("gene_id")["tss"].loc[elements["gene_id"]].to_numpy(np.int64)
    table = {
        "chrom1": elements["chrom"],
        "start1": elements["start"],
        "end1": elements["end"],
        "chrom2": elements["chrom"],
        "start2": tss,
        "end2": tss + 1,
        "name": elements["name"],
        "score": elements["score"],
        "strand1": ".",
        "strand2": elements["strand"],
        "gene_id": elements["gene_id"],
        "symbol": elements["symbol"],
        "distance": elements["distance"],
        "element_class": elements["element_class"],
        "mean_mask": elements["mean_mask"],
    }
    return pd.DataFrame(table, columns=list(LINK_COLUMNS))
