"""Pictures of simulated tissue: what a spot's programmes are, its stains show.

Four programmes shape the picture: the share of nuclei, the amount of eosin, the amount of
haematoxylin in a nucleus, and how coarse the nuclei are.

Shapes: U programmes, H, W pixels, M waves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from seq2exp.core.stain import STAINS

__all__ = ["NUM_PROGRAMMES", "SmoothField", "every_fourth", "paint"]

Floats = NDArray[np.float64]
NUM_PROGRAMMES = 4
_NUM_WAVES = 8
_HAEMATOXYLIN, _EOSIN = np.array(STAINS[:2])
_GLASS = 243
_STEP = 4


@dataclass(frozen=True, eq=False)
class SmoothField:
    """Programmes as sums of waves over the plane, of mean 0 and variance 1 over many draws.

    Attributes
    ----------
    wave_UM2 : float64 array, shape (programmes, waves, 2)
        Radians per spot along rows and columns.
    phase_UM : float64 array, shape (programmes, waves)
    """

    wave_UM2: Floats
    phase_UM: Floats

    @classmethod
    def draw(cls, smoothness: float, random: np.random.Generator) -> SmoothField:
        """Draw waves of at least ``smoothness`` spots, in random directions."""
        size = (NUM_PROGRAMMES, _NUM_WAVES)
        angle = random.uniform(0, 2 * np.pi, size)
        speed = np.pi / smoothness * np.sqrt(random.uniform(0.1, 1, size))
        waves = speed[..., None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        return cls(waves, random.uniform(0, 2 * np.pi, size))

    def __call__(self, row: Floats, column: Floats) -> Floats:
        """Return the programmes at places in units of spots, shape (..., programmes)."""
        place = np.stack([row, column], axis=-1)
        angle = np.einsum("...i,umi->...um", place, self.wave_UM2) + self.phase_UM
        found: Floats = np.cos(angle).sum(axis=-1) * np.sqrt(2 / _NUM_WAVES)
        return found


def paint(
    programmes_HWU: Floats,
    inside_HW: NDArray[np.bool_],
    *,
    grain_px: float,
    tint_3: Floats,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return a picture of tissue on glass.

    Parameters
    ----------
    programmes_HWU : float array, shape (height / 4, width / 4, programmes)
        Programmes of every fourth pixel.
    inside_HW : bool array, shape (height, width)
        Where tissue is.
    grain_px : float
        Size of fine nuclei.
    tint_3 : float array, shape (3,)
        Multiplies the optical densities of the section.
    random : Generator

    Returns
    -------
    uint8 array, shape (height, width, 3)
    """
    shape = inside_HW.shape
    whole = programmes_HWU.repeat(_STEP, axis=0).repeat(_STEP, axis=1)[: shape[0], : shape[1]]
    share, eosin, strength, coarse = np.moveaxis(whole, -1, 0)
    fine_noise, coarse_noise = (_noise(shape, size * grain_px, random) for size in (1.0, 2.5))
    angle = np.pi / 2 / (1 + np.exp(-1.5 * coarse))
    noise = np.cos(angle) * fine_noise + np.sin(angle) * coarse_noise
    nucleus = 1 / (1 + np.exp(-(noise - 0.5 + 0.7 * share) / 0.15))
    h_HW = 0.9 * np.exp(0.3 * strength) * nucleus + 0.08
    e_HW = 0.35 * np.exp(0.4 * eosin) * (1 - 0.7 * nucleus)
    density = h_HW[..., None] * _HAEMATOXYLIN + e_HW[..., None] * _EOSIN
    density = density * tint_3 + random.normal(0, 0.02, (*shape, 3))
    tissue = 255 * np.exp(-density.clip(0))
    glass = _GLASS + random.normal(0, 1, (*shape, 1)) + np.zeros(3)
    picture = np.where(inside_HW[..., None], tissue, glass)
    pixels: NDArray[np.uint8] = picture.round().clip(0, 255).astype(np.uint8)
    return pixels


def every_fourth(length: int) -> Floats:
    """Return the centres of runs of four pixels."""
    centres: Floats = np.arange(0, length, _STEP, dtype=np.float64) + (_STEP - 1) / 2
    return centres


def _noise(shape: tuple[int, ...], size: float, random: np.random.Generator) -> Floats:
    """Return smooth noise of mean 0 and variance 1."""
    smooth: Floats = gaussian_filter(random.normal(size=shape), size, mode="wrap")
    smooth = (smooth - smooth.mean()) / smooth.std()
    return smooth
