"""Where genes and elements lie: TSSs, gene bodies, exons, and free room for distal elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.config import SimulationConfig

__all__ = [
    "DECOY_MIX",
    "DRIVER_MIX",
    "PROMOTER_DOWN",
    "PROMOTER_UP",
    "Layout",
    "place_contig",
    "promoter_interval",
]

PROMOTER_UP = 250  # bp before the TSS, in the direction of transcription
PROMOTER_DOWN = 50  # bp from the TSS on, the TSS base included
_GRID = 50  # bp; resolution of the free-room bookkeeping
_PROMOTER_CLEAR = 700
_ELEMENT_CLEAR = 150

DRIVER_MIX = {"ubiquitous": 0.30, "blood": 0.40, "liver": 0.15, "muscle": 0.15}
DECOY_MIX = {"insulator": 0.30, "primed": 0.25, "acetylated": 0.25, "silenced": 0.20}


@dataclass(frozen=True, eq=False)
class Layout:
    """Genes, exons and distal elements of one contig.

    Parameters
    ----------
    genes : DataFrame
        chrom, tss, strand, start, end, cpg_island (0-based half-open).
    exons : list of list of (start, end)
        Per gene, in genome order.
    elements : DataFrame
        chrom, start, end, kind, subkind, home (row of ``genes``).
    """

    genes: pd.DataFrame
    exons: list[list[tuple[int, int]]]
    elements: pd.DataFrame


def promoter_interval(tss: int, strand: str) -> tuple[int, int]:
    """Return the promoter [-250, +50) around a TSS as a 0-based half-open genome interval."""
    if strand == "+":
        return tss - PROMOTER_UP, tss + PROMOTER_DOWN
    return tss - PROMOTER_DOWN + 1, tss + PROMOTER_UP + 1


def place_contig(
    chrom: str,
    length: int,
    gaps: list[tuple[int, int]],
    config: SimulationConfig,
    rng: np.random.Generator,
) -> Layout:
    """Place genes along a contig and distal elements around them.

    Parameters
    ----------
    chrom : str
    length : int
        Bases of the contig.
    gaps : list of (start, end)
        Runs of N to stay away from.
    config : SimulationConfig
    rng : numpy Generator

    Returns
    -------
    Layout
    """
    free = np.ones(length // _GRID, dtype=bool)
    for start, end in gaps:
        _occupy(free, start - 200, end + 200)
    genes, exons = _place_genes(chrom, length, gaps, config, rng)
    for tss in genes["tss"]:
        _occupy(free, tss - _PROMOTER_CLEAR, tss + _PROMOTER_CLEAR)
    rows = []
    for home, tss in enumerate(genes["tss"]):
        for kind, subkind in _draw_kinds(config, rng):
            place = _find_room(free, int(tss), config, rng)
            if place is not None:
                _occupy(free, place[0] - _ELEMENT_CLEAR, place[1] + _ELEMENT_CLEAR)
                rows.append((chrom, *place, kind, subkind, home))
    elements = pd.DataFrame(rows, columns=["chrom", "start", "end", "kind", "subkind", "home"])
    return Layout(genes, exons, elements)


def _occupy(free: NDArray[np.bool_], start: int, end: int) -> None:
    free[max(0, start // _GRID) : max(0, end // _GRID + 1)] = False


def _place_genes(
    chrom: str,
    length: int,
    gaps: list[tuple[int, int]],
    config: SimulationConfig,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, list[list[tuple[int, int]]]]:
    rows, exons = [], []
    tss = 6_000 + int(rng.integers(0, config.gene_spacing))
    while tss < length - 6_000:
        if not any(start - 2_000 < tss < end + 2_000 for start, end in gaps):
            strand = "+" if rng.random() < 0.5 else "-"
            parts = _exon_structure(tss, strand, length, rng)
            island = bool(rng.random() < config.cpg_island_fraction)
            rows.append((chrom, tss, strand, parts[0][0], parts[-1][1], island))
            exons.append(parts)
        # Gamma spacing: a third of the mean is the least, the rest has shape 2.
        least = config.gene_spacing // 3
        tss += least + int(rng.gamma(2.0, (config.gene_spacing - least) / 2.0))
    columns = ["chrom", "tss", "strand", "start", "end", "cpg_island"]
    return pd.DataFrame(rows, columns=columns), exons


def _exon_structure(
    tss: int, strand: str, length: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    room = (length - 1_000 - tss) if strand == "+" else (tss - 1_000)
    body = int(np.clip(rng.lognormal(8.4, 0.7), 600, min(30_000, room)))
    count = int(rng.integers(1, 1 + max(1, min(9, body // 500))))
    cuts = np.sort(rng.choice(np.arange(1, body // 100), 2 * count - 2, replace=False)) * 100
    edges = [0, *cuts.tolist(), body]
    parts = [(edges[2 * i], edges[2 * i + 1]) for i in range(count)]
    if strand == "+":
        return [(tss + start, tss + end) for start, end in parts]
    return [(tss + 1 - end, tss + 1 - start) for start, end in reversed(parts)]


def _draw_kinds(config: SimulationConfig, rng: np.random.Generator) -> list[tuple[str, str]]:
    # Gamma-Poisson: some genes have many enhancers, a fifth or so have none.
    num_enhancers = min(8, int(rng.poisson(config.enhancers_per_gene * rng.gamma(2.0, 0.5))))
    num_decoys = min(9, int(rng.poisson(config.decoys_per_gene)))
    drivers = rng.choice(list(DRIVER_MIX), num_enhancers, p=list(DRIVER_MIX.values()))
    decoys = rng.choice(list(DECOY_MIX), num_decoys, p=list(DECOY_MIX.values()))
    drawn = [("enhancer", str(name)) for name in drivers] + [("decoy", str(n)) for n in decoys]
    # Shuffled, so that neither kind gets the best places first.
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _find_room(
    free: NDArray[np.bool_], tss: int, config: SimulationConfig, rng: np.random.Generator
) -> tuple[int, int] | None:
    low, high = np.log(config.min_distance), np.log(config.max_distance)
    for _ in range(12):
        distance = int(np.exp(rng.uniform(low, high))) * (1 if rng.random() < 0.5 else -1)
        size = int(rng.integers(220, 521))
        start = tss + distance - size // 2
        first, last = start // _GRID, (start + size) // _GRID + 1
        if first > 0 and last < len(free) and free[first:last].all():
            return start, start + size
    return None
