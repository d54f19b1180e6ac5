"""A small folder of the form of HEST-1k: st, patches, metadata and wsis.

The slide is that of :mod:`tests.data_prep.histology.raw` at 10 micrometres per pixel; patches of
16 pixels show 240 micrometres, so their pixels are 15 micrometres.
"""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from PIL import Image

from data_prep.histology.config import SectionConfig
from tests.data_prep.histology import raw

PX, UM = 16, 240.0
BARCODES = [f"{row:03d}x{col:03d}" for row, col in zip(*raw.grid(), strict=True)]
ATTRIBUTES = {"patch_size_src": 24, "patch_size_target": PX, "downsample": 1.5, "pixel_size": 10.0}


def metadata(**changes):
    return {
        "id": "T1",
        "patient": "Patient 1",
        "pixel_size_um_embedded": 9.7,
        "pixel_size_um_estimated": 10.0,
        "inter_spot_dist": 200.0,
        "spot_diameter": 100.0,
        "fullres_px_width": 280,
        "fullres_px_height": 220,
    } | changes


def stored_patches(pixels):
    """Return what is stored: 24 pixels of the slide around every spot, scaled to 16."""
    boxes = ((x - 12, y - 12, x + 12, y + 12) for x, y in zip(*raw.places(), strict=True))
    image = Image.fromarray(pixels)
    return np.stack([np.asarray(image.crop(box).resize((PX, PX))) for box in boxes])


def write_patches(path: Path, *, spots=None, attributes=None, **changes):
    """Write the patches of some spots, in the order given."""
    spots = np.arange(30) if spots is None else np.asarray(spots)
    corners = np.column_stack(raw.places())[spots] - 12
    values = {
        "img": stored_patches(raw.picture())[spots],
        "coords": corners.astype(int),
        "barcode": np.array([[BARCODES[i].encode()] for i in spots], dtype=object),
    } | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                file[name] = value
        for key, value in (ATTRIBUTES if attributes is None else attributes).items():
            file["img"].attrs[key] = value


def write_hest(folder: Path, *, name="T1", about=None, var=None, **settings) -> SectionConfig:
    """Write the folders and return the section; `about` replaces the metadata."""
    rows, columns = raw.grid()
    obs = pd.DataFrame(
        {"in_tissue": True, "array_row": rows, "array_col": columns, "n_counts": 1.0},
        index=BARCODES,
    )
    var = (
        pd.DataFrame(index=[*raw.GENES[:6], "BLANK_0001", "NegControlProbe_2"])
        if var is None
        else var
    )
    data = anndata.AnnData(X=raw.counts().astype(np.float32), obs=obs, var=var)
    data.obsm["spatial"] = np.column_stack(raw.places())
    for part in ("st", "metadata", "wsis"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    data.write_h5ad(folder / f"st/{name}.h5ad")
    about = metadata() if about is None else about
    (folder / f"metadata/{name}.json").write_text(json.dumps(about))
    raw.write_image(folder / f"wsis/{name}.tif")
    write_patches(folder / f"patches/{name}.h5")
    values = {"name": name, "layout": "hest", "table": f"st/{name}.h5ad"}
    return SectionConfig(**(values | settings))
