"""Label tables: numbers, ids, joins and transforms."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from data_prep.config import ExpressionConfig
from data_prep.expression import align_expression, read_expression, transform_expression
from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning

TEXT = "gene_id\tsymbol\tcell a\tcell b\ng1\tS1\t1.5\t\ng2.3\tS2\tNA\t4\n"


def read(tmp_path, text, name="x.tsv", **settings):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_expression(path, ExpressionConfig(path=name, **settings))


def test_samples_are_the_columns_that_are_not_ignored(tmp_path):
    table = read(tmp_path, TEXT)
    assert list(table.columns) == ["gene_id", "cell a", "cell b"]
    np.testing.assert_array_equal(table["cell a"], [1.5, np.nan])
    np.testing.assert_array_equal(table["cell b"], [np.nan, 4])


def test_chosen_columns_come_in_the_order_asked(tmp_path):
    table = read(tmp_path, TEXT, columns=["cell b", "cell a"])
    assert list(table.columns) == ["gene_id", "cell b", "cell a"]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv.gz"])
def test_suffix_says_separator_and_compression(tmp_path, name):
    text = TEXT.replace("\t", ",") if ".csv" in name else TEXT
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert read_expression(path, ExpressionConfig(path=name)).shape == (2, 3)


def test_byte_order_mark_crlf_and_quotes(tmp_path):
    text = '\ufeffgene_id,"cell, a"\r\ng1,"2"\r\n'
    table = read(tmp_path, text, "x.csv")
    assert table["cell, a"].tolist() == [2.0]


def test_ensembl_versions_are_cut(tmp_path):
    table = read(tmp_path, "gene_id\tx\nENSG00000100266.12\t1\n")
    assert table["gene_id"].tolist() == ["ENSG00000100266"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene_id\tx\nENSG00000100266.1\t1\nENSG00000100266.2\t1\n", "genes used twice"),
        ("gene_id\tx\n\t1\n", "empty gene ids"),
        ("gene_id\tx\tx\ng\t1\t2\n", "columns used twice"),
        ("gene_id\tx\ng\tabc\n", "no finite number.*'abc'"),
        ("gene_id\tx\ng\t1,5\n", "no finite number"),
        ("gene_id\tx\ng\tinf\n", "no finite number"),
        ("id\tx\ng\t1\n", "no column 'gene_id'"),
        ("gene_id\tsymbol\ng\tS\n", "no sample column"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_unknown_column_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'cell a'"):
        read(tmp_path, TEXT, columns=["cella"])


def test_negative_labels_are_refused_under_a_logarithm_only(tmp_path):
    text = "gene_id\tx\ng\t-0.5\n"
    assert read(tmp_path, text)["x"].tolist() == [-0.5]
    with pytest.raises(InputError, match="negative values under log1p"):
        read(tmp_path, text, transform="log1p")


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "x.tsv.gz"
    path.write_bytes(gzip.compress(TEXT.encode() * 1000)[:-20])
    with pytest.raises(FormatError, match=r"x\.tsv\.gz"):
        read_expression(path, ExpressionConfig(path="x"))
    with pytest.raises(InputError, match="no such file"):
        read_expression(tmp_path / "none.tsv", ExpressionConfig(path="x"))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("none", 999.0), ("log1p", np.log(1000)), ("log2p1", np.log2(1000)), ("log10p1", 3.0)],
)
def test_transforms(transform, expected):
    table = pd.DataFrame({"gene_id": ["g"], "x": [999.0]})
    assert transform_expression(table, transform)["x"][0] == pytest.approx(expected, rel=1e-12)


GENES = pd.DataFrame({"gene_id": ["g3", "g1", "g2"]})


def test_rows_follow_the_gene_table():
    table = pd.DataFrame({"gene_id": ["g1", "g3"], "x": [1.0, 3.0]})
    aligned, counts = align_expression(table, GENES, what="x.tsv")
    assert aligned["gene_id"].tolist() == ["g3", "g1", "g2"]
    np.testing.assert_array_equal(aligned["x"], [3, 1, np.nan])
    assert aligned["x"].dtype == np.float32
    assert counts == {"genes_with_label": 2, "labels_without_gene": 0}


def test_partial_join_warns_with_counts_and_examples():
    table = pd.DataFrame({"gene_id": ["g1", "z1", "z2"], "x": 1.0})
    with pytest.warns(Seq2ExpWarning, match=r"1 of 3 .*2 in all; first: z1, z2"):
        _, counts = align_expression(table, GENES, what="x.tsv")
    assert counts["labels_without_gene"] == 2


def test_empty_join_is_an_error():
    table = pd.DataFrame({"gene_id": ["z1"], "x": 1.0})
    with pytest.raises(InputError, match="0 in all"):
        align_expression(table, GENES, what="x.tsv")
