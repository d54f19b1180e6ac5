"""Shuffles of DNA that keep every dinucleotide count: what destroys motifs but not composition.

A sequence is a walk over its bases; a random walk over the same steps is the shuffle. All such
walks are equally likely when the last exits of the bases form a uniformly drawn tree towards the
last base (Altschul and Erickson, Mol. Biol. Evol. 2:526, 1985; tree by loop-erased random walks,
Wilson, STOC 1996).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import N_CODE

__all__ = ["dinucleotide_counts", "shuffle_dinucleotides"]


def dinucleotide_counts(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each base follows each other, shape (5, 5), N included."""
    pairs = codes[:-1].astype(np.int64) * 5 + codes[1:]
    return np.bincount(pairs, minlength=25).reshape(5, 5).astype(np.int64)


def shuffle_dinucleotides(
    codes: NDArray[np.uint8], random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a random sequence with the same dinucleotides, first and last base.

    Runs of N stay where they are; what lies between them is shuffled apart.

    Parameters
    ----------
    codes : uint8 array, shape (length,)
        Bases A0 C1 G2 T3 N4.
    random : Generator
    """
    out = np.array(codes, dtype=np.uint8)
    known = np.concatenate(([False], out != N_CODE, [False]))
    edges = np.flatnonzero(known[1:] != known[:-1])
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start > 3:
            out[start:stop] = _shuffled(out[start:stop], random)
    return out


def _shuffled(codes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    last = int(codes[-1])
    nexts = {int(base): codes[1:][codes[:-1] == base].tolist() for base in np.unique(codes[:-1])}
    exits = _tree(nexts, last, random)
    queues: dict[int, list[int]] = {}
    for base, targets in nexts.items():
        if base in exits:
            targets.remove(exits[base])
        order = [targets[i] for i in random.permutation(len(targets))]
        # Taken from the end, so the exit, which is used last, comes first.
        queues[base] = [exits[base], *order] if base in exits else order
    walk = [int(codes[0])]
    for _ in range(codes.size - 1):
        walk.append(queues[walk[-1]].pop())
    return np.array(walk, dtype=np.uint8)


def _tree(nexts: dict[int, list[int]], last: int, random: np.random.Generator) -> dict[int, int]:
    """Draw the last exit of every base, so that following the exits leads to the last base."""
    exits: dict[int, int] = {}
    done = {last}
    for base in nexts:
        at = base
        while at not in done:
            exits[at] = nexts[at][random.integers(len(nexts[at]))]
            at = exits[at]
        at = base
        while at not in done:
            done.add(at)
            at = exits[at]
    return {base: target for base, target in exits.items() if base != last}
