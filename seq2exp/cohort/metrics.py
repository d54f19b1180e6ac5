"""Accuracy across donors, gene by gene, and across genes: point values from a plain table.

A correlation across donors is **undefined** where the prediction is constant or missing: it counts
as 0 in the mean and the median, is told apart in ``num_undefined``, and a second mean is over the
defined genes. A gene whose observed expression does not vary, or that has too few donors, is
**unscorable**: no model could be judged on it, so it is in no mean; its row says why.

Axes: G genes, D donors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from seq2exp.core.errors import InputError, facts

__all__ = [
    "MIN_DONORS",
    "SUMMARIES",
    "UNSCORABLE",
    "across_donors",
    "across_genes_targets",
    "bh_q_values",
    "center_unit",
    "prediction_table",
    "summarise",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_DONORS = 3
"""Fewest donors with expression for a correlation; two always give 1 or -1."""
UNSCORABLE = ("no_expression", "too_few_donors", "constant_expression")
"""Statuses of genes on which no model can be judged."""
# Predictions are float32: differences below a millionth of their size are rounding.
_RESOLUTION = 1e-6


def prediction_table(table: pd.DataFrame, *, genes: Sequence[str], donors: Sequence[str]) -> Floats:
    """Return a long table (gene, donor, value) as an array in the order of genes and donors.

    Parameters
    ----------
    table : DataFrame
        Columns gene, donor, value; rows of other genes or donors are ignored.
    genes, donors : sequence of str

    Returns
    -------
    float64 array, shape (num_genes, num_donors)
        NaN where the table has no row.

    Raises
    ------
    InputError
        A column is missing, a pair stands twice, a value is infinite, or nothing is shared.
    """
    missing = [name for name in ("gene", "donor", "value") if name not in table.columns]
    if missing:
        raise _wrong(f"columns {list(table.columns)}", "gene, donor, value", "rename them")
    double = table.duplicated(["gene", "donor"])
    if double.any():
        pairs = [f"{row.gene}/{row.donor}" for row in table[double].head(3).itertuples()]
        raise _wrong(
            f"{int(double.sum())} repeated pairs, first {', '.join(pairs)}",
            "each gene and donor once", "average or drop them",
        )  # fmt: skip
    row = pd.Index(genes).get_indexer(pd.Index(table["gene"].astype(str)))
    column = pd.Index(donors).get_indexer(pd.Index(table["donor"].astype(str)))
    value = table["value"].to_numpy(np.float64)
    if np.isinf(value).any():
        raise _wrong(f"{int(np.isinf(value).sum())} infinite values", "finite ones", "mend them")
    known = (row >= 0) & (column >= 0)
    if not known.any():
        raise _wrong(
            f"no row of the {len(genes)} genes and {len(donors)} donors asked for",
            "predictions of them", "check that ids are written alike",
        )  # fmt: skip
    out = np.full((len(genes), len(donors)), np.nan)
    out[row[known], column[known]] = value[known]
    return out


def across_donors(
    observed_GD: ArrayLike,
    predicted_GD: ArrayLike,
    *,
    genes: Sequence[str],
    min_donors: int = MIN_DONORS,
) -> pd.DataFrame:
    """Return the correlation across donors of every gene.

    Parameters
    ----------
    observed_GD, predicted_GD : float arrays, shape (num_genes, num_donors)
        NaN where there is no expression, or no prediction.
    genes : sequence of str
    min_donors : int
        Fewest donors with expression.

    Returns
    -------
    DataFrame
        gene; n (donors used); num_missing (donors with expression but no prediction, which are not
        used); pearson and spearman, NaN where undefined; slope of observed on predicted; p of the
        Pearson correlation, two-sided by Student's t with n - 2 degrees of freedom; q over the
        genes with p (Benjamini and Hochberg 1995); status: ``ok``, ``no_prediction``,
        ``constant_prediction`` (both undefined), or one of :data:`UNSCORABLE`.
    """
    observed, predicted = _aligned(observed_GD, predicted_GD, genes)
    known = np.isfinite(observed)
    both = known & np.isfinite(predicted)
    first, first_scale, first_flat = center_unit(observed, both)
    second, second_scale, second_flat = center_unit(predicted, both, resolution=_RESOLUTION)
    _, _, flat = center_unit(observed, known)
    n, n_known = both.sum(axis=1), known.sum(axis=1)
    status = np.select(
        [
            n_known == 0,
            n_known < min_donors,
            flat,
            n < min_donors,
            second_flat,
            first_flat,
        ],
        [*UNSCORABLE, "no_prediction", "constant_prediction", "no_prediction"],
        default="ok",
    )
    defined = status == "ok"
    pearson = np.where(defined, (first * second).sum(axis=1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(defined, pearson * first_scale / second_scale, np.nan)
    ranks = [_ranks(values, both) for values in (observed, predicted)]
    units = [center_unit(values, both)[0] for values in ranks]
    spearman = np.where(defined, (units[0] * units[1]).sum(axis=1), np.nan)
    pearson, spearman = np.clip(pearson, -1, 1), np.clip(spearman, -1, 1)
    p = _p_values(pearson, n)
    return pd.DataFrame(
        {
            "gene": list(genes),
            "n": n,
            "num_missing": n_known - n,
            "pearson": pearson,
            "spearman": spearman,
            "slope": slope,
            "p": p,
            "q": bh_q_values(p),
            "status": status,
        }
    )


def center_unit(
    values_GD: Floats, use_GD: Bools, *, resolution: float = 1e-12
) -> tuple[Floats, Floats, Bools]:
    """Return rows with mean 0 and length 1 over the donors used, 0 elsewhere.

    Parameters
    ----------
    values_GD : float64 array, shape (num_genes, num_donors)
    use_GD : bool array, same shape
    resolution : float
        A row whose deviation is at most this part of its largest value is constant.

    Returns
    -------
    (units_GD, scale_G, constant_G)
        The rows; their lengths before scaling; which are constant, and 0 throughout.
    """
    count = np.maximum(use_GD.sum(axis=1), 1)
    filled = np.where(use_GD, values_GD, 0.0)
    centred = np.where(use_GD, filled - (filled.sum(axis=1) / count)[:, None], 0.0)
    scale = np.sqrt((centred**2).sum(axis=1))
    largest = np.abs(filled).max(axis=1, initial=0.0)
    constant = scale <= resolution * largest * np.sqrt(count)
    unit = np.where(constant[:, None], 0.0, centred / np.where(constant, 1.0, scale)[:, None])
    return unit, scale, constant


def bh_q_values(p: ArrayLike) -> Floats:
    """Return Benjamini-Hochberg q-values; NaN p stay NaN and do not count as tests."""
    values = np.asarray(p, np.float64)
    out = np.full(values.size, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if known.size == 0:
        return out
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * known.size / np.arange(1, known.size + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


@dataclass(frozen=True)
class _Parts:
    """What summaries of correlations are made of, scorable genes only.

    Attributes
    ----------
    r : float64 array
        Undefined ones are 0.
    defined, significant : bool arrays
    """

    r: Floats
    defined: Bools
    significant: Bools


def _ratio(weights: Floats, top: ArrayLike, bottom: ArrayLike) -> Floats:
    """Return a weighted mean per row of weights; NaN where the bottom is empty."""
    upper, lower = weights @ np.asarray(top, np.float64), weights @ np.asarray(bottom, np.float64)
    return np.asarray(np.where(lower > 0, upper / np.where(lower > 0, lower, 1), np.nan))


def _mean(weights: Floats, values: ArrayLike) -> Floats:
    return _ratio(weights, values, np.ones(weights.shape[1]))


def weighted_median(weights: Floats, values: Floats) -> Floats:
    """Return the median per row of weights, the mean of the two middle values where it is even.

    Parameters
    ----------
    weights : float64 array, shape (num_resamples, num_values)
        How often each value counts: whole numbers.
    values : float64 array, shape (num_values,)
    """
    if values.size == 0:
        return np.full(weights.shape[0], np.nan)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1:]
    ordered = values[order]
    low = np.argmax(reached >= total / 2, axis=1)
    high = np.argmax(reached > total / 2, axis=1)
    high = np.where(total[:, 0] > 0, high, low)
    return np.asarray(np.where(total[:, 0] > 0, (ordered[low] + ordered[high]) / 2, np.nan))


SUMMARIES: Mapping[str, Callable[[Floats, _Parts], Floats]] = {
    "mean": lambda w, g: _mean(w, g.r),
    "median": lambda w, g: weighted_median(w, g.r),
    "mean_abs": lambda w, g: _mean(w, np.abs(g.r)),
    "share_above_0.2": lambda w, g: _mean(w, g.r > 0.2),
    "share_below_-0.2": lambda w, g: _mean(w, g.r < -0.2),
    "mean_defined": lambda w, g: _ratio(w, g.r * g.defined, g.defined),
    "sign_flip_fraction": lambda w, g: _ratio(w, g.significant & (g.r < 0), g.significant),
    "num_undefined": lambda w, g: w @ (~g.defined).astype(np.float64),
    "num_significant": lambda w, g: w @ g.significant.astype(np.float64),
}
"""Summaries over genes, each from weights per gene, shape (num_resamples, num_genes)."""


def summarise(
    table: pd.DataFrame,
    *,
    weights: Floats | None = None,
    column: str = "pearson",
    max_q: float = 0.05,
) -> dict[str, Floats]:
    """Return every summary of the correlations of one model, for each set of weights.

    Parameters
    ----------
    table : DataFrame
        As :func:`across_donors` returns it.
    weights : float64 array, shape (num_resamples, num_genes), optional
        How often each gene counts; once, in one set, when left out. Unscorable genes count nothing.
    column : str
        ``pearson`` or ``spearman``.
    max_q : float
        A gene is significant at this q of the whole table (resamples do not test anew).

    Returns
    -------
    dict
        Name of :data:`SUMMARIES` to float64 array, shape (num_resamples,).
    """
    scorable = ~table["status"].isin(UNSCORABLE).to_numpy()
    r = table[column].to_numpy(np.float64)[scorable]
    q = table["q"].to_numpy(np.float64)[scorable]
    defined = np.isfinite(r)
    parts = _Parts(np.where(defined, r, 0.0), defined, defined & (q < max_q))
    used = np.ones((1, r.size)) if weights is None else weights[:, scorable]
    return {name: summary(used, parts) for name, summary in SUMMARIES.items()}


def across_genes_targets(
    observed_GD: ArrayLike, predicted_GD: ArrayLike, *, use_GD: ArrayLike | None = None
) -> dict[str, tuple[Floats, Floats]]:
    """Return what is compared across genes: (observed, predicted) per gene, by name.

    ``mean`` and ``median`` of the observed donors against the mean prediction of the same donors.
    Give a prediction from the reference sequence as an array of one column.

    Parameters
    ----------
    observed_GD, predicted_GD : float arrays, shape (num_genes, num_donors)
        `predicted_GD` may have one column.
    use_GD : bool array, optional
        Donors to use, per gene.
    """
    observed = np.asarray(observed_GD, np.float64)
    predicted = np.broadcast_to(np.asarray(predicted_GD, np.float64), observed.shape)
    use = np.isfinite(observed) & np.isfinite(predicted)
    if use_GD is not None:
        use &= np.asarray(use_GD, bool)
    count = use.sum(axis=1)
    some = count > 0

    def mean(values: Floats) -> Floats:
        total = np.where(use, values, 0.0).sum(axis=1)
        return np.asarray(np.where(some, total / np.maximum(count, 1), np.nan))

    median = np.full(count.size, np.nan)
    if some.any():
        median[some] = np.nanmedian(np.where(use, observed, np.nan)[some], axis=1)
    guess = mean(predicted)
    return {"mean": (mean(observed), guess), "median": (median, guess)}


def _ranks(values: Floats, use: Bools) -> Floats:
    """Return mid-ranks within each row over the donors used."""
    out = np.zeros(values.shape)
    whole = use.all(axis=1)
    if whole.any():
        out[whole] = rankdata(values[whole], axis=1)
    for row in np.flatnonzero(~whole & use.any(axis=1)):
        out[row, use[row]] = rankdata(values[row, use[row]])
    return out


def _p_values(r: Floats, n: NDArray[np.int64]) -> Floats:
    freedom = np.maximum(n - 2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(r) * np.sqrt(freedom / np.maximum(1 - r**2, 1e-300))
    return np.asarray(np.where(np.isfinite(r), 2 * student.sf(statistic, freedom), math.nan))


def _aligned(observed: ArrayLike, predicted: ArrayLike, genes: Sequence[str]) -> list[Floats]:
    arrays = [np.asarray(values, np.float64) for values in (observed, predicted)]
    shapes = [values.shape for values in arrays]
    if shapes[0] != shapes[1] or arrays[0].ndim != 2 or len(genes) != shapes[0][0]:
        raise _wrong(
            f"shapes {shapes} for {len(genes)} genes", "(genes, donors) for both", "align them"
        )
    return arrays


def _wrong(found: str, expected: str, fix: str) -> InputError:
    return InputError(facts("predictions of donors", found=found, expected=expected, fix=fix))
