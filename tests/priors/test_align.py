"""Genes of a study are found by id, symbol or synonym, and never silently by position."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.priors.identity import id_system
from tests.priors.makers import make_prior, names


def test_any_order_of_ids_gives_the_rows_of_these_genes():
    prior = make_prior()
    order = np.random.default_rng(1).permutation(60)
    aligned, report = prior.align(prior.gene_id[order])
    assert aligned.gene_id.tolist() == prior.gene_id[order].tolist()
    for name in ("z", "expr", "reg", "quality", "present", "split", "tss", "symbol", "contig"):
        np.testing.assert_array_equal(getattr(aligned, name), getattr(prior, name)[order])
    assert report.match.by_rule == {"gene_id": 60, "symbol": 0, "synonym": 0}
    assert report.absent == ("ENSG00000000003",)
    assert report.coverage == 59 / 60


def test_versions_symbols_and_synonyms_in_that_order():
    prior = make_prior()
    genes = ["ENSG00000000007.12", "G9", "OLD2", "NOBODY", "G3"]
    synonyms = {"OLD2": "ENSG00000000002", "G9": "G1"}
    aligned, report = prior.align(genes, synonyms=synonyms)
    assert report.match.row == (7, 9, 2, -1, 3)
    assert report.match.rule == ("gene_id", "symbol", "synonym", "", "symbol")
    assert report.match.by_rule == {"gene_id": 1, "symbol": 2, "synonym": 1}
    assert report.match.missing == ("NOBODY",)
    assert report.absent == ("ENSG00000000003",)
    assert report.coverage == 3 / 5
    assert "60.0% of 5 genes have a prior (1 by gene_id, 2 by symbol, 1 by synonym" in report.text
    np.testing.assert_array_equal(aligned.z[:3], prior.z[[7, 9, 2]])


def test_an_unmatched_gene_keeps_its_name_and_has_nothing_else():
    aligned, _ = make_prior().align(["ENSG00000000001", "ENSG99999999999.2"], symbols=["G1", "NEW"])
    assert aligned.gene_id.tolist() == ["ENSG00000000001", "ENSG99999999999"]
    assert aligned.symbol.tolist() == ["G1", "NEW"]
    assert aligned.present.tolist() == [True, False]
    assert not aligned.z[1].any()
    assert not aligned.expr[1].any()
    assert not aligned.reg[1].any()
    assert np.isnan(aligned.quality[1])
    assert (aligned.split[1], aligned.tss[1], aligned.contig[1]) == ("excluded", -1, "")


def test_symbols_beside_ids_serve_where_the_id_is_unknown():
    _, report = make_prior().align(["ENSG00000000001", "ENSG00000099999"], symbols=["WRONG", "G8"])
    assert report.match.row == (1, 8)
    assert report.match.rule == ("gene_id", "symbol")


def test_an_empty_symbol_matches_nothing():
    _, report = make_prior().align(["G1", ""])
    assert report.match.missing == ("",)


def twins():
    symbol = make_prior().symbol.copy()
    symbol[[10, 11]] = "TWIN"
    return make_prior(symbol=symbol)


@pytest.mark.parametrize(
    ("gene", "synonyms"), [("TWIN", {}), ("OLD", {"OLD": "TWIN"}), ("OLD", {"OLD": ["G20", "G21"]})]
)
def test_two_sources_for_one_gene_are_an_error_unless_they_may_be_missing(gene, synonyms):
    with pytest.raises(InputError, match=rf"several rows .* {gene} \(ENSG0\d+ or ENSG0\d+\)"):
        twins().align(["G1", gene], synonyms=synonyms)
    aligned, report = twins().align(["G1", gene], synonyms=synonyms, ambiguous="missing")
    assert list(report.match.ambiguous) == [gene]
    assert len(report.match.ambiguous[gene]) == 2
    assert aligned.present.tolist() == [True, False]
    assert report.match.missing == ()
    assert "1 ambiguous" in report.text


@pytest.mark.parametrize(
    ("genes", "synonyms", "part"),
    [
        (["G1", "G2", "G1"], {}, "named twice"),
        (["ENSG00000000001.1", "ENSG00000000001.2"], {}, "named twice"),
        (["G1", "ENSG00000000001"], {}, "G1 and ENSG00000000001"),
        (["G1", "OLD1"], {"OLD1": "G1"}, "G1 and OLD1 (ENSG00000000001)"),
    ],
)
def test_one_gene_under_two_names_is_refused(genes, synonyms, part):
    with pytest.raises(InputError) as error:
        make_prior().align(genes, synonyms=synonyms)
    assert part in str(error.value)


def test_too_small_a_coverage_is_an_error_with_the_report():
    prior = make_prior()
    genes = ["G1", "G2", "G4", "X1", "X2"]
    assert prior.align(genes, min_coverage=0.6)[1].coverage == 0.6
    with pytest.raises(InputError, match=r"60\.0% of 5 genes .* expected at least 61\.0%.* X1, X2"):
        prior.align(genes, min_coverage=0.61)


@pytest.mark.parametrize(
    ("genes", "looks"),
    [
        ([f"ENSMUSG{i:011d}" for i in range(20)], "ensembl/ENSMUSG"),
        ([f"YAL00{i}C" for i in range(1, 9)], "sgd"),
        (["Tp53", "Myc"], "other"),
        (["G3"], "other"),
    ],
    ids=["mouse", "yeast", "symbols", "only an absent gene"],
)
def test_no_overlap_is_always_an_error_that_names_both_systems(genes, looks):
    with pytest.raises(InputError) as error:
        make_prior().align(genes)
    assert f"look like {looks} ids" in str(error.value)
    assert "ensembl/ENSG ids such as ENSG00000000000" in str(error.value)


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="found none"):
        make_prior().align([])


@pytest.mark.parametrize("hole", [None, float("nan"), np.float32("nan")])
def test_a_gene_without_a_name_is_refused_with_its_place(hole):
    """A missing value of a table would be a gene called nan."""
    with pytest.raises(InputError, match="missing values") as error:
        make_prior().align(["G1", "G2", hole])
    assert "1 in all; first: place 2 of 3" in str(error.value)


def test_a_missing_symbol_beside_an_id_matches_nothing():
    symbol = make_prior().symbol.copy()
    symbol[3] = "nan"
    genes = ["ENSG00000000001", "NEW"]
    aligned, report = make_prior(symbol=symbol).align(genes, symbols=[None, float("nan")])
    assert report.match.row == (1, -1)
    assert aligned.symbol.tolist() == ["G1", ""]


def test_one_text_is_no_list_of_genes():
    """Its letters would be taken for genes."""
    with pytest.raises(InputError, match=r"one text, 'G1', expected a list"):
        make_prior().align("G1")


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(InputError, match="2 genes and 1 symbols"):
        make_prior().align(["G1", "G2"], symbols=["G1"])


@pytest.mark.parametrize(
    ("ids", "system"),
    [
        (["ENSG00000100266.12", "ENSG00000002586_PAR_Y"], "ensembl/ENSG"),
        (["ENSMUSG00000000001"], "ensembl/ENSMUSG"),
        (["FBgn0000008"], "flybase"),
        (["YAL001C", "YAL002W-A", "Q0045"], "sgd"),
        (["AT1G01010"], "tair"),
        (["7157", "4609"], "entrez"),
        (["WBGene00000001"], "wormbase"),
        (["TP53", "MYC"], "other"),
        (["ENSG00000100266"] * 8 + ["x"] * 2, "other"),
        ([], "other"),
    ],
)
def test_systems_of_ids(ids, system):
    assert id_system(ids) == system


def test_numbers_as_names_are_text():
    prior = make_prior(gene_id=names(str(i) for i in range(60)))
    assert prior.align([4, 2])[1].match.row == (4, 2)
