"""Metrics across genes, with bootstrap intervals, and paired differences between two models.

A correlation with a constant side is undefined: it is NaN, never 0. Bootstrap resamples are drawn
as counts per gene, so that every metric of every model comes from a few matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from seq2exp.core.errors import InputError, facts

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "Estimate",
    "Resamples",
    "Row",
    "bootstrap",
    "bootstrap_draws",
    "interval",
    "mae",
    "mse",
    "paired_bootstrap",
    "pearson",
    "r2",
    "resample_counts",
    "spearman",
]

Row = dict[str, Any]
Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes
    ----------
    value, low, high : float
        Point estimate and the bounds of the percentile interval; NaN where there is none.
    n : int
        Number of genes, or of other things, that it rests on.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    def row(self, name: str, metric: str, *, split: str | None, **more: object) -> Row:
        """Return the number as commands print and write it.

        Parameters
        ----------
        name : str
            What was measured.
        metric : str
        split : str, optional
        **more
            Further entries.

        Returns
        -------
        dict
            ``name, metric, split``, what was given, ``value, low, high, n``; NaN, which JSON lacks,
            is None.
        """
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        finite = {key: float(x) if math.isfinite(x) else None for key, x in numbers.items()}
        return {"name": name, "metric": metric, "split": split, **more, **finite, "n": int(self.n)}


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
# Counts held at once; larger tables of resamples are worked through in parts.
_CHUNK = 2_000_000


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
    draws = bootstrap_draws(
        truth[:, None], guess[None, :, None], (metric,), num_resamples=num_resamples, seed=seed
    )
    value = METRICS[metric](truth, guess)
    return interval(value, draws[metric][:, 0, 0], n=truth.size, level=level)


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
    draws = bootstrap_draws(
        truth[:, None],
        np.stack((one, two))[:, :, None],
        (metric,),
        num_resamples=num_resamples,
        seed=seed,
    )[metric][:, :, 0]
    value = sign * (METRICS[metric](truth, one) - METRICS[metric](truth, two))
    return interval(value, sign * (draws[:, 0] - draws[:, 1]), n=truth.size, level=level)


def interval(value: float, draws: ArrayLike, *, n: int, level: float = 0.95) -> Estimate:
    """Return a value with the percentile interval of its bootstrap draws; NaN draws are left out.

    Parameters
    ----------
    value : float
    draws : float array, shape (num_resamples,)
    n : int
        Number of genes.
    level : float
        Coverage of the interval.
    """
    values = np.asarray(draws, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"), n)
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


def bootstrap_draws(
    observed: NDArray[np.float64],
    predicted: NDArray[np.float64],
    metrics: Sequence[str],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Return metrics on bootstrap resamples of genes: the same resamples for all models and labels.

    Parameters
    ----------
    observed : float array, shape (num_genes, num_labels)
        NaN where unknown; such a gene is resampled, and counts for its known labels only.
    predicted : float array, shape (num_models, num_genes, num_labels)
    metrics : sequence of str
        Names in :data:`METRICS`.
    num_resamples : int
        Number of resamples.
    seed : int

    Returns
    -------
    dict
        For each metric a float64 array, shape (num_resamples, num_models, num_labels); NaN where
        the metric is undefined on a resample.
    """
    num_models, num_genes, num_labels = predicted.shape
    draws = {name: np.full((num_resamples, num_models, num_labels), np.nan) for name in metrics}
    random = np.random.default_rng(seed)
    step = max(_CHUNK // max(num_genes, 1), 1)
    for first in range(0, num_resamples, step):
        part = slice(first, min(first + step, num_resamples))
        counts = resample_counts(random, part.stop - part.start, num_genes)
        for label in range(num_labels):
            known = np.isfinite(observed[:, label])
            if not known.any():
                continue
            resamples = Resamples(counts[:, known], observed[known, label])
            for model in range(num_models):
                guess = predicted[model, known, label]
                for name in metrics:
                    draws[name][part, model, label] = resamples.metric(name, guess)
    return draws


class Resamples:
    """Metrics of weighted genes, or of things that genes own, on bootstrap resamples.

    Parameters
    ----------
    counts : float array, shape (num_resamples, num_genes)
        How often each resample drew each gene, or the gene of each thing.
    observed : float array, shape (num_genes,)
    """

    def __init__(self, counts: NDArray[np.float64], observed: NDArray[np.float64]) -> None:
        self.counts = counts
        self.observed = observed
        with np.errstate(divide="ignore"):
            self.share = 1.0 / counts.sum(axis=1)
        self._ranks: NDArray[np.float64] | None = None

    def metric(self, name: str, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one value per resample."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if name == "mse":
                return self._mean((self.observed - predicted) ** 2)
            if name == "mae":
                return self._mean(np.abs(self.observed - predicted))
            if name == "r2":
                return self._r2(predicted)
            if name == "pearson":
                return self._pearson(predicted)
            return self._spearman(predicted)

    def _mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = (self.counts @ values) * self.share
        return means

    def _r2(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = self.observed - self.observed.mean()
        spread = self._mean(centred**2) - self._mean(centred) ** 2
        floor = 1e-12 * float(np.mean(centred**2))
        error = self._mean((self.observed - predicted) ** 2)
        return np.where(spread > floor, 1 - error / spread, np.nan)

    def _pearson(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = _unit(self.observed), _unit(predicted)
        if first is None or second is None:
            return np.full(self.share.size, np.nan)
        one, two = self._mean(first), self._mean(second)
        return _correlation(
            self._mean(first * second) - one * two,
            self._mean(first**2) - one**2,
            self._mean(second**2) - two**2,
        )

    def _spearman(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._ranks is None:
            self._ranks = _weighted_ranks(self.counts, self.observed)
        first, second = self._ranks, _weighted_ranks(self.counts, predicted)

        def mean(product: str, *parts: NDArray[np.float64]) -> NDArray[np.float64]:
            means: NDArray[np.float64] = np.einsum(product, self.counts, *parts) * self.share
            return means

        return _correlation(
            mean("rg,rg,rg->r", first, second),
            mean("rg,rg,rg->r", first, first),
            mean("rg,rg,rg->r", second, second),
        )


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return values with mean 0 and deviation 1, or None when they are constant."""
    centred = values - values.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    return centred / spread if spread > 1e-12 * float(np.abs(values).max()) else None


def _correlation(
    covariance: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return correlations from moments of order-one values; NaN where a side has no variance."""
    defined = (first > 1e-12) & (second > 1e-12)
    return np.where(defined, covariance / np.sqrt(first * second), np.nan)


def _weighted_ranks(
    counts: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return mid-ranks within every resample, centred on 0 and divided by its size.

    A value drawn t times, with c draws below it, has the ranks c + 1 .. c + t, so c + (t + 1) / 2.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    group = np.add.reduceat(counts[:, order], new, axis=1)
    upto = np.cumsum(group, axis=1)
    total = upto[:, -1:]
    middle = (upto - group / 2 - total / 2) / total
    tie = np.empty(values.size, dtype=np.int64)
    tie[order] = np.repeat(np.arange(new.size), np.diff(np.append(new, values.size)))
    ranks: NDArray[np.float64] = middle[:, tie]
    return ranks


def resample_counts(
    random: np.random.Generator, num_resamples: int, num_genes: int
) -> NDArray[np.float64]:
    """Return how often each resample draws each gene, shape (num_resamples, num_genes)."""
    drawn = random.integers(num_genes, size=(num_resamples, num_genes))
    drawn += np.arange(num_resamples)[:, None] * num_genes
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_genes)
    return counts.reshape(num_resamples, num_genes).astype(np.float64)


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
