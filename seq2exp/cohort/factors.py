"""Hidden factors of expression: principal components, or factor analysis with noise per gene.

Both are fitted on the residuals of the fitting donors and then only applied, one donor at a time,
so a donor who was not in the fit changes nothing.

``pca``              x ~ V s, V orthonormal; scores of a donor: least squares of x on V
``factor_analysis``  x ~ W s + e, s ~ N(0, I), e ~ N(0, diag psi), by maximum likelihood (EM; Rubin
and Thayer 1982, Psychometrika 47:69); scores: posterior means. It is the model of PEER (Stegle et
al. 2012, Nat. Protoc. 7:500) without PEER's priors on factors and noise: the number of factors is
what is asked for, none is shrunk away.

Axes: N donors, G genes, F factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Factors", "fit_factors"]

Floats = NDArray[np.float64]

_STEPS = 500
_TOLERANCE = 1e-8
# Smallest noise variance over the variance of a gene: below it a factor is one gene (Heywood).
_MIN_NOISE = 0.01


@dataclass(frozen=True, eq=False)
class Factors:
    """Loadings, and how a donor's scores follow from them.

    Attributes
    ----------
    loadings_GF : float64 array, shape (num_genes, num_factors)
        Rows of genes that were not used are 0.
    noise_G : float64 array, shape (num_genes,), or None
        Noise variances of factor analysis; None for principal components.
    explained : float
        Share of the variance of the fitting donors that the factors take out.
    """

    loadings_GF: Floats
    noise_G: Floats | None
    explained: float = 0.0

    def scores(self, residual_NG: Floats) -> Floats:
        """Return the factors of donors, shape (num_donors, num_factors).

        Parameters
        ----------
        residual_NG : float64 array, shape (num_donors, num_genes)
            Genes that are NaN for a donor are left out for that donor.
        """
        load = self.loadings_GF
        used = np.abs(load).sum(axis=1) > 0
        load, values = load[used], residual_NG[:, used]
        weighted = load if self.noise_G is None else load / self.noise_G[used, None]
        prior = np.zeros((load.shape[1],) * 2) if self.noise_G is None else np.eye(load.shape[1])
        known = np.isfinite(values)
        filled = np.where(known, values, 0.0)
        right = filled @ weighted
        whole = known.all(axis=1)
        out = np.zeros(right.shape)
        if whole.any():
            out[whole] = _solve(prior + load.T @ weighted, right[whole].T).T
        for row in np.flatnonzero(~whole):
            inner = load[known[row]].T @ weighted[known[row]]
            out[row] = _solve(prior + inner, right[row])
        return out

    def remove(self, residual_NG: Floats) -> Floats:
        """Return residuals without what the factors explain; NaN stays NaN."""
        return np.asarray(residual_NG - self.scores(residual_NG) @ self.loadings_GF.T)


def fit_factors(residual_NG: Floats, *, kind: str, num_factors: int) -> Factors:
    """Fit factors of centred residuals.

    Parameters
    ----------
    residual_NG : float64 array, shape (num_donors, num_genes)
        Of the fitting donors, mean 0 per gene. A missing value counts as the mean. Genes without
        variance are not used.
    kind : str
        ``pca`` or ``factor_analysis``.
    num_factors : int
        At least 1, fewer than donors and genes.
    """
    filled = np.where(np.isfinite(residual_NG), residual_NG, 0.0)
    variance = filled.var(axis=0)
    used = variance > 1e-12 * max(float(variance.max(initial=0.0)), 1e-300)
    values = filled[:, used]
    base, length = _components(values, num_factors)
    noise: Floats | None = None
    loadings = base
    if kind == "factor_analysis":
        start = base * (length / np.sqrt(values.shape[0]))
        loadings, noise_used = _factor_analysis(values, start)
        noise = np.ones(variance.size)
        noise[used] = noise_used
    full = np.zeros((variance.size, num_factors))
    full[used] = loadings
    factors = Factors(full, noise)
    left = factors.remove(filled)
    total = float((filled**2).sum())
    explained = 1 - float((left**2).sum()) / total if total > 0 else 0.0
    return Factors(full, noise, explained)


def _components(values_NG: Floats, num_factors: int) -> tuple[Floats, Floats]:
    """Return the first principal axes, shape (G, F), and their singular values."""
    value, vectors = np.linalg.eigh(values_NG @ values_NG.T)
    order = np.argsort(value)[::-1][:num_factors]
    length = np.sqrt(np.maximum(value[order], 0.0))
    axes = values_NG.T @ vectors[:, order] / np.where(length > 0, length, 1.0)
    # The sign of an axis is free: its largest loading is positive.
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes * np.where(sign == 0, 1.0, sign), length


def _factor_analysis(values_NG: Floats, start_GF: Floats) -> tuple[Floats, Floats]:
    """Return maximum-likelihood loadings and noise variances by EM."""
    num = values_NG.shape[0]
    variance = values_NG.var(axis=0)
    floor = _MIN_NOISE * variance
    load = start_GF.copy()
    noise = np.maximum(variance - (load**2).sum(axis=1), floor)
    before = -np.inf
    for _ in range(_STEPS):
        weighted = load / noise[:, None]
        inner = np.eye(load.shape[1]) + load.T @ weighted
        covariance = np.linalg.inv(inner)
        scores = values_NG @ weighted @ covariance
        moment = scores.T @ scores + num * covariance
        cross = values_NG.T @ scores
        # Log-likelihood of the loadings just used, per donor, without its constant.
        quadratic = float((values_NG**2 / noise).sum() - ((values_NG @ weighted) * scores).sum())
        now = -0.5 * (np.log(noise).sum() + float(np.linalg.slogdet(inner)[1]) + quadratic / num)
        load = np.linalg.solve(moment, cross.T).T
        noise = np.maximum(variance - (load * cross).sum(axis=1) / num, floor)
        if now - before < _TOLERANCE * abs(now):
            break
        before = now
    return load, noise


def _solve(matrix: Floats, right: Floats) -> Floats:
    """Return the least-squares solution, of smallest length where there are several."""
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=1e-10)[0])
