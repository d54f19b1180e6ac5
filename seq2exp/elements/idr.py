"""Reproducibility over replicates: the copula mixture of Li, Brown, Huang and Bickel.

Ann. Appl. Stat. 5:1752, 2011. A candidate is reproducible with probability p. Behind its ranks in M
replicates stand normal values: of a reproducible candidate

    z ~ N(mu 1, sigma^2 ((1 - rho) I + rho 1 1'))

of another N(0, I). Only ranks are seen, so z is the quantile of the rank under the mixture's own
marginal g, and the likelihood is that of the copula, prod f(z) / prod g(z_m). The paper alternates
between quantiles and expectation-maximisation, whose fixed point is another one (the step from
quantiles to parameters leaves out that g moves: sigma shrinks); here the likelihood itself is
maximised over its four parameters. The paper has M = 2; here rho is shared by all pairs, whose
covariance has the eigenvalues

    l1 = sigma^2 (1 + (M - 1) rho)  (once)      l2 = sigma^2 (1 - rho)  (M - 1 times)

The local idr of a candidate is the posterior probability that it is not reproducible; its IDR is
the mean local idr of all candidates that are at least as reproducible.

Shapes: N candidates, M replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, logsumexp, ndtr
from scipy.stats import rankdata

from seq2exp.core.errors import InputError, facts

__all__ = ["MIN_CANDIDATES", "IdrFit", "fit_idr"]

MIN_CANDIDATES = 20
"""Fewer candidates say nothing about five parameters."""

_MAX_ROUNDS = 2000
_TOLERANCE = 1e-5
# p, mu, sigma, rho. Reproducible candidates rank higher, and agree no worse than at random.
_BOUNDS = ((0.001, 0.999), (0.0, 8.0), (0.1, 4.0), (0.0, 0.9999))
_STARTS = ((0.5, 2.0, 1.0, 0.6), (0.2, 3.0, 0.7, 0.8))
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
    tries = [
        minimize(
            lambda free: -_log_likelihood(ranks_NM, _bounded(free)),
            _free(start),
            method="Nelder-Mead",
            options={"maxiter": _MAX_ROUNDS, "xatol": _TOLERANCE, "fatol": _TOLERANCE},
        )
        for start in _STARTS
    ]
    best = min(tries, key=lambda found: float(found.fun))
    p, mu, sigma, rho = _bounded(best.x)
    ordered_NM = np.sort(scores, axis=0)
    return IdrFit(p, mu, sigma, rho, ordered_NM, rounds=int(best.nit), converged=bool(best.success))


def _free(theta: tuple[float, float, float, float]) -> Array:
    """Map parameters within their bounds to the real line."""
    scaled = [
        (value - low) / (high - low) for value, (low, high) in zip(theta, _BOUNDS, strict=True)
    ]
    free: Array = logit(np.array(scaled))
    return free


def _bounded(free: Array) -> tuple[float, float, float, float]:
    p, mu, sigma, rho = (
        float(low + (high - low) * share)
        for share, (low, high) in zip(expit(free), _BOUNDS, strict=True)
    )
    return p, mu, sigma, rho


def _log_likelihood(ranks_NM: Array, theta: tuple[float, float, float, float]) -> float:
    """Return the mean log-likelihood of the copula per candidate."""
    p, mu, sigma, _ = theta
    z_NM = _quantiles(ranks_NM, theta)
    joint = _posterior(z_NM, theta)[1] / len(z_NM)
    # The constant of the normal density cancels between joint and marginals.
    signal = np.log(p) - 0.5 * ((z_NM - mu) / sigma) ** 2 - np.log(sigma)
    marginal = np.logaddexp(signal, np.log1p(-p) - 0.5 * z_NM**2)
    return float(joint - marginal.sum(axis=1).mean())


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
