"""Penalised fits of one gene: elastic net and ridge along their penalties, chosen by error.

The error of a penalty is the mean over the parts held out (folds, or the validation donors) of
their mean squared errors, as scikit-learn's ``ElasticNetCV`` takes it. Columns are standardised
once with all training donors and centred anew in every part, labels too.

Axes: N donors, P columns, A penalties, H heritabilities of the ridge grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.cohort.heritability import Spectrum
from seq2exp.cohort.linear_design import Moments, moments_without
from seq2exp.cohort.linear_kernels import elastic_path

__all__ = ["Chosen", "NetPlan", "Parts", "choose_net", "choose_ridge", "net_path", "ridge_weights"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Penalties that are fitted at once before the error is looked at.
_BLOCK = 5


@dataclass(frozen=True)
class NetPlan:
    """How a path of the elastic net is walked.

    Attributes
    ----------
    l1_ratio : float
        Share of the absolute penalty, above 0; 1 is the lasso.
    num_alphas : int
    alpha_ratio : float
        Smallest over largest penalty; the largest is where the first variant enters.
    tolerance : float
        Duality gap, over y'y, at which a fit is taken as solved.
    max_sweeps : int
        Most passes over the columns per penalty.
    patience : int
        Penalties without a better error after which the path ends; 0 walks it to its end.
    """

    l1_ratio: float
    num_alphas: int
    alpha_ratio: float
    tolerance: float
    max_sweeps: int
    patience: int


@dataclass(frozen=True)
class Chosen:
    """A penalised fit.

    Attributes
    ----------
    weights_P : float64 array
        Of the columns.
    penalty : float
        alpha of the elastic net; of ridge the h2 whose penalty is M (1 - h2) / h2.
    error_A : float64 array
        Error of every penalty looked at.
    solved : bool
        Whether every fit met the tolerance.
    """

    weights_P: Floats
    penalty: float
    error_A: Floats
    solved: bool = True


@dataclass(frozen=True)
class Parts:
    """Columns and labels with the rows that are held out in turn.

    Attributes
    ----------
    columns_NP : float64 array
    y_N : float64 array
    held : sequence of int64 arrays
        Rows of each part. In a cross-validation they cover the training rows.
    train : int64 array
        Rows of the final fit.
    """

    columns_NP: Floats
    y_N: Floats
    held: Sequence[Ints]
    train: Ints

    def moments(self) -> tuple[list[Moments], Moments]:
        """Return the moments without each held part, and those of the final fit."""
        whole = Moments(
            gram_PP=self.columns_NP.T @ self.columns_NP,
            xy_P=self.columns_NP.T @ self.y_N,
            square=float(self.y_N @ self.y_N),
            mean_P=np.zeros(self.columns_NP.shape[1]),
            mean_y=0.0,
            num_donors=self.y_N.size,
        )
        without = [
            moments_without(self.columns_NP, self.y_N, rows, whole=whole) for rows in self.held
        ]
        outside = np.setdiff1d(np.arange(self.y_N.size), self.train)
        return without, moments_without(self.columns_NP, self.y_N, outside, whole=whole)


def net_path(
    moments: Moments,
    copies_P: Floats,
    alpha_A: Floats,
    *,
    plan: NetPlan,
    start: tuple[Floats, float] | None = None,
) -> tuple[Floats, bool]:
    """Return the weights, shape (num_alphas, num_columns), and whether all met the tolerance.

    Parameters
    ----------
    moments : Moments
    copies_P : float64 array
        Variants behind each column.
    alpha_A : float64 array
        Falling penalties of ``1/(2n) |y - Z w|^2 + alpha (l1_ratio |w|_1 + (1 - l1_ratio)/2
        |w|_2^2)``.
    plan : NetPlan
    start : (weights, alpha), optional
        Solution from which the path goes on.
    """
    num = moments.num_donors
    weights = np.zeros((alpha_A.size, copies_P.size))
    gap, sweeps = np.zeros(alpha_A.size), np.zeros(alpha_A.size, np.int64)
    first, before = start if start is not None else (np.zeros(copies_P.size), 0.0)
    elastic_path(
        moments.gram_PP, moments.xy_P, moments.square,
        num * plan.l1_ratio * alpha_A, num * (1 - plan.l1_ratio) * alpha_A, copies_P,
        np.ascontiguousarray(first), num * plan.l1_ratio * before, plan.tolerance, plan.max_sweeps,
        weights, gap, sweeps,
    )  # fmt: skip
    return weights, bool((gap <= plan.tolerance * moments.square).all())


def choose_net(parts: Parts, copies_P: Floats, *, plan: NetPlan) -> Chosen:
    """Fit the elastic net at the penalty whose error is least, the largest of equals.

    Parameters
    ----------
    parts : Parts
    copies_P : float64 array
    plan : NetPlan

    Returns
    -------
    Chosen
        Weights of the training rows; all 0 where no variant enters.
    """
    without, full = parts.moments()
    top = float(np.abs(full.xy_P).max()) / (full.num_donors * plan.l1_ratio)
    # Labels that do not vary, or not with any variant: only rounding is left.
    if top <= 1e-10 * math.sqrt(max(full.square, 0.0) / full.num_donors) or full.square <= 0:
        return Chosen(np.zeros(copies_P.size), math.nan, np.zeros(0))
    alpha = np.geomspace(top, top * plan.alpha_ratio, plan.num_alphas)
    error, solved = _net_errors(parts, without, copies_P, alpha, plan=plan)
    best = int(np.argmin(error))
    if best == 0:
        # Where the first variant would enter: what it gets is rounding.
        return Chosen(np.zeros(copies_P.size), float(alpha[0]), error, solved)
    weights, met = net_path(full, copies_P, alpha[: best + 1], plan=plan)
    return Chosen(weights[-1], float(alpha[best]), error, solved and met)


def _net_errors(
    parts: Parts, without: list[Moments], copies: Floats, alpha: Floats, *, plan: NetPlan
) -> tuple[Floats, bool]:
    """Return the errors of the penalties up to where patience ends."""
    centred = [
        parts.columns_NP[rows] - part.mean_P for rows, part in zip(parts.held, without, strict=True)
    ]
    labels = [parts.y_N[rows] - m.mean_y for rows, m in zip(parts.held, without, strict=True)]
    starts: list[tuple[Floats, float] | None] = [None] * len(without)
    errors: list[float] = []
    best, solved = 0, True
    for first in range(0, alpha.size, _BLOCK):
        part = alpha[first : first + _BLOCK]
        block = np.zeros(part.size)
        for k, moments in enumerate(without):
            weights, met = net_path(moments, copies, part, plan=plan, start=starts[k])
            solved = solved and met
            starts[k] = (weights[-1], float(part[-1]))
            block += ((labels[k] - weights @ centred[k].T) ** 2).mean(axis=1) / len(without)
        for value in block:
            errors.append(float(value))
            if value < errors[best]:
                best = len(errors) - 1
            if plan.patience and len(errors) - 1 - best >= plan.patience:
                return np.array(errors), solved
    return np.array(errors), solved


def choose_ridge(
    parts: Parts, copies_P: Floats, h2_H: Floats, *, num_variants: int, spectrum: Spectrum
) -> Chosen:
    """Fit ridge at the penalty M (1 - h2) / h2 of the h2 whose error is least.

    Parameters
    ----------
    parts : Parts
    copies_P : float64 array
    h2_H : float64 array
        Grid, each above 0 and below 1; rising. The smallest of equals is taken.
    num_variants : int
        M.
    spectrum : Spectrum
        Of the training rows, for the final fit.
    """
    scaled = parts.columns_NP * np.sqrt(copies_P)
    penalty = num_variants * (1 - h2_H) / h2_H
    error = np.zeros(h2_H.size)
    for rows in parts.held:
        rest = np.setdiff1d(np.arange(parts.y_N.size), rows)
        mean, mean_y = scaled[rest].mean(axis=0), float(parts.y_N[rest].mean())
        inner, y = scaled[rest] - mean, parts.y_N[rest] - mean_y
        outer = scaled[rows] - mean
        dual = inner.shape[0] < inner.shape[1]
        value, vectors = np.linalg.eigh(inner @ inner.T if dual else inner.T @ inner)
        side = vectors.T @ (y if dual else inner.T @ y)
        share = side[:, None] / (np.maximum(value, 0.0)[:, None] + penalty)
        solved = vectors @ share
        guess = outer @ (inner.T @ solved if dual else solved)
        error += ((parts.y_N[rows, None] - mean_y - guess) ** 2).mean(axis=0) / len(parts.held)
    best = int(np.argmin(error))
    train = parts.train
    weights = ridge_weights(
        spectrum, parts.columns_NP[train], parts.y_N[train] - parts.y_N[train].mean(),
        copies_P=copies_P, h2=float(h2_H[best]), num_variants=num_variants,
    )  # fmt: skip
    return Chosen(weights, float(h2_H[best]), error)


def ridge_weights(
    spectrum: Spectrum,
    columns_NP: Floats,
    y_N: Floats,
    *,
    copies_P: Floats,
    h2: float,
    num_variants: int,
) -> Floats:
    """Return ``Z' (Z Z' + lambda I)^-1 y`` with lambda = M (1 - h2) / h2, per column.

    That is the best linear unbiased prediction of the effects under y ~ N(0, h2 K + (1 - h2) I).

    Parameters
    ----------
    spectrum : Spectrum
        Of these columns, times the roots of their copies, and of these labels.
    columns_NP, y_N : float64 arrays
        Centred.
    copies_P : float64 array
    h2 : float
        Above 0 and below 1.
    num_variants : int
        M.
    """
    penalty = num_variants * (1 - h2) / h2
    value, vectors = spectrum.value_R * num_variants, spectrum.vectors_R
    root = np.sqrt(copies_P)
    scaled = columns_NP * root
    if spectrum.dual:
        return np.asarray(root * (scaled.T @ (vectors @ ((vectors.T @ y_N) / (value + penalty)))))
    side = vectors.T @ (scaled.T @ y_N)
    return np.asarray(root * (vectors @ (side / (value + penalty))))
