"""Dosages of one gene as standardised columns: filter, imputation, equal columns merged.

Columns are filtered, centred and scaled with the training donors alone. Variants in perfect linkage
give equal columns, or equal up to the sign; a penalised fit splits a weight evenly among them
(elastic net and ridge have no other solution), so one column stands for all c of them with the
quadratic penalty ``w^2 / c``. That is the same problem with fewer columns.

Axes: D donors, N training donors, M variants, K variants that pass, P different columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["Design", "Moments", "make_design", "moments_without"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """Standardised columns of the training donors and the way back to dosages.

    Attributes
    ----------
    columns_NP : float64 array, shape (num_donors, num_columns)
        Mean 0 and variance 1 over the training donors; missing calls are 0, the mean.
    copies_P : float64 array, shape (num_columns,)
        Variants that a column stands for.
    variant_K : int64 array, shape (num_variants,)
        Places of the variants that passed, in the dosages given.
    mean_K, scale_K : float64 arrays
        Mean and standard deviation of the dosage in the training donors.
    column_K, sign_K : int64 and float64 arrays
        The column of each variant, and 1 or -1 by its direction.
    """

    columns_NP: Floats
    copies_P: Floats
    variant_K: Ints
    mean_K: Floats
    scale_K: Floats
    column_K: Ints
    sign_K: Floats

    @property
    def num_variants(self) -> int:
        """Number of variants that passed the filters (M of the penalties)."""
        return int(self.variant_K.size)

    def spread(self, weights_P: Floats) -> Floats:
        """Return weights per dosage of the variants that passed, from weights of the columns."""
        share = weights_P / self.copies_P
        return np.asarray(self.sign_K * share[self.column_K] / self.scale_K)

    def standardise(self, dosage_DM: ArrayLike) -> Floats:
        """Return the columns of other donors, with the means and scales of the training donors.

        Variants that are equal in the training donors may differ in others: they are averaged, so
        that a column times its weight is what the weights of :meth:`spread` predict.
        """
        part = np.asarray(dosage_DM)[:, self.variant_K].astype(np.float64)
        part = (part - self.mean_K) / self.scale_K
        signed = np.where(np.isnan(part), 0.0, part) * self.sign_K
        out = np.zeros((self.copies_P.size, part.shape[0]))
        np.add.at(out, self.column_K, signed.T)
        return np.ascontiguousarray(out.T / self.copies_P)


@dataclass(frozen=True)
class Moments:
    """What a fit needs of centred columns and labels.

    Attributes
    ----------
    gram_PP : float64 array
        Z'Z.
    xy_P : float64 array
        Z'y.
    square : float
        y'y.
    mean_P : float64 array
        Means that were taken off the columns.
    mean_y : float
        Mean that was taken off the labels.
    num_donors : int
    """

    gram_PP: Floats
    xy_P: Floats
    square: float
    mean_P: Floats
    mean_y: float
    num_donors: int


def make_design(dosage_DM: ArrayLike, *, min_maf: float, ploidy: int = 2) -> Design:
    """Filter and standardise the dosages of the training donors.

    Parameters
    ----------
    dosage_DM : float array, shape (num_donors, num_variants)
        Copies of ALT, 0 to `ploidy`; NaN where not called.
    min_maf : float
        Least frequency of the rarer allele among called alleles.
    ploidy : int
        Copies that a donor has.

    Returns
    -------
    Design
        Possibly without columns: variants that are rare, constant or never called are left out.

    Raises
    ------
    InputError
        A dosage is negative, infinite or above the ploidy.
    """
    dosage = np.asarray(dosage_DM, np.float64)
    _check(dosage, ploidy)
    known = np.isfinite(dosage)
    called = known.sum(axis=0)
    filled = np.where(known, dosage, 0.0)
    mean = filled.sum(axis=0) / np.maximum(called, 1)
    frequency = mean / ploidy
    keep = (called > 0) & (np.minimum(frequency, 1 - frequency) >= min_maf)
    variant = np.flatnonzero(keep)
    mean = mean[variant]
    centred = np.where(known[:, variant], dosage[:, variant] - mean, 0.0)
    scale = np.sqrt(np.mean(centred**2, axis=0)) if centred.size else np.zeros(variant.size)
    varied = scale > 1e-9
    variant, mean, scale = variant[varied], mean[varied], scale[varied]
    columns = centred[:, varied] / scale
    column, sign, first = _merge(columns)
    return Design(
        columns_NP=np.ascontiguousarray(columns[:, first] * sign[first]),
        copies_P=np.bincount(column, minlength=first.size).astype(np.float64),
        variant_K=variant,
        mean_K=mean,
        scale_K=scale,
        column_K=column,
        sign_K=sign,
    )


def moments_without(columns_NP: Floats, y_N: Floats, held_N: Ints, *, whole: Moments) -> Moments:
    """Return the moments of all donors but those held out, centred anew.

    Parameters
    ----------
    columns_NP : float64 array, shape (num_donors, num_columns)
    y_N : float64 array, shape (num_donors,)
    held_N : int64 array
        Rows left out.
    whole : Moments
        Of all rows, not centred (means 0).
    """
    out, y = columns_NP[held_N], y_N[held_N]
    left = whole.num_donors - held_N.size
    total = columns_NP.sum(axis=0) - out.sum(axis=0)
    mean, mean_y = total / left, float(y_N.sum() - y.sum()) / left
    return Moments(
        gram_PP=np.ascontiguousarray(whole.gram_PP - out.T @ out - left * np.outer(mean, mean)),
        xy_P=whole.xy_P - out.T @ y - left * mean_y * mean,
        square=float(whole.square - y @ y - left * mean_y**2),
        mean_P=mean,
        mean_y=mean_y,
        num_donors=left,
    )


def _check(dosage: Floats, ploidy: int) -> None:
    wrong = np.isinf(dosage) | (dosage < 0) | (dosage > ploidy)
    if wrong.any():
        donor, variant = (int(x) for x in np.argwhere(wrong)[0])
        raise InputError(
            facts(
                f"dosage of donor {donor} at variant {variant}",
                found=dosage[donor, variant],
                expected=f"0 to {ploidy}, or NaN for a missing call",
                count=int(wrong.sum()),
                fix="pass copies of ALT, and the right ploidy",
            )
        )


def _merge(columns: Floats) -> tuple[Ints, Floats, Ints]:
    """Return per column its group and sign, and per group its first column; groups in order."""
    num = columns.shape[1]
    if num == 0:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    # The first value that is not the mean decides the direction.
    lead = np.argmax(np.abs(columns) > 1e-9, axis=0)
    sign = np.where(columns[lead, np.arange(num)] < 0, -1.0, 1.0)
    # Equal columns have equal digests; the digest of a column is not proof, so neighbours in its
    # order are compared in full.
    probe = np.random.default_rng(0).normal(size=columns.shape[0])
    digest = sign * (probe @ columns)
    order = np.argsort(digest, kind="stable")
    ordered = columns[:, order] * sign[order]
    near = np.abs(np.diff(digest[order])) < 1e-8 * columns.shape[0]
    same = np.zeros(num, bool)
    places = np.flatnonzero(near) + 1
    same[places] = np.abs(ordered[:, places] - ordered[:, places - 1]).max(axis=0) < 1e-9
    group = np.empty(num, np.int64)
    group[order] = np.cumsum(~same) - 1
    _, first, column = np.unique(group, return_index=True, return_inverse=True)
    # Groups are numbered by their first variant.
    rank = np.argsort(np.argsort(first))
    return rank[column].astype(np.int64), sign, np.sort(first).astype(np.int64)
