"""Sequences of unequal length as padded batches, short with short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.simulate.grammar import Grammar, channels
from seq2exp.core.sequence import N_CODE

__all__ = ["batches", "channels_of", "pad_sequences"]

Codes = NDArray[np.uint8]
_SIZE = 256  # rows; a batch of scores then stays in the processor's cache


def pad_sequences(sequences: Sequence[Codes]) -> Codes:
    """Return sequences as rows, shape (E, longest), right-padded with N."""
    longest = max((len(s) for s in sequences), default=1)
    padded = np.full((len(sequences), longest), N_CODE, dtype=np.uint8)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def batches(sequences: Sequence[Codes]) -> Iterator[tuple[NDArray[np.int64], Codes]]:
    """Yield (rows, padded codes); rows of similar length go together, so little is padding."""
    order = np.argsort([len(s) for s in sequences], kind="stable").astype(np.int64)
    for first in range(0, len(order), _SIZE):
        rows = order[first : first + _SIZE]
        yield rows, pad_sequences([sequences[row] for row in rows])


def channels_of(
    grammar: Grammar, sequences: Sequence[Codes], *, anchors: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the channels of sequences of any lengths, shape (len(sequences), K).

    Parameters
    ----------
    grammar : Grammar
    sequences : sequence of uint8 arrays
    anchors : int64 array, shape (len(sequences),), optional
        Index of the TSS base; promoters need it.
    """
    found = np.zeros((len(sequences), grammar.linear.shape[1]))
    for rows, codes_EL in batches(sequences):
        anchor_E = None if anchors is None else anchors[rows]
        found[rows] = channels(grammar, codes_EL, anchor_E=anchor_E)
    return found
