"""Layouts of other people: the headers are those of the published files, the rows are ours."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from seq2exp.core.errors import AssemblyError, FormatError, InputError
from seq2exp.elements.tables import check_assembly, intervals_of, read_table, stated_assembly

ENCODE = (
    "chrom\tchromStart\tchromEnd\tname\tEffectSize\tstrandPerturbationTarget\tchrTSS\tstartTSS\t"
    "endTSS\tmeasuredGeneSymbol\tmeasuredEnsemblID\tSignificant\tpValueAdjusted\tValidConnection\t"
    "CellType\tRegulated"
)
FULCO = (
    "chr\tstart\tend\tclass\tGene\tGene TSS\tSignificant\tFraction change in gene expr\t"
    "Adjusted p-value\tABC Score"
)
GASPERINI = (
    "pairs4merge\tbeta\tfold_change.transcript_remaining\tpvalue.raw\tpvalue.empirical.adjusted\t"
    "gRNA_group\tgene_short_name\tENSG\ttarget_site.chr\ttarget_site.start\ttarget_site.stop\t"
    "site_type"
)
ABC = (
    "#chr\tstart\tend\tname\tclass\tTargetGene\tTargetGeneEnsembl_ID\tABC.Score.Numerator\t"
    "ABC.Score"
)


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        (ENCODE, {"chrom": "chrom", "start": "chromStart", "end": "chromEnd",
                  "gene_id": "measuredEnsemblID", "symbol": "measuredGeneSymbol",
                  "effect": "EffectSize", "significant": "Significant", "regulated": "Regulated",
                  "p_adjusted": "pValueAdjusted", "valid": "ValidConnection", "cell": "CellType"}),
        (FULCO, {"chrom": "chr", "start": "start", "end": "end", "symbol": "Gene",
                 "effect": "Fraction change in gene expr", "p_adjusted": "Adjusted p-value",
                 "significant": "Significant", "score": "ABC Score"}),
        (GASPERINI, {"chrom": "target_site.chr", "start": "target_site.start",
                     "end": "target_site.stop", "gene_id": "ENSG", "symbol": "gene_short_name",
                     "remaining": "fold_change.transcript_remaining",
                     "p_adjusted": "pvalue.empirical.adjusted", "site": "site_type"}),
        (ABC, {"chrom": "#chr", "start": "start", "end": "end", "symbol": "TargetGene",
               "gene_id": "TargetGeneEnsembl_ID", "score": "ABC.Score"}),
    ],
    ids=["encode", "fulco", "gasperini", "abc"],
)  # fmt: skip
def test_published_headers_are_understood(tmp_path, header, roles):
    """Every cell holds the name of its column, so a role shows which column it was read from."""
    path = tmp_path / "table.tsv"
    path.write_text(f"{header}\n{header.lstrip('#')}\n")
    frame = read_table(path).frame
    assert {role: frame[role].iloc[0] for role in frame} == {
        role: name.lstrip("#") for role, name in roles.items()
    }


def test_case_and_order_of_columns_do_not_matter(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('END,"gene symbol",Start,CHR\n20,"A, B",10,chr1\n')
    frame = read_table(path).frame
    assert frame[["chrom", "start", "end", "symbol"]].to_numpy().tolist() == [
        ["chr1", "10", "20", "A, B"]
    ]


def test_titles_comments_and_line_ends_are_passed_over(tmp_path):
    path = tmp_path / "table.txt"
    lines = ("##made=today", "Table 6a", "#chr\tstart\tend", "chr1\t5\t9", "# end\t\t", "", "")
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    table = read_table(path)
    assert table.frame.to_numpy().tolist() == [["chr1", "5", "9"]]
    assert table.frame.index.tolist() == [4]


def test_gzip_and_parquet_give_the_same_rows(tmp_path):
    frame = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [1, 2], "end": [5, 6], "x": "y"})
    plain, packed, column = (tmp_path / name for name in ("a.tsv", "a.tsv.gz", "a.parquet"))
    frame.to_csv(plain, sep="\t", index=False)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    frame.to_parquet(column)
    found = [intervals_of(read_table(path)) for path in (plain, packed, column)]
    for starts, ends in found:
        assert (starts.tolist(), ends.tolist()) == ([1, 2], [5, 6])


def test_missing_columns_are_named(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("chrom\tbegin\tgene\nchr1\t5\tA\n")
    with pytest.raises(FormatError, match=r"columns chrom, begin, gene.*end .*start .*2 in all"):
        read_table(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("chr1\t9\t5", r"start < end.*1 in all.*line 3: chr1:9-5"),
        ("chr1\t5\t5", r"start < end"),
        ("chr1\t-5\t5", r"starts of 0 or more.*line 3"),
        ("chr1\tx\t5", r"start 'x'.*whole numbers.*line 3"),
        ("chr1\t1.5\t5", r"start '1.5'.*whole numbers"),
        ("chr1\t\t5", r"whole numbers in column start"),
        ("chr1\t1\t5\t7", r"more than 3 columns in line 3"),
    ],
)
def test_bad_lines_are_named_by_number(tmp_path, row, message):
    path = tmp_path / "table.tsv"
    path.write_text(f"chrom\tstart\tend\nchr1\t1\t2\n{row}\n")
    with pytest.raises(FormatError, match=message):
        intervals_of(read_table(path))


def test_whole_numbers_may_look_like_floats(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("chrom\tstart\tend\nchr1\t10.0\t2e1\n")
    assert [values.tolist() for values in intervals_of(read_table(path))] == [[10], [20]]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", InputError, "empty file"),
        (b"\n\n", InputError, "empty file"),
        (b"PK\3\4rest", FormatError, "xlsx"),
        (b"\x1f\x8bbroken", FormatError, "restore the file"),
        (gzip.compress(b"chr\tstart\tend\n" * 99, mtime=0)[:-9], FormatError, "restore the file"),
        (b"\xff\xfe\x00chr", FormatError, "restore the file"),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path, content, kind, message):
    path = tmp_path / "bad.tsv"
    path.write_bytes(content)
    with pytest.raises(kind, match=f"bad.tsv.*{message}"):
        read_table(path)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("line", "stated"),
    [
        ("##assembly=hg19", "hg19"),
        ("# genome build: GRCh38.p14", "GRCh38.p14"),
        ('track name=x db=mm10 description="y"', "mm10"),
        ("##reference=R64-1-1", "R64-1-1"),
        ("# genome wide screen", None),
        ("chr1 assembly=hg19", None),
    ],
)
def test_stated_assemblies_are_found(line, stated):
    assert stated_assembly(["# made by us", line]) == stated


def test_another_stated_assembly_is_an_error(tmp_path):
    path = tmp_path / "x.bed"
    check_assembly("GRCh38.p14", "hg38", path)
    check_assembly("sacCer3", "R64-1-1", path)
    check_assembly(None, "toy1", path)
    for ours in ("GRCh38", "toy1"):
        with pytest.raises(AssemblyError, match=rf"x\.bed.*hg19.*{ours}"):
            check_assembly("hg19", ours, path)
