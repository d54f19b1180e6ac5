"""Metrics across genes, with bootstrap intervals, and paired differences between two models.

A correlation with a constant side is undefined: it is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from seq2exp.core.errors import InputError, facts

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "Estimate",
    "bootstrap",
    "mae",
    "mse",
    "paired_bootstrap",
    "pearson",
    "r2",
    "spearman",
]

Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes
    ----------
    value, low, high : float
        Point estimate and the bounds of the percentile interval.
    n : int
        Number of genes it rests on.
    """

    value: float
    low: float
    high: float
    n: int


def mse(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the mean squared error."""
    return float(np.mean((observed - predicted) ** 2))


def mae(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(observed - predicted)))


def r2(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the explained share of the variance: 1 - MSE / variance. Can be negative."""
    spread = float(np.var(observed))
    return 1 - mse(observed, predicted) / spread if spread > 0 else float("nan")


def pearson(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the Pearson correlation; NaN when a side is constant."""
    first, second = observed - observed.mean(), predicted - predicted.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    # A constant side leaves rounding noise, not an exact zero.
    noise = 1e-12 * max(float(np.abs(observed).max()) * float(np.abs(predicted).max()), 1e-300)
    return float((first * second).sum() / scale) if scale > noise * observed.size else float("nan")


def spearman(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the Spearman rank correlation (ties share their mean rank); NaN when undefined."""
    return pearson(rankdata(observed), rankdata(predicted))


METRICS: Mapping[str, Metric] = {
    "mse": mse,
    "mae": mae,
    "r2": r2,
    "pearson": pearson,
    "spearman": spearman,
}
HIGHER_IS_BETTER = {"mse": False, "mae": False, "r2": True, "pearson": True, "spearman": True}


def bootstrap(
    observed: ArrayLike,
    predicted: ArrayLike,
    metric: str,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return a metric across genes with its percentile bootstrap interval over genes.

    Parameters
    ----------
    observed, predicted : float arrays, shape (num_genes,)
        Genes whose label is NaN are left out.
    metric : str
        Name in :data:`METRICS`.
    num_resamples : int
        Number of bootstrap resamples of genes.
    level : float
        Coverage of the interval.
    seed : int
    """
    truth, (guess,) = _known(observed, predicted)
    draws = [
        METRICS[metric](truth[rows], guess[rows])
        for rows in _resamples(truth.size, num_resamples, seed)
    ]
    return _estimate(METRICS[metric](truth, guess), draws, level, truth.size)


def paired_bootstrap(
    observed: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    metric: str,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return by how much ``first`` is better than ``second``, with its paired interval.

    The same resampled genes serve both models. The difference is positive when ``first`` is
    better, also for errors (second minus first).
    """
    truth, (one, two) = _known(observed, first, second)
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    function = METRICS[metric]

    def difference(rows: NDArray[np.int64]) -> float:
        return sign * (function(truth[rows], one[rows]) - function(truth[rows], two[rows]))

    draws = [difference(rows) for rows in _resamples(truth.size, num_resamples, seed)]
    return _estimate(difference(np.arange(truth.size)), draws, level, truth.size)


def _known(
    observed: ArrayLike, *predictions: ArrayLike
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    truth = np.asarray(observed, dtype=np.float64)
    guesses = [np.asarray(prediction, dtype=np.float64) for prediction in predictions]
    if any(guess.shape != truth.shape for guess in guesses):
        raise InputError(
            facts(
                "metric",
                found=f"shapes {[guess.shape for guess in guesses]}",
                expected=f"{truth.shape}, one prediction per gene",
                fix="align predictions and labels by gene id",
            )
        )
    keep = np.isfinite(truth)
    if not keep.any():
        raise InputError(
            facts("metric", found="no known label", expected="at least one", fix="add labels")
        )
    return truth[keep], [guess[keep] for guess in guesses]


def _resamples(size: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(size, size=(num_resamples, size))


def _estimate(value: float, draws: list[float], level: float, size: int) -> Estimate:
    finite = np.asarray(draws)[np.isfinite(draws)]
    if finite.size == 0:
        return Estimate(value, float("nan"), float("nan"), size)
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), size)
