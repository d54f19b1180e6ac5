"""The spots of some sections as arrays: what systems are fitted on and judged by.

Axes: N spots of all sections together or of one, G genes of the panel, D features, T places of a
patch, K tiles around a spot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.spatial.batch import SpotBatch
from seq2exp.spatial.cohort import Section, SpatialCohort
from seq2exp.spatial.features import PatchFeatures
from seq2exp.spatial.folds import Fold, Spots
from seq2exp.spatial.images.compute import resized
from seq2exp.spatial.panels import GenePanel, PanelConfig, fit_panel
from seq2exp.spatial.recipes import FittedRecipe, LabelRecipe

__all__ = [
    "FeatureScale",
    "FoldLabels",
    "SectionPatches",
    "SpotTable",
    "fit_labels",
    "require_counts",
    "shuffled_patches",
    "spot_table",
]

Floats = NDArray[np.float32]
_LARGEST = 5.0


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
class FeatureScale:
    """Mean and deviation of the features of training spots; what is scaled is cut at 5.

    Attributes
    ----------
    mean_D, scale_D : float32 arrays, shape (num_features,)
    """

    mean_D: Floats
    scale_D: Floats

    @classmethod
    def of(cls, feat_ND: Floats | None) -> FeatureScale | None:
        """Return the scale of features; None where there are none."""
        if feat_ND is None:
            return None
        spread = feat_ND.std(axis=0)
        return cls(feat_ND.mean(axis=0), np.where(spread > 1e-9, spread, np.inf))

    def apply(self, feat_ND: NDArray[np.floating]) -> Floats:
        """Return scaled features, shape (..., num_features)."""
        return ((feat_ND - self.mean_D) / self.scale_D).clip(-_LARGEST, _LARGEST).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SectionPatches:
    """What is known of the patches of a whole section; None where nobody asked.

    Attributes
    ----------
    pixels_NHW3 : uint8 array, shape (num_spots, px, px, 3)
    grid_N2 : int64 array, shape (num_spots, 2)
    feat_ND : float array, shape (num_spots, num_features)
    tokens_NTD : float array, shape (num_spots, places, token_dim)
    nbr_NKD, nbr_mask_NK : float and bool arrays
        Shapes (num_spots, 25, num_features) and (num_spots, 25).
    """

    pixels_NHW3: NDArray[np.uint8]
    grid_N2: NDArray[np.int64]
    feat_ND: NDArray[np.floating] | None = None
    tokens_NTD: NDArray[np.floating] | None = None
    nbr_NKD: NDArray[np.floating] | None = None
    nbr_mask_NK: NDArray[np.bool_] | None = None


def require_counts(cohort: SpatialCohort) -> None:
    """Refuse sections that are images without counts: nothing can be learned from or judged on.

    Raises
    ------
    InputError
    """
    bare = [info.name for info in cohort.manifest.sections if info.num_genes == 0]
    if bare:
        raise InputError(
            facts(
                f"cohort {cohort.root}",
                found="sections without counts",
                expected="genes that were measured, to train on and to judge by",
                fix="prepare them with their counts; `seq2exp spatial predict` takes them as is",
                count=len(bare),
                examples=bare[:3],
            )
        )


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
        As they are, not scaled.
    patches : mapping of int to SectionPatches
        By number of the section.
    scale : FeatureScale or None
        What features go through in :meth:`batch`.
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
    patches: Mapping[int, SectionPatches]
    feat_ND: Floats | None = None
    scale: FeatureScale | None = None

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
        both: dict[str, Any] = {"patches": {**self.patches, **other.patches}}
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

    def batches(self, size: int, *, needs: frozenset[str] = frozenset()) -> Iterator[SpotBatch]:
        """Yield all spots in their order, at most ``size`` at a time."""
        for first in range(0, len(self), size):
            places = np.arange(first, min(first + size, len(self)))
            yield self.batch(places, needs=needs)

    def batch(self, places: NDArray[np.int64], *, needs: frozenset[str] = frozenset()) -> SpotBatch:
        """Return some spots as tensors.

        Parameters
        ----------
        places : int64 array
        needs : set of str
            Fields that are made only where they are named: img, tokens, nbr, sections.
        """

        def tensor(values: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[places]))

        rows = [
            (self.patches[section], row)
            for section, row in zip(
                self.section_N[places].tolist(), self.patch_N[places].tolist(), strict=True
            )
        ]
        found: dict[str, Any] = {}
        if "img" in needs:
            pixels = np.stack([patches.pixels_NHW3[row] for patches, row in rows])
            found["img"] = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        if "tokens" in needs:
            found["tokens"] = _stacked([(part.tokens_NTD, row) for part, row in rows])
        if "nbr" in needs:
            found["nbr"] = self._scaled(_stacked([(part.nbr_NKD, row) for part, row in rows]))
            found["nbr_mask"] = _stacked([(part.nbr_mask_NK, row) for part, row in rows])
        if "sections" in needs:
            numbers = np.unique(self.section_N[places]).tolist()
            found["sections"] = {number: self.whole_sections[number] for number in numbers}
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
            feat=None if self.feat_ND is None else self._scaled(tensor(self.feat_ND)),
            **found,
        )

    @cached_property
    def whole_sections(self) -> Mapping[int, tuple[torch.Tensor, torch.Tensor]]:
        """Features and places of all spots of the sections that occur, by number.

        Also of spots that are not in the table, which may be held out: their patches are seen, not
        their labels. Where patches were exchanged, those of the table's spots are.
        """
        found = {}
        for number in np.unique(self.section_N).tolist():
            part = self.patches[number]
            if part.feat_ND is None:
                continue
            here = self.section_N == number
            order = np.arange(len(part.feat_ND))
            order[self.row_N[here]] = self.patch_N[here]
            feat_ND = part.feat_ND[order].astype(np.float32)
            scaled = feat_ND if self.scale is None else self.scale.apply(feat_ND)
            found[number] = (torch.from_numpy(scaled), torch.from_numpy(part.grid_N2))
        return found

    def _scaled(self, feat: torch.Tensor | None) -> torch.Tensor | None:
        if feat is None or self.scale is None:
            return feat
        return torch.from_numpy(self.scale.apply(feat.numpy()))


def _stacked(rows: list[tuple[NDArray[Any] | None, int]]) -> torch.Tensor | None:
    if any(values is None for values, _ in rows):
        return None
    stack = np.stack([values[row] for values, row in rows if values is not None])
    return torch.from_numpy(stack if stack.dtype == bool else stack.astype(np.float32))


def spot_table(
    cohort: SpatialCohort,
    spots: Spots,
    labels: FoldLabels,
    *,
    training: bool,
    features: PatchFeatures | None = None,
    needs: frozenset[str] = frozenset({"feat"}),
    px: int = 0,
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
    features : PatchFeatures, optional
    needs : set of str
        What of the patches is read: img, feat, tokens, nbr, sections.
    px : int
        Side that pictures are brought to; 0 leaves them, on disk, as they are.

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
    patches = {
        cohort.names.index(name): _patches_of(cohort.section(name), features, needs, px)
        for name in chosen
    }
    parts = []
    for name, rows in chosen.items():
        section = cohort.section(name)
        number = cohort.names.index(name)
        person = patients.index(section.patient)
        feat = patches[number].feat_ND
        parts.append(_part(section, rows, labels, training, feat, number, person))
    joined: dict[str, Any] = {
        key: np.concatenate([part[key] for part in parts])
        for key, value in parts[0].items()
        if value is not None
    }
    return SpotTable(cohort.names, patients, patches=patches, **joined)


def _patches_of(
    section: Section, features: PatchFeatures | None, needs: frozenset[str], px: int
) -> SectionPatches:
    found: dict[str, Any] = {}
    if features is not None and needs & {"feat", "sections"}:
        found["feat_ND"] = features.feat(section.name)
    if features is not None and "tokens" in needs:
        found["tokens_NTD"] = features.tokens(section.name)
    if features is not None and "nbr" in needs:
        found["nbr_NKD"], found["nbr_mask_NK"] = features.nbr(section.name)
    for values in found.values():
        _require_rows(section, len(values))
    pixels = resized(section.whole_patches, px) if "img" in needs else section.patches
    return SectionPatches(pixels, section.grid_N2, **found)


def _require_rows(section: Section, num_rows: int) -> None:
    if num_rows != len(section):
        raise InputError(
            facts(
                f"features of section {section.name}",
                found=f"{num_rows} rows",
                expected=f"{len(section)}, one per spot",
                fix="compute the features of this cohort again",
            )
        )


def _part(
    section: Section,
    rows: NDArray[np.int64],
    labels: FoldLabels,
    training: bool,  # noqa: FBT001
    features: NDArray[np.floating] | None,
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
