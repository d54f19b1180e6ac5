"""What a label is: from raw counts of a spot to the number a model is asked to predict.

With counts c of a spot, T their sum over all genes or over the panel (size factor), a target t and
a pseudocount p,

    y_g = log(c_g t / T + p)

and without a size factor y_g = log(c_g + p). Published systems differ in every part of it, and
errors under natural and decimal logarithm differ by (ln 10)^2 = 5.3, so every result names its
recipe. A spot without a single count of the size factor has label log(p) for all genes.

Axes: N spots, G genes of the panel, A all genes of a section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, InputError, facts

__all__ = [
    "RECIPES",
    "FittedRecipe",
    "LabelRecipe",
    "grid_mean",
    "named_recipe",
]

Counts: TypeAlias = Any
"""numpy array or scipy sparse matrix, shape (num_spots, num_all_genes)."""
Floats = NDArray[np.float64]
_LOGS = {"ln": np.log, "log10": np.log10, "log2": np.log2}


@dataclass(frozen=True)
class LabelRecipe:
    """How labels are made of counts."""

    size_factor: Literal["all_genes", "panel"] | None = "all_genes"
    """What a spot's counts are divided by: its sum over all genes, over the panel, or nothing."""
    target: float | Literal["median_train"] = 1e4
    """Sum after the division: a number, or the median sum of the training spots."""
    log: Literal["ln", "log10", "log2"] | None = "ln"
    """Logarithm."""
    pseudocount: float = 1.0
    """Added before the logarithm."""
    smooth_train: bool = False
    """Replace training labels by their mean over the 3 x 3 grid neighbours present."""
    smooth_eval: bool = False
    """Do so with the labels that predictions are judged by."""
    scale: Literal["zscore_train", "minmax_gene"] | None = None
    """Scale each gene by mean and deviation, or by minimum and range, of the training spots."""

    def __post_init__(self) -> None:
        if self.target != "median_train" and not float(self.target) > 0:
            raise ConfigError(
                facts("recipe.target", found=self.target, expected="> 0", fix="change it")
            )
        if not self.pseudocount > 0:
            raise ConfigError(
                facts("recipe.pseudocount", found=self.pseudocount, expected="> 0", fix="change it")
            )

    def fit(self, sections: Sequence[tuple[Counts, NDArray[np.int64]]]) -> FittedRecipe:
        """Return the recipe with what it takes from training sections.

        Parameters
        ----------
        sections : sequence of (counts, columns)
            Per section: counts, shape [N, A], and the columns of the panel in it, -1 where a gene
            of the panel is missing.
        """
        target = 1.0
        if self.target == "median_train":
            totals = [self._totals(counts, columns) for counts, columns in sections]
            target = float(np.median(np.concatenate(totals)))
        elif self.size_factor is not None:
            target = float(self.target)
        plain = FittedRecipe(self, target)
        if self.scale is None:
            return plain
        values_NG = np.concatenate([plain.labels(*section) for section in sections])
        if self.scale == "zscore_train":
            shift_G, width_G = np.nanmean(values_NG, axis=0), np.nanstd(values_NG, axis=0)
        else:
            shift_G = np.nanmin(values_NG, axis=0)
            width_G = np.nanmax(values_NG, axis=0) - shift_G
        # A constant gene has nothing to scale by.
        return dataclasses.replace(
            plain, shift_G=shift_G, width_G=np.where(width_G > 0, width_G, 1)
        )

    def _totals(self, counts_NA: Counts, columns_G: NDArray[np.int64]) -> Floats:
        if self.size_factor == "panel":
            counts_NA = counts_NA[:, columns_G[columns_G >= 0]]
        return np.asarray(counts_NA.sum(axis=1), dtype=np.float64).ravel()


@dataclass(frozen=True, eq=False)
class FittedRecipe:
    """A recipe and the numbers it took from training sections.

    Attributes
    ----------
    recipe : LabelRecipe
    target : float
        Sum after the division by the size factor; 1 without one.
    shift_G, width_G : float64 arrays, shape (num_genes,), or None
        Subtracted from, and dividing, the labels of each gene.
    """

    recipe: LabelRecipe
    target: float
    shift_G: Floats | None = None
    width_G: Floats | None = None

    def sizes(self, counts_NA: Counts, columns_G: NDArray[np.int64]) -> Floats:
        """Return what counts are divided by before the logarithm; 1 without a size factor.

        Parameters
        ----------
        counts_NA, columns_G
            As in :meth:`labels`.

        Returns
        -------
        float64 array, shape (num_spots,)
        """
        if self.recipe.size_factor is None:
            return np.ones(counts_NA.shape[0])
        total_N = self.recipe._totals(counts_NA, columns_G)
        # A spot without counts stays at zero counts.
        return np.where(total_N > 0, total_N, 1.0) / self.target

    def labels(
        self,
        counts_NA: Counts,
        columns_G: NDArray[np.int64],
        *,
        grid_N2: NDArray[np.int64] | None = None,
    ) -> Floats:
        """Return the labels of the spots of a section.

        Parameters
        ----------
        counts_NA : array or sparse matrix, shape (num_spots, num_all_genes)
        columns_G : int64 array, shape (num_genes,)
            Column of each gene of the panel, -1 where the section has not measured it.
        grid_N2 : int64 array, shape (num_spots, 2), optional
            Rows and columns of the spots on their grid: labels are then smoothed.

        Returns
        -------
        float64 array, shape (num_spots, num_genes)
            NaN in the columns of genes that were not measured.
        """
        recipe = self.recipe
        found = columns_G >= 0
        chosen = counts_NA[:, columns_G[found]]
        values = np.asarray(chosen.todense() if sparse.issparse(chosen) else chosen, np.float64)
        values = values / self.sizes(counts_NA, columns_G)[:, None]
        if recipe.log is not None:
            values = _LOGS[recipe.log](values + recipe.pseudocount)
        labels_NG = np.full((values.shape[0], columns_G.size), np.nan)
        labels_NG[:, found] = values
        if grid_N2 is not None:
            labels_NG = grid_mean(labels_NG, grid_N2)
        if self.shift_G is not None and self.width_G is not None:
            labels_NG = (labels_NG - self.shift_G) / self.width_G
        return labels_NG


def grid_mean(values_NG: Floats, grid_N2: NDArray[np.int64]) -> Floats:
    """Return the mean over the spots present among the 3 x 3 grid neighbours, self included.

    Parameters
    ----------
    values_NG : float array, shape (num_spots, num_genes)
    grid_N2 : int64 array, shape (num_spots, 2)
        Row and column; no two spots may share both.

    Raises
    ------
    InputError
        Two spots share a cell.
    """
    cells = {tuple(cell): spot for spot, cell in enumerate(grid_N2.tolist())}
    if len(cells) < len(grid_N2):
        raise InputError(
            facts(
                "grid of spots",
                found="spots in the same cell",
                expected="one spot per row and column",
                fix="drop the duplicates",
                count=len(grid_N2) - len(cells),
            )
        )
    first, second = [], []
    for spot, (row, column) in enumerate(grid_N2.tolist()):
        near = [cells.get((row + r, column + c)) for r in (-1, 0, 1) for c in (-1, 0, 1)]
        present = [neighbour for neighbour in near if neighbour is not None]
        first += [spot] * len(present)
        second += present
    size = len(grid_N2)
    links = sparse.csr_matrix((np.ones(len(first)), (first, second)), shape=(size, size))
    mean: Floats = (links @ values_NG) / np.asarray(links.sum(axis=1))
    return mean


RECIPES = {
    "default": LabelRecipe(),
    "her2_785": LabelRecipe("panel", 1e4, "log10"),
    "triplex_paper": LabelRecipe("panel", 1e4, "log10", smooth_train=True, smooth_eval=True),
    "triplex_new": LabelRecipe("panel", 1e4, "ln", smooth_train=True, smooth_eval=True),
    "agl_code": LabelRecipe(None, 1e4, "ln"),
    "stem": LabelRecipe(None, 1e4, "log2"),
    "hescape_mlp": LabelRecipe("panel", "median_train", "ln"),
}
"""Recipes of published systems by name: HisToGene and successors (her2_785), TRIPLEX as published
and as refactored, the code of AGL, Stem, and the plain gene encoder of HESCAPE (which takes the
median of the mini-batch in place of that of the training spots)."""


def named_recipe(name: str) -> LabelRecipe:
    """Return a recipe of :data:`RECIPES`.

    Raises
    ------
    ConfigError
        No such recipe.
    """
    require_known("recipe", name, list(RECIPES), expected="a named recipe")
    return RECIPES[name]
