"""Predictions of models and baselines to the rows and the per-gene table of the benchmark.

Rows are those every command writes (``name, metric, split, value, low, high, n``) and a
``stratum``, None for all genes. Metrics:

``pearson_*``, ``spearman_*``   across donors, over genes (:mod:`seq2exp.cohort.metrics`)
``pearson_mean_p``              signs of genes (or groups of them) tossed: knows it the direction?
``pearson_difference*``         model minus baseline, under the name of the baseline
``null_pearson_*``              donors shuffled within genes
``fraction_of_h2*``             reached share of the heritability, as published and ``_corrected``
                                for what few donors add to r^2
``across_genes_*``              one value per gene: mean or median of the donors
``across_genes_within_donor_*`` across genes in every donor, then the mean over donors

Intervals are percentile bootstrap intervals over genes, or groups of genes; the same resamples
serve all models of a split.

Axes: G genes, D donors, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from seq2exp.cohort.inference import (
    direction_row,
    draw_weights,
    fraction_of_h2,
    paired_rows,
    permutation_null,
    summary_rows,
)
from seq2exp.cohort.metrics import UNSCORABLE, across_donors, across_genes_targets, center_unit
from seq2exp.core.errors import InputError, facts
from seq2exp.training.metrics import METRICS, Estimate, Resamples, Row, interval

__all__ = ["BenchmarkData", "BenchmarkPlan", "benchmark_split", "nested_donors", "tertiles"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ACROSS_GENES = ("pearson", "spearman", "r2")


@dataclass(frozen=True)
class BenchmarkPlan:
    """How the benchmark is computed."""

    reference: str = "model"
    """Name that baselines are compared with; no differences where it is not among them."""
    num_resamples: int = 1000
    """Bootstrap resamples of genes."""
    num_permutations: int = 1000
    """Shuffles of donors; 0 leaves the null out."""
    permute_within: Literal["all", "population"] = "all"
    """Donors are shuffled among all, or within their population."""
    min_stratum_genes: int = 5
    """Strata of fewer genes get no rows."""
    seed: int = 0
    """Of resamples and shuffles."""


@dataclass(frozen=True, eq=False)
class BenchmarkData:
    """What is scored.

    Attributes
    ----------
    genes, donors : sequence of str
    corrected_GD : float array, shape (num_genes, num_donors)
        Observed expression for the comparison across donors.
    predictions : mapping
        Name to float array of the same shape; NaN where a model has no prediction.
    raw_GD : float array, optional
        Observed expression for the comparison across genes; none without it.
    across_genes : mapping, optional
        Predictions for it, in the unit of `raw_GD`, of the same shape or with one column (the
        reference sequence). `predictions` when left out.
    h2_G, h2_se_G : float arrays, optional
        Heritability of the genes, NaN where unknown.
    groups_G : sequence, optional
        Genes of one label are resampled together.
    strata : mapping, optional
        Name to one label per gene (:func:`tertiles`); None or an empty text is no stratum.
    populations_D : sequence of str, optional
        Population of each donor: rows per population, and shuffles within.
    """

    genes: Sequence[str]
    donors: Sequence[str]
    corrected_GD: ArrayLike
    predictions: Mapping[str, ArrayLike]
    raw_GD: ArrayLike | None = None
    across_genes: Mapping[str, ArrayLike] | None = None
    h2_G: ArrayLike | None = None
    h2_se_G: ArrayLike | None = None
    groups_G: Sequence[object] | None = None
    strata: Mapping[str, Sequence[object]] = field(default_factory=dict)
    populations_D: Sequence[str] | None = None


def benchmark_split(
    data: BenchmarkData, cells_GD: ArrayLike, *, split: str, plan: BenchmarkPlan
) -> tuple[list[Row], pd.DataFrame]:
    """Score all models on the cells of one split.

    Parameters
    ----------
    data : BenchmarkData
    cells_GD : bool array, shape (num_genes, num_donors)
        What is tested (:meth:`seq2exp.cohort.splits.CohortSplit.mask`); genes without a cell are
        left out.
    split : str
    plan : BenchmarkPlan

    Returns
    -------
    (rows, table)
        The rows, and a DataFrame of one row per gene and model: gene, name, split, n, num_missing,
        pearson, spearman, slope, p, q, status, permutation_p (where shuffled), h2, h2_se and
        fraction_of_h2 (sign(r) r^2 / h2 where h2 is above twice its error).

    Raises
    ------
    InputError
        Shapes do not fit, or the split has no cell.
    """
    cells = np.asarray(cells_GD, bool)
    _check(data, cells)
    rows_used = np.flatnonzero(cells.any(axis=1))
    if rows_used.size == 0:
        raise InputError(
            facts(
                f"split {split}", found="no gene with a test donor", expected="one or more",
                fix="leave the split out, or hold out donors or genes for it",
            )
        )  # fmt: skip
    part = _Part(data, cells, rows_used, split=split, plan=plan)
    rows = part.across_donors()
    rows += part.by_stratum()
    rows += part.by_population()
    rows += part.across_genes()
    return rows, part.table()


def tertiles(values: ArrayLike, *, names: Sequence[str] = ("low", "middle", "high")) -> list[str]:
    """Return low, middle or high per value, thirds by rank; empty text for NaN.

    Equal values share a label: that of their mean rank.
    """
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    out = np.full(numbers.size, "", object)
    if known.any():
        rank = (rankdata(numbers[known]) - 0.5) / known.sum()
        out[known] = [names[min(int(x * len(names)), len(names) - 1)] for x in rank]
    return [str(x) for x in out]


def nested_donors(
    train: Sequence[str], shares: Sequence[float], *, seed: int
) -> dict[float, list[str]]:
    """Return training donors for a learning curve: each share holds those of the smaller ones.

    Parameters
    ----------
    train : sequence of str
    shares : sequence of float
        Above 0, at most 1.
    seed : int
        Of the order in which donors enter.
    """
    if any(not 0 < share <= 1 for share in shares):
        raise InputError(
            facts(
                "learning curve", found=str(list(shares)), expected="shares above 0, at most 1",
                fix="mend them",
            )
        )  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(train))
    return {
        share: [train[k] for k in np.sort(order[: max(1, round(share * len(train)))])]
        for share in sorted(shares)
    }


class _Part:
    """The genes and cells of one split."""

    def __init__(
        self,
        data: BenchmarkData,
        cells: Bools,
        rows: NDArray[np.int64],
        *,
        split: str,
        plan: BenchmarkPlan,
    ) -> None:
        self.data, self.plan, self.split = data, plan, split
        self.cells, self.rows = cells[rows], rows
        self.genes = [data.genes[k] for k in rows]
        self.observed = self._cut(data.corrected_GD)
        self.predictions = {name: self._cut(x) for name, x in data.predictions.items()}
        self.tables = {
            name: across_donors(self.observed, guess, genes=self.genes)
            for name, guess in self.predictions.items()
        }
        self.groups: NDArray[np.object_] | None = None
        if data.groups_G is not None:
            self.groups = np.array([str(data.groups_G[k]) for k in rows], dtype=object)
        self.weights = draw_weights(
            len(rows), num_resamples=plan.num_resamples, seed=plan.seed, groups=self.groups
        )
        self.h2 = self._gene_values(data.h2_G)
        self.h2_se = self._gene_values(data.h2_se_G)
        self.permutation_p: dict[str, Floats] = {}

    def _cut(self, values: ArrayLike) -> Floats:
        """Return the rows of this split, NaN outside its cells."""
        part = np.asarray(values, np.float64)[self.rows]
        if part.shape[1] == 1:
            return part
        return np.asarray(np.where(self.cells, part, np.nan))

    def _gene_values(self, values: ArrayLike | None) -> Floats:
        if values is None:
            return np.full(len(self.rows), np.nan)
        return np.asarray(values, np.float64)[self.rows]

    def across_donors(self) -> list[Row]:
        """Return summaries, differences, null and reached heritability over all genes."""
        rows = self._summaries(np.ones(len(self.rows), bool), None)
        if self.plan.num_permutations:
            strata = self.data.populations_D if self.plan.permute_within == "population" else None
            for name, table in self.tables.items():
                null = permutation_null(
                    self.observed, self.predictions[name], table, strata_D=strata,
                    num_permutations=self.plan.num_permutations, seed=self.plan.seed,
                )  # fmt: skip
                self.permutation_p[name] = null.p_G
                rows += _in_stratum(null.rows(name, table, split=self.split), None)
        return rows

    def _summaries(self, use: Bools, stratum: str | None) -> list[Row]:
        rows: list[Row] = []
        weights, reference = self.weights[:, use], self.plan.reference
        groups = None if self.groups is None else self.groups[use]
        for name, whole in self.tables.items():
            table = whole[use].reset_index(drop=True)
            for column in ("pearson", "spearman"):
                rows += summary_rows(name, table, weights, split=self.split, column=column)
            rows.append(
                direction_row(name, table, split=self.split, seed=self.plan.seed, groups=groups)
            )
            h2 = np.where(table["status"].isin(UNSCORABLE), np.nan, self.h2[use])
            if np.isfinite(h2).any():
                rows += [
                    fraction_of_h2(
                        table["pearson"], h2, weights, name=name, split=self.split, num_G=num
                    )
                    for num in (None, table["n"])
                ]
            if reference in self.tables and name != reference:
                ours = self.tables[reference][use].reset_index(drop=True)
                rows += paired_rows(
                    name, ours, table, weights, split=self.split, seed=self.plan.seed,
                    groups=groups,
                )  # fmt: skip
        return _in_stratum(rows, stratum)

    def by_stratum(self) -> list[Row]:
        """Return the summaries of every stratum of genes, on the resamples of all genes."""
        rows: list[Row] = []
        for kind, labels in self.data.strata.items():
            own = np.array(["" if labels[k] is None else str(labels[k]) for k in self.rows])
            for label in sorted(set(own) - {""}):
                use = own == label
                if use.sum() >= self.plan.min_stratum_genes:
                    rows += self._summaries(use, f"{kind}:{label}")
        return rows

    def by_population(self) -> list[Row]:
        """Return the summaries of every population of donors, where there are several."""
        if self.data.populations_D is None:
            return []
        population = np.array([str(x) for x in self.data.populations_D])
        names = sorted(set(population[self.cells.any(axis=0)]))
        rows: list[Row] = []
        for label in names if len(names) > 1 else []:
            inside = np.where(population == label, self.observed, np.nan)
            for name, guess in self.predictions.items():
                table = across_donors(inside, guess, genes=self.genes)
                if (~table["status"].isin(UNSCORABLE)).any():
                    found = summary_rows(name, table, self.weights, split=self.split)
                    rows += _in_stratum(found, f"population:{label}")
        return rows

    def across_genes(self) -> list[Row]:
        """Return accuracy across genes, of donors together and within donors."""
        if self.data.raw_GD is None:
            return []
        raw = self._cut(self.data.raw_GD)
        guesses = self.data.across_genes
        guesses = self.data.predictions if guesses is None else guesses
        rows: list[Row] = []
        for name, values in guesses.items():
            guess = np.broadcast_to(self._cut(values), raw.shape)
            for kind, (seen, made) in across_genes_targets(raw, guess).items():
                rows += self._gene_rows(name, kind, seen, made)
            rows += self._within_donors(name, raw, guess)
        return _in_stratum(rows, None)

    def _gene_rows(self, name: str, kind: str, seen: Floats, made: Floats) -> list[Row]:
        known = np.isfinite(seen) & np.isfinite(made)
        num = int(known.sum())
        if num == 0:
            return []
        # Whole groups are drawn where genes come in groups, as elsewhere.
        draws = _weighted_draws(seen[known], made[known], self.weights[:, known])
        return [
            interval(METRICS[metric](seen[known], made[known]), draws[metric], n=num).row(
                name, f"across_genes_{metric}_{kind}", split=self.split
            )
            for metric in _ACROSS_GENES
        ]

    def _within_donors(self, name: str, raw: Floats, guess: Floats) -> list[Row]:
        """Return the mean over donors of the correlation across genes, intervals over genes.

        Ranks are those among all genes of a donor, also in the resamples.
        """
        use = (np.isfinite(raw) & np.isfinite(guess)).T
        keep = use.sum(axis=1) >= 3
        if not keep.any():
            return []
        rows = []
        for metric in ("pearson", "spearman"):
            pairs = []
            for values in (raw.T, guess.T):
                part = values[keep] if metric == "pearson" else _row_ranks(values[keep], use[keep])
                pairs.append(center_unit(part, use[keep], resolution=1e-9)[0])
            first, second = pairs
            value = (first * second).sum(axis=1)
            defined = (first != 0).any(axis=1) & (second != 0).any(axis=1)
            draws = _mean_correlation(first[defined], second[defined], use[keep][defined],
                                      self.weights)  # fmt: skip
            estimate = Estimate(math.nan)
            if defined.any():
                estimate = interval(float(value[defined].mean()), draws, n=len(self.rows))
            rows.append(estimate.row(name, f"across_genes_within_donor_{metric}", split=self.split))
        return rows

    def table(self) -> pd.DataFrame:
        """Return one row per gene and model."""
        frames = []
        for name, table in self.tables.items():
            frame = table.copy()
            frame.insert(1, "name", name)
            frame.insert(2, "split", self.split)
            if name in self.permutation_p:
                frame["permutation_p"] = self.permutation_p[name]
            frame["h2"], frame["h2_se"] = self.h2, self.h2_se
            sure = self.h2 > 2 * self.h2_se
            r = frame["pearson"].to_numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                frame["fraction_of_h2"] = np.where(sure, np.sign(r) * r**2 / self.h2, np.nan)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)


def _in_stratum(rows: list[Row], stratum: str | None) -> list[Row]:
    return [row | {"stratum": stratum} for row in rows]


def _weighted_draws(seen: Floats, made: Floats, weights: Floats) -> dict[str, Floats]:
    """Return metrics across genes on given resamples."""
    resamples = Resamples(weights, seen)
    return {metric: resamples.metric(metric, made) for metric in _ACROSS_GENES}


def _row_ranks(values: Floats, use: Bools) -> Floats:
    out = np.zeros(values.shape)
    for row, own in enumerate(use):
        out[row, own] = rankdata(values[row, own])
    return out


def _mean_correlation(first: Floats, second: Floats, use: Bools, weights: Floats) -> Floats:
    """Return, per resample of genes, the mean over donors of their weighted correlation."""
    cells = use.astype(np.float64)
    total = weights @ cells.T
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (weights @ x.T / total for x in (first, second))
        cross = weights @ (first * second).T / total - one * two
        spread = [weights @ (x**2).T / total - m**2 for x, m in ((first, one), (second, two))]
        product = np.clip(spread[0], 0, None) * np.clip(spread[1], 0, None)
        r = np.where(product > 0, cross / np.sqrt(product), np.nan)
    found = np.isfinite(r)
    count = found.sum(axis=1)
    mean = np.where(found, r, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.asarray(np.where(count > 0, mean, np.nan))


def _check(data: BenchmarkData, cells: Bools) -> None:
    shape = (len(data.genes), len(data.donors))
    shapes = {"cells": cells.shape, "corrected_GD": np.shape(data.corrected_GD)}
    shapes |= {name: np.shape(values) for name, values in data.predictions.items()}
    if data.raw_GD is not None:
        shapes["raw_GD"] = np.shape(data.raw_GD)
    wrong = [f"{name} {found}" for name, found in shapes.items() if found != shape]
    wrong += [
        f"{name} {np.shape(values)}"
        for name, values in (data.across_genes or {}).items()
        if np.shape(values) not in (shape, (shape[0], 1))
    ]
    if wrong or not data.predictions:
        raise InputError(
            facts(
                "benchmark", found="; ".join(wrong) or "no predictions",
                expected=f"(genes, donors) = {shape}", fix="align tables by gene and donor",
            )
        )  # fmt: skip
