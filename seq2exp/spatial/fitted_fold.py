"""A fold and what was fitted on it, and their files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from seq2exp.core.config import bind, to_dict
from seq2exp.core.files import read_json, write_json
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.data import FoldLabels, SpotTable, spot_table
from seq2exp.spatial.features import PatchFeatures, configured_encoder
from seq2exp.spatial.fitting import FittedSystem, MakeEncoder
from seq2exp.spatial.folds import Fold, Spots
from seq2exp.spatial.panels import GenePanel
from seq2exp.spatial.recipes import FittedRecipe, LabelRecipe
from seq2exp.spatial.run_folder import require_intact
from seq2exp.spatial.system_files import load_system, save_system

__all__ = ["FittedFold", "encoder_maker", "load_fold", "save_fold"]


@dataclass(frozen=True, eq=False)
class FittedFold:
    """A fold and what was fitted on it."""

    fold: Fold
    labels: FoldLabels
    system: FittedSystem
    picture_px: int = 0

    def table(
        self,
        cohort: SpatialCohort,
        spots: Spots,
        *,
        features: PatchFeatures | None,
        training: bool = False,
    ) -> SpotTable:
        """Return spots as the system reads them.

        Parameters
        ----------
        cohort : SpatialCohort
        spots : mapping of str to int64 array
            Rows by section.
        features : PatchFeatures or None
        training : bool
            Labels as the recipe makes them for training, or for evaluation.
        """
        return spot_table(
            cohort,
            spots,
            self.labels,
            training=training,
            features=features,
            needs=self.system.needs,
            px=self.picture_px,
        )


def encoder_maker(config: SpatialConfig, *, loaded: bool = False) -> MakeEncoder | None:
    """Return what makes the encoder that is trained with the system, or None where none is.

    Parameters
    ----------
    config : SpatialConfig
    loaded : bool
        Its weights will be those of the run; the file that started it may be gone.
    """
    start = config.trained_encoder
    if start is None:
        return None
    if loaded:
        start = dataclasses.replace(start, weights="")
    return partial(configured_encoder, start, freeze=False)


def save_fold(fitted: FittedFold, folder: Path) -> None:
    """Write ``fold.json``, ``labels.json`` and the system into a folder that exists."""
    fold, labels = fitted.fold, fitted.labels
    parts = {"train": fold.train, "valid": fold.valid, "test": fold.test}
    rows = {
        name: {section: places.tolist() for section, places in spots.items()}
        for name, spots in parts.items()
    }
    write_json({"name": fold.name, "leaky": fold.leaky, **rows}, folder / "fold.json")
    recipe = labels.recipe
    write_json(
        {
            "panel": labels.panel.to_dict(),
            "recipe": to_dict(recipe.recipe),
            "target": recipe.target,
            "shift": None if recipe.shift_G is None else recipe.shift_G.tolist(),
            "width": None if recipe.width_G is None else recipe.width_G.tolist(),
        },
        folder / "labels.json",
    )
    save_system(fitted.system, folder, genes=labels.panel.gene_id)


def load_fold(folder: Path, config: SpatialConfig) -> FittedFold:
    """Return what :func:`save_fold` wrote.

    Raises
    ------
    FormatError
        A file is missing, damaged, or of another system or panel.
    """
    require_intact(folder)
    about, kept = read_json(folder / "fold.json"), read_json(folder / "labels.json")
    spots = {
        part: {name: np.asarray(rows, np.int64) for name, rows in about[part].items()}
        for part in ("train", "valid", "test")
    }
    fold = Fold(about["name"], **spots, leaky=bool(about["leaky"]))
    scale = [None if kept[key] is None else np.asarray(kept[key]) for key in ("shift", "width")]
    recipe = FittedRecipe(
        bind(LabelRecipe, kept["recipe"], where=str(folder / "labels.json")),
        float(kept["target"]),
        *scale,
    )
    labels = FoldLabels(GenePanel.from_dict(kept["panel"]), recipe)
    return FittedFold(
        fold,
        labels,
        load_system(
            config.system,
            folder,
            panel=labels.panel,
            encoder=encoder_maker(config, loaded=True),
            device=config.fit.device,
        ),
        config.picture_px,
    )
