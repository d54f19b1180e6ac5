"""Whether p-values are what they say: how many fall below each level where nothing is to be found.

Shapes: B p-values, A levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["LEVELS", "calibration_table", "expected_share", "quantile_band"]

LEVELS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5)

_ROUNDING = 1e-6

Floats = NDArray[np.float64]


def expected_share(level: float, step: float = 0.0) -> float:
    """Return the share of p-values that fall below a level by chance.

    Parameters
    ----------
    level : float
    step : float
        p-values are multiples of it: ``1 / (n + 1)`` for one tail and n draws, ``2 / (n + 1)`` for
        two. 0 for p-values of any size.
    """
    # The smallest surplus keeps 0.3 / 0.1 from counting as two steps.
    return min(1.0, np.floor(level / step * (1 + 1e-9)) * step) if step else level


def calibration_table(
    p: ArrayLike,
    *,
    levels: Sequence[float] = LEVELS,
    step: float = 0.0,
    groups: Sequence[object] | NDArray[np.object_] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare observed with expected shares of p-values below levels.

    Parameters
    ----------
    p : float array, shape (B,)
        NaN do not count.
    levels : sequence of float
    step : float
        As for :func:`expected_share`.
    groups : sequence, optional
        What belongs together, such as the gene: variants of one gene share a window and are not
        independent. The interval is then a bootstrap over groups.
    num_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        ``level``, ``expected``, ``observed``, ``low`` and ``high`` (95 % interval of the observed
        share: Wilson, or bootstrap over groups), ``null_low`` and ``null_high`` (where 95 % of such
        shares lie if all p are uniform and independent, binomial) and ``n``.

    Raises
    ------
    InputError
        No p-value, one outside of 0 to 1, or another number of groups.
    """
    from scipy.stats import binom

    values = np.asarray(p, np.float64)
    known = ~np.isnan(values)
    if groups is not None and len(groups) != len(values):
        raise _wrong(f"{len(groups)} groups", f"{len(values)}, one for each p-value")
    if not known.any() or ((values[known] < 0) | (values[known] > 1)).any():
        raise _wrong("none, or some outside of 0 to 1", "p-values")
    values, num = values[known], int(known.sum())
    # Tables hold float32, where 0.05 is a little more than 0.05.
    below_AB = values[None] <= np.asarray(levels, np.float64)[:, None] * (1 + _ROUNDING)
    observed = below_AB.mean(1)
    if groups is None:
        low, high = _wilson(observed, num)
    else:
        codes = pd.factorize(np.asarray(groups, dtype=object)[known])[0]
        low, high = _over_groups(below_AB, codes, num_resamples, seed)
    expected = np.array([expected_share(level, step) for level in levels])
    return pd.DataFrame(
        {
            "level": levels,
            "expected": expected,
            "observed": observed,
            "low": low,
            "high": high,
            "null_low": binom.ppf(0.025, num, expected) / num,
            "null_high": binom.ppf(0.975, num, expected) / num,
            "n": num,
        }
    )


def quantile_band(num: int, *, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Return the expected sizes of sorted uniform p-values, and the band of each one by itself.

    The i-th smallest of n is Beta(i, n + 1 - i).

    Returns
    -------
    expected, low, high : float64 arrays, shape (num,)
    """
    from scipy.stats import beta

    rank = np.arange(1, num + 1)
    tail = (1 - level) / 2
    low, high = (beta.ppf(q, rank, num + 1 - rank) for q in (tail, 1 - tail))
    return rank / (num + 1), np.asarray(low), np.asarray(high)


def _wilson(share: Floats, num: int, z: float = 1.959964) -> tuple[Floats, Floats]:
    scale = 1 + z**2 / num
    middle = (share + z**2 / (2 * num)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    low = np.where(share == 0, 0.0, middle - half)
    return low, np.where(share == 1, 1.0, middle + half)


def _over_groups(
    below_AB: NDArray[np.bool_], codes_B: NDArray[np.int64], num_resamples: int, seed: int
) -> tuple[Floats, Floats]:
    num_groups = int(codes_B.max()) + 1
    hits_AG = np.stack([np.bincount(codes_B, row, num_groups) for row in below_AB])
    size_G = np.bincount(codes_B, minlength=num_groups)
    random = np.random.default_rng(seed)
    counts_RG = random.multinomial(num_groups, np.full(num_groups, 1 / num_groups), num_resamples)
    shares_RA = counts_RG @ hits_AG.T / (counts_RG @ size_G)[:, None]
    low, high = np.quantile(shares_RA, [0.025, 0.975], axis=0)
    return low, high


def _wrong(found: str, expected: str) -> InputError:
    return InputError(
        facts("calibration of p-values", found=found, expected=expected, fix="give scored variants")
    )
