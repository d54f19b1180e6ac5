"""A spatial run: every fold of a protocol fitted, and one system on all spots for new tissue.

::

    RUN/config.yaml                 the resolved configuration
    RUN/manifest.json               versions, cohort, checksums, state
    RUN/folds/<name>/fold.json      rows of the spots by section, whether it leaks
    RUN/folds/<name>/labels.json    panel and fitted recipe
    RUN/folds/<name>/cost.json      seconds of the fit (from its last start) and peak memory
    RUN/folds/<name>/model.safetensors
    RUN/folds/<name>/genes.tsv      accuracy per held-out section and gene
    RUN/folds/<name>/checksums.json  SHA-256 of these files; compared when they are read
    RUN/final/                      the same, fitted on every spot
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import seq2exp
from seq2exp.core.config import load_config
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_directory, file_lock, read_json, safe_name, sha256, write_json
from seq2exp.core.measure import Cost, measured
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import Protocol, SpatialConfig
from seq2exp.spatial.data import FoldLabels, fit_labels, require_counts, spot_table
from seq2exp.spatial.evaluation import FoldResult, judge_fold
from seq2exp.spatial.features import PatchFeatures
from seq2exp.spatial.fitted_fold import FittedFold, encoder_maker, load_fold, save_fold
from seq2exp.spatial.fitting import fit_system, system_needs
from seq2exp.spatial.folds import (
    Fold,
    inner_validation,
    make_folds,
    require_no_overlap,
)
from seq2exp.spatial.format import PatchInfo, manifest_path, read_manifest
from seq2exp.spatial.heldout import write_heldout
from seq2exp.spatial.run_folder import (
    claim_run_folder,
    read_run_manifest,
    refuse_foreign,
    undone_if_empty,
    write_checksums,
)
from seq2exp.spatial.systems.registry import require_trainable, system_config

__all__ = [
    "SpatialRun",
    "evaluate_run",
    "fold_labels",
    "open_spatial_run",
    "train_run",
]

logger = logging.getLogger(__name__)
_FINAL = "final"


@dataclass(frozen=True, eq=False)
class SpatialRun:
    """A finished run.

    Attributes
    ----------
    folder : Path
    config : SpatialConfig
    manifest : dict
    """

    folder: Path
    config: SpatialConfig
    manifest: dict[str, Any]

    @property
    def fold_names(self) -> list[str]:
        """Names of the folds, in their order."""
        return list(self.manifest["folds"])

    def place(self, name: str) -> Path:
        """Return the folder of a fold, or of ``final``."""
        return self.folder / (_FINAL if name == _FINAL else f"folds/{safe_name(name)}")

    @property
    def patch(self) -> PatchInfo | None:
        """How the patches of the training were cut; None where an old run's cohort is gone."""
        if "patch" in self.manifest:
            return PatchInfo(**self.manifest["patch"])
        cohort = Path(self.manifest["cohort"])
        return read_manifest(cohort).patch if manifest_path(cohort).is_file() else None

    def require_patches(self, patch: PatchInfo, *, what: str) -> None:
        """Refuse patches that show another size of tissue than those of the training, or colours.

        Raises
        ------
        InputError
        """
        known = self.patch
        if known is None or (
            patch.px == known.px
            and patch.stain == known.stain
            and abs(patch.um - known.um) <= 0.01 * known.um
        ):
            return
        raise InputError(
            facts(
                what,
                found=f"patches of {patch.um:g} um in {patch.px} px, stain {patch.stain}",
                expected=f"{known.um:g} um in {known.px} px, stain {known.stain}, as in training",
                fix="prepare it with the patch settings of the training cohort",
            )
        )

    def fold(self, name: str) -> FittedFold:
        """Return a fitted fold, or ``final``."""
        return load_fold(self.place(name), self.config)

    def costs(self) -> dict[str, Cost]:
        """Return what the fit of every fold, and of ``final``, took."""
        names = [*self.fold_names, _FINAL]
        return {name: Cost(**read_json(self.place(name) / "cost.json")) for name in names}


def train_run(
    config: SpatialConfig,
    data: Path,
    out: Path,
    *,
    features: PatchFeatures | None,
    progress: bool = True,
) -> SpatialRun:
    """Fit every fold and the final system; folds that stand are kept.

    Parameters
    ----------
    config : SpatialConfig
    data : Path
        Cohort folder.
    out : Path
        Run folder; a folder of another configuration or cohort is refused.
    features : PatchFeatures or None
    progress : bool

    Raises
    ------
    InputError, ConfigError, FormatError
        What cannot be used, and why.
    """
    cohort, out = SpatialCohort(data), Path(out)
    require_counts(cohort)
    system_config(config.system)
    if config.trained_encoder is not None:
        require_trainable(config.system)
    refuse_foreign(out)
    folds = make_folds(cohort, config.folds)
    everything = {info.name: np.arange(info.num_spots) for info in cohort.manifest.sections}
    last = Fold(_FINAL, *inner_validation(cohort, everything, seed=config.folds.seed), {})
    manifest = _manifest(cohort, folds)
    run = SpatialRun(out, config, manifest)
    missing = [fold for fold in [*folds, last] if not run.place(fold.name).exists()]
    # Genes are chosen for all folds before the first is fitted, and before anything is written.
    all_labels = fold_labels(config, cohort, missing)
    with undone_if_empty(out), file_lock(out / ".lock", what=f"run {out}"):
        claim_run_folder(config, manifest, out)
        for fold, labels in zip(missing, all_labels, strict=True):
            if progress:
                logger.info("fold %s", fold.name)
            checkpoint = out / f".{safe_name(fold.name)}.checkpoint.pt"
            fitted, cost = _fit(config, cohort, fold, labels, features, checkpoint)
            with atomic_directory(run.place(fold.name)) as partial:
                save_fold(fitted, partial)
                write_json(dataclasses.asdict(cost), partial / "cost.json")
                if fold.test:
                    _save_accuracy(fitted, cohort, features, partial)
                write_checksums(partial)
            for each in out.glob(f"{checkpoint.name}-*"):
                each.unlink()
        manifest["state"] = "finished"
        write_json(manifest, out / "manifest.json")
    return run


def fold_labels(config: Protocol, cohort: SpatialCohort, folds: Sequence[Fold]) -> list[FoldLabels]:
    """Return genes and recipe of every fold, in the order of the folds.

    Raises
    ------
    InputError, ConfigError
        A panel that the fitting spots of a fold cannot give.
    """
    return [
        fit_labels(cohort, fold, panel=config.panel, recipe=config.label_recipe) for fold in folds
    ]


def _fit(
    config: SpatialConfig,
    cohort: SpatialCohort,
    fold: Fold,
    labels: FoldLabels,
    features: PatchFeatures | None,
    checkpoint: Path,
) -> tuple[FittedFold, Cost]:
    require_no_overlap(fold, cohort.patients)
    info = _info(cohort, features, num_genes=len(labels.panel))
    encoder = encoder_maker(config)
    needs = system_needs(config.system, info, encoder=encoder)
    train, valid = (
        spot_table(
            cohort,
            spots,
            labels,
            training=True,
            features=features,
            needs=needs,
            px=config.picture_px,
        )
        for spots in (fold.train, fold.valid)
    )
    with measured() as cost:
        system = fit_system(
            config.system,
            train,
            valid,
            config.fit,
            info=info,
            encoder=encoder,
            checkpoint=checkpoint,
        )
    return FittedFold(fold, labels, system, config.picture_px), cost


def _info(cohort: SpatialCohort, features: PatchFeatures | None, *, num_genes: int) -> SystemInfo:
    rows, cols = np.max([part.grid_N2.max(axis=0) + 1 for part in cohort.sections()], axis=0)
    return SystemInfo(
        num_genes=num_genes,
        feat_dim=0 if features is None else features.dim,
        token_dim=0 if features is None else features.token_dim,
        patch_px=cohort.manifest.patch.px,
        grid_rows=int(rows),
        grid_cols=int(cols),
    )


def _manifest(cohort: SpatialCohort, folds: list[Fold]) -> dict[str, Any]:
    return {
        "state": "running",
        "version": seq2exp.__version__,
        "cohort": str(cohort.root),
        "cohort_sha256": sha256(manifest_path(cohort.root)),
        "patch": dataclasses.asdict(cohort.manifest.patch),
        "folds": [fold.name for fold in folds],
        "leaky": any(fold.leaky for fold in folds),
    }


def _save_accuracy(
    fitted: FittedFold, cohort: SpatialCohort, features: PatchFeatures | None, folder: Path
) -> None:
    """Judge a fold on what it held out, gene by gene."""
    fold, genes = fitted.fold, fitted.labels.panel.gene_id
    test = fitted.table(cohort, fold.test, features=features)
    write_heldout(fitted.system.predict, test, genes=genes, fold=fold.name, folder=folder)


def open_spatial_run(folder: Path) -> SpatialRun:
    """Open a finished run.

    Raises
    ------
    InputError
        There is no run, or it is not finished.
    FormatError
        Its manifest is damaged.
    """
    folder = Path(folder)
    manifest = read_run_manifest(folder)
    return SpatialRun(folder, load_config(SpatialConfig, [folder / "config.yaml"]), manifest)


def evaluate_run(
    run: SpatialRun, *, features: PatchFeatures | None, data: Path | None = None
) -> list[FoldResult]:
    """Judge every fold of a run on its held-out spots.

    Parameters
    ----------
    run : SpatialRun
    features : PatchFeatures or None
    data : Path, optional
        The cohort, where it is not at the recorded place.

    Raises
    ------
    ConfigError
        The cohort is not the one of the training.
    """
    cohort = SpatialCohort(data or Path(run.manifest["cohort"]))
    require_counts(cohort)
    if sha256(manifest_path(cohort.root)) != run.manifest["cohort_sha256"]:
        raise ConfigError(
            facts(
                f"cohort {cohort.root}",
                found="another cohort than that of the training",
                expected="the same: folds name spots by their row",
                fix="give that cohort, or train again",
            )
        )
    results = []
    for name in run.fold_names:
        fitted = run.fold(name)
        tables = [
            fitted.table(cohort, spots, features=features, training=training)
            for spots, training in ((fitted.fold.fitting, True), (fitted.fold.test, False))
        ]
        results.append(
            judge_fold(
                fitted.system.predict,
                fitting=tables[0],
                test=tables[1],
                genes=fitted.labels.panel.gene_id,
                name=name,
                leaky=fitted.fold.leaky,
                controls=fitted.system.controls,
            )
        )
    return results
