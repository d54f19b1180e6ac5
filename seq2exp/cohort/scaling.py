"""Per-gene scales of expression, fitted on some donors and applied to any.

Axes: G genes, D donors, K fitted points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

__all__ = ["GeneScale", "fit_scale"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeneScale:
    """Mean and deviation of every gene, or its normal scores.

    Attributes
    ----------
    kind : str
        ``zscore``, ``inverse_normal`` or ``none``.
    mean_G, deviation_G : float64 arrays
        Of the fitting donors (population deviation); 0 and 1 for genes that are not used.
    points, scores : tuple of float64 arrays
        For normal scores, per gene: its different fitted values, rising, and their scores.
    """

    kind: str
    mean_G: Floats
    deviation_G: Floats
    points: tuple[Floats, ...] = ()
    scores: tuple[Floats, ...] = ()

    def apply(self, raw_GD: Floats) -> Floats:
        """Return scaled values; NaN stays NaN.

        Normal scores of donors outside the fit are interpolated between the fitted values, and
        beyond these the outermost score is kept.
        """
        if self.kind != "inverse_normal":
            return np.asarray((raw_GD - self.mean_G[:, None]) / self.deviation_G[:, None])
        out = np.full(raw_GD.shape, np.nan)
        for row, (points, scores) in enumerate(zip(self.points, self.scores, strict=True)):
            if points.size:
                known = np.isfinite(raw_GD[row])
                out[row, known] = np.interp(raw_GD[row, known], points, scores)
        return out

    def undo(self, scaled_GD: Floats) -> Floats:
        """Return values in the unit before scaling; normal scores are returned as they are."""
        if self.kind == "inverse_normal":
            return scaled_GD
        return np.asarray(scaled_GD * self.deviation_G[:, None] + self.mean_G[:, None])


def fit_scale(raw_GN: Floats, usable_G: NDArray[np.bool_], *, kind: str) -> GeneScale:
    """Fit the scale of the usable genes.

    Parameters
    ----------
    raw_GN : float64 array, shape (num_genes, num_fitting_donors)
        NaN where not measured.
    usable_G : bool array
        Genes that vary.
    kind : str
        ``zscore``; ``inverse_normal``, the quantile of (rank - 3/8) / (n + 1/4) (Blom 1958), ties
        at their mean rank; ``none``, which takes the mean off alone.
    """
    mean, deviation = np.zeros(len(raw_GN)), np.ones(len(raw_GN))
    rows = raw_GN[usable_G]
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=1), 1)
    centre = np.where(known, rows, 0.0).sum(axis=1) / count
    mean[usable_G] = centre
    if kind == "zscore":
        squares = np.where(known, rows - centre[:, None], 0.0) ** 2
        deviation[usable_G] = np.sqrt(squares.sum(axis=1) / count)
    if kind != "inverse_normal":
        return GeneScale(kind, mean, deviation)
    points, scores = [], []
    for row, use in zip(raw_GN, usable_G, strict=True):
        values = row[np.isfinite(row)] if use else np.zeros(0)
        score = norm.ppf((rankdata(values) - 0.375) / (values.size + 0.25))
        unique, first = np.unique(values, return_index=True)
        points.append(unique)
        scores.append(np.asarray(score[first], np.float64))
    return GeneScale(kind, mean, deviation, tuple(points), tuple(scores))
