"""What worker processes do in these tests; imports little, because a spawned one imports it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep.config import TrackConfig
from data_prep.tracks import TrackFile, bin_contig, check_track
from tests.data_prep import raw

SETTING = TrackConfig(name="t", path="t.bw")


def track_file(folder: Path) -> TrackFile:
    path = raw.write_bigwig(folder / "t.bw", raw.SIGNAL)
    return check_track(SETTING, path, sizes=raw.SIZES, contigs=list(raw.SIZES))


def bins_of(job: tuple[TrackFile, str]) -> np.ndarray:
    file, contig = job
    length = raw.SIZES[contig]
    known = (np.array([0]), np.array([length]))
    return bin_contig(file, contig, length=length, bin_size=16, config=SETTING, known=known).values
