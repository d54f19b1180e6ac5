"""DNase-, H3K27ac- and H3K4me3-like signals of the primary cell type.

A track is made the way an experiment makes it: an expected fragment density (background times
mappability-like waves plus one profile per element), counts drawn from a negative binomial,
PCR-duplicate-like spikes, smoothing by the fragment length, scaling to a fixed library size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.grammar import C, openness
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY
from data_prep.simulate.world import State, World
from seq2exp.core.sequence import N_CODE

__all__ = ["ASSAYS", "Assay", "Heights", "element_heights", "simulate_tracks"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Assay:
    """How one track is drawn.

    Parameters
    ----------
    name : str
    background : float
        Expected fragments per bin of 20 bp far from any element, at depth 1.
    dispersion : float
        Negative binomial: variance = mean + dispersion * mean ** 2.
    fragment : int
        Smoothing length, bp.
    spikes : float
        Duplicate-like spikes per Mb.
    lobes : tuple of (offset, sd, weight)
        Profile around an element's centre, bp; promoters shift it by ``promoter_shift``.
    promoter_shift : int
        bp downstream of the TSS.
    """

    name: str
    background: float
    dispersion: float
    fragment: int
    spikes: float
    lobes: tuple[tuple[float, float, float], ...]
    promoter_shift: int


ASSAYS = (
    Assay("DNase", 0.10, 0.10, 60, 15.0, ((0.0, 75.0, 1.0),), -60),
    Assay("H3K27ac", 0.25, 0.25, 200, 8.0, ((-330.0, 150.0, 0.9), (330.0, 150.0, 0.9)), 40),
    Assay("H3K4me3", 0.15, 0.25, 200, 6.0, ((-330.0, 160.0, 0.6), (420.0, 260.0, 1.0)), 60),
)


@dataclass(frozen=True, eq=False)
class Heights:
    """Peak height of every element and promoter on every track, in expected fragments per bin.

    Parameters
    ----------
    distal : dict of float64 arrays, shape (E,)
    promoter : dict of float64 arrays, shape (G,)
    """

    distal: dict[str, Array]
    promoter: dict[str, Array]


def _lognormal(size: int, sd: float, rng: np.random.Generator) -> Array:
    """Log-normal factors of mean 1."""
    return np.asarray(rng.lognormal(-0.5 * sd * sd, sd, size))


def element_heights(world: World, state: State, rng: np.random.Generator) -> Heights:
    """Return how strongly each element shows on each track of the primary cell type.

    Accessibility does not depend on activity. Acetylation follows activity, promoter-type factors
    and openness, each with a wide log-normal factor; one active enhancer in eight shows next to
    none. Promoter marks follow promoter strength and, weakly, total expression.

    Parameters
    ----------
    world : World
    state : State
    rng : numpy Generator
    """
    cell = CELL_TYPES.index(PRIMARY)
    num_distal, num_genes = len(world.elements), len(world.genes)
    is_open = openness(state.distal_z)[:, cell]
    mark = np.minimum(state.distal_z[:, 3 * C + cell], 2.0)
    acetylation = 0.12 + 0.40 * state.activity[:, cell] + 0.75 * mark
    hidden = (rng.random(num_distal) < 0.125) & (state.activity[:, cell] > 0)
    acetylation = np.where(hidden, 0.08, acetylation) * _lognormal(num_distal, 0.7, rng)
    distal = {
        "DNase": 6.0 * is_open**2 * _lognormal(num_distal, 0.6, rng),
        "H3K27ac": 4.0 * is_open * acetylation,
        "H3K4me3": 0.8 * is_open * (0.1 + 0.3 * mark) * _lognormal(num_distal, 0.7, rng),
    }
    strength = np.exp(0.45 * (state.strength[:, cell] - 2.0))
    total = np.exp(0.25 * (state.expression[:, cell] - 4.0))
    promoter = {
        "DNase": 9.0 * strength * _lognormal(num_genes, 0.5, rng),
        "H3K27ac": 7.0 * strength * total * _lognormal(num_genes, 0.5, rng),
        "H3K4me3": 9.0 * strength * total * _lognormal(num_genes, 0.4, rng),
    }
    return Heights(distal, promoter)


def simulate_tracks(
    world: World, heights: Heights, config: SimulationConfig, rng: np.random.Generator
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the signal of every assay and contig.

    Parameters
    ----------
    world : World
    heights : Heights
    config : SimulationConfig
    rng : numpy Generator

    Returns
    -------
    dict of dict of float32 arrays
        assay -> contig -> signal per bin, reads per bin scaled to the library size; NaN where
        the bin lies wholly in a run of N.
    """
    tracks = {}
    for assay in ASSAYS:
        counts = {
            chrom: _draw_counts(_expected(world, chrom, assay, heights, config, rng), assay, rng)
            for chrom in world.genome
        }
        total = sum(float(values.sum()) for values in counts.values())
        bases = sum(len(codes) for codes in world.genome.values())
        scale = bases / config.track_bin / total  # 1 is the genome-wide mean
        tracks[assay.name] = {
            chrom: _finish(values * scale, world.genome[chrom], assay, config)
            for chrom, values in counts.items()
        }
    return tracks


def _expected(
    world: World,
    chrom: str,
    assay: Assay,
    heights: Heights,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> Array:
    size = config.track_bin
    num_bins = -(-len(world.genome[chrom]) // size)
    waves = gaussian_filter1d(rng.normal(0, 1, num_bins // 50 + 2), 4.0) * 1.2
    waves = np.interp(np.arange(num_bins) / 50.0, np.arange(len(waves)), waves)
    expected = assay.background * np.exp(waves)
    here = np.flatnonzero((world.elements["chrom"] == chrom).to_numpy())
    part = world.elements.iloc[here]
    centre = ((part["start"] + part["end"]) / 2).to_numpy()
    signs = np.where(rng.random(len(here)) < 0.5, 1.0, -1.0)
    _add_profiles(expected, centre, signs, heights.distal[assay.name][here], assay, size)
    rows = np.flatnonzero((world.genes["chrom"] == chrom).to_numpy())
    strand = np.where(world.genes["strand"].to_numpy()[rows] == "+", 1.0, -1.0)
    centre = world.genes["tss"].to_numpy()[rows] + strand * assay.promoter_shift
    _add_profiles(expected, centre, strand, heights.promoter[assay.name][rows], assay, size)
    return np.asarray(expected * (config.depth * size / 20.0))


def _add_profiles(
    expected: Array, centre: Array, sign: Array, height: Array, assay: Assay, size: int
) -> None:
    for offset, spread, weight in assay.lobes:
        reach = int(4 * spread / size) + 1
        middle = centre + sign * offset
        bins = np.floor(middle / size).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        distance = ((bins + 0.5) * size - middle[:, None]) / spread
        value = weight * height[:, None] * np.exp(-0.5 * distance**2)
        fine = (bins >= 0) & (bins < len(expected))
        np.add.at(expected, bins[fine], value[fine])


def _draw_counts(expected: Array, assay: Assay, rng: np.random.Generator) -> Array:
    shape = 1.0 / assay.dispersion
    counts = rng.poisson(rng.gamma(shape, expected / shape)).astype(float)
    num_spikes = rng.poisson(assay.spikes * len(expected) * 20 / 1e6)
    where = rng.integers(0, len(expected), num_spikes)
    np.add.at(counts, where, rng.geometric(0.06, num_spikes).astype(float))
    return counts


def _finish(
    counts: Array, codes: NDArray[np.uint8], assay: Assay, config: SimulationConfig
) -> NDArray[np.float32]:
    size = config.track_bin
    smooth = uniform_filter1d(counts, max(1, round(assay.fragment / size)), mode="constant")
    edges = np.arange(0, len(codes), size)
    known = np.add.reduceat((codes != N_CODE).astype(np.int64), edges) > 0
    return np.where(known, np.round(np.maximum(smooth, 0.0), 3) + 0.0, np.nan).astype(np.float32)
