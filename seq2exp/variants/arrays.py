"""Predictions for both alleles of some variants, cut to what scores compare.

Shapes: E members, C comparisons, S sequences, K labels, N bins of the window, W bins around the
variant, T predicted tracks, D width of the pooled state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.variants.masks import centre_bins
from seq2exp.variants.passes import Predicted

__all__ = ["Compared", "compare"]

Floats = NDArray[Any]
Pair = tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class Compared:
    """Predictions of two sequences each, member by member.

    Every attribute is a pair, before and after; None where the models give no such thing.

    Attributes
    ----------
    expression_ECK, fixed_ECK : pairs of float64 arrays
        Labels; with the mask of each allele, and with that of the reference.
    mask_ECW : pair of float arrays
        Around the variant in genome direction, NaN beyond the window.
    tracks_ECWT : pair of float arrays
        Likewise.
    embedding_ECD : pair of float64 arrays
    """

    expression_ECK: Pair
    fixed_ECK: Pair | None
    mask_ECW: Pair | None
    tracks_ECWT: Pair | None
    embedding_ECD: Pair


def compare(
    predicted: Predicted,
    pairs: Sequence[tuple[int, int]],
    positions: Sequence[int],
    windows: Sequence[Window],
    *,
    bin_size: int,
    widths: Sequence[int],
) -> Compared:
    """Take the two sequences of each comparison, and of bins those around the variant.

    Parameters
    ----------
    predicted : Predicted
        Of all sequences.
    pairs : sequence of (int, int)
        Sequences before and after.
    positions : sequence of int
        First changed base of each comparison, 0-based.
    windows : sequence of Window
        Of every member.
    bin_size : int
        Bases.
    widths : sequence of int
        Bases around each variant.
    """
    index_C2 = np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def both(values: Floats) -> Pair:
        return values[:, index_C2[:, 0]], values[:, index_C2[:, 1]]

    def around(values: Floats | None) -> Pair | None:
        if values is None:
            return None
        before, after = both(values)
        where = _places(positions, windows, values.shape[2], bin_size, widths)
        return _cut(before, where), _cut(after, where)

    return Compared(
        both(predicted.expression_ESK),
        None if predicted.fixed_ESK is None else both(predicted.fixed_ESK),
        around(predicted.mask_ESN),
        around(predicted.tracks_ESNT),
        both(predicted.embedding_ESD),
    )


def _places(
    positions: Sequence[int],
    windows: Sequence[Window],
    num_bins: int,
    bin_size: int,
    widths: Sequence[int],
) -> NDArray[np.int64]:
    """Bins around each variant in each member's window, -1 beyond it, shape (E, C, W)."""
    sizes = [-(-width // bin_size) for width in widths]
    size = max(sizes)
    places = np.full((len(windows), len(positions), size), -1, dtype=np.int64)
    for member, window in enumerate(windows):
        for row, (position, width) in enumerate(zip(positions, widths, strict=True)):
            offset = position - window.start
            if not 0 <= offset < window.length:
                continue
            first, last = centre_bins(offset, num_bins=num_bins, bin_size=bin_size, width=width)
            # As far from the left as without an end of the window in the way.
            at = first - (offset // bin_size - sizes[row] // 2)
            places[member, row, at : at + last - first] = np.arange(first, last)
    return places


def _cut(values: Floats, places_ECW: NDArray[np.int64]) -> Floats:
    members = np.arange(len(values))[:, None, None]
    rows = np.arange(values.shape[1])[None, :, None]
    found = values[members, rows, np.maximum(places_ECW, 0)].astype(np.float64)
    found[places_ECW < 0] = np.nan
    return found
