"""What stands behind each called element: q-value, posterior interval, agreement of replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.elements.agreement import replicate_agreement
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.fdr import FdrCurve
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.uncertainty import element_betas, mixture_above, mixture_quantile

__all__ = ["add_evidence"]


def add_evidence(
    elements: pd.DataFrame,
    masks: GeneMasks,
    *,
    threshold: float,
    config: CallConfig,
    replicates: Sequence[NDArray[Any]],
    curve: FdrCurve | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fill the evidence columns of distal elements.

    Parameters
    ----------
    elements : DataFrame
        Columns of :data:`seq2exp.elements.calling.ELEMENT_COLUMNS`.
    masks : GeneMasks
    threshold : float
        Threshold of the map.
    config : CallConfig
    replicates : sequence of float arrays, each of shape (num_genes, num_bins)
        Masks of the replicates; see :func:`seq2exp.elements.agreement.replicate_masks`.
    curve : FdrCurve, optional
        Without it q-values stay NaN.

    Returns
    -------
    elements : DataFrame
        The same rows. ``q_value``; ``mask_q05`` and ``mask_q95``, quantiles of the posterior of
        the mean mask; ``prob_called``, its probability to exceed the threshold; ``num_calling``,
        replicates that call the element; ``idr``.
    agreement : dict
        Entry of summary.json.
    """
    filled = elements.copy()
    distal = np.flatnonzero(elements["element_class"] == "distal")
    chosen = elements.iloc[distal]
    row_of = pd.Series(np.arange(len(masks)), index=masks.genes["gene_id"].astype(str))
    gene = row_of.loc[chosen["gene_id"]].to_numpy(np.int64)
    start, end = chosen["start"].to_numpy(np.int64), chosen["end"].to_numpy(np.int64)
    values: dict[str, NDArray[np.float64]] = {}
    if curve is not None:
        values["q_value"] = curve.at(chosen["max_mask"].to_numpy(np.float64))
    if masks.alpha is not None:
        alpha_EM, beta_EM = element_betas(masks, gene, start, end)
        values["mask_q05"] = mixture_quantile(alpha_EM, beta_EM, 0.05)
        values["mask_q95"] = mixture_quantile(alpha_EM, beta_EM, 0.95)
        values["prob_called"] = mixture_above(alpha_EM, beta_EM, threshold)
    agreement = replicate_agreement(
        masks,
        replicates,
        pd.DataFrame({"gene": gene, "start": start, "end": end}),
        threshold=threshold,
        max_gap=config.gap,
        min_length=config.min_length_bp,
    )
    values |= {"num_calling": agreement.num_calling, "idr": agreement.idr}
    for name, found in values.items():
        column = np.full(len(elements), np.nan)
        column[distal] = found
        filled[name] = column
    return filled, agreement.summary
