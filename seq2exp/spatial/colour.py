"""137 numbers that describe the colour and texture of a patch: the features of the ridge floor.

Channels R, G, B, the stains H, E, D (Ruifrok and Johnston 2001) and grey: mean, deviation, 5, 25,
50, 75 and 95 % quantiles (49); size of the gradient of grey: mean, deviation, 90 % quantile (3);
of the means of blocks of 2, 4 and 8 pixels: deviation, mean and deviation of the gradient (9);
uniform local binary patterns of radius 1 and 8 neighbours (10; Ojala et al. 2002); share of grey
below 0.45 and above 0.85 (2); histogram of 4 x 4 x 4 colours on every second pixel (64).

Axes: H, W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.stain import STAINS

__all__ = ["NUM_FEATURES", "colour_stats", "stain_concentrations"]

Floats = NDArray[np.float64]
NUM_FEATURES = 137

_GREY = np.array([0.2125, 0.7154, 0.0721])
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Eight points on the circle of radius 1, counterclockwise from the right; the diagonal ones lie
# between pixels. Neighbours on the circle are neighbours in this list.
_DIAGONAL = np.sqrt(0.5)
_AROUND = (
    (0, 1), (-_DIAGONAL, _DIAGONAL), (-1, 0), (-_DIAGONAL, -_DIAGONAL),
    (0, -1), (_DIAGONAL, -_DIAGONAL), (1, 0), (_DIAGONAL, _DIAGONAL),
)  # fmt: skip
# Interpolation on a flat area must not look darker than the pixel.
_ROUNDING = 1e-9


def colour_stats(patch_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features of a patch.

    Parameters
    ----------
    patch_HW3 : uint8 array, shape (height, width, 3)
        RGB; sides of at least 16 pixels.

    Returns
    -------
    float32 array, shape (137,)
    """
    rgb = patch_HW3.astype(np.float64) / 255
    grey = rgb @ _GREY
    channels = np.concatenate(
        [rgb.reshape(-1, 3), stain_concentrations(rgb).reshape(-1, 3), grey.reshape(-1, 1)], axis=1
    )
    quantiles = np.quantile(channels, _QUANTILES, axis=0)
    parts = [channels.mean(axis=0), channels.std(axis=0), quantiles.ravel()]
    size = _gradient(grey)
    parts.append(np.array([size.mean(), size.std(), np.quantile(size, 0.9)]))
    for side in (2, 4, 8):
        blocks = _block_means(grey, side)
        size = _gradient(blocks)
        parts.append(np.array([blocks.std(), size.mean(), size.std()]))
    parts.append(_binary_patterns(grey))
    parts.append(np.array([(grey < 0.45).mean(), (grey > 0.85).mean()]))
    parts.append(_histogram(patch_HW3[::2, ::2]))
    return np.concatenate(parts).astype(np.float32)


def stain_concentrations(rgb: Floats) -> Floats:
    """Return haematoxylin, eosin and residual of colours (Ruifrok and Johnston 2001).

    Parameters
    ----------
    rgb : float array, shape (..., 3)
        Between 0 and 1.

    Returns
    -------
    float64 array, shape (..., 3)
        Base-10 densities over log10(1e-6), as scikit-image's ``rgb2hed`` scales them.
    """
    density = np.log(np.maximum(rgb, 1e-6)) / np.log(1e-6)
    found: Floats = np.maximum(density @ np.linalg.inv(np.array(STAINS)), 0)
    return found


def _gradient(grey: Floats) -> Floats:
    rows, columns = np.gradient(grey)
    size: Floats = np.hypot(rows, columns)
    return size


def _block_means(grey: Floats, side: int) -> Floats:
    height, width = (length // side for length in grey.shape)
    cut = grey[: height * side, : width * side]
    means: Floats = cut.reshape(height, side, width, side).mean(axis=(1, 3))
    return means


def _binary_patterns(grey: Floats) -> Floats:
    """Return the shares of the ten uniform patterns.

    A pattern says which of eight points on the circle of radius 1, interpolated between pixels, are
    at least as bright as the centre. Uniform ones change at most twice around the circle and are
    told apart by how many points are bright; all others are the tenth. The border of the patch has
    no pattern.
    """
    centre = grey[1:-1, 1:-1] - _ROUNDING
    bright = np.stack([_shifted(grey, row, column) >= centre for row, column in _AROUND])
    changes = (bright != np.roll(bright, 1, axis=0)).sum(axis=0)
    kind = np.where(changes <= 2, bright.sum(axis=0), 9)
    share: Floats = np.bincount(kind.ravel(), minlength=10) / kind.size
    return share


def _shifted(grey: Floats, row: float, column: float) -> Floats:
    """Return what lies at an offset of at most 1 from every pixel inside, bilinearly."""
    height, width = grey.shape
    found = np.zeros((height - 2, width - 2))
    for step_row, weight_row in ((0, 1 - abs(row)), (int(np.sign(row)), abs(row))):
        for step, weight in ((0, 1 - abs(column)), (int(np.sign(column)), abs(column))):
            if weight_row * weight:
                found += (weight_row * weight) * grey[
                    1 + step_row : height - 1 + step_row, 1 + step : width - 1 + step
                ]
    return found


def _histogram(pixels: NDArray[np.uint8]) -> Floats:
    level = (pixels.reshape(-1, 3) // 64).astype(np.int64)
    counts = np.bincount(level @ np.array([16, 4, 1]), minlength=64)
    share: Floats = counts / max(counts.sum(), 1)
    return share
