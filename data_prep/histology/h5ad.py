"""A section as AnnData: counts, places on the array, pixels, and an image that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.raw import (
    RawSection,
    as_counts,
    grid_of,
    require_unique,
    require_unique_genes,
    whole_numbers,
)
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["gene_names", "load_h5ad", "read_h5ad"]

_ENSEMBL = r"ENS[A-Z]*G\d{11}"
_OWN = {"section", "patient", "array_row", "array_col", "total_counts", "in_tissue", "barcode"}


def load_h5ad(path: Path) -> Any:  # noqa: ANN401
    """Return an AnnData that has counts, places on the array and pixels, each spot once.

    Raises
    ------
    FormatError
        It is damaged, or lacks one of them.
    InputError
        Spots are listed twice.
    """
    import anndata

    try:
        data = anndata.read_h5ad(path)
    # Beside those of HDF5, anndata has errors of its own that it does not export.
    except Exception as error:
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
                fix="add them; docs/spatial_cohort.md describes the layout",
                count=len(missing),
            )
        )
    require_unique(pd.Series(data.obs_names), path)
    return data


def gene_names(var: pd.DataFrame, path: Path) -> tuple[list[str], list[str]]:
    """Return names and Ensembl ids of the genes of an AnnData; ids are empty where unknown.

    Ids are those of the column ``gene_id`` or ``gene_ids``, or the names where they are ids. Genes
    that share a symbol are kept apart by their ids.

    Raises
    ------
    InputError
        Genes share a name and have no ids.
    """
    names = pd.Series([str(name) for name in var.index])
    column = next((name for name in ("gene_id", "gene_ids") if name in var), None)
    if column is not None:
        ids = var[column].astype(object).where(var[column].notna(), "").astype(str)
    else:
        ids = names.where(names.str.match(_ENSEMBL), "")
    ids = pd.Series(ids.to_numpy(), dtype=object)
    twice = names.duplicated() & (ids != "")
    names[twice] += "_" + ids[twice]
    require_unique_genes(list(names), path)
    return list(names), list(ids)


def read_h5ad(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read an AnnData with counts in ``layers["counts"]`` or X and pixels in obsm["spatial"].

    Raises
    ------
    InputError
        It says no image or no patient, spots are listed twice, or genes.
    FormatError
        It is damaged, or columns are missing.
    """
    del cohort
    path = source / config.table
    data = load_h5ad(path)
    genes, gene_ids = gene_names(data.var, path)
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
    um_per_px = config.um_per_px or _number(about, "um_per_px")
    counts = data.layers.get("counts", data.X)
    left_out = {}
    kept = data.obs["in_tissue"].astype(bool) if "in_tissue" in data.obs else None
    if kept is not None and not kept.all():
        left_out = {"off the tissue": int((~kept).sum())}
        data, counts = data[kept.to_numpy()], counts[kept.to_numpy()]
    pitch, diameter = (_number(about, f"spot_{name}_px") for name in ("pitch", "diameter"))
    scale = um_per_px or float("nan")
    row, col = (whole_numbers(data.obs[name], path) for name in ("array_row", "array_col"))
    return RawSection(
        name=config.name,
        patient=patient,
        counts=as_counts(counts, path),
        genes=genes,
        gene_ids=gene_ids,
        array_row=row,
        array_col=col,
        x=np.asarray(data.obsm["spatial"], np.float64)[:, 0],
        y=np.asarray(data.obsm["spatial"], np.float64)[:, 1],
        labels=data.obs[[name for name in data.obs if name not in _OWN]]
        .assign(barcode=data.obs_names.astype(str))
        .reset_index(drop=True),
        image=source / image if config.image else path.parent / image,
        um_per_px=um_per_px,
        spot_pitch_um=pitch * scale if pitch else None,
        spot_diameter_um=diameter * scale if diameter else None,
        grid=str(about["grid"]) if "grid" in about else grid_of(row, col),
        left_out=left_out,
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
