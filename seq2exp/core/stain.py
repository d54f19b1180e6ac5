"""Normalisation of H&E colours (Macenko et al. 2009, IEEE ISBI:1107).

Optical densities of stained pixels lie near a plane; its extreme directions are the stains. A
section is split into their concentrations, which are scaled to the 99 % quantiles of a reference
and put together again with the reference's stains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["STAINS", "Macenko"]

Floats = NDArray[np.float64]

STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Absorption of red, green and blue by haematoxylin, eosin and a third stain, DAB (Ruifrok and
Johnston 2001)."""
_MIN_DENSITY = 0.15
_TAIL = 1.0
_SAMPLE = 200_000
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Macenko:
    """Stains of an image.

    Attributes
    ----------
    stains_23 : float64 array, shape (2, 3)
        Unit vectors in optical density: haematoxylin, eosin.
    top_2 : float64 array, shape (2,)
        99 % quantile of each concentration.
    """

    stains_23: Floats
    top_2: Floats

    @classmethod
    def fit(cls, pixels_HW3: NDArray[np.uint8], *, seed: int = 0) -> Macenko:
        """Estimate the stains of an image from a sample of its pixels.

        Raises
        ------
        InputError
            The image has no stained pixels.
        """
        flat = pixels_HW3.reshape(-1, 3)
        chosen = flat
        if len(flat) > _SAMPLE:
            places = np.random.default_rng(seed).choice(len(flat), _SAMPLE, replace=False)
            chosen = flat[np.sort(places)]
        density = _density(chosen)
        stained = density[(density >= _MIN_DENSITY).all(axis=1)]
        if len(stained) < 100:
            raise InputError(
                facts(
                    "stain normalisation",
                    found=f"{len(stained)} stained pixels",
                    expected="tissue stained with haematoxylin and eosin",
                    fix="use patch.stain: none",
                    count=len(stained),
                )
            )
        _, vectors = np.linalg.eigh(np.cov(stained.T))
        plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(axis=0) < 0, -1, 1)
        angle = np.arctan2(stained @ plane[:, 1], stained @ plane[:, 0])
        low, high = np.percentile(angle, [_TAIL, 100 - _TAIL])
        pair = np.array([plane @ [np.cos(a), np.sin(a)] for a in (low, high)])
        # Haematoxylin takes more red out of the light than eosin does.
        stains = pair if pair[0, 0] > pair[1, 0] else pair[::-1]
        concentrations = density @ np.linalg.pinv(stains)
        return cls(stains, np.percentile(concentrations, 99, axis=0))

    def transform(self, pixels_HW3: NDArray[np.uint8], reference: Macenko) -> NDArray[np.uint8]:
        """Return the image in the stains of a reference."""
        flat = pixels_HW3.reshape(-1, 3)
        change = np.linalg.pinv(self.stains_23) @ np.diag(reference.top_2 / self.top_2)
        change = change @ reference.stains_23
        out = np.empty_like(flat)
        for first in range(0, len(flat), _CHUNK):
            density = _density(flat[first : first + _CHUNK]) @ change
            out[first : first + _CHUNK] = (255 * np.exp(-density)).round().clip(0, 255)
        return out.reshape(pixels_HW3.shape)


def _density(pixels: NDArray[np.uint8]) -> Floats:
    """Return optical densities: -ln of the share of light that comes through."""
    found: Floats = -np.log(np.maximum(pixels, 1) / 255.0)
    return found
