"""How sure the posterior is of an element: intervals and probabilities of its mean mask.

Each bin of each member has a Beta. The mean mask of an element has, for a member, the mean and the
variance of a weighted sum of independent Betas; it is read as the Beta with these two moments,
which is exact for an element of one bin. Over members the posterior is the mixture of theirs with
equal weights. Quantiles and probabilities come from the regularised incomplete beta function,
nothing is sampled.

Shapes: E elements, M members, G genes, N bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from seq2exp.elements.masks import GeneMasks

__all__ = ["element_betas", "mixture_above", "mixture_quantile"]

_STEPS = 50
_SMALLEST = 1e-6
Array = NDArray[np.float64]


def element_betas(
    masks: GeneMasks, gene: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return the matched Beta of the mean mask of elements, per member.

    Parameters
    ----------
    masks : GeneMasks
        With alpha and beta.
    gene : int64 array, shape (num_elements,)
        Rows of ``masks``.
    start, end : int64 arrays, shape (num_elements,)
        0-based half-open; borders of bins.

    Returns
    -------
    alpha_EM, beta_EM : float64 arrays, shape (num_elements, num_members)
    """
    alphas, betas = masks.member_posteriors()
    shape = (gene.size, len(alphas))
    alpha_EM, beta_EM = np.empty(shape), np.empty(shape)
    for row in np.unique(gene):
        here = np.flatnonzero(gene == row)
        starts, ends = masks.intervals(int(row))
        first, last = masks.bin_span(int(row), start[here], end[here])
        length = (ends - starts).astype(np.float64)
        for member, (alpha, beta) in enumerate(zip(alphas, betas, strict=True)):
            a = np.maximum(np.asarray(alpha[row], np.float64), _SMALLEST)
            b = np.maximum(np.asarray(beta[row], np.float64), _SMALLEST)
            mean, total = a / (a + b), a + b
            variance = mean * (1 - mean) / (total + 1)
            size = _sums(length, first, last)
            centre = _sums(length * mean, first, last) / size
            spread = _sums(length**2 * variance, first, last) / size**2
            count = centre * (1 - centre) / spread - 1
            alpha_EM[here, member] = centre * count
            beta_EM[here, member] = (1 - centre) * count
    return alpha_EM, beta_EM


def _sums(values: Array, first: NDArray[np.int64], last: NDArray[np.int64]) -> Array:
    # Sums of slices, not differences of running sums: those lose what is small beside the rest.
    return np.array([values[a:b].sum() for a, b in zip(first, last, strict=True)])


def mixture_above(alpha_EM: Array, beta_EM: Array, value: float) -> Array:
    """Return P(mask > value) under the mixture over members, shape (num_elements,)."""
    above: Array = 1 - betainc(alpha_EM, beta_EM, np.clip(value, 0, 1)).mean(axis=1)
    return above


def mixture_quantile(alpha_EM: Array, beta_EM: Array, level: float) -> Array:
    """Return the quantile of the mixture over members by bisection, shape (num_elements,).

    Parameters
    ----------
    alpha_EM, beta_EM : float64 arrays, shape (num_elements, num_members)
    level : float
        Between 0 and 1.
    """
    low, high = np.zeros(len(alpha_EM)), np.ones(len(alpha_EM))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = betainc(alpha_EM, beta_EM, middle[:, None]).mean(axis=1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
