"""The distance of neighbouring spots in pixels.

Spots of printed arrays are not quite where the array says. The nearest of several neighbours that
are a little off is always too near: on HER2ST sections it gives 272 pixels where the array, fitted
to all spots, gives 291. So places on the array are fitted to pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.histology.raw import RawSection

__all__ = ["estimate_pitch", "nearest_distance"]

Floats = NDArray[np.float64]
_ROUNDS = 20
# Pixels may be off their places by this share of a pitch; beyond it, places say something else.
_LARGEST_MISFIT = 0.25


def estimate_pitch(section: RawSection) -> float:
    """Return the distance of neighbouring spots in pixels.

    A plane is fitted to the pixels over rows and columns (least squares, outliers weighted down
    after Huber); the area of a cell gives the pitch. Where rows and columns do not tell pixels, or
    spots stand in one line, it is the median distance to the nearest spot.

    Returns
    -------
    float
        NaN for a single spot.
    """
    places = np.column_stack([section.x, section.y])
    fitted = _fitted(section, places)
    return fitted if np.isfinite(fitted) else nearest_distance(places)


def _fitted(section: RawSection, places: Floats) -> float:
    design = np.column_stack([np.ones(len(places)), section.array_row, section.array_col]).astype(
        np.float64
    )
    if len(places) < 4 or np.linalg.matrix_rank(design - design.mean(axis=0)) < 2:
        return float("nan")
    weight = np.ones(len(places))
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)[:, None]
        plane = np.linalg.lstsq(design * root, places * root, rcond=None)[0]
        misfit = np.linalg.norm(places - design @ plane, axis=1)
        typical = 1.5 * float(np.median(misfit))
        if typical <= 1e-9:
            break
        weight = 1 / np.maximum(1, misfit / typical)
    cell = abs(float(np.linalg.det(plane[1:])))
    # Columns of a hexagonal array count half steps, and rows lie sqrt(3) / 2 of a pitch apart.
    pitch = float(np.sqrt(cell * (4 / np.sqrt(3) if section.grid == "hex" else 1)))
    # Rounded, so that the last digits of a solver do not differ between machines.
    return round(pitch, 6) if np.median(misfit) <= _LARGEST_MISFIT * pitch else float("nan")


def nearest_distance(places: Floats) -> float:
    """Return the median distance to the nearest other point, shape (num_points, 2); NaN for one."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return float("nan")
    distance, _ = cKDTree(places).query(places, k=2)
    return float(np.median(distance[:, 1]))
