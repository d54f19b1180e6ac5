"""The element summary of a gene prior: how much a model reads of a gene's window, and where.

Shapes: B batch, G genes, N bins, T tracks, A assays, K distance bands, L base pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.intervals import tss_window
from seq2exp.dataset.samples import CONTACT
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.priors.controls import GC, GENE_LENGTH

__all__ = [
    "BANDS_KB",
    "assay_columns",
    "band_names",
    "bands_of_bins",
    "cpg_island",
    "gc_fraction",
    "gene_lengths",
    "mask_summary",
    "signal_in_bands",
]

BANDS_KB = (0, 1, 5, 20, 100, math.inf)
"""Edges of the distance bands, kilobases between the TSS and the centre of a bin."""
CPG_ISLAND = "cpg_island"
_ISLAND_BP, _ISLAND_GC, _ISLAND_RATIO = 500, 0.55, 0.65
# Decay and plateau of the contact profile (docs/dataset_format.md).
_DECAY, _PLATEAU_KB = 0.87, 5.0

Floats = NDArray[np.float64]


def band_names() -> list[str]:
    """Name the distance bands: ``0-1 kb`` ... ``>100 kb``."""
    inner = [f"{low}-{high} kb" for low, high in itertools.pairwise(BANDS_KB[:-1])]
    return [*inner, f">{BANDS_KB[-2]} kb"]


def _distances_kb(num_bins: int, bin_size: int) -> Floats:
    centre_N = (np.arange(num_bins) + 0.5 - num_bins / 2) * bin_size
    distance_N: Floats = np.abs(centre_N) / 1000
    return distance_N


def bands_of_bins(num_bins: int, bin_size: int) -> NDArray[np.bool_]:
    """Return which bins of a window lie in which band, shape (bands, bins); the same both ways."""
    distance_N = _distances_kb(num_bins, bin_size)
    edges = itertools.pairwise(BANDS_KB)
    return np.stack([(distance_N >= low) & (distance_N < high) for low, high in edges])


def signal_in_bands(
    mask_BN: NDArray[np.floating], signal_BNA: NDArray[np.floating], *, bin_size: int
) -> Floats:
    """Return the signal that the model reads in every band: sum of mask x signal x kilobases.

    Parameters
    ----------
    mask_BN : float array, shape (batch, bins)
        As the predictor saw it, forced bins included.
    signal_BNA : float array, shape (batch, bins, assays)
        Stored units; NaN where unknown.
    bin_size : int

    Returns
    -------
    float64 array, shape (batch, assays, bands)
        NaN where no bin of a band has data.
    """
    known_BNA = np.isfinite(signal_BNA)
    read_BNA = np.asarray(mask_BN, np.float64)[..., None] * np.where(known_BNA, signal_BNA, 0)
    bands_KN = bands_of_bins(read_BNA.shape[1], bin_size).astype(np.float64)
    sums_BAK = np.einsum("bna,kn->bak", read_BNA, bands_KN) * bin_size / 1000
    counts_BAK = np.einsum("bna,kn->bak", known_BNA.astype(np.float64), bands_KN)
    return np.where((counts_BAK > 0) | ~bands_KN.any(axis=1), sums_BAK, np.nan)


def assay_columns(dataset: Dataset, tracks: Sequence[str]) -> dict[str, list[int]]:
    """Group the tracks of a model by assay, contacts left out; a track without assay is its own.

    Returns
    -------
    dict
        From assay to columns of the signal.
    """
    assays = {track.name: track.assay or track.name for track in dataset.manifest.tracks}
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(tracks):
        if name != CONTACT:
            groups.setdefault(assays[name], []).append(column)
    return groups


def mask_summary(
    masks: GeneMasks, config: CallConfig | None = None
) -> tuple[dict[str, Floats], float]:
    """Return what the learned mask says of every gene; forced bins count nowhere.

    Returns
    -------
    columns : dict
        By name, float64 arrays of shape (num_genes,): ``num_elements``, distal elements called as
        `seq2exp elements` does; ``mask_mass_kb``, sum of mask x kilobases;
        ``mask_contact_mass_kb``, the same weighted by the decay of contacts with distance, 1 up to
        5 kb and (distance / 5 kb) ** -0.87 beyond; ``mask 0-1 kb`` and so on, the mass per band,
        for bands that hold a learned bin of any gene.
    threshold : float
        Smallest mask of a called bin.
    """
    elements, threshold = call_elements(masks, config)
    distal = elements.loc[elements["element_class"] == "distal", "gene_id"].value_counts()
    counted = distal.reindex(masks.genes["gene_id"]).fillna(0).to_numpy(np.float64)
    bands_KN = bands_of_bins(masks.num_bins, masks.bin_size)
    weight_N = np.maximum(_distances_kb(masks.num_bins, masks.bin_size) / _PLATEAU_KB, 1) ** -_DECAY
    mass_GK = np.zeros((len(masks), len(bands_KN)))
    weighted_G = np.zeros(len(masks))
    learned_K = np.zeros(len(bands_KN), dtype=np.bool_)
    for genes in masks.chunks():
        free_GN = np.asarray(masks.forced[genes]) == FREE
        starts, ends = masks.intervals_of(genes)
        # Bins at a contig end are cut; kilobases are those inside.
        read_GN = np.where(free_GN, np.asarray(masks.mask[genes], np.float64), 0)
        read_GN = read_GN * (ends - starts) / 1000
        mass_GK[genes] = read_GN @ bands_KN.T
        weighted_G[genes] = read_GN @ weight_N
        learned_K |= (free_GN.any(axis=0) & bands_KN).any(axis=1)
    columns = {
        "num_elements": counted,
        "mask_mass_kb": mass_GK.sum(axis=1),
        "mask_contact_mass_kb": weighted_G,
    }
    for k, name in enumerate(band_names()):
        if learned_K[k]:
            columns[f"mask {name}"] = mass_GK[:, k]
    return columns, threshold


def gc_fraction(codes_BL: NDArray[np.uint8]) -> Floats:
    """Return the share of G and C among the known bases; NaN where none is known."""
    known_B = (codes_BL < 4).sum(axis=-1)
    strong_B = ((codes_BL == 1) | (codes_BL == 2)).sum(axis=-1)
    share_B = np.full(known_B.shape, np.nan)
    np.divide(strong_B, known_B, out=share_B, where=known_B > 0)
    return share_B


def cpg_island(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 where the TSS lies in a CpG island, else 0; NaN where too few bases are known.

    Criteria of Takai and Jones (PNAS 2002): a stretch of 500 bp with at least 55 % G and C, and
    at least 0.65 of the CpG that its C and G would have by chance. Any such stretch that covers
    the TSS counts; stretches with more than one unknown base in ten do not.
    """
    flags = np.full(len(rows), np.nan)
    for at, row in enumerate(rows):
        contig, tss, strand = dataset.sites[int(row)]
        length = dataset.manifest.contigs[contig]
        window = tss_window(contig, tss, strand, length=2 * _ISLAND_BP, contig_length=length)
        codes = dataset.codes(window)
        is_c, is_g = codes == 1, codes == 2
        pair = np.append(is_c[:-1] & is_g[1:], False)
        c, g, known = (_in_stretches(one, _ISLAND_BP) for one in (is_c, is_g, codes < 4))
        # A pair lies in a stretch when both of its bases do.
        cpg = _in_stretches(pair[:-1], _ISLAND_BP - 1)
        covers = slice(1, _ISLAND_BP + 1)
        usable = known[covers] >= 0.9 * _ISLAND_BP
        rich = (c + g)[covers] >= _ISLAND_GC * known[covers]
        chance = (c * g)[covers]
        dense = (chance > 0) & ((cpg * known)[covers] >= _ISLAND_RATIO * chance)
        if usable.any():
            flags[at] = float((usable & rich & dense).any())
    return flags


def _in_stretches(flag_L: NDArray[np.bool_], size: int) -> Floats:
    """Count the flags in every stretch of ``size`` bases, shape (length - size + 1,)."""
    total = np.concatenate(([0.0], np.cumsum(flag_L)))
    counts: Floats = total[size:] - total[:-size]
    return counts


def gene_lengths(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the length of genes in base pairs; NaN where the gene table has no bounds."""
    genes = dataset.genes
    if not {"gene_start", "gene_end"} <= set(genes.columns):
        return np.full(len(rows), np.nan)
    length: Floats = (genes["gene_end"] - genes["gene_start"]).to_numpy(np.float64)[rows]
    return np.where(length > 0, length, np.nan)


def sequence_columns(dataset: Dataset, rows: NDArray[np.int64], gc_G: Floats) -> dict[str, Floats]:
    """Return the columns that need no model: GC of the window, CpG island, gene length."""
    return {
        GC: gc_G,
        CPG_ISLAND: cpg_island(dataset, rows),
        GENE_LENGTH: gene_lengths(dataset, rows),
    }
