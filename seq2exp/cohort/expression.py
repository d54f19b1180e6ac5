"""Expression of donors: from a table as delivered to two targets, fitted on training donors.

    raw        log(TPM + pseudocount), uncorrected: for comparisons across genes
    corrected  raw, scaled per gene, without covariates and hidden factors: for those across donors

A donor's own column sum is all that TPM takes from other genes; filters, means, deviations,
quantiles, coefficients and factors come from the fitting donors and are applied to the others. With
``fit_on: all``, the published way, test donors take part in them: kept for comparison, and flagged.

Axes: G genes, D donors, N fitting donors, C covariates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.cohort.covariates import Covariates, fit_covariates
from seq2exp.cohort.factors import Factors, fit_factors
from seq2exp.cohort.scaling import GeneScale, fit_scale
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning, facts

__all__ = [
    "CohortExpression",
    "ExpressionConfig",
    "FittedExpression",
    "factor_associations",
    "fit_expression",
    "process_expression",
]

Floats = NDArray[np.float64]

# Fewer genes than this are no transcriptome: their sum says little about depth.
_MIN_GENES_FOR_SUM = 1000


@dataclass(frozen=True)
class ExpressionConfig:
    """How the expression of donors is processed."""

    unit: Literal["rpkm", "tpm", "counts", "log"] = "tpm"
    """What the table holds. rpkm and counts are brought to a million per donor by their column
    sums (so the table must hold all genes), tpm is taken as it is; log: already logarithms or
    ratios, taken as they are, without filters of zeros and means."""
    transform: Literal["ln", "log2", "none"] = "ln"
    """Logarithm of the value plus the pseudocount; not with unit log."""
    pseudocount: float = 0.01
    """Added before the logarithm."""
    max_zero_share: float = 0.5
    """Genes that are 0 in this share of the fitting donors, or in more, are left out."""
    min_mean: float = 0.0
    """Genes with a smaller mean over the fitting donors (in TPM) are left out."""
    scale: Literal["zscore", "inverse_normal", "none"] = "zscore"
    """Scale on which covariates and factors are fitted: mean 0 and deviation 1, normal scores of
    the ranks, or mean 0 alone."""
    factors: Literal["pca", "factor_analysis", "none"] = "pca"
    """Hidden factors that are taken out: principal components, or factor analysis with noise per
    gene (the model of PEER without its priors)."""
    num_factors: int = 10
    """How many."""
    corrected_unit: Literal["log", "scaled"] = "log"
    """Unit of the corrected target: back in that of the raw one, or as scaled. Normal scores stay
    scaled."""
    fit_on: Literal["train", "all"] = "train"
    """Donors on whom everything is fitted; all lets test donors in and is flagged."""

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        problems = [
            ("transform", self.unit == "log" and self.transform != "none",
             "none with unit: log", "set expression.transform: none"),
            ("pseudocount", self.transform != "none" and self.pseudocount <= 0,
             "above 0", "use 0.01"),
            ("max_zero_share", not 0 < self.max_zero_share <= 1.0, "above 0, at most 1", "mend it"),
            ("num_factors", self.factors != "none" and self.num_factors < 1, "1 or more",
             "set expression.factors: none"),
            ("corrected_unit", self.scale == "inverse_normal" and self.corrected_unit == "log",
             "scaled with scale: inverse_normal", "set expression.corrected_unit: scaled"),
        ]  # fmt: skip
        for name, wrong, expected, fix in problems:
            if wrong:
                raise ConfigError(
                    facts(
                        f"expression.{name}", found=getattr(self, name), expected=expected, fix=fix
                    )
                )


@dataclass(frozen=True, eq=False)
class FittedExpression:
    """All that was fitted, on which donors.

    Attributes
    ----------
    config : ExpressionConfig
    donors : tuple of str
        The fitting donors.
    genes : DataFrame
        gene_id, status (``kept``, or why not: ``no_expression``, ``too_many_zeros``,
        ``low_mean``; ``constant_expression`` has a raw target only), zero_share and mean.
    scale : GeneScale
    covariates : Covariates
    factors : Factors or None
    """

    config: ExpressionConfig
    donors: tuple[str, ...]
    genes: pd.DataFrame
    scale: GeneScale
    covariates: Covariates
    factors: Factors | None

    def apply(
        self, values: pd.DataFrame, *, covariates: pd.DataFrame | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return raw target, corrected target (genes x donors) and factor scores (donors x F).

        Parameters
        ----------
        values : DataFrame
            Genes of the fit as rows, any donors as columns, as delivered.
        covariates : DataFrame, optional
            Donors as rows; the columns of the fit.
        """
        donors = [str(name) for name in values.columns]
        level = _per_million(_checked(values, self.config), self.config)
        status = self.genes["status"].to_numpy()
        raw = _logarithm(level, self.config)
        raw[~np.isin(status, ("kept", "constant_expression"))] = np.nan
        residual = self.covariates.residual(self.scale.apply(raw), covariates, donors)
        residual[status != "kept"] = np.nan
        scores = np.zeros((len(donors), 0))
        if self.factors is not None:
            scores = self.factors.scores(residual.T)
            residual = residual - self.factors.loadings_GF @ scores.T
        if self.config.corrected_unit == "log":
            residual = self.scale.undo(residual)
        names = [f"factor{k + 1}" for k in range(scores.shape[1])]
        return (
            pd.DataFrame(raw, index=values.index, columns=donors),
            pd.DataFrame(residual, index=values.index, columns=donors),
            pd.DataFrame(scores, index=donors, columns=names),
        )


@dataclass(frozen=True, eq=False)
class CohortExpression:
    """Targets of all donors.

    Attributes
    ----------
    raw, corrected : DataFrame
        Genes x donors, NaN where a gene was left out or a value is missing.
    scores : DataFrame
        Donors x factors.
    fitted : FittedExpression
    """

    raw: pd.DataFrame
    corrected: pd.DataFrame
    scores: pd.DataFrame
    fitted: FittedExpression

    @property
    def notes(self) -> list[str]:
        """Return what a report must say about the fit."""
        config, num = self.fitted.config, len(self.fitted.donors)
        counts = self.fitted.genes["status"].value_counts()
        kept = int(counts.get("kept", 0))
        parts = [f"{num} {name}" for name, num in counts.items() if name != "kept"]
        notes = [f"expression: {kept} of {int(counts.sum())} genes kept"]
        notes[0] += f" ({', '.join(parts)})" if parts else ""
        if config.fit_on == "all":
            notes.append(
                "expression was fitted on ALL donors, test donors included (fit_on: all): accuracy "
                "on test donors is not clean"
            )
        else:
            notes.append(f"expression was fitted on {num} training donors only")
        return notes


def process_expression(
    values: pd.DataFrame,
    *,
    train: Sequence[str],
    config: ExpressionConfig,
    covariates: pd.DataFrame | None = None,
) -> CohortExpression:
    """Fit on the training donors (or all, as the configuration says) and apply to everyone.

    Parameters
    ----------
    values : DataFrame
        Index gene_id, one column per donor; NaN where not measured.
    train : sequence of str
        Training donors.
    config : ExpressionConfig
    covariates : DataFrame, optional
        Index donor; numbers, and texts that are made 0/1 columns.
    """
    fitted = fit_expression(values, train=train, config=config, covariates=covariates)
    raw, corrected, scores = fitted.apply(values, covariates=covariates)
    return CohortExpression(raw, corrected, scores, fitted)


def fit_expression(
    values: pd.DataFrame,
    *,
    train: Sequence[str],
    config: ExpressionConfig,
    covariates: pd.DataFrame | None = None,
) -> FittedExpression:
    """Fit filters, scales, covariates and factors; parameters as :func:`process_expression`.

    Raises
    ------
    InputError
        A gene or donor stands twice, a value is negative or infinite, a training donor is not in
        the table, no gene is kept, or the covariates and factors outnumber the donors.

    Warns
    -----
    Seq2ExpWarning
        Column sums of few genes are used for depth.
    """
    _check_names(values, train)
    donors = list(values.columns) if config.fit_on == "all" else list(train)
    part = values[donors]
    level = _per_million(_checked(part, config), config)
    if config.unit in ("rpkm", "counts") and len(values) < _MIN_GENES_FOR_SUM:
        warnings.warn(
            f"expression.unit: {config.unit} divides by the column sum of {len(values)} genes, "
            f"expected {_MIN_GENES_FOR_SUM} or more; with part of the genes use unit: tpm",
            Seq2ExpWarning,
            stacklevel=2,
        )
    raw = _logarithm(level, config)
    genes = _gene_table(values.index, level, raw, config)
    usable = genes["status"].to_numpy() == "kept"
    if not usable.any():
        raise InputError(
            facts(
                "expression", found=str(genes["status"].value_counts().to_dict()),
                expected="at least one gene kept",
                fix="relax expression.max_zero_share and min_mean, or add donors",
            )
        )  # fmt: skip
    scale = fit_scale(raw, usable, kind=config.scale)
    scaled = scale.apply(raw)
    linear = fit_covariates(scaled, covariates, donors)
    residual = linear.residual(scaled, covariates, donors)
    residual[~usable] = 0.0
    factors = None
    if config.factors != "none":
        _check_room(config, len(donors), int(usable.sum()), len(linear.names))
        factors = fit_factors(residual.T, kind=config.factors, num_factors=config.num_factors)
    return FittedExpression(config, tuple(map(str, donors)), genes, scale, linear, factors)


def factor_associations(scores: pd.DataFrame, donors: pd.DataFrame) -> pd.DataFrame:
    """Return the share of each factor's variance (R2) that each column of the donors explains.

    A factor that splits by sex or population takes more than noise out of the expression.

    Parameters
    ----------
    scores : DataFrame
        Donors x factors, as :class:`CohortExpression` has them.
    donors : DataFrame
        Index donor; columns such as sex and population, taken as classes.

    Returns
    -------
    DataFrame
        Factors x columns; NaN where a column has one class.
    """
    shared = [name for name in scores.index if name in donors.index]
    out = pd.DataFrame(index=scores.columns, columns=donors.columns, dtype=float)
    for column in donors.columns:
        classes = donors.loc[shared, column].astype(str)
        values = scores.loc[shared]
        total = ((values - values.mean()) ** 2).sum()
        inside = ((values - values.groupby(classes).transform("mean")) ** 2).sum()
        out[column] = 1 - inside / total if classes.nunique() > 1 else np.nan
    return out


def _check_names(values: pd.DataFrame, train: Sequence[str]) -> None:
    for what, names in (("genes", values.index), ("donors", values.columns)):
        double = list(dict.fromkeys(map(str, names[names.duplicated()])))
        if double:
            raise InputError(
                facts(
                    f"{what} of the expression table", found="names that stand twice",
                    expected="each once", count=len(double), examples=double,
                    fix="drop or average the repeats",
                )
            )  # fmt: skip
    lost = [name for name in train if name not in values.columns]
    if lost or not len(train):
        raise InputError(
            facts(
                "training donors", found=f"{len(lost)} of {len(train)} without expression",
                expected="one or more, all in the expression table", examples=lost,
                fix="match donors before the split",
            )
        )  # fmt: skip


def _checked(values: pd.DataFrame, config: ExpressionConfig) -> Floats:
    # One layout, so that sums do not depend on how the table is kept in memory.
    array = np.ascontiguousarray(values.to_numpy(np.float64))
    wrong = np.isinf(array)
    if config.unit != "log":
        wrong |= array < 0
    if wrong.any():
        gene, donor = (int(x) for x in np.argwhere(wrong)[0])
        raise InputError(
            facts(
                f"expression of {values.index[gene]} in {values.columns[donor]}",
                found=array[gene, donor],
                expected="a finite number" + ("" if config.unit == "log" else " of 0 or more"),
                count=int(wrong.sum()),
                fix="mend the table, or set expression.unit: log for logarithms",
            )
        )
    return array


def _per_million(level: Floats, config: ExpressionConfig) -> Floats:
    if config.unit not in ("rpkm", "counts"):
        return level
    total = np.nansum(level, axis=0)
    if (total <= 0).any():
        raise InputError(
            facts(
                "expression", found="donors whose values are all 0 or missing",
                expected="some expression in each", count=int((total <= 0).sum()),
                fix="drop them",
            )
        )  # fmt: skip
    return np.asarray(level / total * 1e6)


def _logarithm(level: Floats, config: ExpressionConfig) -> Floats:
    if config.transform == "none":
        return level.copy()
    logs = np.log(level + config.pseudocount)
    return np.asarray(logs / np.log(2) if config.transform == "log2" else logs)


def _gene_table(
    index: pd.Index, level: Floats, raw: Floats, config: ExpressionConfig
) -> pd.DataFrame:
    known = np.isfinite(level)
    count = np.maximum(known.sum(axis=1), 1)
    zeros = ((level == 0) & known).sum(axis=1) / count
    mean = np.where(known, level, 0.0).sum(axis=1) / count
    filters = config.unit != "log"
    high, low = np.where(known, raw, -np.inf).max(axis=1), np.where(known, raw, np.inf).min(axis=1)
    span = np.where(known.any(axis=1), high - low, 0.0)
    size = np.maximum(np.abs(np.where(known.any(axis=1), high, 0.0)), 1e-300)
    status = np.select(
        [
            ~known.any(axis=1),
            filters & (zeros >= config.max_zero_share),
            filters & (mean < config.min_mean),
            span <= 1e-9 * size,
        ],
        ["no_expression", "too_many_zeros", "low_mean", "constant_expression"],
        default="kept",
    )
    return pd.DataFrame(
        {"gene_id": index.astype(str), "status": status, "zero_share": zeros, "mean": mean}
    )


def _check_room(
    config: ExpressionConfig, num_donors: int, num_genes: int, num_covariates: int
) -> None:
    most = min(num_donors - num_covariates - 2, num_genes - 1)
    if config.num_factors > most:
        raise InputError(
            facts(
                "expression.num_factors",
                found=f"{config.num_factors} with {num_donors} fitting donors, {num_covariates} "
                f"covariates and {num_genes} genes",
                expected=f"at most {max(most, 0)}",
                fix="lower it, or set expression.factors: none",
            )
        )
