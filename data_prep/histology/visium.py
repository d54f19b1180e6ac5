"""Read a 10x Visium folder as Space Ranger writes it.

::

    FOLDER/filtered_feature_bc_matrix.h5        counts: CSC, genes x barcodes, in group ``matrix``
    FOLDER/spatial/tissue_positions.csv         or tissue_positions_list.csv, without a header
    FOLDER/spatial/scalefactors_json.json       spot_diameter_fullres, tissue_hires_scalef, ...

Positions are pixels of the full-resolution image. ``tissue_hires_image.png`` in the folder is that
image scaled by ``tissue_hires_scalef``; it is taken where no other image is named. A spot measures
55 micrometres, which gives the size of a pixel; neighbours are 100 micrometres apart on a hexagonal
grid.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.section import RawSection, as_counts
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["SPOT_DIAMETER_UM", "SPOT_PITCH_UM", "read_visium"]

SPOT_DIAMETER_UM = 55.0
SPOT_PITCH_UM = 100.0
_POSITIONS = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
_HIRES = "spatial/tissue_hires_image.png"


def read_visium(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read a folder of Space Ranger.

    Parameters
    ----------
    config : SectionConfig
        ``table`` names the folder; ``image`` a full-resolution image, if there is one.
    cohort : CohortConfig
    source : Path

    Raises
    ------
    InputError
        Files are missing, or barcodes without a position.
    FormatError
        A file is damaged or of another kind.
    """
    del cohort
    folder = source / config.table
    counts, genes, gene_ids, barcodes = _matrix(folder)
    places = _positions(folder).reindex(barcodes)
    missing = places["array_row"].isna()
    if missing.any():
        raise InputError(
            facts(
                str(folder),
                found="barcodes without a position",
                expected="the positions of this slide",
                fix="check that matrix and spatial folder belong together",
                count=int(missing.sum()),
                examples=list(places.index[missing][:3]),
            )
        )
    kept = np.flatnonzero(places["in_tissue"].to_numpy(np.int64) == 1)
    factors = _factors(folder)
    # Full-resolution pixels, or those of the scaled image that stands in.
    scale = 1.0 if config.image else factors["tissue_hires_scalef"]
    chosen = places.iloc[kept]
    diameter = factors["spot_diameter_fullres"] * scale
    return RawSection(
        config.name,
        config.patient,
        counts[kept],
        genes,
        gene_ids,
        chosen["array_row"].to_numpy(np.int64),
        chosen["array_col"].to_numpy(np.int64),
        chosen["pxl_col_in_fullres"].to_numpy(np.float64) * scale,
        chosen["pxl_row_in_fullres"].to_numpy(np.float64) * scale,
        pd.DataFrame({"barcode": [barcodes[place] for place in kept]}),
        source / config.image if config.image else folder / _HIRES,
        config.um_per_px or SPOT_DIAMETER_UM / diameter,
        SPOT_PITCH_UM,
        SPOT_DIAMETER_UM,
        "hex",
    )


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(
            facts(
                str(folder),
                found=f"no {' or '.join(names)}",
                expected="a folder that Space Ranger wrote",
                fix="check the path",
            )
        )
    return found[0]


def _matrix(folder: Path) -> tuple[sparse.csr_matrix, list[str], list[str], list[str]]:
    """Return counts of shape (num_barcodes, num_genes), symbols, ids and barcodes."""
    path = _one_of(folder, ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5"))
    try:
        with h5py.File(path) as file:
            group = file["matrix"]
            shape = tuple(int(length) for length in group["shape"][:])
            parts = (group["data"][:], group["indices"][:], group["indptr"][:])
            features = group["features"]
            kinds = features["feature_type"][:] if "feature_type" in features else None
            symbols = [name.decode() for name in features["name"][:]]
            ids = [name.decode() for name in features["id"][:]]
            barcodes = [name.decode() for name in group["barcodes"][:]]
    except (OSError, KeyError) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="a feature-barcode matrix of Space Ranger 3 or newer",
                fix="restore the file",
            )
        ) from error
    matrix = sparse.csc_matrix(parts, shape=shape)
    genes = np.arange(shape[0])
    if kinds is not None:
        # Antibodies stand in the same file.
        genes = np.flatnonzero(kinds == b"Gene Expression")
    counts = as_counts(matrix[genes].T.tocsr(), path)
    return counts, [symbols[gene] for gene in genes], [ids[gene] for gene in genes], barcodes


def _positions(folder: Path) -> pd.DataFrame:
    path = _one_of(folder, ("spatial/tissue_positions.csv", "spatial/tissue_positions_list.csv"))
    with path.open() as handle:
        headed = handle.readline().startswith("barcode")
    try:
        frame = pd.read_csv(path, header=0 if headed else None)
    except ValueError as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a table with commas", fix="restore it")
        ) from error
    if frame.shape[1] != len(_POSITIONS):
        raise FormatError(
            facts(
                str(path),
                found=f"{frame.shape[1]} columns",
                expected=", ".join(_POSITIONS),
                fix="give the file that Space Ranger wrote",
            )
        )
    frame.columns = pd.Index(_POSITIONS)
    return frame.set_index("barcode")


def _factors(folder: Path) -> dict[str, float]:
    path = _one_of(folder, ("spatial/scalefactors_json.json",))
    try:
        values = json.loads(path.read_text())
        return {key: float(values[key]) for key in ("spot_diameter_fullres", "tissue_hires_scalef")}
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"{type(error).__name__}: {error}",
                expected="spot_diameter_fullres and tissue_hires_scalef",
                fix="restore the file",
            )
        ) from error
