"""An image without counts, for prediction: its spots are a table, or a grid over the tissue.

A pixel is tissue where it is darker than the glass by a mean optical density of 0.05 (log10, all
channels) and not black, as borders of scans are. A place of the grid is kept where tissue fills
half of its square. On the five sections of HER2ST that keeps 97 to 99 % of the measured spots, and
of a grid of their pitch 93 to 99 % lie beside one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.pitch import nearest_distance
from data_prep.histology.raw import RawSection, numbers, read_table, require_unique, whole_numbers
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.slides import AnyImage, open_tissue, stored_um_per_px

__all__ = ["read_bare", "tissue_grid", "tissue_mask"]

Floats = NDArray[np.float64]
_PIXELS = (("pixel_x", "pixel_y"), ("px", "py"), ("x", "y"))
_TISSUE_DENSITY = 0.05
_BLACK = 40
_MOST_PLACES = 2_000_000
_FINEST = 8


def read_bare(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read an image and the places to predict at.

    Parameters
    ----------
    config : SectionConfig
        ``image``, and ``spots`` or ``grid_um``.
    cohort : CohortConfig
    source : Path

    Raises
    ------
    InputError
        The size of a pixel is not known, no place is on tissue, or spots share a place.
    FormatError
        A file is damaged, or columns are missing.
    """
    path = source / config.image
    image = open_tissue(path, max_megapixels=cohort.max_megapixels)
    um_per_px = stored_um_per_px(image) if config.um_per_px is None else config.um_per_px
    if um_per_px is None:
        raise InputError(
            facts(
                f"section {config.name}, {path}",
                found="no size of a pixel",
                expected="micrometres per pixel: patches must show as much tissue as in training",
                fix="give um_per_px",
            )
        )
    pitch: float | None = None
    if config.spots:
        x, y, row, col, labels = _spots(source / config.spots)
    else:
        pitch = float(config.grid_um or 0)
        x, y, row, col = tissue_grid(image, pitch / um_per_px)
        labels = pd.DataFrame(index=range(len(x)))
    if x.size == 0:
        raise InputError(
            facts(
                f"section {config.name}, {path}",
                found="no tissue",
                expected="stained tissue on glass that is brighter",
                fix="check the image and um_per_px, or give a table of spots",
                count=0,
            )
        )
    return RawSection(
        name=config.name,
        patient=config.patient or config.name,
        counts=sparse.csr_matrix((x.size, 0), dtype=np.int32),
        genes=[],
        gene_ids=[],
        array_row=row,
        array_col=col,
        x=x,
        y=y,
        labels=labels,
        image=path,
        um_per_px=um_per_px,
        spot_pitch_um=pitch,
        grid=config.grid,
    )


# Table of spots -------------------------------------------------------------------------------


def _spots(
    path: Path,
) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64], pd.DataFrame]:
    """Return pixels, places on the array and further columns of a table of spots."""
    table = read_table(path, index=False)
    pixels = next((pair for pair in _PIXELS if set(pair) <= set(table)), None)
    if pixels is None or table.empty:
        raise FormatError(
            facts(
                str(path),
                found=f"{len(table)} rows, columns {', '.join(map(str, table.columns))}",
                expected="spots with x and y (pixels), separated by tabs",
                fix="name the columns x and y, or pixel_x and pixel_y",
            )
        )
    x, y = (numbers(table[name], path) for name in pixels)
    # Where x and y stand beside pixels they are places on the array, as in tables of ST.
    array = ("array_row", "array_col")
    if not set(array) <= set(table) and pixels != ("x", "y") and {"x", "y"} <= set(table):
        array = ("y", "x")
    if set(array) <= set(table):
        row, col = (whole_numbers(table[name], path) for name in array)
    else:
        row, col = _lattice(x, y, path)
    if "barcode" in table:
        require_unique(table["barcode"].astype(str), path)
    known = {*array, *pixels, "x", "y", "new_x", "new_y", "selected"}
    kept = [
        name
        for name in table
        if str(name) == "barcode"
        or not (str(name) in known or pd.api.types.is_numeric_dtype(table[name]))
    ]
    return x, y, row, col, table[kept].reset_index(drop=True)


def _lattice(x: Floats, y: Floats, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the coarsest lattice on which no two spots share a cell.

    Raises
    ------
    InputError
        Spots lie at one place.
    """
    places = np.column_stack([y, x])
    distance = nearest_distance(places)
    if not np.isfinite(distance):
        return np.zeros(len(x), np.int64), np.zeros(len(x), np.int64)
    for parts in range(1, _FINEST + 1):
        step = max(distance, 1e-9) / parts
        cells = np.round((places - places.min(axis=0)) / step).astype(np.int64)
        if len(np.unique(cells, axis=0)) == len(cells):
            return cells[:, 0], cells[:, 1]
    raise InputError(
        facts(
            str(path),
            found="spots that lie upon each other",
            expected="every spot at a place of its own",
            fix="drop the duplicates, or give array_row and array_col",
        )
    )


# Grid over the tissue -------------------------------------------------------------------------


def tissue_mask(image: AnyImage) -> tuple[NDArray[np.bool_], float]:
    """Return where the overview of an image shows tissue, and the scale of the overview."""
    pixels, scale = image.overview()
    # Density of 256 values a channel is looked up: a slide has many pixels.
    light = np.log10(1.0 + np.arange(256))
    mean = np.zeros(pixels.shape[:2], np.float32)
    for channel in range(3):
        density = light[int(image.glass[channel])] - light
        mean += density.astype(np.float32)[pixels[..., channel]] / 3
    return (mean > _TISSUE_DENSITY) & (pixels.max(axis=2) >= _BLACK), scale


def tissue_grid(
    image: AnyImage, step: float, *, share: float = 0.5
) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of a square grid that lie on tissue.

    Parameters
    ----------
    image : TissueImage or SlideImage
    step : float
        Distance of places, pixels.
    share : float
        Of the square around a place that must be tissue.

    Returns
    -------
    x, y : float64 arrays
        Pixels; the first place is half a step from the corner.
    row, col : int64 arrays

    Raises
    ------
    InputError
        The grid is finer than pixels, or has too many places to look at.
    """
    num_cols, num_rows = (max(1, int(size // step)) for size in (image.width, image.height))
    if step < 1 or num_rows * num_cols > _MOST_PLACES:
        raise InputError(
            facts(
                str(image.path),
                found=f"a grid of {step:.3g} pixels, {num_rows:,} x {num_cols:,} places",
                expected=f"at least 1 pixel, and at most {_MOST_PLACES:,} places",
                fix="check um_per_px, or give a larger grid_um",
            )
        )
    mask, scale = tissue_mask(image)
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    edges = [
        np.minimum(np.round(np.arange(count + 1) * step * scale).astype(int), limit)
        for count, limit in ((num_rows, mask.shape[0]), (num_cols, mask.shape[1]))
    ]
    at = total[np.ix_(*edges)]
    inside = at[1:, 1:] - at[:-1, 1:] - at[1:, :-1] + at[:-1, :-1]
    area = np.maximum(np.outer(np.diff(edges[0]), np.diff(edges[1])), 1)
    row, col = np.nonzero(inside >= share * area)
    x, y = (np.asarray((cell + 0.5) * step, np.float64) for cell in (col, row))
    return x, y, np.asarray(row, np.int64), np.asarray(col, np.int64)
