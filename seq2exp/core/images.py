"""Images of tissue: opened with checks, patches cut at a given size in micrometres.

Positions are pixels of the image as stored, x along columns and y along rows. What lies beyond the
border is filled with the colour of the glass: the brightest grey that the border shows. Whole
slides that are read by region: :mod:`seq2exp.core.slides`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, facts

__all__ = ["TissueImage", "border_colour", "cut_square", "open_image", "square_of"]

Pixels = NDArray[np.uint8]
_ORIENTATION = 0x0112
# Modes with more than eight bits a channel: converting them to RGB would clip to white.
_DEEP = ("I", "F")


@dataclass(frozen=True, eq=False)
class TissueImage:
    """An image in memory.

    Attributes
    ----------
    path : Path
    pixels_HW3 : uint8 array, shape (height, width, 3)
        RGB.
    """

    path: Path
    pixels_HW3: Pixels

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels_HW3.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels_HW3.shape[0])

    @cached_property
    def glass(self) -> Pixels:
        """Colour of the glass: the 95 % quantile of each channel along the border."""
        return border_colour(self.pixels_HW3)

    def overview(self) -> tuple[Pixels, float]:
        """Return the image, and its size as a share of the full one: 1."""
        return self.pixels_HW3, 1.0

    def recoloured(self, change: Callable[[Pixels], Pixels]) -> TissueImage:
        """Return the image in other colours."""
        return TissueImage(self.path, change(self.pixels_HW3))

    def patch(self, x: float, y: float, *, side: float, px: int) -> Pixels:
        """Return a square around a point.

        Parameters
        ----------
        x, y : float
            Centre, pixels of the image.
        side : float
            Side of the square in pixels of the image.
        px : int
            Side of the result.

        Returns
        -------
        uint8 array, shape (px, px, 3)
        """
        return cut_square(self.pixels_HW3, x, y, side=side, px=px, fill=self.glass)


def border_colour(pixels_HW3: Pixels) -> Pixels:
    """Return the 95 % quantile of each channel along the border of an image."""
    edge = np.concatenate(
        [pixels_HW3[[0, -1]].reshape(-1, 3), pixels_HW3[:, [0, -1]].reshape(-1, 3)]
    )
    colour: Pixels = np.quantile(edge, 0.95, axis=0).round().astype(np.uint8)
    return colour


def cut_square(
    pixels: Pixels, x: float, y: float, *, side: float, px: int, fill: Pixels | int
) -> Pixels:
    """Return a square around a point of an image or of a map that lies on it.

    Parameters
    ----------
    pixels : uint8 array, shape (height, width) or (height, width, 3)
    x, y : float
        Centre, pixels of the image.
    side : float
        Side of the square in pixels of the image, rounded.
    px : int
        Side of the result: means of blocks where it is smaller, bicubic where it is larger.
    fill : uint8 array of a colour, or int
        What lies beyond the border.

    Returns
    -------
    uint8 array, shape (px, px) or (px, px, 3)
    """

    def read(left: int, top: int, right: int, bottom: int) -> Pixels:
        return pixels[top:bottom, left:right]

    return square_of(read, x, y, side=side, px=px, fill=fill)


def square_of(
    read: Callable[[int, int, int, int], Pixels],
    x: float,
    y: float,
    *,
    side: float,
    px: int,
    fill: Pixels | int,
) -> Pixels:
    """Return a square of what a function reads.

    Parameters
    ----------
    read : callable
        From left, top, right and bottom, 0 or more, to the pixels there; what lies beyond the
        border is missing in the result.
    x, y, side, px, fill
        As of :func:`cut_square`.

    Returns
    -------
    uint8 array, shape (px, px) or (px, px, 3)
    """
    whole = max(1, round(side))
    left, top = int(np.floor(x - whole / 2)), int(np.floor(y - whole / 2))
    inside = read(max(left, 0), max(top, 0), max(left + whole, 0), max(top + whole, 0))
    if inside.shape[:2] != (whole, whole):
        filled = np.empty((whole, whole, *inside.shape[2:]), np.uint8)
        filled[:] = fill
        first_row, first_column = max(-top, 0), max(-left, 0)
        filled[
            first_row : first_row + inside.shape[0],
            first_column : first_column + inside.shape[1],
        ] = inside
        inside = filled
    if whole == px:
        return np.array(inside)
    method = Image.Resampling.BOX if whole > px else Image.Resampling.BICUBIC
    scaled = Image.fromarray(np.ascontiguousarray(inside)).resize((px, px), method)
    return np.asarray(scaled, dtype=np.uint8)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        # Our own errors are ValueErrors too, and say more.
        if isinstance(error, Seq2ExpError):
            raise
        raise FormatError(
            facts(
                str(path),
                found=str(error) or type(error).__name__,
                expected="a whole JPEG, PNG or TIFF image",
                fix="restore the file",
            )
        ) from error


def open_image(path: Path, *, max_megapixels: float = 1000.0) -> TissueImage:
    """Read an image whole, as RGB.

    Parameters
    ----------
    path : Path
        JPEG, PNG or TIFF.
    max_megapixels : float
        Larger images are refused before they are decoded.

    Raises
    ------
    InputError
        There is no such file, it is too large, has more than eight bits per channel, or says that
        it is to be rotated: then it is not known whether the spots were placed before or after.
    FormatError
        It is damaged or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="an image", fix="check the path")
        )
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with _readable(path), Image.open(path) as image:
            size = image.width * image.height / 1e6
            if size > max_megapixels:
                raise InputError(
                    facts(
                        str(path),
                        found=f"{image.width:,} x {image.height:,} pixels",
                        expected=f"at most {max_megapixels:g} megapixels",
                        fix="raise max_megapixels if the size is right, or scale the image down",
                    )
                )
            if image.getexif().get(_ORIENTATION, 1) != 1:
                raise InputError(
                    facts(
                        str(path),
                        found=f"EXIF orientation {image.getexif()[_ORIENTATION]}",
                        expected="1: pixels as they are stored",
                        fix="save the image upright, and check that the spots fit it",
                    )
                )
            if image.mode.split(";")[0] in _DEEP:
                raise InputError(
                    facts(
                        str(path),
                        found=f"pixels of kind {image.mode}, deeper than eight bits",
                        expected="8-bit RGB",
                        fix="convert the image to 8 bits per channel",
                    )
                )
            return TissueImage(path, np.asarray(image.convert("RGB"), dtype=np.uint8))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
