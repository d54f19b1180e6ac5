"""The 5 x 5 tiles around every spot, cut from the image of its section.

Tiles have the side of a patch and meet without gaps; the one in the middle is that of the spot. A
tile whose centre lies outside the image is not there. Axes: N spots, K = 25 tiles row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import sha256
from seq2exp.core.images import open_image
from seq2exp.core.slides import AnyImage, open_slide
from seq2exp.core.stain import Macenko
from seq2exp.spatial.cohort import Section, SpatialCohort

__all__ = ["NUM_TILES", "WINDOW", "open_section_image", "tile_centres", "tiles_of"]

WINDOW = 5
NUM_TILES = WINDOW * WINDOW


def tile_centres(section: Section, *, um: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return where the tiles of a section lie.

    Parameters
    ----------
    section : Section
    um : float
        Side of a tile, micrometres.

    Returns
    -------
    xy_NK2 : float64 array, shape (num_spots, 25, 2)
        Centres in pixels of the image, x and y.
    mask_NK : bool array, shape (num_spots, 25)
        False where the centre lies outside the image.
    """
    step = (np.arange(WINDOW) - WINDOW // 2) * um / section.info.um_per_px
    rows, columns = np.meshgrid(step, step, indexing="ij")
    offset_K2 = np.column_stack([columns.ravel(), rows.ravel()])
    xy_NK2 = section.xy_N2[:, None] + offset_K2
    size = np.array([section.info.width, section.info.height])
    return xy_NK2, ((xy_NK2 >= 0) & (xy_NK2 < size)).all(axis=-1)


def tiles_of(
    section: Section, image: AnyImage, *, um: float, px: int
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield spot, number of the tile and its pixels, for the tiles that are there.

    Parameters
    ----------
    section : Section
    image : TissueImage or SlideImage
        What :func:`open_section_image` returned.
    um : float
        Side of a tile, micrometres.
    px : int
        Side of what is yielded: uint8 arrays of shape (px, px, 3).
    """
    xy_NK2, mask_NK = tile_centres(section, um=um)
    side = um / section.info.um_per_px
    for spot, tile in np.argwhere(mask_NK):
        x, y = xy_NK2[spot, tile]
        yield int(spot), int(tile), image.patch(x, y, side=side, px=px)


def open_section_image(cohort: SpatialCohort, name: str) -> AnyImage:
    """Open the image of a section, in the colours that the patches of the cohort have.

    Raises
    ------
    InputError
        The image is not where the manifest says, or the cohort was made without it.
    FormatError
        It is damaged, or another one than the cohort was made of.
    """
    image = _unchanged(cohort, name)
    if cohort.manifest.patch.stain == "none":
        return image
    # Preparation takes the first section as reference; both fits follow from the pixels alone.
    first = cohort.names[0]
    own = Macenko.fit(image.overview()[0])
    other = own if first == name else Macenko.fit(_unchanged(cohort, first).overview()[0])
    return image.recoloured(partial(own.transform, reference=other))


def _unchanged(cohort: SpatialCohort, name: str) -> AnyImage:
    section = cohort.section(name)
    path, info = section.image_path, section.info
    if not info.image:
        raise InputError(
            facts(
                f"section {name}",
                found="patches without the image that they were cut from",
                expected="an image, to see beyond the patches",
                fix="prepare the cohort with the slides",
            )
        )
    # The size in the manifest was checked when the cohort was made.
    limit = info.width * info.height / 1e6 + 1
    image: AnyImage
    image = open_slide(path) if info.by_region else open_image(path, max_megapixels=limit)
    if (image.width, image.height) != (info.width, info.height) or (
        sha256(path) != info.image_sha256
    ):
        raise FormatError(
            facts(
                str(path),
                found=f"another image, {image.width:,} x {image.height:,} pixels",
                expected=f"the image that section {name} was prepared from, "
                f"{info.width:,} x {info.height:,}",
                fix="restore the image, or prepare the cohort again",
            )
        )
    return image
