"""Read a section in the layout that its configuration names."""

from __future__ import annotations

from pathlib import Path

from data_prep.histology.bare import read_bare
from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.h5ad import read_h5ad
from data_prep.histology.hest import read_hest
from data_prep.histology.raw import RawSection
from data_prep.histology.st import read_st
from data_prep.histology.visium import read_visium
from seq2exp.core.errors import InputError, facts

__all__ = ["read_section", "section_files"]

_READERS = {
    "st": read_st,
    "h5ad": read_h5ad,
    "visium": read_visium,
    "hest": read_hest,
    "image": read_bare,
}


def section_files(config: SectionConfig, source: Path) -> list[Path]:
    """Return the files, or folders, that a section names."""
    return [source / name for name in (config.table, config.spots, config.image) if name]


def read_section(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read a section in the layout its configuration names.

    Raises
    ------
    InputError
        A file is missing, or spots and counts do not meet.
    FormatError
        A file is damaged, or columns are missing.
    """
    for path in section_files(config, source):
        folder = config.layout == "visium" and path == source / config.table
        if not (path.is_dir() if folder else path.is_file()):
            raise InputError(
                facts(
                    f"section {config.name}, {path}",
                    found="no such folder" if folder else "no such file",
                    expected="a folder of Space Ranger" if folder else "a file",
                    fix="check the path and --source",
                )
            )
    return _READERS[config.layout](config, cohort, source)
