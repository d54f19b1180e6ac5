"""Toy datasets, written through the same format module as real ones; seeded, a few hundred kB.

The expression of a toy gene follows from three things a control can read: the track at the TSS,
the number of GATAA words downstream of it on the gene's strand, and a scalar feature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.files import atomic_directory
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.format import ContactInfo, ExpressionInfo, FeatureInfo, Manifest, TrackInfo
from seq2exp.dataset.format_genotypes import GenotypeInfo
from seq2exp.variation.table import Variants

TRACKS = ("DNase", "H3K27ac")
SAMPLES = ("cell_a", "cell_b")
MOTIF = encode("GATAA")
SPACING = 1500
NUM_CONTACT_BINS = 8


@dataclass(frozen=True)
class ToyPlan:
    """What to build: contigs with their split and number of genes."""

    contigs: tuple[tuple[str, str, int], ...] = (
        ("chr1", "train", 24),
        ("chr2", "valid", 8),
        ("chr3", "test", 12),
    )
    tracks: tuple[str, ...] = TRACKS
    samples: tuple[str, ...] = SAMPLES
    features: bool = True
    contacts: bool = False
    bin_size: int = 16
    noise: float = 0.1
    seed: int = 0


def toy_dataset(root: Path, plan: ToyPlan | None = None) -> Path:
    """Write a toy dataset and return its folder.

    44 genes on both strands of three contigs (one split each), two tracks in bins of 16 bases, two
    label samples (the third gene of each contig lacks the second label), three scalar features,
    one run of N and one excluded region on the first contig. The outermost genes lie so near the
    contig ends that windows of 1,024 bases and more need padding.
    """
    plan = plan or ToyPlan()
    random = np.random.default_rng(plan.seed)
    genes = _genes(plan, random)
    lengths = {name: num * SPACING + 7 for name, _, num in plan.contigs}
    with atomic_directory(Path(root)) as partial:
        (partial / "sequence").mkdir()
        (partial / "tracks").mkdir()
        for name, length in lengths.items():
            here = genes[genes["contig"] == name]
            codes = _sequence(length, here, random)
            np.save(layout.sequence_path(partial, name), codes)
            if plan.tracks:
                bins = _tracks(length, here, plan, random)
                np.save(layout.tracks_path(partial, name), bins.astype(np.float16))
        labels = _labels(genes, plan, random)
        layout.write_table(_table(genes, plan), layout.genes_path(partial))
        if plan.samples:
            layout.write_table(labels, layout.expression_path(partial))
        if plan.contacts:
            np.save(layout.contacts_path(partial), _contacts(len(genes)))
        regions = pd.DataFrame({"contig": ["chr1"], "start": [100], "end": [400], "reason": "toy"})
        layout.write_table(regions, layout.regions_path(partial))
        layout.finish_manifest(partial, _manifest(plan, lengths))
    return Path(root)


def _genes(plan: ToyPlan, random: np.random.Generator) -> pd.DataFrame:
    frames = []
    for name, split, num in plan.contigs:
        tss = np.arange(num) * SPACING + random.integers(500, SPACING - 100, num)
        tss[0] = 300
        frames.append(
            pd.DataFrame(
                {
                    "gene_id": [f"{name}_g{i}" for i in range(num)],
                    "symbol": [f"{name.upper()}G{i}" for i in range(num)],
                    "contig": name,
                    "tss": tss.astype(np.int64),
                    "strand": np.where(np.arange(num) % 2 == 0, "+", "-"),
                    "biotype": "protein_coding",
                    "split": split,
                }
            )
        )
    genes = pd.concat(frames, ignore_index=True)
    genes["openness"] = random.gamma(2.0, 1.0, len(genes))
    genes["num_motifs"] = random.integers(0, 6, len(genes))
    genes["log10_length"] = random.normal(3.0, 0.3, len(genes)).astype(np.float32)
    return genes


def _sequence(length: int, genes: pd.DataFrame, random: np.random.Generator) -> NDArray[np.uint8]:
    codes = random.integers(0, 4, length).astype(np.uint8)
    codes[200:220] = 4
    for gene in genes.itertuples():
        for copy in range(int(gene.num_motifs)):
            offset = 20 + 12 * copy
            if gene.strand == "+":
                start, word = gene.tss + offset, MOTIF
            else:
                start, word = gene.tss - offset - MOTIF.size + 1, reverse_complement(MOTIF)
            codes[start : start + MOTIF.size] = word
    return codes


def _tracks(
    length: int, genes: pd.DataFrame, plan: ToyPlan, random: np.random.Generator
) -> NDArray[np.float64]:
    num_bins = -(-length // plan.bin_size)
    centres = (np.arange(num_bins) + 0.5) * plan.bin_size
    bins = random.gamma(1.0, 0.2, (num_bins, len(plan.tracks)))
    for gene in genes.itertuples():
        peak = gene.openness * np.exp(-0.5 * ((centres - gene.tss) / 60) ** 2)
        bins += peak[:, None] * np.linspace(1.0, 0.5, len(plan.tracks))
    return bins


def _labels(genes: pd.DataFrame, plan: ToyPlan, random: np.random.Generator) -> pd.DataFrame:
    base = (
        np.log1p(genes["openness"])
        + 0.3 * genes["num_motifs"]
        + 1.0 * (genes["log10_length"] - 3.0)
    ).to_numpy()
    table = {"gene_id": genes["gene_id"]}
    for k, name in enumerate(plan.samples):
        values = base * (1 + k) + random.normal(0, plan.noise, len(genes))
        if k == 1:
            values[genes.groupby("contig").cumcount().to_numpy() == 2] = np.nan
        table[name] = values.astype(np.float32)
    return pd.DataFrame(table)


def _table(genes: pd.DataFrame, plan: ToyPlan) -> pd.DataFrame:
    table = genes[list(layout.GENE_COLUMNS)].copy()
    if plan.features:
        table["log10_length"] = genes["log10_length"].astype(np.float32)
        table["gc_promoter"] = np.linspace(0.3, 0.6, len(genes)).astype(np.float32)
        if plan.tracks:
            table["promoter_DNase"] = genes["openness"].astype(np.float32)
    return table


def _contacts(num_genes: int) -> NDArray[np.float32]:
    distance = np.abs(np.arange(NUM_CONTACT_BINS) - NUM_CONTACT_BINS // 2) + 1.0
    profile: NDArray[np.float32] = np.tile(1 / distance, (num_genes, 1)).astype(np.float32)
    return profile


def _manifest(plan: ToyPlan, lengths: dict[str, int]) -> Manifest:
    features = [
        FeatureInfo("log10_length", "log10 bp", "annotation"),
        FeatureInfo("gc_promoter", "fraction", "sequence"),
    ]
    if plan.tracks:
        features.append(FeatureInfo("promoter_DNase", "fold change", "track"))
    contacts = (
        ContactInfo("power_law", 500, NUM_CONTACT_BINS, "relative")
        if plan.contacts
        else ContactInfo()
    )
    return Manifest(
        assembly="toy1",
        contigs=lengths,
        bin_size=plan.bin_size,
        tracks=[TrackInfo(name, assay=name, unit="fold change") for name in plan.tracks],
        expression=ExpressionInfo("TPM", "log10p1" if plan.samples else "none", list(plan.samples)),
        contacts=contacts,
        features=features if plan.features else [],
    )


def add_elements(root: Path, name: str = "peaks") -> Path:
    """Add a set of candidate elements: at every TSS, and two distal ones beside it."""
    manifest = layout.read_manifest(root)
    genes = layout.read_table(layout.genes_path(root))
    frames = []
    for contig, here in genes.groupby("contig"):
        tss = np.sort(here["tss"].to_numpy())
        middle = np.sort(np.concatenate([tss, tss + 150, tss - 180]))
        middle = middle[(middle > 20) & (middle < manifest.contigs[str(contig)] - 20)]
        middle = middle[np.concatenate([[True], np.diff(middle) > 40])]
        columns = {"set": name, "contig": contig, "start": middle - 20, "end": middle + 20}
        frames.append(pd.DataFrame(columns).assign(score=np.float32(1)))
    layout.write_table(pd.concat(frames, ignore_index=True), layout.elements_path(root))
    layout.finish_manifest(root, manifest)
    return root


def add_genotypes(root: Path, *, donors: int = 12, ploidy: int = 2, seed: int = 0) -> Path:
    """Add donors to a toy dataset: phased SNVs and indels, two populations, their expression.

    About one variant per 60 bases; every tenth call of the first contig's first variants is
    missing; expression follows the dosage of the variant nearest to the TSS.
    """
    random = np.random.default_rng(seed)
    manifest = layout.read_manifest(root)
    names = [f"D{number:03d}" for number in range(donors)]
    sizes = {}
    dosages = {}
    for contig in manifest.contigs:
        codes = np.load(layout.sequence_path(root, contig))
        variants = _toy_variants(codes, random)
        alleles = (random.random((donors * ploidy, len(variants))) < 0.3).astype(np.uint8)
        missing = np.zeros_like(alleles)
        if not sizes:
            missing[::10, :5] = 1
        write_toy_genotypes(root, contig, variants, alleles, missing=missing)
        sizes[contig] = len(variants)
        dosages[contig] = (variants, alleles.reshape(donors, ploidy, -1).sum(axis=1))
    table = pd.DataFrame(
        {"donor": names, "population": ["A", "B"] * (donors // 2) + ["A"] * (donors % 2)}
    )
    table = table.assign(sex=["female", "male"] * (donors // 2) + ["female"] * (donors % 2))
    table = table.assign(family="", father="", mother="")
    layout.write_table(table, places.donors_path(root))
    genes = layout.read_table(layout.genes_path(root))
    rows = []
    for gene in genes.itertuples():
        variants, dosage_DM = dosages[gene.contig]
        nearest = int(np.argmin(np.abs(variants.position_M - gene.tss)))
        rows.append(5 + dosage_DM[:, nearest] + random.normal(0, 0.3, donors))
    values = pd.DataFrame(np.array(rows, dtype=np.float32), columns=names)
    values.insert(0, "gene_id", genes["gene_id"])
    layout.write_table(values, places.donor_expression_path(root))
    info = GenotypeInfo(ploidy, names, sizes, {"variants": sum(sizes.values())}, "log2(TPM + 1)")
    layout.finish_manifest(root, replace(manifest, genotypes=info))
    return root


def _toy_variants(codes: NDArray[np.uint8], random: np.random.Generator) -> Variants:
    rows: list[tuple[int, str, str]] = []
    for position in range(30, len(codes) - 30, 60):
        here = decode(codes[position : position + 4])
        if "N" in here:
            continue
        kind = random.integers(0, 6)
        other = "ACGT"[("ACGT".index(here[0]) + 1) % 4]
        if kind == 0 and here[1] != here[0]:
            rows.append((position, here[:2], here[0]))
        elif kind == 1:
            rows.append((position, here[0], here[0] + other * 3))
        else:
            rows.append((position, here[0], other))
    return Variants.from_alleles(rows)


def write_toy_genotypes(
    root: Path,
    contig: str,
    variants: Variants,
    alleles_HM: NDArray[np.uint8],
    *,
    missing: NDArray[np.uint8] | None = None,
) -> None:
    """Write the arrays of one contig, block by block, in plain steps."""
    places.genotype_path(root, contig, "alleles").parent.mkdir(parents=True)
    arrays = {
        "position": variants.position_M,
        "ref_length": variants.ref_length_M,
        "alt_offset": variants.alt_offset_M1,
        "alt_codes": variants.alt_codes_C,
        "reach": np.maximum.accumulate(variants.end_M),
    }
    for name, array in arrays.items():
        np.save(places.genotype_path(root, contig, name), array)
    planes = {"alleles": alleles_HM, "missing": missing}
    for name, plane in planes.items():
        if plane is not None and plane.any():
            blocks = [
                places.pack_rows(plane[:, start : start + places.BLOCK])
                for start in range(0, plane.shape[1], places.BLOCK)
            ]
            np.save(places.genotype_path(root, contig, name), np.stack(blocks))
    codes = np.load(layout.sequence_path(root, contig))
    spans = zip(variants.position_M, variants.end_M, strict=True)
    frame = pd.DataFrame({
        "id": ".", "position": variants.position_M,
        "ref": [decode(codes[start:end]) for start, end in spans],
        "alt": [variants.alt(i) for i in range(len(variants))],
        "file": 0, "record": np.arange(len(variants)), "allele": 1, "filter": "PASS",
        "ac": alleles_HM.sum(axis=0), "an": alleles_HM.shape[0], "status": "ok",
    })  # fmt: skip
    layout.write_table(frame, places.variants_path(root, contig))
