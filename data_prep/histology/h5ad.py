"""A section as AnnData: counts, places on the array, pixels, and an image that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.raw import (
    RawSection,
    as_counts,
    require_unique,
    require_unique_genes,
    whole_numbers,
)
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["read_h5ad"]

# What anndata raises for files that are damaged, or HDF5 of something else.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)


def read_h5ad(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read an AnnData with counts in ``layers["counts"]`` or X and pixels in obsm["spatial"]."""
    import anndata

    path = source / config.table
    try:
        data = anndata.read_h5ad(path)
    except _UNREADABLE as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a whole AnnData", fix="restore the file")
        ) from error
    missing = [name for name in ("array_row", "array_col") if name not in data.obs]
    spatial = np.asarray(data.obsm["spatial"]) if "spatial" in data.obsm else np.empty((0, 0))
    if spatial.ndim != 2 or spatial.shape[1] < 2 or spatial.dtype.kind not in "fiu":
        missing.append('obsm["spatial"] with columns x and y')
    if data.X is None and "counts" not in data.layers:
        missing.append("counts")
    if missing:
        raise FormatError(
            facts(
                str(path),
                found=f"no {', '.join(missing)}",
                expected="counts, array_row and array_col of the spots, and their pixels (x, y)",
                fix="add them; docs/spatial/cohort.md describes the layout",
                count=len(missing),
            )
        )
    require_unique(pd.Series(data.obs_names), path)
    require_unique_genes([str(name) for name in data.var_names], path)
    about = dict(data.uns.get("image", {}))
    image = config.image or str(about.get("file", ""))
    patient = config.patient or _single(data.obs, "patient", path)
    if not image or not patient:
        raise InputError(
            facts(
                f"section {config.name}",
                found=f"no {'image' if not image else 'patient'} in {path}",
                expected="one",
                fix="add it to the configuration of the section",
            )
        )
    place = source / image if config.image else path.parent / image
    um_per_px = config.um_per_px or _number(about, "um_per_px")
    counts = data.layers.get("counts", data.X)
    ids = (
        data.var["gene_id"].astype(object).where(data.var["gene_id"].notna(), "")
        if "gene_id" in data.var
        else [""] * data.n_vars
    )
    own = {"section", "patient", "array_row", "array_col", "total_counts", "in_tissue", "barcode"}
    kept = data.obs["in_tissue"].astype(bool) if "in_tissue" in data.obs else None
    if kept is not None and not kept.all():
        data, counts = data[kept.to_numpy()], counts[kept.to_numpy()]
    pitch, diameter = (_number(about, f"spot_{name}_px") for name in ("pitch", "diameter"))
    scale = um_per_px or float("nan")
    return RawSection(
        config.name,
        patient,
        as_counts(counts, path),
        [str(name) for name in data.var_names],
        [str(gene) for gene in ids],
        whole_numbers(data.obs["array_row"], path),
        whole_numbers(data.obs["array_col"], path),
        np.asarray(data.obsm["spatial"], np.float64)[:, 0],
        np.asarray(data.obsm["spatial"], np.float64)[:, 1],
        data.obs[[name for name in data.obs if name not in own]]
        .assign(barcode=data.obs_names.astype(str))
        .reset_index(drop=True),
        place,
        um_per_px,
        pitch * scale if pitch else None,
        diameter * scale if diameter else None,
        str(about.get("grid", "square")),
    )


def _number(about: dict[str, object], key: str) -> float | None:
    value = about.get(key)
    return float(value) if isinstance(value, int | float | np.number) else None


def _single(obs: pd.DataFrame, column: str, path: Path) -> str:
    """Return the one value of a column of the spots."""
    if column not in obs:
        return ""
    values = obs[column].astype(str).unique()
    if len(values) > 1:
        raise InputError(
            facts(
                str(path),
                found=f"{column} {', '.join(values[:4])}",
                expected="one per section",
                fix="write one file per section",
                count=len(values),
            )
        )
    return str(values[0])
