"""A 10x Visium folder as Space Ranger writes it, or one folder of bins of Visium HD.

::

    FOLDER/filtered_feature_bc_matrix.h5  counts: CSC, genes x barcodes, in group ``matrix``; or the
                                          folder of that name with matrix.mtx.gz, features.tsv.gz
                                          and barcodes.tsv.gz
    FOLDER/spatial/tissue_positions.csv   or tissue_positions_list.csv (no header before Space
                                          Ranger 2), or tissue_positions.parquet (Visium HD)
    FOLDER/spatial/scalefactors_json.json tissue_hires_scalef, spot_diameter_fullres; of Visium HD
                                          bin_size_um and microns_per_pixel too
    FOLDER/spatial/tissue_hires_image.png the image times tissue_hires_scalef, for want of another

Positions are pixels of the full-resolution image. Spots measure 55 micrometres and stand 100 apart
on a hexagonal array; ``spot_diameter_fullres`` spans 65 micrometres, not 55 (Space Ranger's
manual), so the size of a pixel is taken from the array.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import io, sparse

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.pitch import estimate_pitch
from data_prep.histology.raw import (
    UNREADABLE,
    RawSection,
    as_counts,
    numbers,
    require_unique,
    whole_numbers,
)
from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, facts

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
_TABLES = tuple(f"spatial/tissue_positions{end}" for end in (".csv", "_list.csv", ".parquet"))
_MATRICES = tuple(
    f"{kind}_feature_bc_matrix{end}" for kind in ("filtered", "raw") for end in (".h5", "")
)
_HIRES = "spatial/tissue_hires_image.png"
_Matrix = tuple[sparse.csr_matrix, pd.DataFrame, list[str]]


def read_visium(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read a folder of Space Ranger; spots off the tissue are left out.

    Parameters
    ----------
    config : SectionConfig
        ``table`` names the folder; ``image`` the full-resolution image, if there is one.
    cohort : CohortConfig
    source : Path

    Raises
    ------
    InputError
        Files are missing, do not belong together, or barcodes have no position.
    FormatError
        A file is damaged or of another kind.
    """
    del cohort
    folder = source / config.table
    _require_one_size(folder)
    counts, features, barcodes = _matrix(_one_of(folder, _MATRICES))
    require_unique(pd.Series(barcodes), folder)
    path = _one_of(folder, _TABLES)
    places = _positions(path).reindex(barcodes)
    missing = places["array_row"].isna()
    if missing.any():
        raise InputError(
            facts(
                str(path),
                found="no position of barcodes of the matrix",
                expected="the positions of this slide",
                fix="check that matrix and spatial folder belong together",
                count=int(missing.sum()),
                examples=list(places.index[missing][:3]),
            )
        )
    kept = np.flatnonzero(whole_numbers(places["in_tissue"], path) == 1)
    chosen = places.iloc[kept]
    factors = _factors(_one_of(folder, ("spatial/scalefactors_json.json",)))
    # Without the full image its smaller copy stands in, and pixels are those of the copy.
    scale = 1.0 if config.image else factors["tissue_hires_scalef"]
    bin_um = factors.get("bin_size_um")
    um_per_px = factors["microns_per_pixel"] / scale if bin_um else None
    section = RawSection(
        name=config.name,
        patient=config.patient,
        counts=counts[kept],
        genes=list(features["name"]),
        gene_ids=list(features["id"]),
        array_row=whole_numbers(chosen["array_row"], path),
        array_col=whole_numbers(chosen["array_col"], path),
        x=numbers(chosen["pxl_col_in_fullres"], path) * scale,
        y=numbers(chosen["pxl_row_in_fullres"], path) * scale,
        labels=pd.DataFrame({"barcode": [barcodes[place] for place in kept]}),
        image=source / config.image if config.image else _one_of(folder, (_HIRES,)),
        um_per_px=config.um_per_px or um_per_px,
        spot_pitch_um=bin_um or SPOT_PITCH_UM,
        spot_diameter_um=bin_um or SPOT_DIAMETER_UM,
        grid="square" if bin_um else "hex",
        left_out={"off the tissue": len(barcodes) - kept.size},
    )
    if not bin_um:
        _require_same_slide(section, factors["spot_diameter_fullres"] * scale, folder)
    return section


def _require_one_size(folder: Path) -> None:
    """Refuse the folder above the bins of Visium HD."""
    bins = sorted(path.name for path in folder.glob("binned_outputs/square_*um"))
    if bins:
        raise InputError(
            facts(
                str(folder),
                found=f"Visium HD in bins {', '.join(bins)}",
                expected="the folder of one size of bins",
                fix=f"give {folder / 'binned_outputs' / bins[-1]}",
            )
        )


def _require_same_slide(section: RawSection, diameter_px: float, folder: Path) -> None:
    """Refuse positions that are not those of the scale factors: a spot is about 0.6 of a pitch."""
    pitch_px = estimate_pitch(section)
    if np.isfinite(pitch_px) and not 0.45 < diameter_px / pitch_px < 0.75:
        raise InputError(
            facts(
                f"section {section.name}, {folder / 'spatial'}",
                found=f"spots of {diameter_px:.1f} pixels, {pitch_px:.1f} pixels apart",
                expected="0.55 to 0.65 of the distance",
                fix="check that positions and scalefactors_json.json are of one run",
            )
        )


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first that is there; a name may have a prefix, as downloads do."""
    for name in names:
        place = folder / name
        found = [place] if place.exists() else sorted(place.parent.glob(f"*_{place.name}"))
        if len(found) > 1:
            raise InputError(
                facts(
                    str(place.parent),
                    found=", ".join(path.name for path in found),
                    expected=f"one {place.name}",
                    fix="keep the files of one section in the folder",
                    count=len(found),
                )
            )
        if found:
            return found[0]
    raise InputError(
        facts(
            str(folder),
            found=f"no {' or '.join(names)}",
            expected="a folder that Space Ranger wrote",
            fix="check the path and --source",
        )
    )


def _matrix(path: Path) -> _Matrix:
    """Return counts of shape (num_barcodes, num_genes), features (id, name) and barcodes."""
    try:
        read = _read_mtx if path.is_dir() else _read_h5
        matrix, features, barcodes = read(path)
        if matrix.shape != (len(features), len(barcodes)):
            raise ValueError(
                f"a matrix of {matrix.shape[0]} x {matrix.shape[1]} for {len(features)} features "
                f"and {len(barcodes)} barcodes"
            )
    except UNREADABLE as error:
        if isinstance(error, Seq2ExpError):
            raise
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="a feature-barcode matrix of Space Ranger",
                fix="restore the file",
            )
        ) from error
    # Antibodies may stand in the same file.
    rows = np.flatnonzero(features["kind"] == "Gene Expression")
    features = features.iloc[rows].reset_index(drop=True)
    twice = features["name"].duplicated()
    # A dozen symbols name two genes; their ids keep them apart.
    features.loc[twice, "name"] += "_" + features.loc[twice, "id"]
    return as_counts(matrix.tocsr()[rows].T.tocsr(), path), features, barcodes


def _read_h5(path: Path) -> tuple[sparse.spmatrix, pd.DataFrame, list[str]]:
    with h5py.File(path) as file:
        group = file["matrix"]
        parts = (group["data"][:], group["indices"][:], group["indptr"][:])
        matrix = sparse.csc_matrix(parts, shape=tuple(map(int, group["shape"][:])))
        # Flipped bytes must not become places beyond the matrix.
        matrix.check_format(full_check=True)
        features = group["features"]
        columns = {"id": "id", "name": "name", "kind": "feature_type"}
        known = {
            column: [value.decode() for value in features[key][:]]
            for column, key in columns.items()
        }
        return matrix, pd.DataFrame(known), [value.decode() for value in group["barcodes"][:]]


def _read_mtx(folder: Path) -> tuple[sparse.spmatrix, pd.DataFrame, list[str]]:
    features = _lines(_one_of(folder, ("features.tsv.gz", "features.tsv", "genes.tsv")))
    frame = pd.DataFrame([[*line, "Gene Expression"][:3] for line in features])
    frame.columns = pd.Index(["id", "name", "kind"])
    barcodes = [line[0] for line in _lines(_one_of(folder, ("barcodes.tsv.gz", "barcodes.tsv")))]
    path = _one_of(folder, ("matrix.mtx.gz", "matrix.mtx"))
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        return sparse.csc_matrix(io.mmread(handle)), frame, barcodes


def _lines(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        return [line.rstrip("\r\n").split("\t") for line in handle]


def _positions(path: Path) -> pd.DataFrame:
    """Return the table of positions by barcode; Space Ranger 1 wrote no header."""
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with path.open() as handle:
                headed = "in_tissue" in handle.readline()
            frame = pd.read_csv(path, header=0 if headed else None)
            if not headed and frame.shape[1] == len(_POSITIONS):
                frame.columns = pd.Index(_POSITIONS)
    except (OSError, ValueError) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a table of positions", fix="restore it")
        ) from error
    missing = [name for name in _POSITIONS if name not in frame]
    if missing:
        raise FormatError(
            facts(
                str(path),
                found=f"columns {', '.join(map(str, frame))}",
                expected=", ".join(_POSITIONS),
                fix="give the file that Space Ranger wrote",
                count=len(missing),
            )
        )
    require_unique(frame["barcode"].astype(str), path)
    return frame.assign(barcode=frame["barcode"].astype(str)).set_index("barcode")


def _factors(path: Path) -> dict[str, float]:
    try:
        values = json.loads(path.read_text())
        known = {
            key: float(values[key]) for key in ("spot_diameter_fullres", "tissue_hires_scalef")
        }
        if "bin_size_um" in values:
            known |= {key: float(values[key]) for key in ("bin_size_um", "microns_per_pixel")}
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"{type(error).__name__}: {error}",
                expected="spot_diameter_fullres and tissue_hires_scalef",
                fix="restore the file",
            )
        ) from error
    return known
