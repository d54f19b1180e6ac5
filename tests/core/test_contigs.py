from __future__ import annotations

import pytest

from seq2exp.core.contigs import (
    assembly_of,
    canonical,
    compare_sizes,
    match_contigs,
    same_assembly,
)
from seq2exp.core.errors import AssemblyError, InputError, Seq2ExpWarning

HG19 = {"chr1": 249_250_621, "chr22": 51_304_566}
HG38 = {"1": 248_956_422, "22": 50_818_468}


def test_aliases_share_one_canonical_name():
    assert {canonical(name) for name in ("chr1", "1", "NC_000001.11", "Chr1")} == {"1"}
    assert {canonical(name) for name in ("chrX", "X", "NC_000023.10")} == {"X"}
    assert {canonical(name) for name in ("chrM", "MT", "Mito", "NC_012920.1")} == {"MT"}
    assert canonical("chr") == "chr"
    assert canonical("chr1") != canonical("chr11")


def test_names_are_matched_both_ways():
    assert match_contigs(["chr1", "chr2"], ["1", "2"], what="x") == {"chr1": "1", "chr2": "2"}
    assert match_contigs(["1"], ["chr1", "chr2"], what="x") == {"1": "chr1"}


def test_an_exact_name_wins_over_an_alias():
    assert match_contigs(["1"], ["1"], what="x") == {"1": "1"}


def test_an_empty_join_is_an_error_and_a_partial_one_a_warning():
    with pytest.raises(InputError, match=r"x\.bw: found contigs chrA.*0 in all"):
        match_contigs(["chr1"], ["chrA"], what="x.bw")
    with pytest.warns(Seq2ExpWarning, match=r"1 of 2 contigs.*chrQ"):
        assert match_contigs(["chr1", "chrQ"], ["1"], what="x.bw") == {"chr1": "1"}


def test_two_names_of_one_contig_in_a_file_are_refused():
    with pytest.raises(InputError, match="two names of one contig"):
        match_contigs(["1"], ["chr1", "1"], what="x")


def test_another_assembly_is_named():
    assert assembly_of(HG19) == "hg19/GRCh37"
    assert assembly_of({"z": 5}) is None
    with pytest.raises(
        AssemblyError, match=r"hg19/GRCh37.*hg38/GRCh38.*2 in all.*chr1 249,250,621"
    ):
        compare_sizes(HG38, HG19, what="track.bw")


def test_positions_may_stay_below_the_length_but_not_exceed_it():
    compare_sizes(HG38, {"chr1": 1000}, what="genes.gtf", exact=False)
    with pytest.raises(AssemblyError, match=r"genes\.gtf"):
        compare_sizes(HG38, {"chr22": 51_000_000}, what="genes.gtf", exact=False)


def test_contigs_that_only_one_file_has_do_not_disagree():
    compare_sizes(HG38, {"chrQ": 5}, what="x")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("GRCh38", "hg38", True),
        ("GRCh38.p14", "hg38/GRCh38", True),
        ("R64", "sacCer3", True),
        ("R64-1-1", "R64", True),
        ("toy1", "toy1", True),
        ("hg19", "hg38", False),
        ("toy1", "toy2", False),
        ("toy1-1-1", "toy1", False),
    ],
)
def test_names_of_assemblies(first, second, same):
    assert same_assembly(first, second) == same_assembly(second, first) == same
