"""Which variants travel together among people, so that people alone cannot tell them apart.

Shapes: D people, M variants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LinkedPairs", "linked_pairs", "squared_correlation"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LinkedPairs(NamedTuple):
    """Pairs of a variant that acts and one that does nothing but is inherited with it.

    Attributes
    ----------
    causal, linked : int64 arrays, shape (num_pairs,)
        Numbers of variants; both may occur in several pairs.
    """

    causal: Ints
    linked: Ints


def squared_correlation(first_DM: NDArray[Any], second_DK: NDArray[Any]) -> Floats:
    """Return r^2 of the numbers of copies among people, shape (M, K); NaN where all are alike.

    Parameters
    ----------
    first_DM, second_DK : float arrays
        Copies of ALT that each person has.
    """
    one, two = _standard(first_DM), _standard(second_DK)
    found: Floats = (one.T @ two / max(len(one), 1)) ** 2
    return found


def linked_pairs(
    effect_M: Floats,
    dosage_DM: NDArray[Any],
    *,
    causal: float,
    negligible: float,
    min_r2: float = 0.8,
) -> LinkedPairs:
    """Return pairs of a causal variant and one without effect, in strong linkage, of one gene.

    Parameters
    ----------
    effect_M : float64 array
        True effects on the gene.
    dosage_DM : float array
        Copies of ALT that each person has; no missing ones.
    causal : float
        Smallest absolute effect of a causal variant.
    negligible : float
        Absolute effects below this are none. Those between the two limits are in no pair.
    min_r2 : float
        Smallest r^2 of the pair.
    """
    size = np.abs(effect_M)
    acts, idle = np.flatnonzero(size >= causal), np.flatnonzero(size < negligible)
    r2 = squared_correlation(dosage_DM[:, acts], dosage_DM[:, idle])
    # Rounding must not lose a pair that is inherited together without exception.
    first, second = np.nonzero(np.nan_to_num(r2) >= min_r2 - 1e-9)
    return LinkedPairs(acts[first], idle[second])


def _standard(values: NDArray[Any]) -> Floats:
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0, dtype=np.float64)
    spread = np.sqrt((centred**2).mean(axis=0))
    found: Floats = np.divide(
        centred, spread, out=np.full_like(centred, np.nan), where=spread > 1e-12
    )
    return found
