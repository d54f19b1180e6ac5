"""Scores of one prediction per gene and label, of masks and of pooled states.

Shapes: B variants, K labels, N bins of the window, D width of the states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "difference",
    "embed_cos",
    "embed_l2",
    "log2_difference",
    "mask_delta",
    "mask_l2",
    "mask_max",
]

Floats = NDArray[np.float64]


def difference(ref_BK: ArrayLike, alt_BK: ArrayLike) -> Floats:
    """Return ``y_a - y_r``, shape (B, K)."""
    return np.asarray(np.asarray(alt_BK, np.float64) - np.asarray(ref_BK, np.float64))


def log2_difference(ref_BK: ArrayLike, alt_BK: ArrayLike) -> Floats:
    """Return ``log2(1 + y_a) - log2(1 + y_r)`` of values that are not negative, shape (B, K)."""
    return np.asarray(
        np.log2(1 + np.asarray(alt_BK, float)) - np.log2(1 + np.asarray(ref_BK, float))
    )


def mask_delta(ref_BN: ArrayLike, alt_BN: ArrayLike, inside_BN: ArrayLike) -> Floats:
    """Return ``sum (m_a - m_r)`` over bins inside that both alleles have, shape (B,)."""
    change, empty = _changes(ref_BN, alt_BN, inside_BN)
    return np.where(empty, np.nan, change.sum(1))


def mask_max(ref_BN: ArrayLike, alt_BN: ArrayLike, inside_BN: ArrayLike) -> Floats:
    """Return ``max abs(m_a - m_r)``, shape (B,)."""
    change, empty = _changes(ref_BN, alt_BN, inside_BN)
    return np.where(empty, np.nan, np.abs(change).max(1, initial=0.0))


def mask_l2(ref_BN: ArrayLike, alt_BN: ArrayLike, inside_BN: ArrayLike) -> Floats:
    """Return ``sqrt(sum (m_a - m_r)^2)``, shape (B,)."""
    change, empty = _changes(ref_BN, alt_BN, inside_BN)
    return np.where(empty, np.nan, np.sqrt((change**2).sum(1)))


def embed_l2(ref_BD: ArrayLike, alt_BD: ArrayLike) -> Floats:
    """Return the Euclidean distance of pooled states, shape (B,)."""
    return np.asarray(np.sqrt((difference(ref_BD, alt_BD) ** 2).sum(1)))


def embed_cos(ref_BD: ArrayLike, alt_BD: ArrayLike) -> Floats:
    """Return ``1 - cos`` of the angle between pooled states, shape (B,).

    As half the squared distance of unit vectors, which is exactly 0 for equal states. A state of
    zeros has no direction: NaN, unless both are.
    """
    ref, alt = np.asarray(ref_BD, np.float64), np.asarray(alt_BD, np.float64)
    lengths = [np.sqrt((state**2).sum(1, keepdims=True)) for state in (ref, alt)]
    ref, alt = (
        state / np.where(length > 0, length, 1.0)
        for state, length in zip((ref, alt), lengths, strict=True)
    )
    one_empty = ((lengths[0] > 0) != (lengths[1] > 0))[:, 0]
    return np.where(one_empty, np.nan, ((alt - ref) ** 2).sum(1) / 2)


def _changes(
    ref_BN: ArrayLike, alt_BN: ArrayLike, inside_BN: ArrayLike
) -> tuple[Floats, NDArray[np.bool_]]:
    change = difference(ref_BN, alt_BN)
    kept = np.asarray(inside_BN, np.bool_) & ~np.isnan(change)
    return np.where(kept, change, 0.0), np.asarray(~kept.any(1))
