"""Score models and controls on the same genes: metrics, intervals, paired differences."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.training.metrics import HIGHER_IS_BETTER, METRICS, Row, bootstrap_draws, interval

__all__ = ["MODEL", "Row", "mean_row", "score"]

MODEL = "model"
PAIRED = ("mse", "pearson")


def score(
    observed: NDArray[np.float64],
    predictions: Mapping[str, NDArray[np.float64]],
    *,
    samples: list[str],
    split: str,
    num_resamples: int = 1000,
    seed: int = 0,
    reference: str = MODEL,
) -> list[Row]:
    """Return one row per model, metric and label sample, and the paired differences.

    Metrics are taken across genes within a sample and then averaged over the samples (rows whose
    ``sample`` is None). ``mse_difference`` and ``pearson_difference`` of another model or control
    say by how much the reference is better than it: positive in favour of the reference.

    Parameters
    ----------
    observed : float array, shape (num_genes, num_samples)
        NaN where unknown.
    predictions : mapping
        From name to float array, shape (num_genes, num_samples).
    samples : list of str
    split : str
        Written into the rows.
    num_resamples, seed : int
        Bootstrap over genes; the same resamples serve every model, metric and sample.
    reference : str
        The model that the others are compared with; no differences without it.

    Returns
    -------
    list of dict
        name, metric, split, sample, value, low, high (None where undefined) and n, the genes.
    """
    names = list(predictions)
    stack = np.stack([np.asarray(predictions[name], np.float64) for name in names])
    known = np.isfinite(observed)
    keep = known.any(axis=1)
    observed, stack, known = observed[keep], stack[:, keep], known[keep]
    # (num_resamples, num_models, num_samples), and the same without the first axis.
    draws = bootstrap_draws(observed, stack, tuple(METRICS), num_resamples=num_resamples, seed=seed)
    values = {metric: _values(observed, stack, known, metric) for metric in METRICS}
    table = _Table(draws, values, known, samples=samples, split=split)
    rows = [
        row
        for model, name in enumerate(names)
        for metric in METRICS
        for row in table.rows(name, metric, lambda array, m=model: array[..., m, :])
    ]
    if reference not in names:
        return rows
    ours = names.index(reference)
    for model, name in enumerate(names):
        if model == ours:
            continue
        for metric in PAIRED:
            sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
            rows += table.rows(
                name,
                metric,
                lambda array, m=model, s=sign: s * (array[..., ours, :] - array[..., m, :]),
                label=f"{metric}_difference",
            )
    return rows


def mean_row(name: str, metric: str, values: NDArray[np.floating], *, split: str) -> Row:
    """Return the mean of a per-gene quantity with its bootstrap interval."""
    zeros = np.zeros_like(values, dtype=np.float64)
    # The mean of non-negative values is their mean absolute error against zero.
    draws = bootstrap_draws(zeros[:, None], values[None, :, None].astype(np.float64), ("mae",))
    estimate = interval(float(values.mean()), draws["mae"][:, 0, 0], n=values.size)
    return estimate.row(name, metric, split=split, sample=None)


class _Table:
    """Draws and values of all models, from which rows are cut."""

    def __init__(
        self,
        draws: dict[str, NDArray[np.float64]],
        values: dict[str, NDArray[np.float64]],
        known: NDArray[np.bool_],
        *,
        samples: list[str],
        split: str,
    ) -> None:
        self.draws = draws
        self.values = values
        self.known = known
        self.samples = samples
        self.split = split

    def rows(self, name: str, metric: str, take: Any, *, label: str = "") -> list[Row]:  # noqa: ANN401
        """Return the row over all samples, then one per sample when there are several."""
        draws, values = take(self.draws[metric]), take(self.values[metric])
        count = [int(n) for n in self.known.sum(axis=0)]
        defined = np.isfinite(values)
        with warnings.catch_warnings():
            # A resample on which nothing is defined stays NaN and is left out of the interval.
            warnings.simplefilter("ignore", RuntimeWarning)
            average = np.nanmean(draws[:, defined], axis=1) if defined.any() else draws[:, 0]
        overall = float(values[defined].mean()) if defined.any() else math.nan
        parts: list[tuple[str | None, float, NDArray[np.float64], int]] = [
            (None, overall, average, len(self.known))
        ]
        if len(self.samples) > 1:
            parts += [
                (sample, float(values[k]), draws[:, k], count[k])
                for k, sample in enumerate(self.samples)
            ]
        return [
            interval(value, part, n=n).row(name, label or metric, split=self.split, sample=sample)
            for sample, value, part, n in parts
        ]


def _values(
    observed: NDArray[np.float64],
    stack: NDArray[np.float64],
    known: NDArray[np.bool_],
    metric: str,
) -> NDArray[np.float64]:
    """Return the metric per model and sample; NaN for a sample without labels."""
    out = np.full((stack.shape[0], observed.shape[1]), np.nan)
    for k in range(observed.shape[1]):
        rows = known[:, k]
        if rows.any():
            out[:, k] = [METRICS[metric](observed[rows, k], guess[rows, k]) for guess in stack]
    return out
