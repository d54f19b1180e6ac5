from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest

from seq2exp.core.errors import (
    AssemblyError,
    ConfigError,
    FormatError,
    InputError,
    Seq2ExpWarning,
)
from seq2exp.elements.references import ReadConfig, kind_of, read_reference

CRISPR = "chrom\tchromStart\tchromEnd\tmeasuredGeneSymbol\tEffectSize\tSignificant\tpValueAdjusted"


def read(path, dataset, **settings):
    """Read without minding what is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Seq2ExpWarning)
        return read_reference(path, dataset, config=ReadConfig(**settings))


def write(tmp_path, name, *lines):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def acting(reference):
    frame = reference.truth.elements
    return dict(zip(frame["start"].tolist(), frame["causal"].tolist(), strict=True))


# Intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.bed", "bed"), ("a.BED.gz", "bed"), ("a.narrowPeak.gz", "narrowpeak"),
        ("a.bedpe", "bedpe"), ("a.broadPeak", "bed"), ("effects.tsv.gz", "simulated"),
        ("a.tsv", "table"), ("a.parquet", "table"),
    ],
)  # fmt: skip
def test_kinds_by_name(tmp_path, name, kind):
    assert kind_of(tmp_path / name) == kind
    assert kind_of(tmp_path) == "simulated"


def test_intervals_may_be_unsorted_overlapping_and_named_otherwise(dataset, tmp_path):
    """1 is chr1; 100-200 and 150-300 are one; strand and score are missing."""
    path = write(tmp_path, "a.bed", "3\t50\t90", "1\t150\t300", "1\t100\t200", "1\t900\t950")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_reference(path, dataset)
    frame = found.truth.elements[["chrom", "start", "end"]]
    assert frame.to_numpy().tolist() == [["chr1", 100, 300], ["chr1", 900, 950], ["chr3", 50, 90]]
    assert found.notes["joined because they overlap or touch"] == 1
    assert (found.kind, found.per_gene, found.covers_bins) == ("bed", False, True)


def test_a_table_without_genes_is_a_set_of_intervals(dataset, tmp_path):
    path = write(tmp_path, "a.tsv", "accession\tchr\tstart\tend", "EH1\tchr1\t5\t9")
    assert read(path, dataset).kind == "bed"


def test_narrow_peaks_have_ten_columns(dataset, tmp_path):
    row = "chr1\t5\t50\tp\t9\t.\t1.5\t2\t3\t7"
    assert len(read(write(tmp_path, "a.narrowPeak", row), dataset).truth.elements) == 1
    short = write(tmp_path, "b.narrowPeak", "\t".join(row.split("\t")[:7]))
    with pytest.raises(FormatError, match=r"7 columns.*missing: pValue, qValue, peak"):
        read(short, dataset)


def test_peaks_that_overhang_their_contig_are_cut(dataset, tmp_path):
    """Peak callers extend reads by a fragment; contig chr1 has 36,007 bases."""
    path = write(tmp_path, "over.bed", "chr1\t5\t9", "chr1\t35900\t36300")
    with pytest.warns(Seq2ExpWarning, match="1 cut at the end of their contig"):
        found = read_reference(path, dataset)
    assert found.truth.elements["end"].tolist() == [9, 36_007]


def test_other_assemblies_are_refused(dataset, tmp_path):
    far = write(tmp_path, "far.bed", "chr1\t5\t9", "chr1\t1000\t99000000", "chr3\t20000\t20500")
    with pytest.raises(AssemblyError, match=r"far\.bed.*end of chr1.*36,007.*toy1.*2 in all"):
        read(far, dataset)
    beyond = write(tmp_path, "beyond.bed", "chr1\t36007\t36010")
    with pytest.raises(AssemblyError, match="end of chr1"):
        read(beyond, dataset)
    said = write(tmp_path, "said.bed", "##genome=hg19", "chr1\t5\t9")
    with pytest.raises(AssemblyError, match=r"said\.bed.*hg19.*toy1"):
        read(said, dataset)
    other = write(tmp_path, "other.bed", "chrIV\t5\t9")
    with pytest.raises(InputError, match=r"other\.bed.*chrIV"):
        read(other, dataset)


@pytest.mark.parametrize("name", ["a.bed", "a.narrowPeak", "a.bedpe", "a.tsv"])
def test_empty_files_are_named(dataset, tmp_path, name):
    for text in ("", "# only a comment\n"):
        (tmp_path / name).write_text(text)
        with pytest.raises((InputError, FormatError), match=name):
            read(tmp_path / name, dataset)


def test_rows_on_unknown_contigs_are_counted(dataset, tmp_path):
    path = write(tmp_path, "a.bed", "chr1\t5\t9", "chr99\t1\t2", "chr98\t1\t2")
    with pytest.warns(Seq2ExpWarning, match="2 on contigs the dataset lacks.*all 3 rows"):
        found = read_reference(path, dataset)
    assert found.notes["used"] == 1


# CRISPRi --------------------------------------------------------------------------------------

ROWS = (
    "chr1\t100\t200\tCHR1G1\t-0.5\tTRUE\t0.001",  # down
    "chr1\t300\t400\tCHR1G1\t0.5\tTRUE\t0.001",  # up
    "chr1\t500\t600\tCHR1G1\t-0.5\tFALSE\t0.2",  # not significant
    "chr1\t700\t800\tCHR1G1\t-0.05\tTRUE\t0.04",  # weak
    "chr1\t900\t990\tCHR1G1\tNA\tFALSE\tNA",  # no effect measured, not significant
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {100: True, 300: False, 500: False, 700: True, 900: False}),
        ({"direction": "increase"}, {100: False, 300: True, 500: False, 700: False, 900: False}),
        ({"direction": "any"}, {100: True, 300: True, 500: False, 700: True, 900: False}),
        ({"min_effect": 0.1}, {100: True, 300: False, 500: False, 700: False, 900: False}),
        # With a threshold of one's own the p-value decides, and a row without one is unknown.
        ({"alpha": 0.01}, {100: True, 300: False, 500: False, 700: False}),
        ({"alpha": 0.5}, {100: True, 300: False, 500: True, 700: True}),
    ],
)
def test_what_counts_as_acting(dataset, tmp_path, settings, expected):
    found = read(write(tmp_path, "crispr.tsv", CRISPR, *ROWS), dataset, **settings)
    assert acting(found) == expected
    assert (found.kind, found.covers_bins, found.lists_negatives) == ("crispri", False, True)
    assert set(found.truth.elements["gene_id"]) == {"chr1_g1"}


def test_a_table_may_say_regulated_only(dataset, tmp_path):
    header = (
        "chrPerturbationTarget\tstartPerturbationTarget\tendPerturbationTarget\tGeneSymbol\t"
        "Regulated"
    )
    rows = ("chr1\t5\t9\tCHR1G1\tTRUE", "chr1\t15\t19\tCHR1G1\tFALSE")
    path = write(tmp_path, "old.txt", header, *rows)
    assert acting(read(path, dataset)) == {5: True, 15: False}
    with pytest.raises(FormatError, match=r"effect \(such as effectsize"):
        read(path, dataset, direction="any")


def test_remaining_transcript_and_sites_of_a_single_cell_screen(dataset, tmp_path):
    """1.0 remaining is no effect; guides without a target have no place and are left out."""
    header = (
        "fold_change.transcript_remaining\tpvalue.empirical.adjusted\tENSG\ttarget_site.chr\t"
        "target_site.start\ttarget_site.stop\tsite_type"
    )
    rows = (
        "0.6\t0.01\tchr1_g1\tchr1\t100\t200\tDHS",
        "1.4\t0.01\tchr1_g1\tchr1\t300\t400\tDHS",
        "0.9\t0.9\tchr1_g1\tchr1\t500\t600\tDHS",
        "0.9\tnot_applicable\tchr1_g1\tchr1\t700\t800\tDHS",
        "0.2\t0.01\tchr1_g1\tchr1\t900\t990\tselfTSS",
        "0.9\tnot_applicable\tchr1_g1\tNTC\tNTC\tNTC\tNTC",
    )
    found = read(write(tmp_path, "screen.txt", header, *rows), dataset)
    assert acting(found) == {100: True, 300: False, 500: False}
    assert found.notes["sites that are no candidate enhancer"] == 2
    assert found.notes["without a test"] == 1


def test_invalid_pairs_other_cells_and_repeats_are_counted(dataset, tmp_path):
    header = CRISPR + "\tValidConnection\tCellType"
    rows = (
        ROWS[0] + "\tTRUE\tK562",
        "chr1\t100\t200\tCHR1G1\t0.0\tFALSE\t0.9\tTRUE\tK562",  # again, and not significant
        ROWS[2] + "\toverlaps potential promoter\tK562",
        ROWS[3] + "\tTRUE\tWTC11",
        "chr1\t10\t20\tNOGENE\t0.0\tFALSE\t0.9\tTRUE\tK562",
        "chr3\t10\t20\tCHR1G1\t0.0\tFALSE\t0.9\tTRUE\tK562",
    )
    path = write(tmp_path, "crispr.tsv", header, *rows)
    with pytest.warns(Seq2ExpWarning, match="1 marked as invalid"):
        found = read_reference(path, dataset, config=ReadConfig(cell="K562"))
    assert acting(found) == {100: True}
    assert found.notes == {
        "rows": 6, "of another cell": 1, "marked as invalid": 1, "without a test": 0,
        "on contigs the dataset lacks": 0, "cut at the end of their contig": 0,
        "of genes the dataset lacks": 1,
        "of symbols that several genes have": 0, "on another contig than their gene": 1,
        "the same pair again": 1, "used": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="cells K562, WTC11"):
        read(path, dataset, cell="liver")


def test_no_shared_gene_is_an_error(dataset, tmp_path):
    path = write(tmp_path, "crispr.tsv", CRISPR, ROWS[0].replace("CHR1G1", "GATA1"))
    with pytest.raises(InputError, match=r"genes such as GATA1.*chr1_g0"):
        read(path, dataset)


def test_bad_numbers_are_named(dataset, tmp_path):
    path = write(tmp_path, "crispr.tsv", CRISPR, ROWS[0], ROWS[1].replace("0.5", "half"))
    with pytest.raises(FormatError, match=r"crispr\.tsv line 3, column effect.*'half'"):
        read(path, dataset)


def test_settings_are_checked():
    for settings in ({"kind": "x"}, {"direction": "x"}, {"alpha": 0.0}, {"min_effect": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            ReadConfig(**settings)


# Links ----------------------------------------------------------------------------------------


def test_abc_predictions_are_links(dataset, tmp_path):
    header = "chr\tstart\tend\tname\tTargetGene\tTargetGeneEnsembl_ID\tABC.Score"
    rows = ("chr1\t5\t9\tx\tCHR1G1\tNA\t0.05", "chr1\t50\t90\tx\t?\tchr1_g2\t0.01")
    path = write(tmp_path, "EnhancerPredictions.tsv", header, *rows)
    found = read(path, dataset)
    assert (found.kind, found.covers_bins, found.lists_negatives) == ("links", True, False)
    assert found.truth.elements["gene_id"].tolist() == ["chr1_g1", "chr1_g2"]
    assert acting(read(path, dataset, min_score=0.02)) == {5: True, 50: False}
    bare = write(tmp_path, "bare.tsv", "chr\tstart\tend\tgene", "chr1\t5\t9\tCHR1G1")
    with pytest.raises(FormatError, match="abcscore"):
        read(bare, dataset, min_score=0.02)


def test_bedpe_links_the_gene_whose_tss_an_end_reaches(dataset, tmp_path):
    gene = dataset.genes.iloc[5]
    tss = int(gene["tss"])
    sites = dataset.genes.query("contig == 'chr1'")["tss"].to_numpy(np.int64)
    # A place of ten bases that no TSS can reach.
    far = next(at for at in range(0, 30_000, 10) if np.abs(sites - at).min() > 520)
    rows = (
        f"chr1\t{far}\t{far + 10}\tchr1\t{tss - 10}\t{tss + 10}",
        f"1\t{tss}\t{tss + 1}\t1\t{far}\t{far + 10}",  # the other way, and named otherwise
        ".\t-1\t-1\tchr1\t300\t400",
        "chr1\t300\t400\tchr2\t300\t400",
    )
    found = read(write(tmp_path, "a.bedpe", *rows[:1], *rows[2:]), dataset)
    assert found.truth.elements[["start", "gene_id"]].to_numpy().tolist() == [
        [far, gene["gene_id"]]
    ]
    assert found.notes["between contigs, or without a place"] == 2
    turned = read(write(tmp_path, "b.bedpe", rows[1]), dataset)
    assert turned.truth.elements[["chrom", "start", "gene_id"]].to_numpy().tolist() == [
        ["chr1", far, gene["gene_id"]]
    ]


def test_our_own_bedpe_names_its_genes(dataset, tmp_path):
    path = tmp_path / "links.bedpe.gz"
    row = "chr1\t100\t200\tchr1\t9000\t9001\tn\t5\t.\t+\tchr1_g1\tCHR1G1\t-10\tdistal\t0.5"
    path.write_bytes(gzip.compress(row.encode() + b"\n"))
    assert read(path, dataset).truth.elements["gene_id"].tolist() == ["chr1_g1"]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("chr1\t1\t2\tchr1\t5", FormatError, r"line 1.*5 columns.*also end2"),
        ("chr1\t1\t2\tchr1\t9\t5", FormatError, r"line 1.*chr1 9 5"),
        ("chr1\t-4\t2\tchr1\t4\t5", FormatError, r"line 1.*chr1 -4 2"),
        ("chr2\t11900\t11950\tchr2\t11960\t11970", InputError, "no link to a gene"),
    ],
)
def test_bad_links_are_named(dataset, tmp_path, row, kind, message):
    tss = dataset.genes.query("contig == 'chr2'")["tss"].to_numpy(np.int64)
    assert np.abs(tss - 11_935).min() > 600
    with pytest.raises(kind, match=rf"a\.bedpe.*{message}"):
        read(write(tmp_path, "a.bedpe", row), dataset)
