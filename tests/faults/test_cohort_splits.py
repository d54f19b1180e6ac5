"""Donors that do not match, and leakage between the sets of a cohort (F17)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.cohort.split_checks import check_split, split_from_lists
from seq2exp.cohort.split_making import make_split, match_donors
from seq2exp.cohort.splits import CohortSplit, CohortSplitConfig
from seq2exp.core.errors import InputError, Seq2ExpWarning

CONTIGS = {"a": "chr1", "b": "chr2", "c": "chr3"}
GENES = {"seen": ["a"], "valid": ["b"], "unseen": ["c"]}
DONORS = {"train": ["p", "q"], "valid": ["r"], "test": ["s"], "population": ["t"]}


def frame(**columns):
    names = [name for part in DONORS.values() for name in part]
    return pd.DataFrame({"donor": names, **columns})


def test_f17_a_sound_split_passes():
    split = split_from_lists(DONORS, GENES, contigs=CONTIGS)
    check_split(split, donors=frame(family=["F1", "F1", "", "", "0"]))
    assert split.mask("A").sum() == split.mask("B").sum() == 1


def test_f17_a_donor_in_two_sets_is_an_error():
    with pytest.raises(InputError, match=r"donors: found names in two sets.*1 in all; first: q"):
        split_from_lists(DONORS | {"test": ["s", "q"]}, GENES, contigs=CONTIGS)
    double = CohortSplit(("p", "p"), ("a",), ("train", "test"), ("seen",), ("chr1",))
    with pytest.raises(InputError, match="names that stand twice"):
        check_split(double)


def test_f17_a_gene_seen_and_unseen_is_an_error():
    with pytest.raises(InputError, match=r"genes: found names in two sets.*first: a"):
        split_from_lists(DONORS, GENES | {"unseen": ["c", "a"]}, contigs=CONTIGS)


@pytest.mark.parametrize("other", ["a", "b"])
def test_f17_a_contig_of_seen_and_unseen_genes_is_an_error(other):
    split = split_from_lists(DONORS, GENES, contigs=CONTIGS | {"c": CONTIGS[other]})
    with pytest.raises(InputError, match=f"contigs of unseen genes.*first: {CONTIGS[other]}"):
        check_split(split)


def test_f17_paralogs_seen_and_unseen_are_an_error():
    split = split_from_lists(DONORS, GENES, contigs=CONTIGS)
    genes = pd.DataFrame({"gene_id": list("abc"), "group": ["HOX", "", "HOX"]})
    with pytest.raises(InputError, match=r"groups of paralogs of unseen genes.*first: HOX"):
        check_split(split, genes=genes)
    check_split(split, genes=genes.assign(group=["HOX", "HOX", ""]))
    table = genes.assign(contig=CONTIGS.values(), split=["train", "valid", "test"])
    with pytest.raises(InputError, match="HOX"):
        make_split(frame(), table, CohortSplitConfig())


def test_f17_a_held_out_donor_who_trains_on_one_gene_is_an_error():
    split = split_from_lists(DONORS, GENES, contigs=CONTIGS)
    leaking = CohortSplit(
        split.donors, split.genes, split.donor_sets, split.gene_sets, split.contigs,
        per_gene={"a": np.array([0, 0, 1, 2, 0], np.int8)},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"held-out populations.*first: t"):
        check_split(leaking)


def test_f17_nobody_who_trains_is_an_error():
    lists = {"test": ["p", "q"], "population": ["t"]}
    with pytest.raises(InputError, match="some donors that train"):
        check_split(split_from_lists(lists, GENES, contigs=CONTIGS))
    with pytest.raises(InputError, match="found learn"):
        split_from_lists({"learn": ["p"]}, GENES, contigs=CONTIGS)
    with pytest.raises(InputError, match="a contig for each"):
        split_from_lists(DONORS, GENES, contigs={})


@pytest.mark.parametrize(
    "columns",
    [
        {"family": ["", "F", "", "F", ""]},
        {"father": ["", "", "", "q", ""]},
        {"mother": ["", "x", "", "x", ""]},
    ],
)
def test_f17_relatives_across_sets_are_a_warning(columns):
    split = split_from_lists(DONORS, GENES, contigs=CONTIGS)
    with pytest.warns(Seq2ExpWarning, match=r"1 pairs of relatives .*\(q/s\)"):
        check_split(split, donors=frame(**columns))


def test_f17_relatives_with_sets_drawn_per_gene_are_a_warning():
    donors = pd.DataFrame({"donor": [f"D{k}" for k in range(20)],
                           "family": [f"F{k // 2}" for k in range(20)]})  # fmt: skip
    genes = pd.DataFrame({"gene_id": list("abc"), "contig": CONTIGS.values(),
                          "split": ["train", "train", "test"]})  # fmt: skip
    config = CohortSplitConfig(people="per_gene", relatives="warn")
    with pytest.warns(Seq2ExpWarning, match="pairs of relatives"):
        make_split(donors, genes, config)


def test_f17_donors_that_do_not_match():
    assert match_donors(["p", "q"], ["q", "p"]) == ["p", "q"]
    with pytest.warns(Seq2ExpWarning, match=r"1 without expression \(p\) and 1 .*\(z\)"):
        assert match_donors(["p", "q"], ["q", "z"]) == ["q"]
    with pytest.raises(InputError, match=r"none in common \(NA1, NA2 against na1.1\)"):
        match_donors(["NA1", "NA2"], ["na1.1"])
    with pytest.raises(InputError, match="donors of the covariates: found names that stand twice"):
        match_donors(["p"], ["p", "p"], what="covariates")
    with pytest.raises(InputError, match=r"donors table: found donors named twice.*first: p"):
        make_split(pd.DataFrame({"donor": ["p", "p"]}), pd.DataFrame(), CohortSplitConfig())
