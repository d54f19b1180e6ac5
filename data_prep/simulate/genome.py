"""Background sequence: isochore-like GC, CpG depletion, repeat families, microsatellites, gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import N_CODE, reverse_complement

__all__ = ["background", "cpg_island", "insert_gaps", "insert_repeats", "transition_matrix"]

Codes = NDArray[np.uint8]
_CHAIN = 500  # bp; chains of one isochore grow side by side
_CPG_RATIO = 0.20  # observed over expected CpG outside islands
_ISOCHORE_GC = (0.36, 0.39, 0.42, 0.46, 0.51)


def transition_matrix(gc: float, *, cpg_ratio: float) -> NDArray[np.float64]:
    """Return first-order base transitions with a given GC content and CpG depletion.

    Parameters
    ----------
    gc : float
        Share of G and C before depletion.
    cpg_ratio : float
        Factor on C to G; the lost mass goes to C to A and C to T (deaminated CpG).

    Returns
    -------
    float64 array, shape (4, 4)
        Rows sum to 1.
    """
    base: NDArray[np.float64] = np.array([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
    # A base repeats itself a little more often than chance, as in poly-A and poly-T tracts.
    matrix = np.tile(base, (4, 1)) * (1 + 0.15 * np.eye(4))
    matrix[1, 2] *= cpg_ratio
    matrix[2, 0] *= 1.1
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def _chains(cumulative: NDArray[np.float64], length: int, rng: np.random.Generator) -> Codes:
    """Grow one chain per row of ``cumulative`` (rows, 4, 4); return (rows, length)."""
    rows = cumulative.shape[0]
    # One flat threshold table per base: thresholds[k][4 * row + state].
    thresholds = [np.ascontiguousarray(cumulative[:, :, k], np.float32).ravel() for k in range(3)]
    codes = np.empty((length, rows), dtype=np.uint8)
    first = 4 * np.arange(rows)
    state = rng.integers(0, 4, rows)
    for step in range(length):
        draw = rng.random(rows, dtype=np.float32)
        at = first + state
        codes[step] = sum((draw > np.take(row, at)).view(np.uint8) for row in thresholds)
        state = codes[step].astype(np.int64)
    return codes.T


def background(length: int, rng: np.random.Generator) -> Codes:
    """Return Markov sequence whose GC content changes every 50 to 300 kb.

    Parameters
    ----------
    length : int
        Bases.
    rng : numpy Generator

    Returns
    -------
    uint8 array, shape (length,)
    """
    num_chains = -(-length // _CHAIN)
    matrices: list[NDArray[np.float64]] = []
    while len(matrices) < num_chains:
        gc = float(np.clip(rng.choice(_ISOCHORE_GC) + rng.normal(0, 0.01), 0.3, 0.6))
        size = int(rng.integers(50_000, 300_000)) // _CHAIN
        cumulative = transition_matrix(gc, cpg_ratio=_CPG_RATIO).cumsum(axis=1)
        matrices.extend([cumulative] * size)
    return _chains(np.stack(matrices[:num_chains]), _CHAIN, rng).reshape(-1)[:length].copy()


def cpg_island(count: int, length: int, rng: np.random.Generator) -> Codes:
    """Return ``count`` CpG-island sequences (GC about 0.66, CpG not depleted)."""
    cumulative = transition_matrix(0.66, cpg_ratio=0.9).cumsum(axis=1)
    return _chains(np.broadcast_to(cumulative, (count, 4, 4)), length, rng)


def _families(rng: np.random.Generator) -> list[Codes]:
    lengths = (300, 300, 310, 900, 1500, 2600)
    gcs = (0.60, 0.58, 0.45, 0.42, 0.40, 0.42)
    families = []
    for length, gc in zip(lengths, gcs, strict=True):
        cumulative = transition_matrix(gc, cpg_ratio=_CPG_RATIO).cumsum(axis=1)[None]
        families.append(_chains(cumulative, length, rng)[0])
    return families


def repeat_families(rng: np.random.Generator) -> list[Codes]:
    """Return the consensus of six families: three short (Alu-like), three long (LINE-like)."""
    return _families(rng)


def insert_repeats(
    codes: Codes, families: list[Codes], *, fraction: float, rng: np.random.Generator
) -> list[tuple[int, int, int, str]]:
    """Write diverged repeat copies and microsatellites over ``codes`` in place.

    Parameters
    ----------
    codes : uint8 array, shape (length,)
        Changed in place.
    families : list of uint8 arrays
        Consensus sequences.
    fraction : float
        Share of the bases to write over.
    rng : numpy Generator

    Returns
    -------
    list of (start, end, family, strand)
        0-based half-open; family -1 is a microsatellite.
    """
    written, copies = 0, []
    weights = np.array([5, 4, 3, 1, 1, 1], dtype=float)
    while written < fraction * len(codes):
        family = int(rng.choice(len(families), p=weights / weights.sum()))
        copy = families[family].copy()
        if len(copy) > 400:  # long families are mostly truncated at the 5' end
            copy = copy[int(rng.integers(0, len(copy) - 300)) :]
        mutated = rng.random(len(copy)) < rng.uniform(0.05, 0.2)
        shift = rng.integers(1, 4, int(mutated.sum())).astype(np.uint8)
        copy[mutated] = (copy[mutated] + shift) % 4
        strand = "+" if rng.random() < 0.5 else "-"
        if strand == "-":
            copy = reverse_complement(copy)
        start = int(rng.integers(0, len(codes) - len(copy)))
        codes[start : start + len(copy)] = copy
        copies.append((start, start + len(copy), family, strand))
        written += len(copy)
    for _ in range(len(codes) // 25_000):
        unit = rng.integers(0, 4, int(rng.integers(1, 5))).astype(np.uint8)
        tract = np.tile(unit, 60)[: int(rng.integers(14, 60))]
        start = int(rng.integers(0, len(codes) - len(tract)))
        codes[start : start + len(tract)] = tract
        copies.append((start, start + len(tract), -1, "+"))
    return copies


def insert_gaps(codes: Codes, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Write N at both ends (2 to 6 kb) and over one inner gap (10 to 30 kb); return the gaps."""
    length = len(codes)
    inner = int(rng.integers(int(0.3 * length), int(0.7 * length)))
    gaps = [
        (0, int(rng.integers(2_000, 6_000))),
        (inner, inner + int(rng.integers(10_000, 30_000))),
        (length - int(rng.integers(2_000, 6_000)), length),
    ]
    for start, end in gaps:
        codes[start:end] = N_CODE
    return gaps
