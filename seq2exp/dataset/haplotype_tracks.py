"""Tracks of the reference on windows whose bases were moved by insertions and deletions.

Tracks are measured on the reference; they follow their bases onto a haplotype. Contacts keep their
places in the window.

Shapes: U sequences, N bins, T tracks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.dataset.samples import GeneSamples, Sample
from seq2exp.variation.haplotypes import Haplotypes

__all__ = ["moved_signal"]


def moved_signal(
    samples: GeneSamples, built: Haplotypes, shared: Sample, moves_U: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the tracks of each sequence, moved where bases are.

    Parameters
    ----------
    samples : GeneSamples
        Which tracks of which dataset.
    built : Haplotypes
    shared : Sample
        The window of the reference.
    moves_U : bool array
        Sequences that hold an insertion or deletion; the others keep the tracks of the reference.

    Returns
    -------
    float32 array, shape (U, N, T), in model direction, contacts last
    """
    signal_UNT = np.repeat(shared.signal[None], len(built), axis=0)
    chosen = samples.track_index
    moved = np.flatnonzero(moves_U)
    if not chosen or moved.size == 0 or samples.donor is not None:
        # Bases did not move; or the tracks are a control's, of another gene.
        return signal_UNT
    size = samples.dataset.manifest.bin_size
    low = int(built.span_H2[:, 0].min()) // size
    high = -(-int(built.span_H2[:, 1].max()) // size)
    stored = samples.dataset.contig_tracks(built.window.contig)[low:high]
    bins_UNT = built.move_bins(
        stored[:, chosen], start=low * size, bin_size=size, out_bin_size=samples.config.bin_size
    )
    inside_N1 = shared.valid[:, None]
    for row in moved:
        signal_UNT[row, :, : len(chosen)] = np.where(inside_N1, bins_UNT[row], 0.0)
    return signal_UNT
