"""Genotypes of the real sets: prepared whole, and compared with pysam's own reading."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest

from data_prep.build import prepare
from data_prep.config import DataConfig
from seq2exp.core.config import load_config
from seq2exp.core.sequence import decode
from seq2exp.dataset import format as layout
from seq2exp.dataset.store import Dataset

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
]


def make(name, source, folder):
    config = load_config(DataConfig, [ROOT / "configs" / "data" / f"{name}.yaml"])
    with warnings.catch_warnings():
        # Donors and genes that are in one table only: counted, and tested below.
        warnings.simplefilter("ignore")
        prepare(config, source=DATA / source, out=folder / name, progress=False)
    return Dataset(folder / name, verify_checksums=True)


@pytest.fixture(scope="module")
def yeast(tmp_path_factory):
    return make("cohort_yeast", "yeast_R64", tmp_path_factory.mktemp("yeast"))


@pytest.fixture(scope="module")
def chr20(tmp_path_factory):
    return make("cohort_chr20", "human_chr20_b37", tmp_path_factory.mktemp("chr20"))


@pytest.fixture(scope="module")
def chr22(tmp_path_factory):
    return make("cohort_chr22", "human_chr22_hg38", tmp_path_factory.mktemp("chr22"))


def pysam_calls(path, donors, contig):
    """Position, REF, ALT, alleles (2 missing) and phase of every record, one call at a time."""
    rows = []
    with pysam.VariantFile(str(path)) as records:
        for record in records.fetch(contig):
            calls = [record.samples[name] for name in donors]
            alleles = [[2 if a is None else a for a in call["GT"]] for call in calls]
            phased = [call.phased for call in calls]
            rows.append((record.start, record.ref, record.alts, alleles, phased))
    return rows


def compare(dataset, path, *, contig, step=1):
    """Every record of a contig; none of the real files holds two ALTs in one."""
    reader = dataset.genotypes
    donors = reader.donors[::step]
    chosen = np.arange(len(reader.donors))[::step]
    rows = pysam_calls(path, donors, contig)
    size = reader.contigs[contig]
    table = reader.table(contig)
    assert len(rows) == size
    order = table["record"].to_numpy()
    order = np.argsort(np.argsort(order - order.min() if len(order) else order))
    expected = np.array([rows[i][3] for i in order]).transpose(1, 2, 0)
    np.testing.assert_array_equal(reader.alleles(contig, 0, size, chosen), expected)
    for place, i in enumerate(order):
        position, ref, alts, _, _ = rows[i]
        assert len(alts) == 1
        if "normalised" not in table["status"][place]:
            assert tuple(table.loc[place, ["position", "ref", "alt"]]) == (position, ref, alts[0])
    # Whatever was moved still makes the same sequence.
    codes = np.load(layout.sequence_path(dataset.root, contig), mmap_mode="r")
    for place in np.flatnonzero(table["status"].str.contains("normalised")):
        position, ref, alts, _, _ = rows[order[place]]
        row = table.iloc[place]
        low, high = min(position, row["position"]) - 5, max(position, row["position"]) + 60
        assert edited(codes, low, high, position, ref, alts[0]) == edited(
            codes, low, high, row["position"], row["ref"], row["alt"]
        )
    phased = np.array([[rows[i][4][d] for i in order] for d in range(len(donors))])
    differ = expected[:, 0] != expected[:, -1]
    unphased = reader.unphased(contig, 0, size, chosen)
    unphased = np.zeros_like(phased) if unphased is None else unphased
    np.testing.assert_array_equal(unphased, differ & ~phased)


def edited(codes, low, high, position, ref, alt):
    before, after = codes[low:position], codes[position + len(ref) : high]
    assert decode(np.asarray(codes[position : position + len(ref)])) == ref
    return decode(np.asarray(before)) + alt + decode(np.asarray(after))


def test_chr20_equals_pysam_for_every_call(chr20):
    """7,568 variants of 300 people, phased, none missing."""
    path = DATA / "human_chr20_b37" / "eur300_phased.vcf.gz"
    compare(chr20, path, contig="20", step=7)
    info = chr20.manifest.genotypes
    assert (info.ploidy, len(info.donors), info.contigs) == (2, 300, {"20": 7568})
    assert info.counts["calls_missing"] == info.counts["calls_heterozygous_unphased"] == 0
    table = chr20.genotypes.table("20")
    # The file states both for the same people.
    with pysam.VariantFile(str(path)) as records:
        stated = {r.id: (r.info["AC"][0], r.info["AN"]) for r in records}
    ours = dict(zip(table["id"], zip(table["ac"], table["an"], strict=True), strict=True))
    assert {key: ours[key] for key in stated} == stated
    assert chr20.donors["population"].value_counts().to_dict() == {
        "EUR": 119, "FIN": 92, "GBR": 86, "CEU": 3}  # fmt: skip


def test_chr22_equals_pysam_and_the_stated_dosage(chr22):
    path = DATA / "human_chr22_hg38" / "geuvadis_ceu_dosages.vcf.gz"
    compare(chr22, path, contig="chr22")
    reader = chr22.genotypes
    with pysam.VariantFile(str(path)) as records:
        stated = np.array([[r.samples[d]["DS"] for d in reader.donors] for r in records]).T
    order = reader.table("chr22")["record"].to_numpy()
    np.testing.assert_array_equal(reader.dosage("chr22", 0, 798), stated[:, order])
    # Six positions stand twice, with other ALTs.
    position = reader.variants("chr22").position_M
    assert len(position) - len(np.unique(position)) == 6
    assert reader.unphased("chr22", 0, 798).sum() == 16_194


def test_chr22_keeps_the_donors_that_all_three_tables_have(chr22):
    donors = pd.read_csv(DATA / "human_chr22_hg38" / "donors.tsv", sep="\t")
    genotyped = donors[donors["dosages"] == 1]
    assert sorted(chr22.donors["donor"]) == sorted(genotyped["donor"])
    assert chr22.donors["sex"].value_counts().to_dict() == (
        genotyped["sex"].value_counts().to_dict()
    )
    table = pd.read_csv(
        DATA / "human_chr22_hg38" / "geuvadis_expression.tsv", sep="\t", index_col="gene_id"
    )
    ours = chr22.donor_expression
    assert set(ours.index) == set(table.index)
    expected = table.loc[ours.index, chr22.genotypes.donors].astype(np.float32)
    np.testing.assert_array_equal(ours.to_numpy(), expected.to_numpy())
    assert chr22.manifest.genotypes.counts["donors_left_out"] == 269


@pytest.mark.parametrize("contig", ["I", "IV", "XVI"])
def test_yeast_equals_pysam_on_haploid_genotypes(yeast, contig):
    compare(yeast, DATA / "yeast_R64" / "segregants.vcf.gz", contig=contig)


def test_yeast_is_haploid_with_nine_percent_missing(yeast):
    info = yeast.manifest.genotypes
    assert (info.ploidy, len(info.donors), sum(info.contigs.values())) == (1, 90, 11_530)
    share = info.counts["calls_missing"] / info.counts["calls"]
    assert share == pytest.approx(0.091, abs=0.0005)
    assert info.counts["calls_haploid"] + info.counts["calls_missing"] == info.counts["calls"]
    dosage = yeast.genotypes.dosage("IV", 0, info.contigs["IV"])
    assert set(np.unique(dosage[np.isfinite(dosage)])) == {0, 1}


def test_yeast_expression_is_what_the_file_holds(yeast):
    with gzip.open(DATA / "yeast_R64" / "segregants_expression.tsv.gz", "rt") as handle:
        header = handle.readline().rstrip("\n").split("\t")
        rows = {row.split("\t")[0]: row.rstrip("\n").split("\t") for row in handle}
    ours = yeast.donor_expression
    assert (len(ours), len(rows)) == (4071, 4087)
    columns = [header.index(name) for name in yeast.genotypes.donors]
    for gene in ours.index[::200]:
        expected = np.array([rows[gene][column] for column in columns], dtype=np.float32)
        np.testing.assert_array_equal(ours.loc[gene].to_numpy(), expected)


def test_yeast_coding_of_alleles_fits_what_is_deleted_in_one_parent(yeast):
    """LEU2 is deleted in RM (ALT), LYS2 in BY (REF): low expression goes with that allele."""
    symbols = yeast.genes.set_index("symbol")
    for symbol, sign in (("LEU2", -1), ("LYS2", 1)):
        gene = symbols.loc[symbol]
        first, last = yeast.genotypes.span(gene["contig"], gene["tss"] - 9000, gene["tss"] + 9000)
        dosage = yeast.genotypes.dosage(gene["contig"], first, last)
        values = yeast.donor_expression.loc[gene["gene_id"]].to_numpy()
        nearest = dosage[:, np.isfinite(dosage).all(axis=0)][:, 0]
        assert sign * np.corrcoef(nearest, values)[0, 1] > 0.7


def test_genes_are_split_by_contig(yeast):
    splits = yeast.genes.groupby("split")["contig"].unique()
    assert set(splits["valid"]) == {"II"}
    assert set(splits["test"]) == {"IV", "IX"}
    assert not set(splits["train"]) & {"II", "IV", "IX"}
