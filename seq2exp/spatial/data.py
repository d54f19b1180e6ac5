"""The spots of some sections as arrays: what systems are fitted on and judged by.

Axes: N spots of all sections together, G genes of the panel, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.spatial.batch import SpotBatch
from seq2exp.spatial.cohort import Section, SpatialCohort
from seq2exp.spatial.folds import Fold, Spots
from seq2exp.spatial.panels import GenePanel, PanelConfig, fit_panel
from seq2exp.spatial.recipes import FittedRecipe, LabelRecipe

__all__ = ["FoldLabels", "SpotTable", "fit_labels", "shuffled_patches", "spot_table"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FoldLabels:
    """What the fitting part of a fold decides about labels.

    Attributes
    ----------
    panel : GenePanel
    recipe : FittedRecipe
    """

    panel: GenePanel
    recipe: FittedRecipe


def fit_labels(
    cohort: SpatialCohort, fold: Fold, *, panel: PanelConfig, recipe: LabelRecipe
) -> FoldLabels:
    """Choose genes and fit the recipe on the training and validation spots of a fold."""
    parts = [(cohort.section(name), rows) for name, rows in fold.fitting.items() if rows.size]
    genes = fit_panel(panel, [(section.counts_NA[rows], section.var) for section, rows in parts])
    fitted = recipe.fit(
        [(section.counts_NA[rows], genes.columns(section.var)) for section, rows in parts]
    )
    return FoldLabels(genes, fitted)


@dataclass(frozen=True, eq=False)
class SpotTable:
    """Spots of some sections.

    Attributes
    ----------
    sections : list of str
        Names; ``section_N`` numbers them.
    patients : list of str
        Names; ``patient_N`` numbers them.
    section_N, patient_N, row_N : int64 arrays, shape (num_spots,)
        Section, patient, and row in the section.
    grid_N2 : int64 array, shape (num_spots, 2)
    um_N2 : float32 array, shape (num_spots, 2)
    total_N : float32 array, shape (num_spots,)
    y_NG : float32 array, shape (num_spots, num_genes)
        Labels; NaN where a gene was not measured.
    counts_NG : float32 array, shape (num_spots, num_genes)
    size_N : float32 array, shape (num_spots,)
        What the recipe divides counts by.
    patch_N : int64 array, shape (num_spots,)
        Row of the patch in its section: that of the spot, unless patches were exchanged.
    feat_ND : float32 array, shape (num_spots, num_features), or None
    patches : mapping of int to uint8 array, shape (spots of the section, px, px, 3), or None
        Patches by number of the section.
    """

    sections: list[str]
    patients: list[str]
    section_N: NDArray[np.int64]
    patient_N: NDArray[np.int64]
    row_N: NDArray[np.int64]
    grid_N2: NDArray[np.int64]
    um_N2: Floats
    total_N: Floats
    y_NG: Floats
    counts_NG: Floats
    size_N: Floats
    patch_N: NDArray[np.int64]
    feat_ND: Floats | None = None
    patches: Mapping[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.section_N)

    def by_section(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the name of every section and the places of its spots."""
        for number, name in enumerate(self.sections):
            places = np.flatnonzero(self.section_N == number)
            if places.size:
                yield name, places

    def joined(self, other: SpotTable) -> SpotTable:
        """Return the spots of both, these first."""
        both: dict[str, Any] = {
            "patches": None
            if self.patches is None or other.patches is None
            else {**self.patches, **other.patches},
        }
        both |= {
            part.name: np.concatenate([getattr(self, part.name), getattr(other, part.name)])
            for part in fields(self)
            if isinstance(getattr(self, part.name), np.ndarray)
        }
        return replace(self, **both)

    def take(self, places: NDArray[np.int64]) -> SpotTable:
        """Return some of the spots, in the order given."""
        chosen: dict[str, Any] = {
            part.name: getattr(self, part.name)[places]
            for part in fields(self)
            if isinstance(getattr(self, part.name), np.ndarray)
        }
        return replace(self, **chosen)

    def batch(self, places: NDArray[np.int64], *, needs: frozenset[str] = frozenset()) -> SpotBatch:
        """Return some spots as tensors; pictures only where ``needs`` holds ``img``."""

        def tensor(values: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[places]))

        return SpotBatch(
            section=tensor(self.section_N),
            patient=tensor(self.patient_N),
            spot=tensor(self.row_N),
            grid=tensor(self.grid_N2),
            xy_um=tensor(self.um_N2),
            total=tensor(self.total_N),
            y=tensor(self.y_NG),
            gene_mask=tensor(np.isfinite(self.y_NG)),
            counts=tensor(self.counts_NG),
            size_factor=tensor(self.size_N),
            feat=None if self.feat_ND is None else tensor(self.feat_ND),
            img=self._pictures(places) if "img" in needs else None,
        )

    def _pictures(self, places: NDArray[np.int64]) -> torch.Tensor | None:
        if self.patches is None:
            return None
        pairs = zip(self.section_N[places].tolist(), self.patch_N[places].tolist(), strict=True)
        stack = np.stack([self.patches[section][row] for section, row in pairs])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


def spot_table(
    cohort: SpatialCohort,
    spots: Spots,
    labels: FoldLabels,
    *,
    training: bool,
    features: Mapping[str, Floats] | None = None,
) -> SpotTable:
    """Return the spots of a part of a fold.

    Parameters
    ----------
    cohort : SpatialCohort
    spots : mapping of str to int64 array
        Rows by section.
    labels : FoldLabels
    training : bool
        Labels as the recipe makes them for training, or for evaluation.
    features : mapping of str to float32 array, optional
        Features of all spots by section.

    Raises
    ------
    InputError
        No spot, or features of another number of spots.
    """
    chosen = {name: rows for name, rows in spots.items() if rows.size}
    if not chosen:
        raise InputError(
            facts("spots", found="none", expected="at least one", fix="check the folds", count=0)
        )
    patients = list(dict.fromkeys(cohort.patients.values()))
    parts = []
    for name, rows in chosen.items():
        section = cohort.section(name)
        values = None if features is None else _features_of(section, features)
        number = cohort.names.index(name)
        person = patients.index(section.patient)
        parts.append(_part(section, rows, labels, training, values, number, person))
    joined = {
        key: np.concatenate([part[key] for part in parts])
        for key, value in parts[0].items()
        if value is not None
    }
    patches = {cohort.names.index(name): cohort.section(name).patches for name in chosen}
    return SpotTable(cohort.names, patients, patches=patches, **joined)


def _features_of(section: Section, features: Mapping[str, Floats]) -> Floats:
    values = features[section.name]
    if len(values) != len(section):
        raise InputError(
            facts(
                f"features of section {section.name}",
                found=f"{len(values)} rows",
                expected=f"{len(section)}, one per spot",
                fix="compute the features of this cohort again",
            )
        )
    return values


def _part(
    section: Section,
    rows: NDArray[np.int64],
    labels: FoldLabels,
    training: bool,  # noqa: FBT001
    features: Floats | None,
    number: int,
    person: int,
) -> dict[str, NDArray[np.generic] | None]:
    columns = labels.panel.columns(section.var)
    y_NG = section.labels(labels.recipe, labels.panel, training=training)[rows]
    counts_NG = np.zeros((rows.size, len(labels.panel)), dtype=np.float32)
    found = columns >= 0
    counts_NG[:, found] = section.counts_NA[rows][:, columns[found]].toarray()
    return {
        "section_N": np.full(rows.size, number),
        "patient_N": np.full(rows.size, person),
        "row_N": rows.astype(np.int64),
        "grid_N2": section.grid_N2[rows],
        "um_N2": section.um_N2[rows].astype(np.float32),
        "total_N": section.total_N[rows].astype(np.float32),
        "y_NG": y_NG.astype(np.float32),
        "counts_NG": counts_NG,
        "patch_N": rows.astype(np.int64),
        "size_N": labels.recipe.sizes(section.counts_NA[rows], columns).astype(np.float32),
        "feat_ND": None if features is None else features[rows].astype(np.float32),
    }


def shuffled_patches(table: SpotTable, *, seed: int = 0) -> SpotTable:
    """Return the spots with their patches exchanged within sections: a control.

    Positions, depth and labels stay; features move together.
    """
    order = np.arange(len(table))
    random = np.random.default_rng(seed)
    for _, places in table.by_section():
        order[places] = random.permutation(places)
    feat_ND = None if table.feat_ND is None else table.feat_ND[order]
    return replace(table, patch_N=table.patch_N[order], feat_ND=feat_ND)
