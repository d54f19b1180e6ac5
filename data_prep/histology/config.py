"""The configuration of a cohort: what ``configs/spatial/*.yaml`` may say of its data.

Every path is relative to the ``source`` folder that ``seq2exp spatial prepare`` is given, or
absolute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from seq2exp.core.errors import ConfigError, facts

__all__ = ["CohortConfig", "GeneTableConfig", "PatchConfig", "SectionConfig"]

Layout = Literal["h5ad", "st", "visium", "hest", "spatialdata", "image"]


_READ_BY: dict[str, tuple[Layout, ...]] = {
    "spots": ("st", "image", "spatialdata"),
    "patches": ("hest",),
    "grid_um": ("image",),
}


@dataclass(frozen=True)
class SectionConfig:
    """One section of tissue."""

    name: str
    """Unique name."""
    patient: str = ""
    """Patient; required unless the table says it. Of a bare image its name when empty."""
    layout: Layout = "h5ad"
    """h5ad: an AnnData; st: a table of counts, a table of spots and an image, as Spatial
    Transcriptomics data are published; visium: a folder of Space Ranger; hest: AnnData and
    patches of HEST-1k; spatialdata: a store of SpatialData; image: an image without counts, to
    predict on."""
    table: str = ""
    """The AnnData, the table of counts (rows ``{x}x{y}``, columns symbols), the folder, or the
    store."""
    spots: str = ""
    """Table of spots, for st: x, y and their pixels (pixel_x and pixel_y, or px and py). For image:
    x and y in pixels, and array_row, array_col and barcode where known. For spatialdata the name of
    the table, where there are several."""
    image: str = ""
    """Image; when empty, for h5ad the one it names, and for visium tissue_hires_image.png. For
    spatialdata the name of the image, where there are several."""
    um_per_px: float | None = None
    """Micrometres per pixel; what the AnnData says when not given. For st and visium it follows
    from the pitch of the spots; a bare TIFF or slide may say it."""
    patches: str = ""
    """File of patches, for hest; when empty ``patches/<id>.h5`` beside ``st/<id>.h5ad``. Not read
    where an image is given."""
    grid_um: float | None = None
    """For image, in place of a table: distance of the places of a grid over the tissue."""
    grid: Literal["square", "hex"] = "square"
    """Array of the table of spots of an image; hex with columns in half steps, as of Visium."""

    def __post_init__(self) -> None:
        needed = {"image": self.image} if self.layout == "image" else {"table": self.table}
        if self.layout == "st":
            needed |= {"spots": self.spots, "image": self.image}
        if self.layout in ("st", "visium"):
            needed |= {"patient": self.patient}
        if self.layout == "image" and (bool(self.spots) == (self.grid_um is not None)):
            raise ConfigError(
                facts(
                    f"section {self.name}, layout image",
                    found="both spots and grid_um" if self.spots else "neither spots nor grid_um",
                    expected="one of them: where to predict",
                    fix="name a table of spots, or set grid_um to 100",
                )
            )
        if self.grid_um is not None and not 0 < self.grid_um < float("inf"):
            raise ConfigError(
                facts(
                    f"section {self.name}, grid_um",
                    found=f"{self.grid_um:g}",
                    expected="above 0",
                    fix="set it to 100, the pitch of Visium",
                )
            )
        if self.um_per_px is not None and not 0 < self.um_per_px < float("inf"):
            raise ConfigError(
                facts(
                    f"section {self.name}, um_per_px",
                    found=f"{self.um_per_px:g}",
                    expected="micrometres per pixel, above 0",
                    fix="correct it",
                )
            )
        unread = [
            name
            for name, layouts in _READ_BY.items()
            if getattr(self, name) and self.layout not in layouts
        ]
        if unread or not self.name.strip():
            raise ConfigError(
                facts(
                    f"section {self.name}, layout {self.layout}",
                    found=f"{', '.join(unread)}, which it does not read" if unread else "no name",
                    expected="settings of this layout" if unread else "a name of its own",
                    fix="leave it out, or choose the layout" if unread else "name it",
                )
            )
        missing = [key for key, value in needed.items() if not value]
        if missing:
            raise ConfigError(
                facts(
                    f"section {self.name}, layout {self.layout}",
                    found=f"no {', '.join(missing)}",
                    expected="a value",
                    fix=f"add it; layouts are {', '.join(get_args(Layout))}",
                )
            )


@dataclass(frozen=True)
class PatchConfig:
    """The square of tissue that stands for a spot."""

    um: float = 165.0
    """Side of the square in micrometres: images of any resolution give the same field of view."""
    px: int = 224
    """Side of the stored patch in pixels."""
    stain: Literal["none", "macenko"] = "none"
    """Normalise the colours of every section to one reference (Macenko et al. 2009)."""

    def __post_init__(self) -> None:
        if not (0 < self.um < float("inf") and 8 <= self.px <= 1024):
            raise ConfigError(
                facts(
                    "patch",
                    found=f"um {self.um:g}, px {self.px}",
                    expected="um > 0 and px between 8 and 1024",
                    fix="change it",
                )
            )


@dataclass(frozen=True)
class GeneTableConfig:
    """Ids for genes that sections know by symbol."""

    gtf: str = ""
    """GTF with gene_id and gene_name; without one genes are known by symbol."""
    synonyms: str = ""
    """Table with columns ``symbol`` and ``current``: old symbols and what they are called now."""


@dataclass(frozen=True)
class CohortConfig:
    """A cohort of sections."""

    name: str
    """Name of the cohort."""
    sections: list[SectionConfig]
    """The sections."""
    patch: PatchConfig = field(default_factory=PatchConfig)
    """How patches are cut."""
    genes: GeneTableConfig = field(default_factory=GeneTableConfig)
    """Ids of genes."""
    spot_pitch_um: float = 200.0
    """Distance of neighbouring spots on the slide, for st: 200 for the first arrays, 150 for later
    ones."""
    spot_diameter_um: float = 100.0
    """Diameter of a spot, for st."""
    min_umi: int = 100
    """Spots with fewer counts are left out and counted."""
    images: Literal["copy", "reference"] = "copy"
    """Copy images into the cohort, so that it is whole, or remember where they lie."""
    max_megapixels: float = 1000.0
    """Larger images are refused: a damaged header can claim any size."""
    check_alignment: bool = True
    """Refuse a section whose spots are no more coloured than the glass around them, as when x and y
    were exchanged."""

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        repeated = {name for name in names if names.count(name) > 1}
        if not names or repeated:
            raise ConfigError(
                facts(
                    "sections",
                    found=f"{', '.join(sorted(repeated))} more than once" if repeated else "none",
                    expected="one or more, each with a name of its own",
                    fix="rename or add",
                )
            )
        if not (0 < self.spot_pitch_um < float("inf") and 0 < self.spot_diameter_um < float("inf")):
            raise ConfigError(
                facts(
                    "spot_pitch_um, spot_diameter_um",
                    found=f"{self.spot_pitch_um:g}, {self.spot_diameter_um:g}",
                    expected="above 0",
                    fix="change it",
                )
            )
        if self.min_umi < 1 or not self.max_megapixels > 0:
            raise ConfigError(
                facts(
                    "min_umi, max_megapixels",
                    found=f"{self.min_umi}, {self.max_megapixels:g}",
                    expected="at least 1, and above 0",
                    fix="change it",
                )
            )
