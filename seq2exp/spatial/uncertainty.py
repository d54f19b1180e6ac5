"""How far predictions of the same spot lie apart: among reference spots, and among fold systems.

Neither is an error bar: what all reference spots, or all folds, have wrong in the same way does not
show. docs/spatial_predictions.md says what was measured.

Axes: N spots, G genes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2exp.spatial.batch import SpotBatch
from seq2exp.spatial.data import FoldLabels, SpotTable
from seq2exp.spatial.fitted_fold import FittedFold
from seq2exp.spatial.fitting import Ensemble, FittedSystem, TrainedModule
from seq2exp.spatial.recipes import FittedRecipe
from seq2exp.spatial.towers import TwoTowers

__all__ = ["FoldOpinions", "as_labels_of", "fold_opinions", "retrieval_sd"]

Floats = NDArray[np.float64]


class _Spread(nn.Module):
    """Gives the deviation of the reference spots where the system would give their mean."""

    def __init__(self, towers: TwoTowers) -> None:
        super().__init__()
        self.towers = towers

    @property
    def requires(self) -> frozenset[str]:
        return self.towers.requires

    def predict(self, batch: SpotBatch) -> Tensor:
        return self.towers.retrieve(batch).sd_BG


def retrieval_sd(system: FittedSystem, table: SpotTable) -> Floats | None:
    """Return the weighted deviation of the reference spots behind each prediction.

    Parameters
    ----------
    system : FittedSystem
    table : SpotTable

    Returns
    -------
    float64 array, shape (num_spots, num_genes), or None
        In the unit of the labels; None for systems that do not predict by example.
    """
    if isinstance(system, Ensemble):
        return _ensemble_sd(system, table)
    if not isinstance(system, TrainedModule) or not isinstance(system.module, TwoTowers):
        return None
    system.module.name_cohort(table.patients, table.sections)
    return dataclasses.replace(system, module=_Spread(system.module)).predict(table)


def _ensemble_sd(system: Ensemble, table: SpotTable) -> Floats | None:
    """Deviation of the mixture of the members' answers."""
    found = [retrieval_sd(member, table) for member in system.members]
    variances = [sd_NG**2 for sd_NG in found if sd_NG is not None]
    if not variances:
        return None
    means = np.stack([member.predict(table) for member in system.members])
    total: Floats = np.sqrt(np.mean(variances, axis=0) + means.var(axis=0))
    return total


@dataclass(frozen=True, eq=False)
class FoldOpinions:
    """What the fold systems of a run say of the spots of a section.

    Attributes
    ----------
    sd_NG : float64 array, shape (num_spots, num_genes)
        Deviation across the systems whose panel has the gene (n - 1); NaN for fewer than two.
    systems_G : int64 array, shape (num_genes,)
        How many have it.
    heldout_NG : float64 array, shape (num_spots, num_genes)
        Prediction of the system that held the spot out; NaN where there is none.
    """

    sd_NG: Floats
    systems_G: NDArray[np.int64]
    heldout_NG: Floats


def fold_opinions(
    folds: Sequence[FittedFold],
    labels: FoldLabels,
    table: SpotTable,
    *,
    section: str,
    same_cohort: bool,
) -> FoldOpinions:
    """Predict a section with every fold system of a run, in the unit of ``labels``.

    Parameters
    ----------
    folds : sequence of FittedFold
    labels : FoldLabels
        Of the system on all spots: genes and unit of the result.
    table : SpotTable
        All spots of the section, in order.
    section : str
        Its name.
    same_cohort : bool
        Spots are those of the training, so the rows that folds hold out are rows of this section.
    """
    genes = labels.panel.gene_id
    total = np.full((len(folds), len(table), len(genes)), np.nan)
    heldout_NG = np.full((len(table), len(genes)), np.nan)
    for number, fitted in enumerate(folds):
        place = {gene: column for column, gene in enumerate(fitted.labels.panel.gene_id)}
        here = np.array([place.get(gene, -1) for gene in genes])
        found = here >= 0
        values = np.asarray(fitted.system.predict(table), np.float64)[:, here[found]]
        total[number][:, found] = as_labels_of(
            values, fitted.labels.recipe, here[found], labels.recipe, np.flatnonzero(found)
        )
        rows = fitted.fold.test.get(section)
        if same_cohort and rows is not None:
            heldout_NG[rows] = total[number][rows]
    systems_G = np.isfinite(total[:, 0]).sum(axis=0) if len(table) else np.zeros(len(genes), int)
    sd_NG = np.full(heldout_NG.shape, np.nan)
    several = systems_G > 1
    if several.any():
        sd_NG[:, several] = np.nanstd(total[:, :, several], axis=0, ddof=1)
    return FoldOpinions(sd_NG, systems_G.astype(np.int64), heldout_NG)


def as_labels_of(
    values_NG: Floats,
    source: FittedRecipe,
    source_G: NDArray[np.int64],
    target: FittedRecipe,
    target_G: NDArray[np.int64],
) -> Floats:
    """Return labels that one fold's recipe made as those of another fold of the same recipe.

    Folds may differ in what they took from their training spots: the sum that counts are scaled to,
    and the mean and deviation of genes.

    Parameters
    ----------
    values_NG : float64 array, shape (num_spots, num_genes)
    source, target : FittedRecipe
    source_G, target_G : int64 arrays, shape (num_genes,)
        Places of the genes in the panel of either.
    """
    values = values_NG
    if source.shift_G is not None and source.width_G is not None:
        values = values * source.width_G[source_G] + source.shift_G[source_G]
    if source.target != target.target:
        values = _rescaled(values, source, target.target / source.target)
    if target.shift_G is not None and target.width_G is not None:
        values = (values - target.shift_G[target_G]) / target.width_G[target_G]
    return values


def _rescaled(values_NG: Floats, source: FittedRecipe, factor: float) -> Floats:
    recipe = source.recipe
    if recipe.log is None:
        return values_NG * factor
    base = {"ln": np.e, "log10": 10.0, "log2": 2.0}[recipe.log]
    counts = np.maximum(base**values_NG - recipe.pseudocount, 0)
    scaled: Floats = np.log(counts * factor + recipe.pseudocount) / np.log(base)
    return scaled
