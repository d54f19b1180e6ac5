"""How stained an image is around given points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.slides import AnyImage

__all__ = ["saturation"]


def saturation(
    image: AnyImage, x: NDArray[np.float64], y: NDArray[np.float64], *, side: float
) -> float:
    """Return the mean colour saturation of squares around points.

    Parameters
    ----------
    image : TissueImage or SlideImage
        A slide is judged by its overview.
    x, y : float64 arrays, shape (num_points,)
        Centres, pixels of the image.
    side : float
        Side of the squares, pixels; what lies beyond the image is left out.

    Returns
    -------
    float
        Largest minus smallest channel, 0 to 255; NaN where no square meets the image.
    """
    pixels, scale = image.overview()
    half = max(1, round(side * scale / 2))
    found = []
    for column, row in zip((x * scale).astype(int), (y * scale).astype(int), strict=True):
        part = pixels[
            max(row - half, 0) : max(row + half, 0), max(column - half, 0) : max(column + half, 0)
        ]
        if part.size:
            found.append(float(np.ptp(part.reshape(-1, 3), axis=1).mean()))
    return float(np.mean(found)) if found else float("nan")
