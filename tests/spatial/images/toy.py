"""A tiny cohort, and files of weights, for the tests of image features."""

from __future__ import annotations

from pathlib import Path

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import PatchConfig
from seq2exp.spatial.cohort import SpatialCohort
from tests.data_prep.histology import raw


def make_cohort(folder: Path, **patch) -> SpatialCohort:
    """Two sections of 30 spots; a patch is 16 pixels of the image, 160 micrometres."""
    sections = [raw.write_st(folder / "source", name, seed=seed) for seed, name in enumerate("AB")]
    config = raw.cohort(*sections, patch=PatchConfig(**({"um": 160, "px": 16} | patch)))
    prepare_cohort(config, folder / "source", folder / "cohort")
    return SpatialCohort(folder / "cohort")
