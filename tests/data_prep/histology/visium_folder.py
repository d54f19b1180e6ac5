"""A small folder of Space Ranger, with the files, names and columns that it writes.

Spots stand on a hexagonal array, 40 pixels of the full image = 100 micrometres apart. The image of
the folder is the full one scaled by a half. ENSG...06 and ENSG...07 share the symbol GENE6.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy import io, sparse

from data_prep.histology.config import SectionConfig

PITCH, MARGIN, HIRES = 40.0, 100.0, 0.5
IDS = [f"ENSG{i:011d}" for i in range(8)]
SYMBOLS = [*(f"GENE{i}" for i in range(7)), "GENE6"]


def array(num_rows=6, num_cols=12):
    """Return rows and columns; columns of odd rows are odd."""
    row, col = np.meshgrid(range(num_rows), range(num_cols), indexing="ij")
    kept = (row + col) % 2 == 0
    return row[kept], col[kept]


def positions(*, square=False):
    """Return the table of positions: all spots of the array, the last row off the tissue."""
    row, col = np.divmod(np.arange(36), 6) if square else array()
    step = (PITCH, PITCH) if square else (PITCH * np.sqrt(3) / 2, PITCH / 2)
    return pd.DataFrame(
        {
            "barcode": [f"AACC{i:04d}-1" for i in range(len(row))],
            "in_tissue": (row < row.max()).astype(int),
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": MARGIN + row * step[0],
            "pxl_col_in_fullres": MARGIN + col * step[1],
        }
    )


def counts(spots, *, seed=0):
    return np.random.default_rng(seed).poisson(40, (spots, len(IDS)))


def picture(table):
    """Return the full image: a stained square for each spot on the tissue, on white glass."""
    height, width = (int(table[f"pxl_{axis}_in_fullres"].max() + MARGIN) for axis in ("row", "col"))
    pixels = np.full((height, width + 60, 3), 244, np.uint8)
    for spot in table[table["in_tissue"] == 1].itertuples():
        y, x = int(spot.pxl_row_in_fullres), int(spot.pxl_col_in_fullres)
        pixels[y - 18 : y + 18, x - 18 : x + 18] = (150 + 10 * spot.array_row, 90, 160)
    return pixels


def write_h5(path: Path, matrix, barcodes, *, antibodies=0):
    """Write genes x barcodes in compressed columns, as filtered_feature_bc_matrix.h5 is."""
    columns = sparse.csc_matrix(np.vstack([matrix.T, np.full((antibodies, len(matrix)), 9)]))
    names = [*SYMBOLS, *(f"CD{i}" for i in range(antibodies))]
    kinds = ["Gene Expression"] * len(SYMBOLS) + ["Antibody Capture"] * antibodies
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S18")
        group["data"] = columns.data.astype(np.int32)
        group["indices"] = columns.indices.astype(np.int64)
        group["indptr"] = columns.indptr.astype(np.int64)
        group["shape"] = np.array(columns.shape, dtype=np.int32)
        features = group.create_group("features")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S6")
        features["feature_type"] = np.array(kinds, dtype="S20")
        features["genome"] = np.array(["GRCh38"] * len(names), dtype="S6")
        features["id"] = np.array([*IDS, *names[len(IDS) :]], dtype="S20")
        features["name"] = np.array(names, dtype="S20")


def write_mtx(folder: Path, matrix, barcodes):
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as handle:
        io.mmwrite(handle, sparse.coo_matrix(matrix.T), field="integer")
    rows = [f"{i}\t{name}\tGene Expression" for i, name in zip(IDS, SYMBOLS, strict=True)]
    for name, lines in (("features", rows), ("barcodes", barcodes)):
        with gzip.open(folder / f"{name}.tsv.gz", "wt") as handle:
            handle.write("\n".join(lines) + "\n")


def write_visium(
    folder: Path, *, matrix="h5", table="csv", bin_um=None, order=None, **settings
) -> SectionConfig:
    """Write a folder; `matrix` is h5 or mtx, `table` csv, list, list with header, or parquet."""
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    frame = positions(square=bin_um is not None)
    inside = frame[frame["in_tissue"] == 1]
    barcodes = list(inside["barcode"].iloc[order] if order is not None else inside["barcode"])
    values = counts(len(inside))[order if order is not None else slice(None)]
    if matrix == "h5":
        write_h5(folder / "filtered_feature_bc_matrix.h5", values, barcodes, antibodies=2)
    else:
        write_mtx(folder / "filtered_feature_bc_matrix", values, barcodes)
    name = {"csv": "tissue_positions.csv", "parquet": "tissue_positions.parquet"}
    path = spatial / name.get(table, "tissue_positions_list.csv")
    if table == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, header=table != "list")
    scale = {
        "spot_diameter_fullres": PITCH * 0.65,
        "tissue_hires_scalef": HIRES,
        "fiducial_diameter_fullres": PITCH * 1.05,
        "tissue_lowres_scalef": 0.1,
    }
    if bin_um is not None:
        scale |= {
            "spot_diameter_fullres": PITCH,
            "bin_size_um": bin_um,
            "microns_per_pixel": bin_um / PITCH,
        }
    (spatial / "scalefactors_json.json").write_text(json.dumps(scale))
    pixels = Image.fromarray(picture(frame))
    pixels.save(folder / "full.tif")
    small = (round(pixels.width * HIRES), round(pixels.height * HIRES))
    pixels.resize(small, Image.Resampling.BOX).save(spatial / "tissue_hires_image.png")
    values = {"name": "V1", "patient": "P1", "layout": "visium", "table": folder.name}
    return SectionConfig(**(values | settings))
