"""Features of the patches of a cohort, by name of the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.cache import FeatureCache
from seq2exp.spatial.images.registry import make_encoder

__all__ = ["cohort_features"]


def cohort_features(
    cohort: SpatialCohort, encoder: str, *, weights: Path | None = None, progress: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Return the features of all spots by section, each of shape (num_spots, num_features).

    They are kept in ``features/`` of the cohort.

    Parameters
    ----------
    cohort : SpatialCohort
    encoder : str
        Name of an image encoder.
    weights : Path, optional
        Local file of its weights.
    progress : bool

    Raises
    ------
    ConfigError
        No such encoder.
    """
    cache = FeatureCache(cohort, make_encoder(encoder, weights))
    cache.build(progress=progress)
    return {name: cache.feat(name) for name in cohort.names}
