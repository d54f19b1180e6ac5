"""Known covariates of donors, regressed out with coefficients of the fitting donors.

Axes: G genes, D donors, C columns of the design, the intercept first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["Covariates", "fit_covariates"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Covariates:
    """Design columns and coefficients.

    Attributes
    ----------
    names : tuple of str
        Columns: the name of a number, or ``name=level`` of a text; the first level is left out.
    mean_C, deviation_C : float64 arrays
        Of the fitting donors; a missing number is the mean. A level the fit did not see is 0.
    coefficients_GC : float64 array, shape (num_genes, 1 + num_columns)
        The intercept first.
    """

    names: tuple[str, ...]
    mean_C: Floats
    deviation_C: Floats
    coefficients_GC: Floats

    def design(self, table: pd.DataFrame | None, donors: Sequence[str]) -> Floats:
        """Return the design of donors, shape (num_donors, 1 + num_columns)."""
        columns = _columns(table, donors, self.names)
        filled = np.where(np.isfinite(columns), columns, self.mean_C)
        scaled = (filled - self.mean_C) / self.deviation_C
        return np.column_stack([np.ones(len(donors)), scaled])

    def residual(
        self, scaled_GD: Floats, table: pd.DataFrame | None, donors: Sequence[str]
    ) -> Floats:
        """Return expression without what intercept and covariates predict."""
        return np.asarray(scaled_GD - self.coefficients_GC @ self.design(table, donors).T)


def fit_covariates(
    scaled_GN: Floats, table: pd.DataFrame | None, donors: Sequence[str]
) -> Covariates:
    """Fit every gene on the covariates of the fitting donors by least squares.

    Parameters
    ----------
    scaled_GN : float64 array, shape (num_genes, num_fitting_donors)
        NaN where not measured.
    table : DataFrame, optional
        Index donor; numbers and texts. Only an intercept when left out.
    donors : sequence of str
        The fitting donors.

    Raises
    ------
    InputError
        A donor has no row, or stands twice; a covariate is infinite.
    """
    names = _names(table, donors)
    columns = _columns(table, donors, names)
    known = np.isfinite(columns)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, columns, 0.0).sum(axis=0) / count
    spread = np.where(known, columns - mean, 0.0)
    deviation = np.sqrt((spread**2).sum(axis=0) / max(len(donors), 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    fitted = Covariates(names, mean, deviation, np.zeros((len(scaled_GN), 1 + len(names))))
    design = fitted.design(table, donors)
    whole = np.isfinite(scaled_GN).all(axis=1)
    out = fitted.coefficients_GC
    if whole.any():
        out[whole] = np.linalg.lstsq(design, scaled_GN[whole].T, rcond=None)[0].T
    for row in np.flatnonzero(~whole):
        use = np.isfinite(scaled_GN[row])
        if use.any():
            out[row] = np.linalg.lstsq(design[use], scaled_GN[row, use], rcond=None)[0]
    return fitted


def _names(table: pd.DataFrame | None, donors: Sequence[str]) -> tuple[str, ...]:
    if table is None:
        return ()
    double = table.index[table.index.duplicated()]
    lost = [name for name in donors if name not in table.index]
    if len(double) or lost:
        raise InputError(
            facts(
                "covariates", found=f"{len(lost)} donors without row, {len(double)} rows repeated",
                expected="one row per donor", examples=[*lost, *map(str, double)],
                fix="complete the table",
            )
        )  # fmt: skip
    names = []
    for column in table.columns:
        if pd.api.types.is_numeric_dtype(table[column]):
            names.append(str(column))
        else:
            levels = sorted(set(table.loc[list(donors), column].fillna("").astype(str)))
            names += [f"{column}={level}" for level in levels[1:]]
    return tuple(names)


def _columns(table: pd.DataFrame | None, donors: Sequence[str], names: tuple[str, ...]) -> Floats:
    out = np.zeros((len(donors), len(names)))
    if table is None:
        return out
    part = table.reindex(list(donors))
    for place, name in enumerate(names):
        if name in part.columns:
            out[:, place] = part[name].to_numpy(np.float64)
        else:
            column, _, level = name.partition("=")
            out[:, place] = part[column].fillna("").astype(str).to_numpy() == level
    if np.isinf(out).any():
        wrong = [names[k] for k in np.flatnonzero(np.isinf(out).any(axis=0))]
        raise InputError(
            facts(
                "covariates", found="infinite values", expected="numbers", examples=wrong,
                fix="mend them",
            )
        )  # fmt: skip
    return out
