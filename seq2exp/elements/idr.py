"""Reproducibility over replicates: the copula mixture of Li, Brown, Huang and Bickel.

Ann. Appl. Stat. 5:1752, 2011. A candidate is reproducible with probability p. Behind its ranks in M
replicates stand normal values: of a reproducible candidate

    z ~ N(mu 1, sigma^2 ((1 - rho) I + rho 1 1'))

of another N(0, I). Only ranks are seen, so z is the quantile of the rank under the mixture's own
marginal, and the parameters follow by expectation-maximisation. The paper has M = 2; here rho is
shared by all pairs, whose covariance has the eigenvalues

    l1 = sigma^2 (1 + (M - 1) rho)  (once)      l2 = sigma^2 (1 - rho)  (M - 1 times)

The local idr of a candidate is the posterior probability that it is not reproducible; its IDR is
the mean local idr of all candidates that are at least as reproducible.

Shapes: N candidates, M replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, ndtr
from scipy.stats import rankdata

from seq2exp.core.errors import InputError, facts

__all__ = ["MIN_CANDIDATES", "IdrFit", "fit_idr"]

MIN_CANDIDATES = 20
"""Fewer candidates say nothing about five parameters."""

_MAX_ROUNDS = 500
_TOLERANCE = 1e-6
_SMALLEST = 1e-4
_START = (0.5, 1.5, 1.0, 0.6)
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IdrFit:
    """A fitted copula mixture.

    Attributes
    ----------
    p : float
        Share of reproducible candidates.
    mu, sigma, rho : float
        Mean, standard deviation and correlation of their normal values.
    scores_NM : float64 array, shape (num_candidates, num_replicates)
        Sorted scores of the candidates, each replicate by itself.
    rounds : int
    converged : bool
    """

    p: float
    mu: float
    sigma: float
    rho: float
    scores_NM: Array
    rounds: int
    converged: bool

    def local(self, scores_KM: ArrayLike) -> Array:
        """Return the local idr of items with these scores, shape (num_items,).

        An item need not be a candidate: it takes the rank it would have among them.
        """
        items = np.asarray(scores_KM, dtype=np.float64)
        num = len(self.scores_NM)
        ranks = np.empty_like(items)
        for place, ordered in enumerate(self.scores_NM.T):
            left = np.searchsorted(ordered, items[:, place], side="left")
            right = np.searchsorted(ordered, items[:, place], side="right")
            ranks[:, place] = np.maximum((left + 1 + right) / 2, 1).clip(1, num)
        theta = (self.p, self.mu, self.sigma, self.rho)
        z_KM = _quantiles(ranks / (num + 1), theta)
        return 1 - _posterior(z_KM, theta)[0]

    def global_idr(self, scores_KM: ArrayLike) -> Array:
        """Return the IDR of items: mean local idr of those that are at least as reproducible."""
        return expected_idr(self.local(scores_KM))


def expected_idr(local: Array) -> Array:
    """Return the mean of all local idr values up to each one; equal ones share a value."""
    if local.size == 0:
        return local.copy()
    order = np.argsort(local, kind="stable")
    running = np.cumsum(local[order]) / np.arange(1, local.size + 1)
    last = np.searchsorted(local[order], local, side="right") - 1
    values: Array = running[last]
    return values


def fit_idr(scores_NM: ArrayLike) -> IdrFit:
    """Fit the mixture to scores of candidates.

    Parameters
    ----------
    scores_NM : float array, shape (num_candidates, num_replicates)
        Higher is stronger; scales may differ between replicates, only ranks are used.

    Raises
    ------
    InputError
        Fewer than two replicates or 20 candidates, a score that is not finite, or a replicate that
        scores all candidates alike.
    """
    scores = np.asarray(scores_NM, dtype=np.float64)
    _require_scores(scores)
    ranks_NM = rankdata(scores, axis=0) / (len(scores) + 1)
    theta = _START
    converged, rounds = False, 0
    while not converged and rounds < _MAX_ROUNDS:
        rounds += 1
        z_NM = _quantiles(ranks_NM, theta)
        weight_N, _ = _posterior(z_NM, theta)
        new = _maximise(z_NM, weight_N)
        converged = max(abs(a - b) for a, b in zip(new, theta, strict=True)) < _TOLERANCE
        theta = new
    p, mu, sigma, rho = theta
    return IdrFit(p, mu, sigma, rho, np.sort(scores, axis=0), rounds, converged)


def _require_scores(scores: Array) -> None:
    if scores.ndim != 2 or scores.shape[1] < 2 or len(scores) < MIN_CANDIDATES:
        found = f"scores of shape {scores.shape}"
    elif not np.isfinite(scores).all():
        found = f"{int((~np.isfinite(scores)).sum())} scores that are not finite"
    elif (scores == scores[0]).all(axis=0).any():
        found = "a replicate that scores all candidates alike"
    else:
        return
    raise InputError(
        facts(
            "reproducibility",
            found=found,
            expected=f"{MIN_CANDIDATES} or more candidates with finite, differing scores in two or"
            " more replicates",
            fix="use more seeds, or map more genes",
        )
    )


def _quantiles(ranks: Array, theta: tuple[float, float, float, float]) -> Array:
    """Invert the marginal p N(mu, sigma^2) + (1 - p) N(0, 1)."""
    p, mu, sigma, _ = theta
    reach = 8 * max(1.0, sigma)
    grid = np.linspace(min(0, mu) - reach, max(0, mu) + reach, 8001)
    below = p * ndtr((grid - mu) / sigma) + (1 - p) * ndtr(grid)
    values: Array = np.interp(ranks, below, grid)
    return values


def _posterior(z_NM: Array, theta: tuple[float, float, float, float]) -> tuple[Array, float]:
    """Return the probability of being reproducible, and the log-likelihood."""
    p, mu, sigma, rho = theta
    num = z_NM.shape[1]
    first = sigma**2 * (1 + (num - 1) * rho)
    other = sigma**2 * (1 - rho)
    total_N, spread_N = _moments(z_NM, mu)
    signal_N = -0.5 * (
        total_N / first + spread_N / other + np.log(first) + (num - 1) * np.log(other)
    )
    noise_N = -0.5 * (z_NM**2).sum(axis=1)
    both = np.stack([np.log(p) + signal_N, np.log1p(-p) + noise_N])
    likelihood_N = logsumexp(both, axis=0)
    return np.exp(both[0] - likelihood_N), float(likelihood_N.sum())


def _moments(z_NM: Array, mu: float) -> tuple[Array, Array]:
    """Split the squared distance from the mean into its parts along and across the diagonal."""
    away_NM = z_NM - mu
    total_N = away_NM.sum(axis=1) ** 2 / z_NM.shape[1]
    return total_N, (away_NM**2).sum(axis=1) - total_N


def _maximise(z_NM: Array, weight_N: Array) -> tuple[float, float, float, float]:
    num = z_NM.shape[1]
    mass = max(float(weight_N.sum()), _SMALLEST)
    mu = float((weight_N * z_NM.mean(axis=1)).sum() / mass)
    total_N, spread_N = _moments(z_NM, mu)
    first = max(float((weight_N * total_N).sum() / mass), _SMALLEST)
    other = max(float((weight_N * spread_N).sum() / mass / (num - 1)), _SMALLEST)
    # Candidates of one replicate that are rarely found by another do not make the correlation
    # negative: it stops at 0.
    other = min(other, first)
    variance = (first + (num - 1) * other) / num
    p = float(np.clip(mass / len(z_NM), _SMALLEST, 1 - _SMALLEST))
    return p, mu, float(np.sqrt(variance)), float(1 - other / variance)
