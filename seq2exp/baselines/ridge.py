"""Ridge regression in closed form, for a path of penalties and several labels at once.

Columns are centred and scaled with the training genes; the intercept is not penalised. The
penalty is chosen per label on the validation genes, the coefficients come from the training genes
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from seq2exp.core.errors import InputError, facts

__all__ = ["COARSE_ALPHAS", "RELATIVE_ALPHAS", "Ridge", "block_weights", "fit_ridge"]

Matrix = NDArray[np.float64]

RELATIVE_ALPHAS = np.logspace(-5, 1, 13)
"""Penalties per training gene, for blocks weighted by :func:`block_weights`."""
COARSE_ALPHAS = RELATIVE_ALPHAS[2:11:2]
"""A short path, enough to compare designs with each other."""


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge for several labels.

    Attributes
    ----------
    centre, scale : float64 arrays, shape (num_labels, num_columns)
        A column enters as ``(x - centre) * scale``; NaN enters as 0, the training mean. They
        differ between labels only where the known labels do.
    coefficients : float64 array, shape (num_columns, num_labels)
        Of the standardised columns.
    intercept : float64 array, shape (num_labels,)
    alpha : float64 array, shape (num_labels,)
        Chosen penalties.
    error : float64 array, shape (num_labels,)
        Mean squared error on the validation genes at the chosen penalty.
    """

    centre: Matrix
    scale: Matrix
    coefficients: Matrix
    intercept: NDArray[np.float64]
    alpha: NDArray[np.float64]
    error: NDArray[np.float64]

    def predict(self, columns: ArrayLike) -> Matrix:
        """Return predictions, shape (num_genes, num_labels)."""
        x = np.asarray(columns, dtype=np.float64)
        out = np.empty((x.shape[0], self.intercept.size))
        for group in _groups(np.hstack((self.centre, self.scale))):
            k = group[0]
            out[:, group] = (
                _standardise(x, self.centre[k], self.scale[k]) @ (self.coefficients[:, group])
            )
        out += self.intercept
        return out


def block_weights(sizes: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
    """Return a factor per column that gives block ``b`` the total variance ``weights[b] ** 2``.

    Without it, a thousand word counts would silence three scalars at any common penalty.
    """
    parts = [
        np.full(size, weight / np.sqrt(size)) for size, weight in zip(sizes, weights, strict=True)
    ]
    return np.concatenate(parts)


def fit_ridge(
    train_columns: ArrayLike,
    train_labels: ArrayLike,
    *,
    valid_columns: ArrayLike,
    valid_labels: ArrayLike,
    alphas: ArrayLike,
    column_weights: ArrayLike | None = None,
) -> Ridge:
    """Fit ``min |y - X w|^2 + alpha |w|^2`` on the training genes, alpha chosen on validation.

    Parameters
    ----------
    train_columns, valid_columns : float arrays, shape (num_genes, num_columns)
        NaN counts as the training mean of its column.
    train_labels, valid_labels : float arrays, shape (num_genes, num_labels)
        Genes whose label is NaN are left out, label by label.
    alphas : float array, shape (num_alphas,)
        Penalties to choose from, all positive.
    column_weights : float array, shape (num_columns,), optional
        Factors of the standardised columns; see :func:`block_weights`.

    Raises
    ------
    InputError
        A label has no training gene, or no label has a validation gene.
    """
    x, y = np.asarray(train_columns, np.float64), np.asarray(train_labels, np.float64)
    xv, yv = np.asarray(valid_columns, np.float64), np.asarray(valid_labels, np.float64)
    path = np.asarray(alphas, dtype=np.float64)
    weights = np.ones(x.shape[1]) if column_weights is None else np.asarray(column_weights)
    _check(y, yv)
    num_labels, num_columns = y.shape[1], x.shape[1]
    centre, scale = np.empty((num_labels, num_columns)), np.empty((num_labels, num_columns))
    paths = np.empty((path.size, num_columns, num_labels))
    errors = np.full((path.size, num_labels), np.nan)
    # Labels known for the same genes share their factorisations.
    for group in _groups(np.isfinite(y).T):
        known = np.isfinite(y[:, group[0]])
        mean, factor = _moments(x[known])
        factor *= weights
        centre[group], scale[group] = mean, factor
        paths[:, :, group] = _solve(
            _standardise(x[known], mean, factor), y[np.ix_(known, group)], path
        )
        guesses = _standardise(xv, mean, factor) @ paths[:, :, group] + y[known][:, group].mean(0)
        errors[:, group] = _errors(yv[:, group], guesses)
    best = _choose(errors)
    labels = np.arange(num_labels)
    return Ridge(
        centre=centre,
        scale=scale,
        coefficients=paths[best, :, labels].T,
        intercept=np.nanmean(y, axis=0),
        alpha=path[best],
        error=errors[best, labels],
    )


def _solve(x: Matrix, y: Matrix, alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coefficients for every penalty, shape (num_alphas, num_columns, num_labels).

    The smaller of X'X and XX' is factorised. For a short path, one Cholesky factor per penalty is
    cheaper than the eigendecomposition that would serve them all.
    """
    residual = y - y.mean(axis=0)
    primal = x.shape[1] <= x.shape[0]
    gram = x.T @ x if primal else x @ x.T
    right = x.T @ residual if primal else residual
    out = np.empty((alphas.size, x.shape[1], y.shape[1]))
    for i, alpha in enumerate(alphas):
        penalised = gram.copy()
        penalised[np.diag_indices_from(penalised)] += alpha
        solved = cho_solve(cho_factor(penalised, overwrite_a=True), right)
        out[i] = solved if primal else x.T @ solved
    return out


def _moments(x: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and 1 / deviation per column; 0 for columns without variance."""
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(axis=0) / count)
    constant = spread <= 1e-9 * np.maximum(np.abs(mean), 1e-300)
    return mean, np.where(constant, 0.0, 1 / np.where(constant, 1.0, spread))


def _standardise(x: Matrix, centre: Matrix, scale: Matrix) -> Matrix:
    return np.nan_to_num((x - centre) * scale, nan=0.0)


def _errors(labels: Matrix, guesses: NDArray[np.float64]) -> Matrix:
    """Return the mean squared error per penalty and label; NaN where no label is known."""
    known = np.isfinite(labels)
    squares = np.where(known, labels - guesses, 0.0) ** 2
    count = known.sum(axis=0)
    total = squares.sum(axis=1)
    means: Matrix = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return means


def _choose(errors: Matrix) -> NDArray[np.int64]:
    """Return the best penalty per label; labels without validation genes take the common best."""
    known = np.isfinite(errors).all(axis=0)
    common = (errors[:, known] / errors[:, known].min(axis=0).clip(1e-300)).mean(axis=1).argmin()
    best = np.full(errors.shape[1], common, dtype=np.int64)
    best[known] = errors[:, known].argmin(axis=0)
    return best


def _groups(table: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    """Return the row numbers of equal rows, group by group."""
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(table):
        groups.setdefault(row.tobytes(), []).append(i)
    return [np.asarray(rows, dtype=np.int64) for rows in groups.values()]


def _check(train: Matrix, valid: Matrix) -> None:
    empty = np.flatnonzero(~np.isfinite(train).any(axis=0))
    if empty.size:
        raise InputError(
            facts(
                "training labels",
                found="labels without a known value",
                expected="at least one training gene per label",
                fix="drop these labels (data.samples)",
                count=int(empty.size),
                examples=[f"label {i}" for i in empty],
            )
        )
    if not np.isfinite(valid).any():
        raise InputError(
            facts(
                "validation labels",
                found="no known label",
                expected="at least one labelled validation gene",
                fix="add validation genes (splits.valid of the data configuration)",
            )
        )
