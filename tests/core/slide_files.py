"""Pyramidal tiled TIFFs as converters of slides write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_slide(path: Path, pixels, *, um_per_px=None, levels=3, tile=64, compression="deflate"):
    """Write full resolution and `levels - 1` halvings, in tiles."""
    import tifffile

    tags = {"tile": (tile, tile), "photometric": "rgb", "compression": compression}
    if um_per_px is not None:
        per_cm = 10_000 / um_per_px
        tags |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(pixels, subifds=levels - 1, **tags)
        for level in range(1, levels):
            size = (pixels.shape[1] >> level, pixels.shape[0] >> level)
            small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
            if um_per_px is not None:
                per_cm = 10_000 / (um_per_px * 2**level)
                tags["resolution"] = (per_cm, per_cm)
            file.write(np.asarray(small), subfiletype=1, **tags)
    return path
