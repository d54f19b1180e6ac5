"""A small picture of a large image, for people to look at.

JPEG is decoded at an eighth, a quarter or a half of its size where that is enough, so that a
picture of 100 megapixels needs neither their time nor their memory. Other files are decoded whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.slides import SLIDE_SUFFIXES, open_tissue

__all__ = ["Thumbnail", "read_thumbnail"]


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """An image made small.

    Attributes
    ----------
    pixels_HW3 : uint8 array, shape (height, width, 3)
        RGB.
    scale : float
        What pixels of the image are multiplied by to become pixels of this one; at most 1.
    """

    pixels_HW3: NDArray[np.uint8]
    scale: float


def read_thumbnail(path: Path, *, max_px: int) -> Thumbnail:
    """Read an image so that its longer side has at most ``max_px`` pixels.

    Parameters
    ----------
    path : Path
        JPEG, PNG, TIFF, or a slide.
    max_px : int

    Raises
    ------
    InputError
        There is no such file.
    FormatError
        It is damaged or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(
                str(path),
                found="no such file",
                expected="the image of a section",
                fix="put it back, or prepare the cohort with images: copy",
            )
        )
    if path.suffix.lower() in SLIDE_SUFFIXES:
        pixels_HW3, known = open_tissue(path).overview()
        return _smaller(Image.fromarray(pixels_HW3), known, max_px)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            return _smaller(image, 1.0, max_px)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error) or type(error).__name__,
                expected="a whole JPEG, PNG or TIFF image",
                fix="restore the file",
            )
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _smaller(image: Image.Image, known: float, max_px: int) -> Thumbnail:
    """Return an image that is already ``known`` times the full one, at most ``max_px`` a side."""
    width, height = image.size
    scale = min(1.0, max_px / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Does nothing to files other than JPEG; never smaller than asked for.
    image.draft("RGB", size)
    small = image.convert("RGB")
    if small.size != size:
        small = small.resize(size, Image.Resampling.BOX)
    return Thumbnail(np.asarray(small, dtype=np.uint8), known * scale)
