"""Predict the expression of a cohort with the system of a run that was fitted on every spot.

One AnnData per section; :mod:`seq2exp.spatial.prediction_file` says what is in it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.files import atomic_directory, safe_name, sha256
from seq2exp.spatial.cohort import Section, SpatialCohort
from seq2exp.spatial.data import SpotTable
from seq2exp.spatial.features import PatchFeatures
from seq2exp.spatial.fitted_fold import FittedFold
from seq2exp.spatial.format import manifest_path
from seq2exp.spatial.heldout import heldout_genes, read_heldout
from seq2exp.spatial.prediction_file import AnnData, label_unit, section_anndata
from seq2exp.spatial.run import SpatialRun
from seq2exp.spatial.uncertainty import fold_opinions, retrieval_sd

__all__ = ["predict_cohort"]

logger = logging.getLogger(__name__)


def predict_cohort(
    run: SpatialRun,
    cohort: SpatialCohort,
    out: Path,
    *,
    features: PatchFeatures,
    folds: bool = True,
    overwrite: bool = False,
) -> list[Path]:
    """Write one AnnData per section; the folder appears whole or not at all.

    Parameters
    ----------
    run : SpatialRun
    cohort : SpatialCohort
        Any cohort whose patches show as much tissue as those of the training.
    out : Path
        Folder to write.
    features : PatchFeatures
    folds : bool
        Predict with the system of every fold too, for ``fold_sd`` and ``heldout``: as many
        predictions more as the run has folds.
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    list of Path
    """
    fitted = run.fold("final")
    others = [run.fold(name) for name in run.fold_names] if folds else []
    genes = _gene_table(run, fitted)
    paths = []
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        for section in cohort.sections():
            name = f"{safe_name(section.name)}.h5ad"
            spots = {section.name: np.arange(len(section))}
            table = fitted.table(cohort, spots, features=features)
            predicted_NG = fitted.system.predict(table)
            _require_finite(predicted_NG, section.name)
            data = section_anndata(
                section,
                predicted_NG,
                observed=table.y_NG,
                var=genes.copy(),
                about=_about(run, fitted),
            )
            _add_spread(data, run, fitted, others, table, section, cohort)
            data.write_h5ad(partial / name, compression="gzip")
            paths.append(Path(out) / name)
    return paths


def _require_finite(predicted_NG: NDArray[np.floating], section: str) -> None:
    wrong = int((~np.isfinite(predicted_NG)).sum())
    if wrong:
        raise InputError(
            facts(
                f"section {section}",
                found="predictions that are no number",
                expected="finite values",
                fix="look at the training: a weight or an input was not finite",
                count=wrong,
            )
        )


def _gene_table(run: SpatialRun, fitted: FittedFold) -> pd.DataFrame:
    """Return genes by symbol with what was held out said of them."""
    panel = fitted.labels.panel
    rows = read_heldout(run.folder, run.fold_names)
    if rows is None:
        logger.warning(
            "run %s has no accuracy of genes (genes.tsv of its folds): heldout_pearson and others "
            "are NaN; train again to have them",
            run.folder,
        )
    found = heldout_genes(rows, panel.gene_id)
    found.insert(0, "gene_id", panel.gene_id)
    return found.set_axis(pd.Index(panel.symbol), axis=0)


def _about(run: SpatialRun, fitted: FittedFold) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "system": str(run.config.system["name"]),
        "recipe": run.config.recipe,
        "unit": label_unit(run.config.label_recipe),
        "panel": fitted.labels.panel.rule,
        "encoder": run.config.encoder.name,
        "trained_on": list(fitted.fold.fitting),
        "heldout_by": run.config.folds.kind,
        "heldout_leaky": bool(run.manifest["leaky"]),
    }


def _add_spread(
    data: AnnData,
    run: SpatialRun,
    fitted: FittedFold,
    folds: list[FittedFold],
    table: SpotTable,
    section: Section,
    cohort: SpatialCohort,
) -> None:
    """Add the layers that say how far predictions of a spot lie apart."""
    sd_NG = retrieval_sd(fitted.system, table)
    if sd_NG is not None:
        data.layers["sd"] = sd_NG.astype(np.float32)
    if not folds:
        return
    same = sha256(manifest_path(cohort.root)) == run.manifest["cohort_sha256"]
    found = fold_opinions(folds, fitted.labels, table, section=section.name, same_cohort=same)
    data.layers["fold_sd"] = found.sd_NG.astype(np.float32)
    data.var["fold_systems"] = found.systems_G
    if same:
        data.layers["heldout"] = found.heldout_NG.astype(np.float32)
