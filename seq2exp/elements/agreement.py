"""Do replicates agree on an element? Members of a run, or several runs.

Candidates are the runs called at a lenient threshold from the mean over replicates; each replicate
scores a candidate by the mean of its own mask. See :mod:`seq2exp.elements.idr`.

Shapes: K candidates or elements, M replicates, G genes, N bins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.elements.fdr import distal_runs, learned_histogram
from seq2exp.elements.idr import MIN_CANDIDATES, fit_idr
from seq2exp.elements.masks import GeneMasks

__all__ = ["LENIENT_SHARE", "Agreement", "replicate_agreement", "replicate_masks"]

logger = logging.getLogger(__name__)

LENIENT_SHARE = 0.2
"""Share of the learned bins that candidates may cover: noise must be among them, or there is
nothing to tell reproducible elements from."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Reproducibility of called elements.

    Attributes
    ----------
    num_calling : float64 array, shape (num_elements,)
        Replicates of which a bin in the element reaches the threshold; NaN with a single one.
    idr : float64 array, shape (num_elements,)
        Irreproducible discovery rate; NaN where it cannot be fitted.
    summary : dict
        num_replicates, num_candidates, p, mu, sigma, rho, converged, or the reason why not.
    """

    num_calling: NDArray[np.float64]
    idr: NDArray[np.float64]
    summary: dict[str, Any]


def replicate_masks(masks: GeneMasks, others: Sequence[GeneMasks] = ()) -> list[NDArray[Any]]:
    """Return the masks of all replicates: those of runs, or else the members of one run.

    Parameters
    ----------
    masks : GeneMasks
    others : sequence of GeneMasks
        Masks of the same genes and windows from other runs.

    Raises
    ------
    InputError
        Other genes, or windows that differ.
    """
    if not others:
        return list(masks.member_masks())
    for other in others:
        columns = ["gene_id", "contig", "start"]
        same = other.mask.shape == masks.mask.shape and other.bin_size == masks.bin_size
        if not same or not other.genes[columns].equals(masks.genes[columns]):
            raise InputError(
                facts(
                    "replicates",
                    found=f"a run with windows of {other.num_bins} bins of {other.bin_size} bp",
                    expected=f"the windows of the mapped run: {masks.num_bins} bins of"
                    f" {masks.bin_size} bp of the same genes",
                    fix="give runs that differ in their seed only",
                )
            )
    return [masks.mask, *(other.mask for other in others)]


def replicate_agreement(
    masks: GeneMasks,
    replicates: Sequence[NDArray[Any]],
    elements: pd.DataFrame,
    *,
    threshold: float,
    max_gap: int = 0,
    min_length: int = 100,
) -> Agreement:
    """Return how far replicates agree on distal elements.

    Parameters
    ----------
    masks : GeneMasks
    replicates : sequence of float arrays, each of shape (num_genes, num_bins)
    elements : DataFrame
        gene (row of ``masks``), start, end.
    threshold : float
        Threshold of the map.
    max_gap, min_length : int
        The calling rule, bp.
    """
    none = np.full(len(elements), np.nan)
    facts_found: dict[str, Any] = {"num_replicates": len(replicates)}
    if len(replicates) < 2:
        reason = "one replicate only: train with fit.seeds of 2 or more, or give --replicates"
        return Agreement(none, none, facts_found | {"reason": reason})
    calling = _scores(masks, replicates, elements, highest=True) >= threshold
    num_calling = calling.sum(axis=1).astype(np.float64)
    lenient = min(threshold, _lenient_threshold(masks))
    candidates = _candidates(masks, lenient, max_gap=max_gap, min_length=min_length)
    facts_found |= {"num_candidates": len(candidates), "candidate_threshold": lenient}
    scores_KM = _scores(masks, replicates, candidates)
    if len(candidates) < MIN_CANDIDATES:
        reason = f"{len(candidates)} candidates, {MIN_CANDIDATES} are needed"
        return Agreement(num_calling, none, facts_found | {"reason": reason})
    if (scores_KM == scores_KM[:1]).all(axis=0).any():
        reason = "a replicate that scores all candidates alike"
        return Agreement(num_calling, none, facts_found | {"reason": reason})
    fit = fit_idr(scores_KM)
    if not fit.converged:
        logger.warning("reproducibility: no convergence in %d rounds", fit.rounds)
    found = {"p": fit.p, "mu": fit.mu, "sigma": fit.sigma, "rho": fit.rho}
    idr = fit.global_idr(_scores(masks, replicates, elements))
    return Agreement(num_calling, idr, facts_found | found | {"converged": fit.converged})


def _lenient_threshold(masks: GeneMasks) -> float:
    counts = learned_histogram(masks)
    above = np.cumsum(counts[::-1])[::-1]
    bits = np.flatnonzero(above >= LENIENT_SHARE * max(1, above[0]))
    value = np.array([bits[-1] if bits.size else 0], dtype=np.uint16).view(np.float16)[0]
    return max(float(value), float(np.finfo(np.float16).tiny))


def _candidates(
    masks: GeneMasks, threshold: float, *, max_gap: int, min_length: int
) -> pd.DataFrame:
    frames = []
    for genes in masks.chunks():
        runs = distal_runs(masks, genes, threshold, max_gap=max_gap, min_length=min_length)
        gene = genes[runs.group // (masks.num_bins + 1)]
        frames.append(pd.DataFrame({"gene": gene, "start": runs.start, "end": runs.end}))
    return pd.concat(frames, ignore_index=True)


def _scores(
    masks: GeneMasks,
    replicates: Sequence[NDArray[Any]],
    elements: pd.DataFrame,
    *,
    highest: bool = False,
) -> NDArray[np.float64]:
    """Return the mean, or the largest, mask of every replicate in elements, shape (K, M)."""
    scores = np.zeros((len(elements), len(replicates)))
    genes = elements["gene"].to_numpy(np.int64)
    start, end = elements["start"].to_numpy(np.int64), elements["end"].to_numpy(np.int64)
    for gene in np.unique(genes).tolist():
        rows = np.flatnonzero(genes == gene)
        starts, ends = masks.intervals(gene)
        length = (ends - starts).astype(np.float64)
        values = [np.asarray(mask[gene], dtype=np.float64) for mask in replicates]
        for row, low, high in zip(rows, *masks.bin_span(gene, start[rows], end[rows]), strict=True):
            here = slice(low, high)
            for place, value in enumerate(values):
                mean = np.average(value[here], weights=length[here])
                scores[row, place] = value[here].max() if highest else mean
    return scores
