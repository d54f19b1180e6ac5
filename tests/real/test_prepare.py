"""The four small real sets: prepared whole, and compared with independent readers."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from data_prep.build import prepare
from data_prep.config import DataConfig
from seq2exp.core.config import load_config
from seq2exp.core.sequence import decode
from seq2exp.dataset import format as layout

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
]


def make(name, folder):
    config = load_config(DataConfig, [ROOT / "configs" / "data" / f"{name}.yaml"])
    with warnings.catch_warnings():
        # Labels of genes that are no protein-coding ones: counted in the manifest, tested below.
        warnings.simplefilter("ignore")
        manifest = prepare(config, source=DATA / name, out=folder / name, progress=False)
    return folder / name, manifest


@pytest.fixture(scope="module")
def yeast(tmp_path_factory):
    return make("yeast_R64", tmp_path_factory.mktemp("yeast"))


@pytest.fixture(scope="module")
def chr22(tmp_path_factory):
    return make("human_chr22_hg38", tmp_path_factory.mktemp("chr22"))


def gtf_genes(path):
    """Read gene lines with the simplest possible parser: an independent view of the file."""
    rows = {}
    with pysam.BGZFile(str(path)) as handle:
        for raw in handle:
            fields = raw.decode().split("\t")
            if len(fields) == 9 and fields[2] == "gene" and "protein_coding" in fields[8]:
                gene_id = fields[8].split('gene_id "')[1].split('"')[0]
                rows[gene_id] = (fields[0], int(fields[3]), int(fields[4]), fields[6])
    return rows


def test_yeast_genes_are_those_of_the_gtf(yeast):
    root, manifest = yeast
    genes = pd.read_parquet(root / "genes.parquet").set_index("gene_id")
    expected = gtf_genes(DATA / "yeast_R64" / "R64.gtf.gz")
    assert set(genes.index) == set(expected)
    for gene_id, (contig, start, end, strand) in expected.items():
        row = genes.loc[gene_id]
        assert (row["contig"], row["strand"]) == (contig, strand)
        assert row["tss"] == (start - 1 if strand == "+" else end - 1)
    assert manifest.counts["genes"] == len(expected) == 6692


def test_yeast_reading_frames_begin_with_the_start_codon(yeast):
    """The TSS of this annotation is the first base of the frame, so ATG must stand there; this
    fails when positions or strands are off by one.
    """
    root, _ = yeast
    genes = pd.read_parquet(root / "genes.parquet")
    codes = {name: np.load(root / "sequence" / f"{name}.npy") for name in genes["contig"].unique()}
    starts = 0
    for contig, tss, strand in zip(genes["contig"], genes["tss"], genes["strand"], strict=True):
        if strand == "+":
            word = decode(codes[contig][tss : tss + 3])
        else:
            word = decode((3 - codes[contig][tss - 2 : tss + 1])[::-1])
        starts += word == "ATG"
    assert starts / len(genes) > 0.99


def test_yeast_sequence_equals_the_fasta(yeast):
    root, manifest = yeast
    with pysam.FastaFile(str(DATA / "yeast_R64" / "R64.fa.gz")) as fasta:
        for contig, length in manifest.contigs.items():
            codes = np.load(root / "sequence" / f"{contig}.npy")
            assert len(codes) == length
            assert decode(codes) == fasta.fetch(contig).upper()


def test_yeast_bins_equal_the_dense_means(yeast):
    root, manifest = yeast
    size = manifest.bin_size
    with pyBigWig.open(str(DATA / "yeast_R64" / "ATAC_cutsites.bw")) as library:
        for contig, length in manifest.contigs.items():
            stored = np.load(root / "tracks" / f"{contig}.npy")[:, 0]
            dense = np.nan_to_num(library.values(contig, 0, length, numpy=True))
            if contig == "XII":
                dense[451_000:491_000] = np.nan
            if contig == "Mito":
                dense[:] = np.nan
            whole = length // size
            blocks = dense[: whole * size].reshape(whole, size).astype(np.float64)
            known = np.isfinite(blocks)
            counts = known.sum(axis=1)
            sums = np.where(known, blocks, 0).sum(axis=1)
            means = np.divide(sums, counts, out=np.full(whole, np.nan), where=counts > 0)
            np.testing.assert_array_equal(stored[:whole], means.astype(np.float16))
            tail = dense[whole * size :]
            if tail.size:
                assert stored[-1] == np.float16(tail.mean()) or np.isnan(tail).all()


def test_yeast_labels_splits_and_masks(yeast):
    root, manifest = yeast
    genes = pd.read_parquet(root / "genes.parquet").set_index("gene_id")
    labels = pd.read_parquet(root / "expression.parquet").set_index("gene_id")
    table = pd.read_csv(DATA / "yeast_R64" / "fpkm.tsv", sep="\t").set_index("gene_id")
    shared = labels.index.intersection(table.index)
    expected = np.log10(table.loc[shared, "fpkm"] + 1)
    np.testing.assert_allclose(labels.loc[shared, "fpkm"], expected, rtol=1e-5)
    assert labels["fpkm"].notna().sum() == len(shared) == 4588
    assert set(genes.loc[genes["split"] == "test", "contig"]) == {"IV", "IX"}
    assert set(genes.loc[genes["split"] == "valid", "contig"]) == {"II"}
    # XIII to XVI have no labels; their genes are kept, for prediction.
    assert genes["contig"].isin(["XIII", "XIV", "XV", "XVI"]).sum() > 1000
    masked = genes[(genes["contig"] == "Mito") | (genes["status"].str.contains("XII:451000"))]
    assert (masked["split"] == "excluded").all()
    assert manifest.tracks[0].summary["covered_bases"] < 449_333  # what the whole file covers


def test_chr22_tss_come_from_the_transcript_lines(chr22):
    root, _ = chr22
    genes = pd.read_parquet(root / "genes.parquet")
    five_prime = np.where(genes["strand"] == "+", genes["gene_start"], genes["gene_end"] - 1)
    assert len(genes) == 71
    assert 0.1 < (five_prime != genes["tss"]).mean() < 0.5  # about a quarter lie inside


def test_chr22_signal_follows_expression_as_the_data_page_says(chr22):
    """README of the data: r = 0.79 for DNase within 1 kb of the TSS against log K-562, 30 genes."""
    root, _ = chr22
    genes = pd.read_parquet(root / "genes.parquet")
    label = pd.read_parquet(root / "expression.parquet")["K-562"]
    known = label.notna()
    signal = np.log1p(genes.loc[known, "promoter_DNase"])
    assert known.sum() == 30
    assert np.corrcoef(signal, label[known])[0, 1] > 0.6


def test_chr22_windows_of_different_splits_are_apart(chr22):
    root, manifest = chr22
    genes = pd.read_parquet(root / "genes.parquet")
    reach = manifest.config["splits"]["buffer_bp"]
    used = genes[genes["split"] != "excluded"].sort_values("tss")
    change = used["split"].to_numpy()[1:] != used["split"].to_numpy()[:-1]
    assert np.diff(used["tss"])[change].min() >= 2 * reach
    assert used["split"].nunique() == 3


def test_chr20_without_tracks(tmp_path):
    root, manifest = make("human_chr20_b37", tmp_path)
    assert manifest.tracks == []
    assert not (root / "tracks").exists()
    assert manifest.counts["genes_with_label"] == 15
    layout.verify(root, manifest, checksums=True)


@pytest.mark.slow
def test_chr1_dense_track_is_unknown_outside_its_interval(tmp_path):
    root, manifest = make("human_chr1_b37", tmp_path)
    stored = np.load(root / "tracks" / "1.npy", mmap_mode="r")
    dense, sparse = stored[:, 0], stored[:, 1]
    known = np.flatnonzero(np.isfinite(dense)) * manifest.bin_size
    assert known.min() // 128 == 570_400 // 128
    assert known.max() // 128 == 996_882 // 128
    assert np.isfinite(sparse[20_000_000 // 128 :]).sum() == 0  # beyond the real bases
    genes = pd.read_parquet(root / "genes.parquet")
    inside = genes["tss"].between(564_000, 570_399)
    assert (genes.loc[inside, "split"] == "excluded").all()
    assert inside.sum() == 8
