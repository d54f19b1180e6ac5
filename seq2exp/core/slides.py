"""Whole slides: read by region through tiffslide, never decoded whole.

Patches are cut from the full resolution, so they are those of the same image in memory. What looks
at the whole slide (its glass, its tissue, the fit of its stain) sees an overview of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpError, facts
from seq2exp.core.images import TissueImage, border_colour, open_image, square_of

__all__ = [
    "OVERVIEW_PX",
    "SLIDE_SUFFIXES",
    "AnyImage",
    "SlideImage",
    "open_slide",
    "open_tissue",
    "stored_um_per_px",
]

Pixels = NDArray[np.uint8]
OVERVIEW_PX = 4096
"""Longest side of an overview."""
_SCANNERS = (".svs", ".ndpi", ".scn", ".bif", ".btf")
_TIFF = (".tif", ".tiff")
SLIDE_SUFFIXES = (*_SCANNERS, *_TIFF)
"""Files that may be read by region."""
_STRIP_PIXELS = 32_000_000
_TILE_WIDTH = 322
_X_RESOLUTION, _RESOLUTION_UNIT = 282, 296
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
# Outside of these a tag says the size of a print, not that of tissue.
_LEAST_UM, _MOST_UM = 0.05, 20.0


@dataclass(frozen=True, eq=False)
class SlideImage:
    """A slide on disk.

    Attributes
    ----------
    path : Path
    slide : tiffslide.TiffSlide
    change : callable or None
        Applied to the colours of everything that is read.
    """

    path: Path
    slide: Any
    change: Callable[[Pixels], Pixels] | None = None

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.slide.dimensions[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.slide.dimensions[1])

    @cached_property
    def glass(self) -> Pixels:
        """Colour of the glass: the 95 % quantile of each channel along the border."""
        return border_colour(self.overview()[0])

    @cached_property
    def _overview(self) -> tuple[Pixels, float]:
        shrink = max(1.0, max(self.width, self.height) / OVERVIEW_PX)
        # The level above is read and scaled, so that no level below is blown up.
        level = max(
            (i for i, by in enumerate(self.slide.level_downsamples) if by <= shrink * 1.01),
            default=0,
        )
        down = float(self.slide.level_downsamples[level])
        width, height = self.slide.level_dimensions[level]
        size = (max(1, round(self.width / shrink)), max(1, round(self.height / shrink)))
        out = np.empty((size[1], size[0], 3), np.uint8)
        # In strips: a slide may have no level but the full one.
        step = max(1, int(_STRIP_PIXELS * size[1] / (width * height)))
        for first in range(0, size[1], step):
            last = min(first + step, size[1])
            top, bottom = (round(row * height / size[1]) for row in (first, last))
            with _readable(self.path):
                place, part = (0, round(top * down)), (width, bottom - top)
                pixels = _rgb(self.slide.read_region(place, level, part, as_array=True))
            if (width, bottom - top) != (size[0], last - first):
                scaled = Image.fromarray(pixels).resize(
                    (size[0], last - first), Image.Resampling.BOX
                )
                pixels = np.asarray(scaled, dtype=np.uint8)
            out[first:last] = pixels
        return self._coloured(out), size[0] / self.width

    def overview(self) -> tuple[Pixels, float]:
        """Return the slide scaled to 4,096 pixels at most, and its size as a share of the slide."""
        return self._overview

    def recoloured(self, change: Callable[[Pixels], Pixels]) -> SlideImage:
        """Return the slide in other colours."""
        return replace(self, change=change)

    def patch(self, x: float, y: float, *, side: float, px: int) -> Pixels:
        """Return a square around a point, as :meth:`TissueImage.patch` does.

        Raises
        ------
        FormatError
            The slide is damaged there.
        """
        reach = side / 2 + 1
        beyond = x < reach or y < reach or x + reach > self.width or y + reach > self.height
        # The colour of the glass takes a look at the whole slide.
        fill = self.glass if beyond else 0
        return square_of(self._region, x, y, side=side, px=px, fill=fill)

    def _region(self, left: int, top: int, right: int, bottom: int) -> Pixels:
        right, bottom = min(right, self.width), min(bottom, self.height)
        if right <= left or bottom <= top:
            return np.empty((0, 0, 3), np.uint8)
        with _readable(self.path):
            size = (right - left, bottom - top)
            found = self.slide.read_region((left, top), 0, size, as_array=True)
            return self._coloured(_rgb(found))

    def _coloured(self, pixels: Pixels) -> Pixels:
        return pixels if self.change is None else self.change(pixels)


AnyImage = TissueImage | SlideImage


def _rgb(values: NDArray[Any]) -> Pixels:
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] not in (3, 4):
        raise ValueError(f"pixels of type {values.dtype} and shape {values.shape}")
    return np.ascontiguousarray(values[..., :3])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what readers of TIFF raise, which is anything, into our error."""
    try:
        yield
    except Seq2ExpError:
        raise
    # tifffile, zarr and the codecs have errors of their own, which share no base.
    except Exception as error:
        raise FormatError(
            facts(
                str(path),
                found=f"{type(error).__name__}: {error}",
                expected="a whole slide, RGB in 8 bits",
                fix="restore the file",
            )
        ) from error


def open_slide(path: Path) -> SlideImage:
    """Open a slide to be read by region.

    Raises
    ------
    InputError
        There is no such file.
    ConfigError
        The extra ``wsi`` is not installed.
    FormatError
        It is damaged or no slide.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a slide", fix="check the path")
        )
    try:
        from tiffslide import TiffSlide
    except ImportError as error:
        raise ConfigError(
            facts(
                str(path),
                found="no tiffslide",
                expected="a reader of whole slides",
                fix="run pip install seq2exp[wsi], or give an image of at most max_megapixels",
            )
        ) from error
    # It warns of every tag it does not know.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with _readable(path):
        image = SlideImage(path, TiffSlide(path))
        if image.width < 1 or image.height < 1:
            raise ValueError("no pixels")
        # The first pixel, so that depth and colours are known to be right.
        image._region(0, 0, 1, 1)
    return image


def open_tissue(path: Path, *, max_megapixels: float = 1000.0) -> AnyImage:
    """Open an image in memory, or a slide to be read by region.

    Slides are files of scanners (.svs, .ndpi, .scn, .bif, .btf) and tiled TIFFs that are larger
    than ``max_megapixels``.

    Raises
    ------
    InputError, FormatError, ConfigError
        As of :func:`open_image` and :func:`open_slide`.
    """
    path = Path(path)
    if path.suffix.lower() in _SCANNERS:
        return open_slide(path)
    if path.suffix.lower() in _TIFF and path.is_file():
        header = _tiff_header(path)
        if header.get(_TILE_WIDTH) and header["megapixels"] > max_megapixels:
            return open_slide(path)
    return open_image(path, max_megapixels=max_megapixels)


def _tiff_header(path: Path) -> dict[Any, Any]:
    """Return some tags of a TIFF and its size; nothing of a damaged one."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", {})
            known = {key: tags.get(key) for key in (_TILE_WIDTH, _X_RESOLUTION, _RESOLUTION_UNIT)}
            return known | {"megapixels": image.width * image.height / 1e6}
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        return {}
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def stored_um_per_px(image: AnyImage) -> float | None:
    """Return the size of a pixel that a TIFF or a slide states, micrometres.

    Returns
    -------
    float or None
        None where nothing is stated, or what is stated is the size of a print.
    """
    if isinstance(image, SlideImage):
        stated = image.slide.properties.get("tiffslide.mpp-x")
        return _plausible(stated)
    if image.path.suffix.lower() not in _TIFF:
        return None
    header = _tiff_header(image.path)
    per_unit, unit = header.get(_X_RESOLUTION), header.get(_RESOLUTION_UNIT)
    if not per_unit or unit not in _UM_PER_UNIT:
        return None
    return _plausible(_UM_PER_UNIT[unit] / float(per_unit))


def _plausible(value: Any) -> float | None:  # noqa: ANN401
    try:
        size = float(value)
    except (TypeError, ValueError):
        return None
    return size if _LEAST_UM <= size <= _MOST_UM else None
