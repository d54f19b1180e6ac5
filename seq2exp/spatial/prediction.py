"""Predict the expression of a cohort with the system of a run that was fitted on every spot.

::

    OUT/<section>.h5ad   X predicted labels [spots, genes of the panel]; obs, obsm and uns["image"]
                         of the section; layers["observed"] labels, NaN where not measured;
                         uns["seq2exp"] run, system, recipe, panel
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from seq2exp.core.files import atomic_directory, safe_name
from seq2exp.spatial.cohort import Section, SpatialCohort
from seq2exp.spatial.features import PatchFeatures
from seq2exp.spatial.run import FittedFold, SpatialRun

__all__ = ["predict_cohort"]


def predict_cohort(
    run: SpatialRun,
    cohort: SpatialCohort,
    out: Path,
    *,
    features: PatchFeatures,
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
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    list of Path
    """
    fitted = run.fold("final")
    paths = []
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        for section in cohort.sections():
            name = f"{safe_name(section.name)}.h5ad"
            _write(run, fitted, cohort, section, partial / name, features)
            paths.append(Path(out) / name)
    return paths


def _write(
    run: SpatialRun,
    fitted: FittedFold,
    cohort: SpatialCohort,
    section: Section,
    path: Path,
    features: PatchFeatures,
) -> None:
    import anndata

    spots = {section.name: np.arange(len(section))}
    table = fitted.table(cohort, spots, features=features)
    panel = fitted.labels.panel
    var = pd.DataFrame({"gene_id": panel.gene_id}, index=pd.Index(panel.symbol))
    data = anndata.AnnData(
        X=fitted.system.predict(table).astype(np.float32), obs=section.obs.copy(), var=var
    )
    data.layers["observed"] = table.y_NG
    data.obsm["spatial"] = section.xy_N2
    info = section.info
    data.uns["image"] = {
        "file": str(section.image_path),
        "width": info.width,
        "height": info.height,
        "um_per_px": info.um_per_px,
        "spot_diameter_px": info.spot_diameter_um / info.um_per_px,
    }
    data.uns["seq2exp"] = {
        "run": str(run.folder),
        "system": str(run.config.system["name"]),
        "recipe": run.config.recipe,
        "panel": panel.rule,
        "encoder": run.config.encoder.name,
        "trained_on": list(fitted.fold.fitting),
    }
    data.write_h5ad(path, compression="gzip")
