"""Empirical p-values of scores and false-discovery rates over many of them.

With n draws from a null (`seq2exp.variants.contexts`), p_right is ``(1 + draws >= score) / (1 +
n)`` and p_left ``(1 + draws <= score) / (1 + n)``: never 0, and uniform on its steps where the null
holds. Signed scores are two-sided, ``min(1, 2 min(p_left, p_right))``; without the outer minimum
that can exceed 1, as in kundajelab/variant-scorer. Unsigned ones take the right tail.

Shapes: K draws, B scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = [
    "QValues",
    "empirical_p",
    "p_left",
    "p_right",
    "p_two_sided",
]

Floats = NDArray[np.float64]


def p_right(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return the share of draws that reach each score, the score itself counted with them.

    Parameters
    ----------
    score_B : float array, shape (B,)
    draws_BK : float array, shape (B, K) or (K,)
        NaN draws do not count. Without any draw, or for a NaN score, p is NaN.
    """
    score, draws, num = _checked(score_B, draws_BK)
    return _known(((draws >= score[:, None]).sum(1) + 1) / (num + 1), score, num)


def p_left(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return the share of draws that are at most each score; as :func:`p_right`."""
    score, draws, num = _checked(score_B, draws_BK)
    return _known(((draws <= score[:, None]).sum(1) + 1) / (num + 1), score, num)


def p_two_sided(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return ``min(1, 2 min(p_left, p_right))``; as :func:`p_right`."""
    tails = np.minimum(p_left(score_B, draws_BK), p_right(score_B, draws_BK))
    return np.asarray(np.minimum(1.0, 2 * tails))


def empirical_p(score_B: ArrayLike, draws_BK: ArrayLike, *, signed: bool) -> Floats:
    """Return the p-value of a score: two-sided if it is signed, else of the right tail."""
    return p_two_sided(score_B, draws_BK) if signed else p_right(score_B, draws_BK)


@dataclass
class QValues:
    """False-discovery rates (Benjamini and Hochberg 1995) of p-values that come in parts.

    Empirical p-values are few different numbers, so counting each of them says everything: first
    `add` every part, in any order, then ask for the `q` of each. The result is that of all p-values
    sorted together.

    Attributes
    ----------
    counts : dict
        How often each p-value occurred.
    """

    counts: dict[float, int] = field(default_factory=dict)

    def add(self, p: ArrayLike) -> None:
        """Count p-values; NaN are no tests."""
        values = np.asarray(p, np.float64)
        found, times = np.unique(values[~np.isnan(values)], return_counts=True)
        for value, number in zip(found.tolist(), times.tolist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + number

    def q(self, p: ArrayLike) -> Floats:
        """Return the smallest rate at which each p-value passes; NaN stays NaN.

        Raises
        ------
        InputError
            A p-value was not added before.
        """
        values = np.asarray(p, np.float64)
        known = ~np.isnan(values)
        levels = np.array(sorted(self.counts))
        place = np.searchsorted(levels, values[known])
        there = levels[np.minimum(place, levels.size - 1)] if levels.size else values[known] * 0 - 1
        if (there != values[known]).any():
            raise InputError(
                facts("q-values", found="p-values that were not counted",
                      expected="those that were added", fix="add all of them first",
                      count=int((there != values[known]).sum()))
            )  # fmt: skip
        rank = np.cumsum([self.counts[level] for level in levels.tolist()])
        rate = levels * (rank[-1] if rank.size else 0) / np.maximum(rank, 1)
        smallest = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
        q = np.full(values.shape, np.nan)
        q[known] = smallest[place]
        return q


def _checked(score_B: ArrayLike, draws_BK: ArrayLike) -> tuple[Floats, Floats, NDArray[np.int64]]:
    score = np.atleast_1d(np.asarray(score_B, np.float64))
    draws = np.atleast_2d(np.asarray(draws_BK, np.float64))
    return score, draws, np.broadcast_to((~np.isnan(draws)).sum(1), score.shape)


def _known(p_B: Floats, score_B: Floats, num_B: NDArray[np.int64]) -> Floats:
    return np.where(np.isnan(score_B) | (num_B == 0), np.nan, p_B)
