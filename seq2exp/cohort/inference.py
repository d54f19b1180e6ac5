"""Intervals, nulls and paired differences of accuracy across donors.

The unit of resampling is the gene, or a group of genes (paralogs, neighbours) where groups are
given: what the interval covers is another draw of genes with the same donors. Donors of the test
set are fixed; the permutation null is what speaks about donors.

Axes: R resamples, B permutations, G genes, D donors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.cohort.metrics import UNSCORABLE, center_unit, summarise
from seq2exp.core.errors import InputError, facts
from seq2exp.training.metrics import Estimate, Row, interval, resample_counts

__all__ = [
    "PermutationNull",
    "direction_row",
    "draw_weights",
    "fraction_of_h2",
    "paired_rows",
    "permutation_null",
    "summary_rows",
]

Floats = NDArray[np.float64]

_COUNTS = ("num_undefined", "num_significant")
# Numbers held at once by the permutations of one gene.
_CHUNK = 4_000_000
_SIGN_FLIPS = 10_000


def draw_weights(
    num_genes: int, *, num_resamples: int, seed: int, groups: ArrayLike | None = None
) -> Floats:
    """Return how often each resample holds each gene, shape (num_resamples, num_genes).

    Parameters
    ----------
    num_genes, num_resamples, seed : int
    groups : array of labels, shape (num_genes,), optional
        Whole groups are drawn, as many as there are.
    """
    random = np.random.default_rng(seed)
    if groups is None:
        return resample_counts(random, num_resamples, num_genes)
    codes, _ = pd.factorize(np.asarray(groups), use_na_sentinel=False)
    if codes.size != num_genes:
        raise InputError(
            facts(
                "groups of genes", found=f"{codes.size} labels", expected=f"{num_genes}",
                fix="give one label per gene",
            )
        )  # fmt: skip
    return resample_counts(random, num_resamples, int(codes.max()) + 1)[:, codes]


def summary_rows(
    name: str, table: pd.DataFrame, weights: Floats, *, split: str, column: str = "pearson"
) -> list[Row]:
    """Return the summaries of one model as rows, with bootstrap intervals over genes.

    Parameters
    ----------
    name : str
    table : DataFrame
        As :func:`seq2exp.cohort.metrics.across_donors` returns it.
    weights : float64 array, shape (num_resamples, num_genes)
        Of :func:`draw_weights`, the same for all models.
    split : str
    column : str
        ``pearson`` or ``spearman``: prefix of the metric names.

    Returns
    -------
    list of dict
        name, metric, split, value, low, high, n (scorable genes; for the sign-flip fraction, the
        significant ones; for the mean over defined genes, those). Counts have no interval.
    """
    values = {key: float(v[0]) for key, v in summarise(table, column=column).items()}
    draws = summarise(table, weights=weights, column=column)
    num = int((~table["status"].isin(UNSCORABLE)).sum())
    of = {
        "sign_flip_fraction": int(values["num_significant"]),
        "mean_defined": num - int(values["num_undefined"]),
    }
    rows = []
    for key, value in values.items():
        if key in _COUNTS:
            estimate = Estimate(value, n=num)
        else:
            estimate = interval(value, draws[key], n=of.get(key, num))
        rows.append(estimate.row(name, f"{column}_{key}", split=split))
    unscorable = Estimate(float(len(table) - num), n=len(table))
    return [*rows, unscorable.row(name, f"{column}_num_unscorable", split=split)]


def fraction_of_h2(
    r_G: ArrayLike,
    h2_G: ArrayLike,
    weights: Floats,
    *,
    name: str,
    split: str,
    num_G: ArrayLike | None = None,
) -> Row:
    """Return sum(sign(r) r^2) / sum(h2) over genes whose h2 is known, with its interval.

    The ratio of sums is steadier than a mean of ratios. Undefined r count as 0. Negative h2, which
    unconstrained REML gives, are in the sum: leaving them out would raise it.

    Parameters
    ----------
    r_G, h2_G : float arrays, shape (num_genes,)
        r of unscorable genes must come with h2 NaN.
    weights : float64 array, shape (num_resamples, num_genes)
    name, split : str
    num_G : int array, optional
        Donors behind each r. With them r^2 - (1 - r^2) / (n - 2) stands in place of r^2, as in the
        adjusted R^2: what chance adds to r^2 in few donors is taken off again
        (``fraction_of_h2_corrected``).
    """
    r, h2 = np.asarray(r_G, np.float64), np.asarray(h2_G, np.float64)
    known, metric, square = np.isfinite(h2), "fraction_of_h2", r**2
    if num_G is not None:
        metric = "fraction_of_h2_corrected"
        square = square - (1 - square) / np.maximum(np.asarray(num_G, np.float64) - 2, 1)
    share = np.where(np.isfinite(r), np.sign(r) * square, 0.0)[known]
    total, bottom = weights[:, known] @ share, weights[:, known] @ h2[known]
    draws = np.where(bottom > 0, total / np.where(bottom > 0, bottom, 1), np.nan)
    below = float(h2[known].sum())
    value = float(share.sum()) / below if below > 0 else math.nan
    return interval(value, draws, n=int(known.sum())).row(name, metric, split=split)


def direction_row(
    name: str,
    table: pd.DataFrame,
    *,
    split: str,
    column: str = "pearson",
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> Row:
    """Return the two-sided p of the mean r, were the signs of genes (or groups) those of a coin.

    The null of a model that reacts to real variants but does not know in which direction, such as
    one with random weights. Shuffled donors have no genetic effects left, so their null is too
    narrow for it.

    Parameters
    ----------
    name : str
    table : DataFrame
        As :func:`seq2exp.cohort.metrics.across_donors` returns it.
    split, column : str
    seed : int
        Of the sign flips.
    groups : array of labels, shape (num_genes,), optional
        Genes of one label get one sign.
    """
    use = ~table["status"].isin(UNSCORABLE).to_numpy()
    values = table[column].fillna(0.0).to_numpy()[use]
    p = Estimate(_sign_flip_p(_in_groups(values, groups, use), seed), n=values.size)
    return p.row(name, f"{column}_mean_p", split=split)


def paired_rows(
    name: str,
    table: pd.DataFrame,
    other: pd.DataFrame,
    weights: Floats,
    *,
    split: str,
    column: str = "pearson",
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> list[Row]:
    """Return by how much a model is better than the baseline `name`, on the same resamples.

    Parameters
    ----------
    name : str
        The baseline.
    table, other : DataFrame
        Of the model and of the baseline, genes in the same order.
    weights : float64 array, shape (num_resamples, num_genes)
    split : str
    column : str
    seed : int
        Of the sign flips.
    groups : array of labels, shape (num_genes,), optional
        Genes of one label get one sign; those that the weights were drawn by.

    Returns
    -------
    list of dict
        ``COLUMN_difference``: mean of r(model) - r(baseline), undefined as 0, above 0 in favour of
        the model. ``COLUMN_difference_p``: two-sided sign-flip test of that mean over genes (or
        groups of them). ``COLUMN_share_better``: genes on which
        the model is better, ties one half.
    """
    if list(table["gene"]) != list(other["gene"]):
        raise InputError(
            facts(
                f"comparison with {name}", found="other genes, or another order",
                expected="the genes of the model", fix="score both on the same genes",
            )
        )  # fmt: skip
    use = ~(table["status"].isin(UNSCORABLE) | other["status"].isin(UNSCORABLE)).to_numpy()
    first, second = (frame[column].fillna(0.0).to_numpy()[use] for frame in (table, other))
    difference = first - second
    better = (difference > 0) + 0.5 * (difference == 0)
    counts = weights[:, use]
    total = counts.sum(axis=1)
    safe = np.where(total > 0, total, np.nan)
    rows = []
    for label, values in (("difference", difference), ("share_better", better)):
        value = float(values.mean()) if values.size else math.nan
        estimate = interval(value, counts @ values / safe, n=values.size)
        rows.append(estimate.row(name, f"{column}_{label}", split=split))
    p = Estimate(_sign_flip_p(_in_groups(difference, groups, use), seed), n=difference.size)
    return [*rows, p.row(name, f"{column}_difference_p", split=split)]


@dataclass(frozen=True)
class PermutationNull:
    """Correlations after the donors' predictions were shuffled within genes.

    Attributes
    ----------
    mean_B : float64 array, shape (num_permutations,)
        Mean r over scorable genes, undefined as 0.
    mean_abs_B, above_B, below_B : float64 arrays
        Mean absolute r, and shares above 0.2 and below -0.2.
    p_G : float64 array, shape (num_genes,)
        Two-sided p of each gene, (1 + permutations with |r| at least as large) / (1 + B); NaN
        where undefined.
    """

    mean_B: Floats
    mean_abs_B: Floats
    above_B: Floats
    below_B: Floats
    p_G: Floats

    def rows(self, name: str, table: pd.DataFrame, *, split: str) -> list[Row]:
        """Return the null means with their central 95 %, and the one-sided p of the mean r."""
        scorable = ~table["status"].isin(UNSCORABLE)
        num = int(scorable.sum())
        rows = []
        parts = {
            "mean": self.mean_B,
            "mean_abs": self.mean_abs_B,
            "share_above_0.2": self.above_B,
            "share_below_-0.2": self.below_B,
        }
        for key, draws in parts.items():
            value = float(draws.mean()) if draws.size and num else math.nan
            rows.append(interval(value, draws, n=num).row(name, f"null_pearson_{key}", split=split))
        p = math.nan
        if num:
            seen = float(table.loc[scorable, "pearson"].fillna(0.0).mean())
            p = float((1 + (self.mean_B >= seen - 1e-12).sum()) / (1 + self.mean_B.size))
        return [*rows, Estimate(p, n=num).row(name, "null_pearson_mean_p", split=split)]


def permutation_null(
    observed_GD: ArrayLike,
    predicted_GD: ArrayLike,
    table: pd.DataFrame,
    *,
    num_permutations: int = 1000,
    seed: int = 0,
    strata_D: Sequence[object] | None = None,
) -> PermutationNull:
    """Shuffle donors within every gene and correlate again.

    One shuffle of the donors serves all genes, so that what genes share (batches, relatives,
    overlapping windows) widens the null of the mean as it should; for a gene with missing donors
    the same random keys order the donors it has.

    Parameters
    ----------
    observed_GD, predicted_GD : float arrays, shape (num_genes, num_donors)
    table : DataFrame
        As :func:`seq2exp.cohort.metrics.across_donors` returns it for these arrays.
    num_permutations, seed : int
    strata_D : sequence, optional
        Donors are shuffled within these labels only (populations: differences between them then
        are part of the null).
    """
    observed, predicted = (np.asarray(x, np.float64) for x in (observed_GD, predicted_GD))
    use = np.isfinite(observed) & np.isfinite(predicted)
    first, second = (center_unit(values, use)[0] for values in (observed, predicted))
    status = table["status"].to_numpy()
    defined, scorable = status == "ok", ~np.isin(status, UNSCORABLE)
    num_genes, num_donors = observed.shape
    strata = np.zeros(num_donors, np.int64)
    if strata_D is not None:
        strata = pd.factorize(np.asarray(strata_D), use_na_sentinel=False)[0].astype(np.int64)
    totals = np.zeros((4, num_permutations))
    extreme = np.zeros(num_genes)
    seen = np.abs((first * second).sum(axis=1))
    random = np.random.default_rng(seed)
    step = max(_CHUNK // max(num_donors, 1), 1)
    for start in range(0, num_permutations, step):
        part = slice(start, min(start + step, num_permutations))
        keys = random.random((part.stop - part.start, num_donors))
        shuffles = _Shuffles(keys, strata)
        for gene in np.flatnonzero(defined):
            r = shuffles.correlations(first[gene], second[gene], use[gene])
            totals[0, part] += r
            totals[1, part] += np.abs(r)
            totals[2, part] += r > 0.2
            totals[3, part] += r < -0.2
            extreme[gene] += (np.abs(r) >= seen[gene] - 1e-12).sum()
    totals /= max(int(scorable.sum()), 1)
    p = np.where(defined, (1 + extreme) / (1 + num_permutations), np.nan)
    return PermutationNull(totals[0], totals[1], totals[2], totals[3], p)


class _Shuffles:
    """Orders of donors by random keys, within strata; those of a set of donors are kept."""

    def __init__(self, keys_BD: Floats, strata_D: NDArray[np.int64]) -> None:
        # A stratum's keys lie in a range of their own.
        self.keys_BD = keys_BD + strata_D
        self.strata_D = strata_D
        self._kept: tuple[bytes, NDArray[np.int64]] | None = None

    def correlations(self, first_D: Floats, second_D: Floats, use_D: NDArray[np.bool_]) -> Floats:
        """Return r of one gene for every shuffle of the donors used."""
        key = use_D.tobytes()
        if self._kept is None or self._kept[0] != key:
            used = np.flatnonzero(use_D)
            # Sorted by stratum and key, the donors of a stratum come as one run: these places.
            home = used[np.argsort(self.strata_D[used], kind="stable")]
            order = used[np.argsort(self.keys_BD[:, used], axis=1)]
            target = np.zeros((order.shape[0], use_D.size), np.int64)
            target[:, home] = order
            self._kept = (key, target[:, used])
        used = np.flatnonzero(use_D)
        return np.asarray(second_D[self._kept[1]] @ first_D[used])


def _in_groups(values: Floats, groups: ArrayLike | None, use: NDArray[np.bool_]) -> Floats:
    """Return the sums of the values of used genes by group; the values where there are none."""
    if groups is None:
        return values
    codes, _ = pd.factorize(np.asarray(groups)[use], use_na_sentinel=False)
    return np.asarray(np.bincount(codes, weights=values), np.float64)


def _sign_flip_p(difference: Floats, seed: int) -> float:
    """Return the two-sided p of a mean of 0 when every difference may have either sign."""
    moved = difference[difference != 0]
    if moved.size == 0:
        return 1.0 if difference.size else math.nan
    random = np.random.default_rng(seed)
    step = max(_CHUNK // moved.size, 1)
    extreme = 0
    seen = abs(float(moved.sum()))
    for start in range(0, _SIGN_FLIPS, step):
        rows = min(step, _SIGN_FLIPS - start)
        signs = random.integers(0, 2, size=(rows, moved.size), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= seen * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + _SIGN_FLIPS)
