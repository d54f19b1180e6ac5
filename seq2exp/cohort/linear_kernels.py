"""The compiled loop of the elastic net: coordinate descent on the Gram matrix, along a path.

    f(w) = 1/2 w' G w - q' w + 1/2 yy + l1 sum |w_j| + l2/2 sum w_j^2 / c_j

with G = Z'Z, q = Z'y and yy = y'y of centred columns and labels. ``c_j`` counts equal columns that
column j stands for (:mod:`seq2exp.cohort.linear_design`). Only the columns that the sequential
strong rule keeps (Tibshirani et al. 2012, J. R. Stat. Soc. B 74:245) are worked on, in a small Gram
matrix of their own; the gradient of all columns is checked afterwards, and what was left out
wrongly comes in. A step of the path ends when its duality gap is below ``tolerance * yy``, the rule
of scikit-learn, taken over all columns. Every few passes the last iterates are mixed so that their
steps cancel (Anderson acceleration; Bertrand and Massias 2021, AISTATS).

Sums run in one order only, so the result does not depend on threads.

Axes: P columns, A penalties, W columns worked on (a prefix of arrays of length P).
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seq2exp.core.compiled import compiled

__all__ = ["elastic_path"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Iterates that an extrapolation mixes.
_MEMORY = 5


@njit(inline="always")
def _gap(slope, xy, weight, copies, count, square, l1, l2):
    """Return the duality gap over the first `count` columns; slope is q - G w."""
    fitted = 0.0
    quadratic = 0.0
    ridge = 0.0
    size = 0.0
    largest = 0.0
    for k in range(count):
        w = weight[k]
        fitted += xy[k] * w
        quadratic += (xy[k] - slope[k]) * w
        ridge += l2 / copies[k] * w * w
        size += abs(w)
        largest = max(largest, abs(slope[k] - l2 / copies[k] * w))
    residual = square - 2 * fitted + quadratic + ridge
    shrink = min(1.0, l1 / largest) if largest > 0 else 1.0
    return 0.5 * (1 + shrink * shrink) * residual + l1 * size - shrink * (square - fitted)


@njit(inline="always")
def _sweep(small, slope, diagonal, weight, copies, count, l1, l2):
    """Update every column worked on once."""
    for s in range(count):
        old = weight[s]
        pull = slope[s] + diagonal[s] * old
        new = 0.0
        if pull > l1:
            new = (pull - l1) / (diagonal[s] + l2 / copies[s])
        elif pull < -l1:
            new = (pull + l1) / (diagonal[s] + l2 / copies[s])
        if new != old:
            step = new - old
            weight[s] = new
            for k in range(count):
                slope[k] -= step * small[s, k]


@njit(inline="always")
def _objective(slope, xy, weight, copies, count, square, l1, l2):
    """Return what is minimised; slope is q - G w."""
    total = square
    for k in range(count):
        w = weight[k]
        total += (l2 / copies[k] * w - xy[k] - slope[k]) * w + 2 * l1 * abs(w)
    return 0.5 * total


@njit(inline="always")
def _mixture(steps, count, moment, share):
    """Fill the shares of the last iterates that make their steps cancel best; sum 1.

    Minimises |sum_i share_i step_i|^2 by Gaussian elimination on the moments of the steps, with a
    little added to the diagonal. Returns whether a solution was found.
    """
    size = share.size
    largest = 0.0
    for i in range(size):
        for j in range(i + 1):
            value = 0.0
            for k in range(count):
                value += steps[i, k] * steps[j, k]
            moment[i, j] = value
            moment[j, i] = value
        largest = max(largest, moment[i, i])
    if not largest > 0:
        return False
    for i in range(size):
        moment[i, i] += 1e-12 * largest
        share[i] = 1.0
    for i in range(size):
        if not moment[i, i] > 0:
            return False
        for j in range(i + 1, size):
            factor = moment[j, i] / moment[i, i]
            for k in range(i, size):
                moment[j, k] -= factor * moment[i, k]
            share[j] -= factor * share[i]
    total = 0.0
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            share[i] -= moment[i, k] * share[k]
        share[i] /= moment[i, i]
        total += share[i]
    if not abs(total) > 0:
        return False
    for i in range(size):
        share[i] /= total
    return True


@njit(inline="always")
def _extrapolate(weights, slopes, steps, moment, share, count, weight, slope, xy, copies, square,
                 l1, l2):  # fmt: skip
    """Replace the iterate by a mixture of the last ones where that lowers the objective."""
    last = share.size
    for i in range(last):
        for k in range(count):
            steps[i, k] = weights[i + 1, k] - weights[i, k]
    if not _mixture(steps, count, moment, share):
        return
    new_weight, new_slope = weights[0], slopes[0]
    for k in range(count):
        w, s = 0.0, 0.0
        for i in range(last):
            w += share[i] * weights[i + 1, k]
            s += share[i] * slopes[i + 1, k]
        new_weight[k], new_slope[k] = w, s
    new = _objective(new_slope, xy, new_weight, copies, count, square, l1, l2)
    if new < _objective(slope, xy, weight, copies, count, square, l1, l2):
        for k in range(count):
            weight[k], slope[k] = new_weight[k], new_slope[k]


@compiled(contract=True)
def elastic_path(
    gram_PP: Floats, xy_P: Floats, square: float, l1_A: Floats, l2_A: Floats, copies_P: Floats,
    start_P: Floats, l1_start: float, tolerance: float, max_sweeps: int, weights_AP: Floats,
    gap_A: Floats, sweeps_A: Counts,
) -> None:  # fmt: skip
    """Fill the weights, duality gaps and numbers of sweeps of a falling path of penalties.

    It goes on from ``start_P``, the solution at ``l1_start``; zeros and 0 begin it.
    """
    num_columns = xy_P.size
    small = np.empty((num_columns, num_columns))
    member = np.empty(num_columns, np.int64)
    inside = np.zeros(num_columns, np.bool_)
    weight, slope = np.zeros(num_columns), np.zeros(num_columns)
    diagonal = np.zeros(num_columns)
    xy, copies = np.zeros(num_columns), np.ones(num_columns)
    gradient = xy_P.copy()
    weights = np.empty((_MEMORY + 1, num_columns))
    slopes, steps = np.empty_like(weights), np.empty_like(weights)
    moment, share = np.empty((_MEMORY, _MEMORY)), np.empty(_MEMORY)
    before = l1_start
    for j in range(num_columns):
        if l1_start == 0.0:
            before = max(before, abs(xy_P[j]))
        if start_P[j] != 0.0:
            for i in range(num_columns):
                gradient[i] -= start_P[j] * gram_PP[j, i]
    count = 0
    for a in range(l1_A.size):
        l1, l2 = l1_A[a], l2_A[a]
        limit = 2 * l1 - before
        total = 0
        gap = np.inf
        while True:
            for j in range(num_columns):
                started = a == 0 and start_P[j] != 0.0
                wanted = started or abs(gradient[j]) >= limit
                if wanted and not inside[j] and gram_PP[j, j] > 0:
                    for k in range(count):
                        small[count, k] = gram_PP[j, member[k]]
                        small[k, count] = small[count, k]
                    small[count, count] = gram_PP[j, j]
                    member[count], inside[j] = j, True
                    xy[count], slope[count], copies[count] = xy_P[j], gradient[j], copies_P[j]
                    diagonal[count] = gram_PP[j, j]
                    weight[count] = start_P[j] if a == 0 else 0.0
                    count += 1
            kept = 0
            while total < max_sweeps:
                for k in range(count):
                    weights[kept, k], slopes[kept, k] = weight[k], slope[k]
                if kept == _MEMORY:
                    _extrapolate(weights, slopes, steps, moment, share, count, weight, slope, xy,
                                 copies, square, l1, l2)  # fmt: skip
                    kept = 0
                    for k in range(count):
                        weights[0, k], slopes[0, k] = weight[k], slope[k]
                kept += 1
                _sweep(small, slope, diagonal, weight, copies, count, l1, l2)
                total += 1
                gap = _gap(slope, xy, weight, copies, count, square, l1, l2)
                if gap <= tolerance * square:
                    break
            gradient[:] = xy_P
            for s in range(count):
                if weight[s] != 0.0:
                    w, row = weight[s], member[s]
                    for j in range(num_columns):
                        gradient[j] -= w * gram_PP[row, j]
            worst = 0.0
            for s in range(count):
                slope[s] = gradient[member[s]]
            for j in range(num_columns):
                if not inside[j]:
                    worst = max(worst, abs(gradient[j]))
            if worst <= l1 or total >= max_sweeps:
                break
            limit = l1
        for s in range(count):
            weights_AP[a, member[s]] = weight[s]
        gap_A[a], sweeps_A[a] = gap, total
        before = l1
