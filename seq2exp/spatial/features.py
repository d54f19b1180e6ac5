"""Features of the patches of a cohort, by name of the encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.config import require_known
from seq2exp.core.progress import track
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.colour import colour_stats

__all__ = ["ENCODERS", "cohort_features"]

ENCODERS = ("colour_stats",)


def cohort_features(
    cohort: SpatialCohort, encoder: str, *, progress: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Return the features of all spots by section, each of shape (num_spots, num_features).

    Parameters
    ----------
    cohort : SpatialCohort
    encoder : str
    progress : bool

    Raises
    ------
    ConfigError
        No such encoder.
    """
    require_known("encoder", encoder, ENCODERS, expected="an image encoder")
    sections = track(cohort.sections(), total=len(cohort.names), label="features", enabled=progress)
    return {
        section.name: np.stack([colour_stats(patch) for patch in section.patches])
        for section in sections
    }
