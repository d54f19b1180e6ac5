"""Boundary maps of a section: where stain changes, and where nuclei are.

The provider ``basic`` needs scipy only. Haematoxylin (Ruifrok and Johnston 2001) marks nuclei:
edges are the size of its Sobel gradient over the 99 % quantile of the section; nuclei are where it
is, after smoothing, above the threshold of Otsu (1979) among stained pixels, small holes filled and
specks dropped.

Maps lie on the pixels of the image, are kept as bytes and memory-mapped::

    ROOT/<provider>/<section>-<key>.npy       uint8 [2, height, width]: edge, nuclei

Axes: H, W pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_file, require_space, safe_name
from seq2exp.core.images import cut_square
from seq2exp.core.progress import track
from seq2exp.core.slides import SlideImage
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.colour import stain_concentrations
from seq2exp.spatial.images.tiles import open_section_image

__all__ = ["MAPS", "BasicBoundary", "BoundaryMaps", "BoundaryProvider", "otsu"]

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
MAPS = ("edge", "nuc")
_GLASS = 0.85
_GREY = np.array([0.2125, 0.7154, 0.0721], np.float32)
_SAMPLE = 1 << 22
_LEVELS = 256
_STRIP = 1024


class BoundaryProvider(Protocol):
    """What gives boundary maps; equal pixels give equal maps."""

    name: ClassVar[str]

    def edge(self, rgb_HW3: Pixels, *, um_per_px: float) -> Floats:
        """Return how much the stain changes at every pixel, 0 to 1."""

    def nuclei(self, rgb_HW3: Pixels, *, um_per_px: float) -> Floats:
        """Return how much every pixel is nucleus, 0 to 1."""


@dataclass(frozen=True)
class BasicBoundary:
    """Edges and nuclei from the haematoxylin channel, without further packages."""

    name: ClassVar[str] = "basic"
    smooth_um: float = 1.0
    """Deviation of the smoothing before nuclei are cut out, micrometres."""
    min_um2: float = 8.0
    """Smaller specks are no nuclei, square micrometres."""
    max_hole_um2: float = 20.0
    """Larger holes stay: a ring of nuclei around a gland is no nucleus. Square micrometres."""

    def __post_init__(self) -> None:
        if not min(self.smooth_um, self.min_um2, self.max_hole_um2) >= 0:
            raise ConfigError(
                facts(
                    "boundary maps",
                    found=f"smooth_um {self.smooth_um:g}, min_um2 {self.min_um2:g}, "
                    f"max_hole_um2 {self.max_hole_um2:g}",
                    expected="0 or more",
                    fix="change it",
                )
            )

    def edge(self, rgb_HW3: Pixels, *, um_per_px: float) -> Floats:
        """Return the size of the gradient over its 99 % quantile, cut at 1, shape (H, W)."""
        from scipy import ndimage

        stain_HW = _haematoxylin(rgb_HW3)
        size_HW: Floats = np.hypot(ndimage.sobel(stain_HW, axis=0), ndimage.sobel(stain_HW, axis=1))
        top = float(np.quantile(_sampled(size_HW), 0.99))
        return np.minimum(size_HW / top, 1) if top > 0 else np.zeros_like(size_HW)

    def nuclei(self, rgb_HW3: Pixels, *, um_per_px: float) -> Floats:
        """Return 1 on nuclei and 0 elsewhere, shape (H, W)."""
        return (self.labels(rgb_HW3, um_per_px=um_per_px) > 0).astype(np.float32)

    def labels(self, rgb_HW3: Pixels, *, um_per_px: float) -> NDArray[np.int32]:
        """Return the number of the nucleus at every pixel, 0 outside, shape (H, W)."""
        from scipy import ndimage

        stain_HW = _haematoxylin(rgb_HW3)
        smooth_HW = ndimage.gaussian_filter(stain_HW, self.smooth_um / um_per_px)
        # Glass would take one of the two classes.
        tissue_HW = _stained(rgb_HW3)
        if not tissue_HW.any():
            return np.zeros(stain_HW.shape, np.int32)
        chosen = smooth_HW[tissue_HW]
        mask_HW = (smooth_HW > otsu(_sampled(chosen))) & tissue_HW
        holes_HW = ndimage.binary_fill_holes(mask_HW) & ~mask_HW
        area_um2 = um_per_px**2
        mask_HW |= _numbered(holes_HW, most=self.max_hole_um2 / area_um2) > 0
        return _numbered(mask_HW, least=self.min_um2 / area_um2)


def _numbered(
    mask_HW: NDArray[np.bool_], *, least: float = 0.0, most: float = float("inf")
) -> NDArray[np.int32]:
    """Return the connected parts of a mask that have at least and at most so many pixels."""
    from scipy import ndimage

    labels_HW, num_found = ndimage.label(mask_HW)
    area = np.bincount(labels_HW.ravel(), minlength=num_found + 1)
    kept = (area >= least) & (area <= most)
    kept[0] = False
    found: NDArray[np.int32] = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels_HW]
    return found


def otsu(values: NDArray[np.floating]) -> float:
    """Return the threshold that parts values into two classes of least variance (Otsu 1979).

    Of 256 levels between the smallest and the largest value; equal values give that value.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    counts, edges = np.histogram(values, bins=_LEVELS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    mean_below = total[:-1] / np.maximum(below, 1)
    mean_above = (total[-1] - total[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    # Between two separate classes all thresholds are equally good: take the middle one.
    best = np.flatnonzero(between == between.max())
    return float(edges[1 + best[len(best) // 2]])


class BoundaryMaps:
    """Boundary maps of the sections of a cohort, computed once per section.

    Parameters
    ----------
    cohort : SpatialCohort
    provider : BoundaryProvider
        A frozen dataclass: its settings are part of the key.
    root : Path, optional
        ``features/boundary`` in the cohort's folder when not given.
    """

    def __init__(
        self, cohort: SpatialCohort, provider: BoundaryProvider, *, root: Path | None = None
    ) -> None:
        self.cohort, self.provider = cohort, provider
        place = Path(root) if root is not None else cohort.root / "features" / "boundary"
        self.folder = place / safe_name(provider.name)
        self._open: dict[str, Pixels] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def build(self, sections: Sequence[str] | None = None, *, progress: bool = False) -> list[Path]:
        """Compute the maps that are not there yet; return their files."""
        names = list(self.cohort.names if sections is None else sections)
        todo = [name for name in names if self._read(name) is None]
        for name in track(todo, total=len(todo), label="boundary maps", enabled=progress):
            self._compute(name)
        return [self.path(name) for name in todo]

    def section(self, name: str) -> Pixels:
        """Return edge and nuclei of a section, memory-mapped, shape (2, height, width)."""
        if name not in self._open:
            self.build([name])
            self._open[name] = np.load(self.path(name), mmap_mode="r")
        return self._open[name]

    def crop(self, name: str, spot: int, *, tiles: int = 1) -> dict[str, Pixels]:
        """Return the maps of the patch of a spot, 0 beyond the image.

        Parameters
        ----------
        name : str
            Section.
        spot : int
            Row of the spot.
        tiles : int
            Side of the window in patches: 1 for the patch, 5 for the tiles around it.

        Returns
        -------
        dict of uint8 arrays ``edge`` and ``nuc``, shape (tiles * px, tiles * px)
        """
        section, patch = self.cohort.section(name), self.cohort.manifest.patch
        x, y = section.xy_N2[spot]
        side = tiles * patch.um / section.info.um_per_px
        return {
            kind: cut_square(map_HW, x, y, side=side, px=tiles * patch.px, fill=0)
            for kind, map_HW in zip(MAPS, self.section(name), strict=True)
        }

    def path(self, name: str) -> Path:
        """Return where the maps of a section lie; its name holds a hash of all they follow from."""
        info, stain = self.cohort.manifest.section(name), self.cohort.manifest.patch.stain
        known = {
            "provider": self.provider.name,
            "settings": dataclasses.asdict(self.provider),  # type: ignore[call-overload]
            "image": info.image_sha256,
            "um_per_px": info.um_per_px,
            "stain": stain,
            "reference": self.cohort.manifest.sections[0].image_sha256 if stain != "none" else "",
        }
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{safe_name(name)}-{key[:16]}.npy"

    def _read(self, name: str) -> Pixels | None:
        path, info = self.path(name), self.cohort.manifest.section(name)
        if not path.is_file():
            return None
        try:
            found: Pixels = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s: computed again, it is damaged (%s)", path, error)
            return None
        return found if found.shape == (len(MAPS), info.height, info.width) else None

    def _compute(self, name: str) -> None:
        info = self.cohort.manifest.section(name)
        require_space(self.folder, len(MAPS) * info.height * info.width)
        image = open_section_image(self.cohort, name)
        if isinstance(image, SlideImage):
            raise InputError(
                facts(
                    f"section {name}",
                    found=f"a slide of {image.width:,} x {image.height:,} pixels",
                    expected="an image that fits into memory: maps are made of the whole",
                    fix="prepare the cohort from the slide scaled down",
                )
            )
        rgb_HW3 = image.pixels_HW3
        with atomic_file(self.path(name), overwrite=True) as partial:
            out = np.lib.format.open_memmap(
                partial, mode="w+", dtype=np.uint8, shape=(len(MAPS), *rgb_HW3.shape[:2])
            )
            out[0] = _as_bytes(self.provider.edge(rgb_HW3, um_per_px=info.um_per_px))
            out[1] = _as_bytes(self.provider.nuclei(rgb_HW3, um_per_px=info.um_per_px))
            out.flush()
            del out


def _haematoxylin(rgb_HW3: Pixels) -> Floats:
    """Return the haematoxylin channel, strip by strip: sections have many pixels."""
    out = np.empty(rgb_HW3.shape[:2], np.float32)
    for first in range(0, len(out), _STRIP):
        part = rgb_HW3[first : first + _STRIP] / 255
        out[first : first + _STRIP] = stain_concentrations(part)[..., 0]
    return out


def _stained(rgb_HW3: Pixels) -> NDArray[np.bool_]:
    out = np.empty(rgb_HW3.shape[:2], bool)
    for first in range(0, len(out), _STRIP):
        part = rgb_HW3[first : first + _STRIP].astype(np.float32) @ _GREY
        out[first : first + _STRIP] = part < _GLASS * 255
    return out


def _sampled(values: Floats) -> Floats:
    """Return every n-th value, at most some millions."""
    flat = values.ravel()
    return flat[:: max(1, flat.size // _SAMPLE)]


def _as_bytes(values: Floats) -> Pixels:
    found: Pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return found
