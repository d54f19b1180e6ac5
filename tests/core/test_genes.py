"""Genes by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.genes import AMBIGUOUS, UNKNOWN, GeneNames, find_genes, strip_version

ONE, TWO, FOUR = "ENSG00000000001", "ENSG00000000002", "ENSG00000000004"


@pytest.fixture
def genes():
    return pd.DataFrame(
        {
            "gene_id": [f"{ONE}.4", TWO, "YDL247W.1", FOUR, f"{FOUR}_PAR_Y"],
            "symbol": ["GATA1", "B", "C", "B", np.nan],
        }
    )


def find(genes, *names):
    return find_genes(genes, names, what="--genes", where="toy").tolist()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"{ONE}.12", ONE),
        (f"{FOUR}.15_PAR_Y", f"{FOUR}_PAR_Y"),
        ("ENSMUST00000051951.6", "ENSMUST00000051951"),
        ("Y74C9A.3", "Y74C9A.3"),
        ("ENSG1.3", "ENSG1.3"),
    ],
)
def test_only_versions_of_ensembl_are_stripped(given, kept):
    assert strip_version(given) == kept


def test_genes_of_tables_are_found_by_id_without_version_and_then_by_symbol(genes):
    names = GeneNames(genes)
    assert names.find(f"{ONE}.9", "B") == 0
    assert names.find(TWO, None) == 1
    assert names.find("YDL247W", float("nan")) == UNKNOWN
    assert names.find("ENSG00000000099", "C") == 2
    assert names.find(None, "B") == AMBIGUOUS
    assert names.find("GATA1", None) == 0  # a symbol in a column of ids
    assert names.find("nan", None) == UNKNOWN
    assert names.rows([FOUR, None], [None, "b"]).tolist() == [3, UNKNOWN]


def test_named_genes_come_once_and_in_the_order_given(genes):
    assert find(genes, "C", TWO, "GATA1", f"{ONE}.4", "C") == [2, 1, 0]
    assert find(genes, ONE, f"{ONE}.7", f"{FOUR}.2", f"{FOUR}.2_PAR_Y") == [0, 3, 4]
    assert find(genes) == []
    # An id wins over the symbol of another gene.
    assert find(genes.assign(symbol=TWO), TWO) == [1]


def test_unknown_and_ambiguous_names_are_told_with_what_was_meant(genes):
    with pytest.raises(InputError) as caught:
        find(genes, "gata1", "C", "zzz", "B", f"{TWO[:-1]}7")
    assert str(caught.value) == (
        "--genes: found names of no gene, or of several, expected ids or symbols of the 5 genes "
        f"of toy; 4 in all; first: gata1 (nearest: GATA1, {ONE}.4), zzz, "
        f"B ({TWO}, {FOUR}). Fix: take the ids in genes.parquet"
    )
    with pytest.raises(InputError, match=r"ENSG00000000007 \(nearest: [BG].*, ENSG0000000000"):
        find(genes, f"{TWO[:-1]}7")
    with pytest.raises(InputError, match=rf"S \({ONE}\.4, {TWO}, YDL247W\.1 and 2 more\)"):
        find(genes.assign(symbol="S"), "S")
    with pytest.raises(InputError, match="1 in all; first: nan"):
        find(genes, "nan")
