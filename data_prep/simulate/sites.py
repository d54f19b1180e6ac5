"""Binding sites of every element, in genome coordinates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.batching import batches
from data_prep.simulate.grammar import DISTAL, PROMOTER, Grammar, occupancy, scan_all
from data_prep.simulate.motifs import MOTIFS
from data_prep.simulate.truth import genome_order, promoter_frame
from data_prep.simulate.world import World, distal_codes, promoter_codes

__all__ = ["MIN_OCCUPANCY", "site_table"]

MIN_OCCUPANCY = 0.05


def site_table(world: World) -> pd.DataFrame:
    """Return every binding site with occupancy above 0.05 inside an element.

    Returns
    -------
    DataFrame
        chrom, start, end (0-based half-open), tf, score (bits), strand, occupancy, element_id.
    """
    promoters = promoter_frame(world)
    distal = world.elements.assign(strand="+")
    parts = [
        *_sites(DISTAL, distal_codes(world), distal),
        *_sites(PROMOTER, promoter_codes(world), promoters),
    ]
    return genome_order(world, pd.concat(parts, ignore_index=True))


def _sites(
    grammar: Grammar, sequences: list[NDArray[np.uint8]], places: pd.DataFrame
) -> list[pd.DataFrame]:
    """Scan sequences read along ``places.strand`` and return sites in genome coordinates."""
    found = []
    for rows, batch in batches(sequences):
        chunk = places.iloc[rows]
        for index, (forward, reverse) in scan_all(grammar, batch).items():
            found.append(_hits(forward, chunk, index, minus=False))
            if not MOTIFS[index].stranded:
                found.append(_hits(reverse, chunk, index, minus=True))
    return found


def _hits(
    score: NDArray[np.float32], places: pd.DataFrame, index: int, *, minus: bool
) -> pd.DataFrame:
    motif = MOTIFS[index]
    occupied = occupancy(score, motif)
    row, offset = np.nonzero(occupied > MIN_OCCUPANCY)
    start, end = places["start"].to_numpy()[row], places["end"].to_numpy()[row]
    flipped = (places["strand"] == "-").to_numpy()[row]
    left = np.where(flipped, end - offset - motif.width, start + offset)
    return pd.DataFrame(
        {
            "chrom": places["chrom"].to_numpy()[row],
            "start": left,
            "end": left + motif.width,
            "tf": motif.name,
            "score": score[row, offset].astype(float),
            "strand": np.where(flipped ^ minus, "-", "+"),
            "occupancy": occupied[row, offset].astype(float),
            "element_id": places["element_id"].to_numpy()[row],
        }
    )
