"""Small sections of tissue whose every number is known: stained discs on white glass.

Spots stand on a grid of 20 pixels = 200 micrometres; the disc of a spot has the colour that its row
and column say, so a patch tells which spot it is of.
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from PIL import Image

from data_prep.histology.config import CohortConfig, PatchConfig, SectionConfig

PITCH = 20
MARGIN = 60
SHAPE = (5, 6)  # rows, columns of spots
GENES = [f"GENE{i}" for i in range(8)]


def grid():
    rows, columns = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return rows.ravel(), columns.ravel()


def places():
    rows, columns = grid()
    return MARGIN + columns * float(PITCH), MARGIN + rows * float(PITCH)


def picture(*, seed=0):
    """Return pixels, wider than high so that exchanged axes leave the image or the tissue."""
    height, width = MARGIN * 2 + SHAPE[0] * PITCH, MARGIN * 2 + SHAPE[1] * PITCH + 40
    pixels = np.full((height, width, 3), 244, np.uint8)
    noise = np.random.default_rng(seed)
    for row, column, x, y in zip(*grid(), *places(), strict=True):
        part = pixels[int(y) - 10 : int(y) + 10, int(x) - 10 : int(x) + 10]
        part[:] = (150 + 10 * row, 60 + 10 * column, 160)
        part += noise.integers(0, 6, part.shape, dtype=np.uint8)
    return pixels


def counts(*, seed=0, spots=30, genes=8):
    return np.random.default_rng(seed).poisson(40, (spots, genes))


def write_image(path: Path, pixels=None):
    Image.fromarray(picture() if pixels is None else pixels).save(path)
    return path


def write_st(folder: Path, name="S1", *, table=None, spots=None, seed=0):
    """Write counts, spots and image in the layout of Spatial Transcriptomics."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = grid()
    x, y = places()
    if table is None:
        names = [f"{c}x{r}" for r, c in zip(rows, columns, strict=True)]
        table = pd.DataFrame(counts(seed=seed), index=names, columns=GENES)
    if spots is None:
        spots = pd.DataFrame({"x": columns, "y": rows, "pixel_x": x, "pixel_y": y})
    table.to_csv(folder / f"{name}_counts.tsv.gz", sep="\t")
    spots.to_csv(folder / f"{name}_spots.tsv", sep="\t", index=False)
    write_image(folder / f"{name}.png", picture(seed=seed))
    return SectionConfig(
        name, "P1", "st", f"{name}_counts.tsv.gz", f"{name}_spots.tsv", f"{name}.png"
    )


def adata(*, um_per_px=10.0, seed=0, **changes):
    """Return an AnnData of a section; `changes` replace X, obs, spatial, uns or var_names."""
    rows, columns = grid()
    obs = pd.DataFrame(
        {"array_row": rows, "array_col": columns, "patient": "P2"},
        index=[f"AAC-{i}" for i in range(len(rows))],
    )
    x, y = places()
    data = anndata.AnnData(
        X=changes.get("X", counts(seed=seed).astype(np.float32)),
        obs=changes.get("obs", obs),
        var=pd.DataFrame(index=changes.get("var_names", GENES)),
    )
    data.obsm["spatial"] = changes.get("spatial", np.column_stack([x, y]))
    about = {"file": "H1.png", "spot_pitch_px": 20.0, "spot_diameter_px": 10.0}
    if um_per_px is not None:
        about["um_per_px"] = um_per_px
    data.uns["image"] = changes.get("about", about)
    return data


def write_h5ad(folder: Path, name="H1", data=None):
    folder.mkdir(parents=True, exist_ok=True)
    (adata() if data is None else data).write_h5ad(folder / f"{name}.h5ad")
    write_image(folder / f"{name}.png")
    return SectionConfig(name, table=f"{name}.h5ad", image=f"{name}.png")


def cohort(*sections, **settings):
    values = {"patch": PatchConfig(um=160, px=16), "name": "toy"} | settings
    return CohortConfig(sections=list(sections), **values)
