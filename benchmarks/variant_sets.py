"""Variants of a simulated contig, their exact effects, and what is known of them without a model.

Two sets. ``donors``: what the simulated people carry, some planted into sites, most without effect,
in real linkage. ``elements``: random substitutions, insertions and deletions in every promoter,
enhancer and decoy, whatever they do; people need not carry them. The effect of each is evaluated
by the simulator (`expression_of`): change of the natural log of expression in blood, one haplotype.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pysam

from data_prep.simulate.layout import promoter_interval
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY
from data_prep.simulate.world import Edit, World, evaluate, expression_of
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import N_CODE, decode, encode
from seq2exp.dataset.store import Dataset
from seq2exp.variation.alleles import Allele, normalise

__all__ = ["controls", "dosages", "draw_variants", "effects_of", "element_kinds"]

CELL = CELL_TYPES.index(PRIMARY)
KEY = ["chrom", "position", "ref", "alt"]
MAX_INDEL = 8


def draw_variants(
    source: Path,
    world: World,
    contig: str,
    *,
    num_snvs: int,
    num_indels: int,
    min_maf: float,
    seed: int,
) -> pd.DataFrame:
    """Return both sets of one contig in order of position: chrom, position, ref, alt, set.

    Parameters
    ----------
    source : Path
        Folder of the simulation.
    world : World
    contig : str
    num_snvs, num_indels : int
        Of the set ``elements``, in each promoter, enhancer and decoy.
    min_maf : float
        Smallest frequency of the rarer allele in the set ``donors``.
    seed : int
    """
    codes, random = world.genome[contig], np.random.default_rng(seed)
    with pysam.VariantFile(str(source / "cohort" / "genotypes.vcf.gz")) as vcf:
        found = [
            (record.start, record.ref, record.alts[0], "donors")
            for record in vcf
            if record.chrom == contig and record.alts and _maf(record) >= min_maf
        ]
    for start, end in _intervals(world, contig):
        for place in random.choice(np.arange(start, end), num_snvs, replace=False).tolist():
            base = int(codes[place])
            if base != N_CODE:
                other = (base + int(random.integers(1, 4))) % 4
                found.append((place, "ACGT"[base], "ACGT"[other], "elements"))
        for place in random.choice(np.arange(start, end), num_indels, replace=False).tolist():
            allele = _indel(codes, place, random)
            if allele is not None:
                found.append((*allele, "elements"))
    table = pd.DataFrame(found, columns=["position", "ref", "alt", "set"])
    table.insert(0, "chrom", contig)
    # What people carry comes first where both sets have it.
    table = table.drop_duplicates(KEY).sort_values(["position", "ref", "alt"], kind="stable")
    return table.reset_index(drop=True)


def _maf(record: pysam.VariantRecord) -> float:
    share = float(record.info["AC"][0]) / float(record.info["AN"])
    return min(share, 1 - share)


def _intervals(world: World, contig: str) -> list[tuple[int, int]]:
    genes = world.genes[world.genes["chrom"] == contig]
    distal = world.elements[world.elements["chrom"] == contig]
    found = list(zip(distal["start"].tolist(), distal["end"].tolist(), strict=True))
    places = zip(genes["tss"].tolist(), genes["strand"].tolist(), strict=True)
    return found + [promoter_interval(tss, strand) for tss, strand in places]


def _indel(codes: np.ndarray, place: int, random: np.random.Generator) -> Allele | None:
    size = int(random.integers(1, MAX_INDEL + 1))
    span, anchor = codes[place : place + size + 1], decode(codes[place : place + 1])
    if (span == N_CODE).any():
        return None
    if random.random() < 0.5:
        return normalise(Allele(place, decode(span), anchor), codes)
    new = decode(random.integers(0, 4, size).astype(np.uint8))
    return normalise(Allele(place, anchor, anchor + new), codes)


def effects_of(world: World, variants: pd.DataFrame) -> pd.DataFrame:
    """Return effects above rounding: variant (number of the row), gene_id, effect."""
    state, rows = evaluate(world), []
    gene_id = world.genes["gene_id"].astype(str).to_numpy()
    for number, (chrom, position, ref, alt) in enumerate(variants[KEY].itertuples(index=False)):
        shared = int(len(ref) != len(alt) and ref[0] == alt[0])
        edit = Edit(chrom, position + shared, position + len(ref), encode(alt[shared:]))
        change = (expression_of(world, [edit], reference=state) - state.expression)[:, CELL]
        moved = np.flatnonzero(np.abs(change) > 1e-9)
        rows += [(number, gene_id[gene], change[gene]) for gene in moved]
    return pd.DataFrame(rows, columns=["variant", "gene_id", "effect"])


def dosages(source: Path, variants: pd.DataFrame) -> np.ndarray:
    """Return copies of ALT of every donor, shape (donors, variants); NaN of what nobody carries."""
    with pysam.VariantFile(str(source / "cohort" / "genotypes.vcf.gz")) as vcf:
        contig, names = str(variants["chrom"].iloc[0]), list(vcf.header.samples)
        found = {
            (record.start, record.ref, record.alts[0]): [
                sum(allele or 0 for allele in record.samples[name]["GT"]) for name in names
            ]
            for record in vcf
            if record.chrom == contig and record.alts
        }
    missing = [np.nan] * len(names)
    keys = variants[KEY[1:]].itertuples(index=False, name=None)
    return np.array([found.get(key, missing) for key in keys], dtype=np.float32).T


def element_kinds(source: Path, variants: pd.DataFrame) -> np.ndarray:
    """Return in what a variant lies: promoter, enhancer, decoy, or elsewhere."""
    elements = pd.read_csv(source / "truth" / "elements.tsv", sep="\t")
    kinds = np.full(len(variants), "elsewhere", dtype=object)
    position = variants["position"].to_numpy()
    last = position + variants["ref"].str.len().to_numpy()
    contig = str(variants["chrom"].iloc[0])
    for start, end, kind in elements.loc[
        elements["chrom"] == contig, ["start", "end", "kind"]
    ].itertuples(index=False):
        kinds[(last > start) & (position < end)] = kind
    return kinds


def controls(pairs: pd.DataFrame, dataset: Dataset, dosage_DM: np.ndarray) -> pd.DataFrame:
    """Return what distance, tracks, letters and frequencies say of every pair.

    Parameters
    ----------
    pairs : DataFrame
        variant, gene_row, chrom, position, ref, alt.
    dataset : Dataset
    dosage_DM : float array
        Of the variants that ``pairs["variant"]`` numbers.

    Returns
    -------
    DataFrame
        One column per control. ``gc_change`` and ``length_change`` have a sign.
    """
    contig = str(pairs["chrom"].iloc[0])
    codes, length = dataset.contig_codes(contig), dataset.manifest.contigs[contig]
    tss = np.array([dataset.sites[row][1] for row in pairs["gene_row"]])
    position = pairs["position"].to_numpy()
    far = np.maximum(np.abs(position - tss), 1)
    size = dataset.manifest.bin_size
    whole = Window(contig, 0, -(-length // size) * size, "+", length)
    bins_NT = np.nan_to_num(dataset.track_bins(whole, bin_size=size)).astype(np.float64)
    here_PT = bins_NT[np.minimum(position // size, len(bins_NT) - 1)]
    signal = dict(zip(dataset.track_names, here_PT.T, strict=True))
    cutoff = np.quantile(bins_NT[:, dataset.track_names.index("DNase")], 0.95)
    ranks = pd.DataFrame(here_PT).rank(pct=True).to_numpy()
    activity = np.sqrt(np.maximum(signal["DNase"] * signal["H3K27ac"], 0))
    gc_sum = np.concatenate(([0], np.cumsum((codes == 1) | (codes == 2))))
    low, high = np.maximum(position - 50, 0), np.minimum(position + 51, length)
    share = np.nan_to_num(dosage_DM.mean(axis=0)) / 2
    ref_gc, alt_gc = (pairs[name].str.count("[GC]").to_numpy() for name in ("ref", "alt"))
    added = (pairs["alt"].str.len() - pairs["ref"].str.len()).to_numpy()
    cpg = _cpg_change(pairs, codes)
    maf_P = np.minimum(share, 1 - share)[pairs["variant"]]
    return pd.DataFrame(
        {
            "distance": 1 / far,
            **{f"track {name}": values for name, values in signal.items()},
            "best track": ranks.max(axis=1),
            "peak": (signal["DNase"] >= cutoff).astype(float),
            "activity x contact": activity * (np.maximum(far, 1000) / 1000) ** -0.87,
            "GC around": (gc_sum[high] - gc_sum[low]) / (high - low),
            "CpG changed": np.abs(cpg).astype(float),
            "allele frequency": maf_P,
            "insertion or deletion": (added != 0).astype(float),
            "gc_change": (alt_gc - ref_gc).astype(float),
            "length_change": added.astype(float),
            "random": np.random.default_rng(0).normal(size=len(pairs)),
        }
    )


def _cpg_change(pairs: pd.DataFrame, codes: np.ndarray) -> np.ndarray:
    """CpGs of ALT less those of REF, with the bases beside them."""
    found = []
    for position, ref, alt in pairs[["position", "ref", "alt"]].itertuples(index=False):
        before = decode(codes[max(position - 1, 0) : position])
        after = decode(codes[position + len(ref) : position + len(ref) + 1])
        found.append(f"{before}{alt}{after}".count("CG") - f"{before}{ref}{after}".count("CG"))
    return np.array(found)
