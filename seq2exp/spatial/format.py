"""The cohort folder on disk, format version 1 (docs/spatial/cohort.md).

::

    COHORT/manifest.json          format_version, sections, patch, counts of what was left out
    COHORT/sections/<name>.h5ad   AnnData: raw counts of the spots that were kept
    COHORT/patches/<name>.npy     uint8 [num_spots, patch_px, patch_px, 3], RGB, rows as in the h5ad
    COHORT/images/<name>.<suffix> the image, where it was copied

Only this module knows file names and the manifest's layout: ``data_prep.histology`` writes through
it, :mod:`seq2exp.spatial.cohort` opens through it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seq2exp.core.config import bind
from seq2exp.core.errors import FormatError, Seq2ExpError, facts
from seq2exp.core.files import read_json, safe_name, write_json

__all__ = [
    "FORMAT_VERSION",
    "OBS_COLUMNS",
    "CohortManifest",
    "PatchInfo",
    "SectionInfo",
    "manifest_path",
    "patches_path",
    "read_manifest",
    "section_path",
    "write_manifest",
]

FORMAT_VERSION = 1
OBS_COLUMNS = ("section", "patient", "array_row", "array_col", "total_counts")


@dataclass(frozen=True)
class PatchInfo:
    """How patches were cut; the same for all sections."""

    px: int
    """Side of a stored patch."""
    um: float
    """Side of the square of tissue that it shows, micrometres."""
    stain: str = "none"
    """Normalisation of the stain: none or macenko."""


@dataclass(frozen=True)
class SectionInfo:
    """One section."""

    name: str
    """Unique name."""
    patient: str
    """Whom it is of; sections of a patient never stand on both sides of a split."""
    num_spots: int
    """Spots that were kept."""
    num_genes: int
    """Genes of its table."""
    um_per_px: float
    """Micrometres per pixel of the image."""
    image: str
    """The image: a path in the cohort folder, or an absolute one where it was not copied; empty
    where patches were given without it."""
    width: int
    """Pixels; 0 where the image is not there and nothing says it."""
    height: int
    """Pixels."""
    image_sha256: str
    """Checksum of the image file, or of the file of patches."""
    spot_pitch_um: float
    """Distance of neighbouring spots; 0 where it is not known."""
    spot_diameter_um: float
    """Diameter of a spot; 0 where it is not known."""
    grid: str = "square"
    """square, or hex, whose rows are shifted by half a step."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Spots that were left out, by reason."""
    notes: dict[str, float] = field(default_factory=dict)
    """What the checks measured."""
    by_region: bool = False
    """The image is a slide that is read by region."""


@dataclass(frozen=True)
class CohortManifest:
    """What manifest.json holds."""

    name: str
    """Name of the cohort."""
    sections: list[SectionInfo]
    """In the order of the configuration."""
    patch: PatchInfo
    """How patches were cut."""
    gene_ids: str = "symbol"
    """What identifies genes: ensembl, or symbol where no gene table was given."""
    package_version: str = ""
    """Version of seq2exp that wrote it."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files of the folder, by relative path."""
    format_version: int = FORMAT_VERSION
    """Version of this layout."""

    def section(self, name: str) -> SectionInfo:
        """Return a section by name."""
        return next(section for section in self.sections if section.name == name)


def manifest_path(root: Path) -> Path:
    """Return the path of the manifest."""
    return root / "manifest.json"


def section_path(root: Path, name: str) -> Path:
    """Return the path of a section's AnnData."""
    return root / "sections" / f"{safe_name(name)}.h5ad"


def patches_path(root: Path, name: str) -> Path:
    """Return the path of a section's patches."""
    return root / "patches" / f"{safe_name(name)}.npy"


def write_manifest(manifest: CohortManifest, root: Path) -> None:
    """Write the manifest of a cohort."""
    write_json(dataclasses.asdict(manifest), manifest_path(root))


def read_manifest(root: Path) -> CohortManifest:
    """Read and check the manifest of a cohort.

    Raises
    ------
    FormatError
        ``root`` is no cohort, the manifest is damaged, or of a newer version.
    """
    path = manifest_path(Path(root))
    if not path.is_file():
        raise FormatError(
            facts(
                str(root),
                found="no manifest.json",
                expected="a cohort folder",
                fix="give the folder that `seq2exp spatial prepare` wrote",
            )
        )
    values: Any = read_json(path)
    if not isinstance(values, dict) or "sections" not in values or "patch" not in values:
        raise FormatError(
            facts(
                str(path),
                found="no sections and patch",
                expected="the manifest of a cohort, not of a run or a dataset",
                fix="give the folder that `seq2exp spatial prepare` wrote",
            )
        )
    version = values.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FormatError(
            facts(
                str(path),
                found=f"format_version {version!r}",
                expected=f"a cohort of version {FORMAT_VERSION} or older",
                fix="update seq2exp, or prepare the cohort again",
            )
        )
    try:
        return bind(CohortManifest, values, where=str(path))
    except (Seq2ExpError, TypeError) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="what `seq2exp spatial prepare` wrote",
                fix="prepare the cohort again",
            )
        ) from error
