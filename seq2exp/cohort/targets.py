"""Split and targets of a cohort: who is trained on, and what is to be predicted.

Shapes: G genes of the dataset, D donors of its genotypes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.cohort.expression import CohortExpression, ExpressionConfig, process_expression
from seq2exp.cohort.split_making import make_split
from seq2exp.cohort.splits import CohortSplit, CohortSplitConfig
from seq2exp.core.config import require_known
from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.store import Dataset

__all__ = ["REFERENCE", "CohortTargets", "cohort_targets"]

REFERENCE = "reference"
"""Who has the sequence of the reference, in tables of predictions."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CohortTargets:
    """Expression of all donors as it is trained on and judged, and the split.

    Attributes
    ----------
    raw_GD : float32 array
        Log expression without correction, for comparisons across genes; NaN where unknown.
    corrected_GD : float32 array
        Without covariates and hidden factors, for comparisons across people.
    z_GD : float32 array
        `corrected_GD`, centred and scaled by the training people of each gene.
    percentile_GD : float32 array
        Rank of `corrected_GD` among the training people of the gene, 0 to 100.
    mean_G : float32 array
        Mean of `raw_GD` over the training people of the gene.
    split : CohortSplit
        Genes and donors in the order of the arrays.
    processed : CohortExpression
    """

    raw_GD: Floats
    corrected_GD: Floats
    z_GD: Floats
    percentile_GD: Floats
    mean_G: Floats
    split: CohortSplit
    processed: CohortExpression

    def trainable(self, name: str) -> NDArray[np.bool_]:
        """Return the cells of a set of the split that have a target, shape (G, D)."""
        cells: NDArray[np.bool_] = self.split.mask(name) & np.isfinite(self.z_GD)
        return cells


def cohort_targets(
    dataset: Dataset,
    expression: ExpressionConfig,
    splits: CohortSplitConfig,
    *,
    covariates: Sequence[str] = (),
) -> CohortTargets:
    """Split donors and genes, and fit the processing of expression on training donors.

    Parameters
    ----------
    dataset : Dataset
        With genotypes and expression of donors.
    expression : ExpressionConfig
    splits : CohortSplitConfig
    covariates : sequence of str
        Columns of the donor table that are regressed out, such as sex.

    Raises
    ------
    InputError
        The dataset has no expression of donors, or a set of the split would be empty.
    ConfigError
        The donor table lacks a covariate.
    """
    values = dataset.donor_expression
    if values is None:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found="no expression of donors",
                expected="a dataset that was prepared with a table donors.expression",
                fix="add it to the data configuration and prepare the dataset again",
            )
        )
    donors = dataset.donors
    if REFERENCE in set(donors["donor"].astype(str)):
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"a donor called {REFERENCE}",
                expected="another name: in tables of predictions it is the reference sequence",
                fix="rename the donor (`bcftools reheader -s`, and in the tables), or leave it out "
                "with genotypes.exclude, and prepare the dataset again",
            )
        )
    split = make_split(donors, dataset.genes, splits)
    free = [
        name
        for name, kind, held in zip(
            split.donors, split.donor_sets, split.never_fitted(), strict=True
        )
        if kind == "train" and not held
    ]
    processed = process_expression(
        values.astype(np.float64),
        train=free,
        config=expression,
        covariates=_covariates(donors, covariates),
    )
    genes = dataset.genes["gene_id"].astype(str)
    raw = _in_order(processed.raw, genes)
    corrected = _in_order(processed.corrected, genes)
    fitted = _fitted_cells(split, expression)
    z, percentile = _standardised(corrected, fitted & np.isfinite(corrected))
    with warnings.catch_warnings():
        # Genes without any expression have no mean.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(np.where(fitted, raw, np.nan), axis=1)
    return CohortTargets(
        raw_GD=raw.astype(np.float32),
        corrected_GD=corrected.astype(np.float32),
        z_GD=z.astype(np.float32),
        percentile_GD=percentile.astype(np.float32),
        mean_G=mean.astype(np.float32),
        split=split,
        processed=processed,
    )


def _fitted_cells(split: CohortSplit, expression: ExpressionConfig) -> NDArray[np.bool_]:
    """Return the people that centre and scale each gene: its training people, whatever its set."""
    codes = split.codes()
    if expression.fit_on == "all":
        return np.ones(codes.shape, dtype=bool)
    train: NDArray[np.bool_] = codes == 0
    return train


def _covariates(donors: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame | None:
    for name in names:
        require_known("covariates", name, list(donors.columns), expected="a column of the donors")
    return donors.set_index("donor")[list(names)] if names else None


def _in_order(table: pd.DataFrame, genes: pd.Series) -> NDArray[np.float64]:
    return table.reindex(genes.to_numpy()).to_numpy(dtype=np.float64)


def _standardised(
    values_GD: NDArray[np.float64], fitted_GD: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z, percentile = np.full_like(values_GD, np.nan), np.full_like(values_GD, np.nan)
    for row, (values, fitted) in enumerate(zip(values_GD, fitted_GD, strict=True)):
        known = np.sort(values[fitted])
        spread = known.std() if known.size else 0.0
        if spread <= 0:
            continue
        z[row] = (values - known.mean()) / spread
        # Middle of the ties, as a percentile of the training people.
        below = np.searchsorted(known, values, side="left")
        upto = np.searchsorted(known, values, side="right")
        percentile[row] = np.where(np.isfinite(values), 50.0 * (below + upto) / known.size, np.nan)
    return z, percentile
