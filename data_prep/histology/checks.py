"""What a section must be before it is written: spots on the image, on tissue, once per place."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.histology.image import saturation
from data_prep.histology.pitch import estimate_pitch
from data_prep.histology.raw import RawSection
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.slides import AnyImage

__all__ = [
    "alignment",
    "keep_spots",
    "physical_scale",
    "require_on_image",
    "require_patch_in_image",
]


def require_on_image(section: RawSection, image: AnyImage) -> None:
    """Refuse spots beyond the image, and places that are no number.

    Raises
    ------
    InputError
    """
    inside = (section.x >= 0) & (section.x < image.width)
    inside &= (section.y >= 0) & (section.y < image.height)
    if inside.all():
        return
    swapped = (section.y < image.width).all() and (section.x < image.height).all()
    raise InputError(
        facts(
            f"section {section.name}",
            found=f"spots beyond {image.path.name}, {image.width:,} x {image.height:,} pixels",
            expected="pixels of this image, x along its width",
            fix="x and y may be exchanged"
            if swapped
            else "check that pixels and image have the same resolution",
            count=int((~inside).sum()),
            examples=[
                f"x {section.x[i]:g}, y {section.y[i]:g}" for i in np.flatnonzero(~inside)[:3]
            ],
        )
    )


def keep_spots(section: RawSection, *, min_umi: int) -> tuple[RawSection, dict[str, int]]:
    """Return the spots with enough counts, ordered by row and column, and what was left out.

    Raises
    ------
    InputError
        Two spots share a place of the array or of the image, or no spot is left.
    """
    cells, counts = np.unique(
        np.column_stack([section.array_row, section.array_col]), axis=0, return_counts=True
    )
    if (counts > 1).any():
        raise InputError(
            facts(
                f"section {section.name}",
                found="spots that share a place of the array",
                expected="one spot per row and column",
                fix="drop the duplicates",
                count=int((counts > 1).sum()),
                examples=[f"row {row}, column {col}" for row, col in cells[counts > 1][:3]],
            )
        )
    pixels, counts = np.unique(np.column_stack([section.x, section.y]), axis=0, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            facts(
                f"section {section.name}",
                found="spots that share a place of the image",
                expected="every spot at a place of its own",
                fix="correct the pixels of these spots, or drop them",
                count=int((counts > 1).sum()),
                examples=[f"x {x:g}, y {y:g}" for x, y in pixels[counts > 1][:3]],
            )
        )
    total = np.asarray(section.counts.sum(axis=1)).ravel()
    # A bare image has no counts that could be too few.
    least = min_umi if section.has_counts else 0
    kept = np.flatnonzero(total >= least)
    if kept.size == 0:
        raise InputError(
            facts(
                f"section {section.name}",
                found=f"no spot with {min_umi} counts among {total.size}; the most is "
                f"{int(total.max(initial=0))}",
                expected="raw counts",
                fix="lower min_umi if the counts are right",
                count=0,
            )
        )
    ordered = kept[np.lexsort((section.array_col[kept], section.array_row[kept]))]
    left_out = dict(section.left_out)
    if section.has_counts:
        left_out[f"fewer than {min_umi} counts"] = int(total.size - kept.size)
    if section.has_counts and kept.size < 10:
        warnings.warn(
            facts(
                f"section {section.name}",
                found=f"{kept.size} spots",
                expected="some dozens: accuracy across so few spots means nothing",
                fix="leave the section out",
                count=int(kept.size),
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    return _rows(section, ordered), left_out


def _rows(section: RawSection, rows: NDArray[np.int64]) -> RawSection:
    chosen: dict[str, Any] = {
        name: getattr(section, name)[rows]
        for name in ("counts", "array_row", "array_col", "x", "y")
    }
    if section.patches is not None:
        chosen["patches"] = replace(section.patches, row_N=section.patches.row_N[rows])
    return replace(section, labels=section.labels.iloc[rows].reset_index(drop=True), **chosen)


def physical_scale(section: RawSection) -> float:
    """Return micrometres per pixel: as stated, or from the pitch of the spots.

    Raises
    ------
    InputError
        Neither is known, the stated size is no positive number, or they differ by more than a
        tenth.
    """
    if section.um_per_px is not None and not 0 < section.um_per_px < float("inf"):
        raise InputError(
            facts(
                f"section {section.name}",
                found=f"{section.um_per_px:g} micrometres per pixel",
                expected="a number above 0",
                fix="correct um_per_px",
            )
        )
    pitch_px = estimate_pitch(section)
    derived = section.spot_pitch_um / pitch_px if section.spot_pitch_um else float("nan")
    if section.um_per_px is None:
        if np.isfinite(derived):
            return derived
        raise InputError(
            facts(
                f"section {section.name}",
                found="no size of a pixel and no pitch of the spots",
                expected="micrometres per pixel",
                fix="give um_per_px of the section",
            )
        )
    if np.isfinite(derived) and not 0.9 < derived / section.um_per_px < 1.1:
        raise InputError(
            facts(
                f"section {section.name}",
                found=f"spots {pitch_px:.1f} pixels apart, {pitch_px * section.um_per_px:.0f} "
                f"micrometres at {section.um_per_px:g} per pixel",
                expected=f"{section.spot_pitch_um:g} micrometres",
                fix="check um_per_px: image and pixels may be of different resolutions",
            )
        )
    return section.um_per_px


def require_patch_in_image(section: RawSection, image: AnyImage, *, side: float) -> None:
    """Refuse patches of more pixels than the image has.

    Parameters
    ----------
    section : RawSection
    image : AnyImage
    side : float
        Side of the patch in pixels of the image.

    Raises
    ------
    InputError
    """
    if not side <= max(image.width, image.height):
        raise InputError(
            facts(
                f"section {section.name}",
                found=f"patches of {side:,.0f} pixels in an image of {image.width:,} x "
                f"{image.height:,}",
                expected="patches that are smaller than the image",
                fix="check patch.um and um_per_px",
            )
        )


def alignment(section: RawSection, image: AnyImage) -> dict[str, float]:
    """Return the mean colour saturation on the spots and off them.

    Off means around the corners and edges of the image, farther than two pitches from any spot.
    Tissue is stained and glass is not, so exchanged axes show.

    Returns
    -------
    dict
        ``saturation_on_spots`` and, unless spots are everywhere, ``saturation_off_spots``.
    """
    from scipy.spatial import cKDTree

    pitch = estimate_pitch(section)
    side = pitch / 2 if np.isfinite(pitch) else min(image.width, image.height) / 20
    columns, rows = np.meshgrid(
        np.linspace(side, image.width - side, 24), np.linspace(side, image.height - side, 24)
    )
    grid = np.column_stack([columns.ravel(), rows.ravel()])
    far = cKDTree(np.column_stack([section.x, section.y])).query(grid)[0] > 4 * side
    on = saturation(image, section.x, section.y, side=side)
    notes = {"saturation_on_spots": on}
    if far.any():
        notes["saturation_off_spots"] = saturation(image, grid[far, 0], grid[far, 1], side=side)
    return notes
