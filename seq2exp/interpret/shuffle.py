"""Shuffled sequences with the same dinucleotide counts: baselines and nulls.

Every run of known bases is a walk through its letters; a random other walk over the same edges has
the same counts (Altschul and Erickson, Molecular Biology and Evolution 1985). The last edges out of
every letter are drawn as a random tree by a loop-erased walk (Wilson 1996), so that all walks are
equally likely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import N_CODE, NUM_BASES

__all__ = ["dinucleotide_shuffle"]

Codes = NDArray[np.uint8]


def dinucleotide_shuffle(codes: Codes, random: np.random.Generator) -> Codes:
    """Return a sequence with the same dinucleotide counts in every run of known bases.

    N stay where they are; the first and last base of every run are kept.

    Parameters
    ----------
    codes : uint8 array, shape (length,)
        A0 C1 G2 T3 N4.
    random : numpy Generator

    Returns
    -------
    uint8 array, shape (length,)
    """
    shuffled = codes.copy()
    known = np.concatenate(([False], codes < N_CODE, [False]))
    edges = np.flatnonzero(np.diff(known.astype(np.int8)))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        shuffled[start:end] = _shuffled_run(codes[start:end], random)
    return shuffled


def _shuffled_run(codes: Codes, random: np.random.Generator) -> Codes:
    if len(codes) < 4:
        return codes
    targets = []
    last = _last_edges(codes, random)
    for base in range(NUM_BASES):
        after = codes[1:][codes[:-1] == base]
        if base in last:
            # One edge to the letter of the tree is kept for the end, the others are shuffled.
            at = int(np.flatnonzero(after == last[base])[0])
            rest = np.delete(after, at)
            random.shuffle(rest)
            after = np.append(rest, last[base])
        else:
            after = random.permutation(after)
        targets.append(after.tolist()[::-1])
    walk = [int(codes[0])]
    for _ in range(len(codes) - 1):
        walk.append(targets[walk[-1]].pop())
    return np.array(walk, dtype=np.uint8)


def _last_edges(codes: Codes, random: np.random.Generator) -> dict[int, int]:
    """Draw, for every letter but the final one, where its last edge goes: a tree to the final."""
    final = int(codes[-1])
    counts = np.zeros((NUM_BASES, NUM_BASES))
    np.add.at(counts, (codes[:-1], codes[1:]), 1)
    tree: dict[int, int] = {}
    inside = {final}
    for start in {int(base) for base in np.unique(codes)} - inside:
        step: dict[int, int] = {}
        base = start
        while base not in inside:
            # Overwriting the step out of a letter erases the loops of the walk.
            step[base] = int(random.choice(NUM_BASES, p=counts[base] / counts[base].sum()))
            base = step[base]
        base = start
        while base not in inside:
            tree[base] = step[base]
            inside.add(base)
            base = step[base]
    return tree
