"""GTF: TSS, ids, transcript choice and lengths, worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from data_prep.annotation import read_annotation, strip_version
from data_prep.config import AnnotationConfig
from seq2exp.core.errors import InputError
from tests.data_prep.raw import TSS, gene_lines, gtf_line, write_gtf

CONFIG = AnnotationConfig(gtf="x.gtf")


def read(tmp_path, lines, **settings):
    path = write_gtf(tmp_path / "x.gtf", lines)
    return read_annotation(path, AnnotationConfig(gtf="x.gtf", **settings))


def transcript(gene, name, start, end, strand="+", **more):
    return gtf_line(
        "chr1", "transcript", start, end, strand, gene_id=gene, transcript_id=name, **more
    )


def test_tss_is_the_start_on_plus_and_the_last_base_on_minus(tmp_path):
    genes = read(tmp_path, gene_lines()).genes.set_index("gene_id")
    assert genes["tss"].to_dict() == TSS
    assert genes.loc["gB", ["gene_start", "gene_end"]].tolist() == [600, 900]
    assert (genes["status"] == "ok").all()


@pytest.mark.parametrize("name", ["x.gtf", "x.gtf.gz"])
def test_compression_changes_nothing(tmp_path, name):
    annotation = read_annotation(write_gtf(tmp_path / name, gene_lines()), CONFIG)
    assert annotation.genes["gene_id"].tolist() == ["gA", "gB", "gC", "gD", "gE"]
    assert annotation.max_end == {"chr1": 1800, "chr2": 1003}


def test_crlf_and_comments_between_rows_are_fine(tmp_path):
    path = tmp_path / "x.gtf"
    path.write_bytes("\r\n".join([*gene_lines()[:2], "#a comment", *gene_lines()[2:], ""]).encode())
    assert len(read_annotation(path, CONFIG).genes) == 5


def test_a_hash_inside_an_attribute_is_no_comment(tmp_path):
    line = gtf_line("chr1", "gene", 5, 9, "+", gene_id="g#1", gene_name="a#b")
    genes = read(tmp_path, [line]).genes
    assert genes.loc[0, ["gene_id", "symbol"]].tolist() == ["g#1", "a#b"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ENSG00000100266.12", "ENSG00000100266"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENSMUSG00000051951.6", "ENSMUSG00000051951"),
        ("ENSG00000100266", "ENSG00000100266"),
        ("YAL001C", "YAL001C"),
        ("AT1G01010.1", "AT1G01010.1"),  # not Ensembl's form: the dot may mean something
        ("gene.2", "gene.2"),
    ],
)
def test_versions_are_cut_from_ensembl_ids_only(given, kept):
    assert strip_version(pd.Series([given]))[0] == kept


def test_transcript_tss_is_the_most_five_prime_of_the_chosen(tmp_path):
    lines = [
        gtf_line("chr1", "gene", 101, 900, "+", gene_id="p", gene_biotype="x"),
        transcript("p", "p1", 151, 900, transcript_biotype="x"),
        transcript("p", "p2", 201, 800, tag="basic", transcript_biotype="x"),
        transcript("p", "p3", 301, 900, transcript_biotype="y"),
        gtf_line("chr1", "gene", 1001, 1900, "-", gene_id="m"),
        transcript("m", "m1", 1001, 1850, "-", transcript_biotype="x"),
        transcript("m", "m2", 1101, 1800, "-", tag="basic"),
        transcript("m", "m3", 1001, 1700, "-", transcript_biotype="y"),
    ]

    def tss(**settings):
        return read(tmp_path, lines, **settings).genes.set_index("gene_id")["tss"].to_dict()

    assert tss(tss="gene") == {"p": 100, "m": 1899}
    assert tss(tss="transcript") == {"p": 150, "m": 1849}
    assert tss(tss="transcript", transcript_tags=["basic"]) == {"p": 200, "m": 1799}
    assert tss(tss="transcript", transcript_biotypes=["y"]) == {"p": 300, "m": 1699}


def test_transcript_source_and_several_tags(tmp_path):
    both = 'gene_id "p"; transcript_id "p1"; tag "basic"; tag "MANE_Select";'
    lines = [
        gtf_line("chr1", "gene", 101, 900, "+", gene_id="p"),
        f"chr1\thavana\ttranscript\t301\t900\t.\t+\t.\t{both}",
        gtf_line(
            "chr1", "transcript", 201, 900, "+", source="ensembl", gene_id="p", transcript_id="q"
        ),
    ]
    chosen = read(tmp_path, lines, tss="transcript", transcript_tags=["MANE_Select"]).genes
    assert chosen["tss"].tolist() == [300]
    chosen = read(tmp_path, lines, tss="transcript", transcript_sources=["ensembl"]).genes
    assert chosen["tss"].tolist() == [200]


def test_gene_without_chosen_transcript_is_kept_and_marked(tmp_path):
    lines = [*gene_lines()[:2], transcript("gA", "t", 111, 400)]
    genes = read(tmp_path, lines, tss="transcript").genes.set_index("gene_id")
    assert genes.loc["gA", ["tss", "status"]].tolist() == [110, "ok"]
    assert genes.loc["gB", ["tss", "status"]].tolist() == [899, "no chosen transcript"]


def test_no_chosen_transcript_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no transcript line"):
        read(tmp_path, gene_lines(), tss="transcript")


@pytest.mark.parametrize("strand", ["+", "-"])
def test_lengths_of_the_transcript_with_the_longest_cds(tmp_path, strand):
    """Exons 101-200, 301-400, 501-700 (GTF); CDS 151-200, 301-400, 501-550, stop 551-553.

    Exonic 100 + 100 + 200 = 400, span 600, so introns 200. CDS 50 + 100 + 50 = 200. In front of
    the first coding base 50 exonic bases, behind the last (553) 700 - 553 = 147.
    """
    ids = {"gene_id": "g", "transcript_id": "long"}
    lines = [
        gtf_line("chr1", "gene", 101, 700, strand, gene_id="g"),
        transcript("g", "long", 101, 700, strand),
        transcript("g", "other", 101, 700, strand),
        gtf_line("chr1", "exon", 101, 700, strand, gene_id="g", transcript_id="other"),
        gtf_line("chr1", "CDS", 101, 250, strand, gene_id="g", transcript_id="other"),
    ]
    for start, end in ((101, 200), (301, 400), (501, 700)):
        lines.append(gtf_line("chr1", "exon", start, end, strand, **ids))
    for start, end in ((151, 200), (301, 400), (501, 550)):
        lines.append(gtf_line("chr1", "CDS", start, end, strand, **ids))
    lines.append(gtf_line("chr1", "stop_codon", 551, 553, strand, **ids))
    annotation = read(tmp_path, lines)
    row = annotation.genes.iloc[0]
    assert row[["num_exons", "num_cds", "cds_length", "intron_length"]].tolist() == [3, 3, 200, 200]
    left, right = (
        ("utr5_length", "utr3_length") if strand == "+" else ("utr3_length", "utr5_length")
    )
    assert row[[left, right]].tolist() == [50, 147]
    assert annotation.cds[["start", "end"]].to_numpy().tolist() == [
        [150, 200],
        [300, 400],
        [500, 550],
    ]


def test_lengths_are_unknown_without_exons(tmp_path):
    row = read(tmp_path, gene_lines()).genes.iloc[0]
    assert row[["num_exons", "cds_length", "utr5_length", "intron_length"]].isna().all()


def test_biotypes_are_chosen_and_the_rest_counted(tmp_path):
    lines = [*gene_lines(), gtf_line("chr1", "gene", 5, 9, "+", gene_id="t", gene_biotype="tRNA")]
    annotation = read(tmp_path, lines, biotypes=["protein_coding"])
    assert len(annotation.genes) == 5
    assert annotation.counts["gtf_genes_of_other_biotype"] == 1
    with pytest.raises(InputError, match="protein_coding, tRNA"):
        read(tmp_path, lines, biotypes=["lncRNA"])


def test_gencode_spelling_of_the_biotype(tmp_path):
    lines = [gtf_line("chr1", "gene", 5, 9, "+", gene_id="t", gene_type="lncRNA")]
    assert read(tmp_path, lines).genes["biotype"].tolist() == ["lncRNA"]
