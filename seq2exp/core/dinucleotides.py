"""Shuffles of DNA that keep every count of neighbouring bases.

A sequence is a walk that uses every one of its steps once. Altschul and Erickson (Mol. Biol. Evol.
2:526, 1985): draw the last step out of each base so that these steps lead to the final base, put
the other steps into any order, and walk again. The steps that lead to the final base are drawn by a
random walk without its loops (Wilson 1996), which makes all shuffles equally likely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import N_CODE

__all__ = ["shuffle_dinucleotides"]

_SHORTEST = 4


def shuffle_dinucleotides(
    codes: NDArray[np.uint8], random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a shuffle with the same dinucleotide counts; N stay where they are.

    Every run of known bases is shuffled by itself and keeps its first and its last base. Runs
    of fewer than 4 bases have no other order and are kept.

    Parameters
    ----------
    codes : uint8 array, shape (length,)
        A0 C1 G2 T3 N4.
    random : Generator
    """
    shuffled = np.array(codes, dtype=np.uint8)
    known = np.concatenate(([False], shuffled != N_CODE, [False]))
    borders = np.flatnonzero(known[1:] != known[:-1])
    for start, end in borders.reshape(-1, 2).tolist():
        if end - start >= _SHORTEST:
            shuffled[start:end] = _walk(shuffled[start:end], random)
    return shuffled


def _walk(codes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    bases = np.unique(codes).tolist()
    steps = {base: codes[1:][codes[:-1] == base] for base in bases}
    final = int(codes[-1])
    last = _last_steps(steps, final, random)
    queues = {}
    for base, targets in steps.items():
        if base in last:
            # One of the equal steps is set aside, whichever it is.
            targets = np.delete(targets, np.flatnonzero(targets == last[base])[0])
        # Queues are read from their end.
        order = random.permutation(targets).tolist()
        queues[base] = [last[base], *order] if base in last else order
    at = int(codes[0])
    walk = [at]
    for _ in range(codes.size - 1):
        at = queues[at].pop()
        walk.append(at)
    return np.array(walk, dtype=np.uint8)


def _last_steps(
    steps: dict[int, NDArray[np.uint8]], final: int, random: np.random.Generator
) -> dict[int, int]:
    """Draw the last step out of every base but the final one."""
    chosen: dict[int, int] = {}
    joined = {final}
    for base in steps:
        at = base
        while at not in joined:
            chosen[at] = int(random.choice(steps[at]))
            at = chosen[at]
        at = base
        while at not in joined:
            joined.add(at)
            at = chosen[at]
    return chosen
