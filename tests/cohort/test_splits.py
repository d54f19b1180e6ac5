"""Splits of donors and genes: shares, seeds, families, the published recipe, the file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from seq2exp.cohort.relatives import family_groups
from seq2exp.cohort.split_making import gene_classes, make_split
from seq2exp.cohort.splits import DONOR_SETS, CohortSplitConfig, read_split
from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning

EUR, YRI = 60, 20


def donors_of(**columns):
    names = [f"D{k}" for k in range(EUR + YRI)]
    population = ["EUR"] * EUR + ["YRI"] * YRI
    return pd.DataFrame({"donor": names, "population": population, **columns})


def genes_of(num=30, contigs=6):
    contig = [f"chr{k % contigs + 1}" for k in range(num)]
    split = [{"chr5": "valid", "chr6": "test"}.get(name, "train") for name in contig]
    return pd.DataFrame({"gene_id": [f"G{k}" for k in range(num)], "contig": contig,
                         "split": split})  # fmt: skip


HELD = CohortSplitConfig(test_populations=["YRI"])


def test_shares_populations_and_classes():
    split = make_split(donors_of(), genes_of(), HELD)
    assert split.counts() == {
        "train": 43, "valid": 5, "test": 12, "population": 20,
        "gene_seen": 20, "gene_valid": 5, "gene_unseen": 5,
    }  # fmt: skip
    masks = {name: split.mask(name) for name in ("train", "valid", "valid_genes", "A", "B", "C")}
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "train": 20 * 43, "valid": 20 * 5, "valid_genes": 5 * 43, "A": 20 * 12, "B": 20 * 20,
        "C": 5 * 80,
    }  # fmt: skip
    total = sum(mask.astype(int) for mask in masks.values())
    assert total.max() == 1, "no cell is used twice"
    assert split.mask("C_new").sum() == 5 * 32
    assert split.never_fitted().sum() == 32
    with pytest.raises(ConfigError, match="found D"):
        split.mask("D")


def test_the_seed_decides_and_the_order_of_genes_does_not():
    one, two = (make_split(donors_of(), genes_of(), HELD) for _ in range(2))
    assert one.donor_sets == two.donor_sets
    other = CohortSplitConfig(test_populations=["YRI"], seed=1)
    assert make_split(donors_of(), genes_of(), other).donor_sets != one.donor_sets
    per_gene = CohortSplitConfig(test_populations=["YRI"], people="per_gene")
    forth = make_split(donors_of(), genes_of(), per_gene)
    back = make_split(donors_of(), genes_of()[::-1], per_gene)
    np.testing.assert_array_equal(forth.per_gene["G3"], back.per_gene["G3"])


def test_the_published_recipe_deals_contigs_and_draws_donors_per_gene():
    """Contigs of 30, 20, 20, 10, 10, 10 genes to shares 0.4, 0.4, 0.2, the most lacking class
    first: A 30, B 20, B 40, C 10, A 40, C 20 of 100."""
    sizes = {"chrA": 30, "chrB": 20, "chrC": 20, "chrD": 10, "chrE": 10, "chrF": 10}
    genes = pd.DataFrame({"contig": [c for c, num in sizes.items() for _ in range(num)]})
    genes["gene_id"] = [f"G{k}" for k in range(len(genes))]
    config = CohortSplitConfig(
        test_populations=["YRI"], people="per_gene", genes="rastogi", valid_share=0.05
    )
    classes = dict(zip(genes["contig"], gene_classes(genes, config), strict=True))
    assert classes == {"chrA": "seen_a", "chrB": "seen_b", "chrC": "seen_b", "chrD": "unseen",
                       "chrE": "seen_a", "chrF": "unseen"}  # fmt: skip
    split = make_split(donors_of(), genes, config)
    sets = np.array(DONOR_SETS)[split.codes()]
    a, b = sets[0], sets[35]
    assert [(a == name).sum() for name in DONOR_SETS] == [46, 2, 12, 20, 0]
    assert [(b == name).sum() for name in DONOR_SETS] == [57, 3, 0, 20, 0]
    assert not np.array_equal(sets[0], sets[1]), "drawn anew for every gene"
    assert split.mask("A").sum() == 40 * 12
    assert split.mask("B").sum() == 40 * 20
    assert split.mask("C").sum() == 20 * 80
    assert split.never_fitted().tolist() == [k >= EUR for k in range(80)]


def test_families_are_found_by_family_parents_and_siblings():
    donors = pd.DataFrame(
        {
            "donor": list("abcdefg"),
            "family": ["", "F1", "F1", "0", "", "", None],
            "father": ["", "", "", "x", "x", "", ""],
            "mother": ["c", "", "", "", "", "0", ""],
        }
    )
    groups = family_groups(donors)
    assert groups[0] == groups[1] == groups[2], "child of c, and c's family"
    assert groups[3] == groups[4], "two children of somebody who is no donor"
    assert len(set(groups.tolist())) == 4
    with pytest.raises(InputError, match="found a as father of a"):
        family_groups(pd.DataFrame({"donor": ["a"], "father": ["a"]}))


def test_families_stay_together_and_fill_the_shares():
    family = [f"F{k // 3}" for k in range(EUR)] + [""] * YRI
    donors = donors_of(family=family)
    split = make_split(donors, genes_of(), HELD)
    sets = pd.Series(split.donor_sets[:EUR])
    assert (sets.groupby(family[:EUR]).nunique() == 1).all()
    assert split.counts()["test"] == 12
    assert split.counts()["valid"] == 3, "whole families only, never above the share"


def test_relatives_of_a_held_out_population_do_not_train():
    donors = donors_of(family=["" if k else "mixed" for k in range(EUR + YRI - 1)] + ["mixed"])
    split = make_split(donors, genes_of(), HELD)
    assert split.donor_sets[0] == "unused"
    assert split.donor_sets[-1] == "population"
    assert not split.mask("train")[:, 0].any()


def test_one_family_that_fits_nowhere_is_told():
    donors = donors_of(family=["F"] * EUR + [""] * YRI)
    with pytest.raises(InputError, match="60 donors in 1 families"):
        make_split(donors, genes_of(), HELD)


def test_one_donor_trains_and_nothing_else():
    donors = pd.DataFrame({"donor": ["only"]})
    split = make_split(donors, genes_of(), CohortSplitConfig())
    assert split.counts()["train"] == 1
    assert not split.mask("A").any()
    assert split.mask("C").sum() == 5


def test_split_files_come_back_and_changed_ones_are_refused(tmp_path):
    for people in ("global", "per_gene"):
        path = tmp_path / f"{people}.json"
        config = CohortSplitConfig(test_populations=["YRI"], people=people)
        split = make_split(donors_of(), genes_of(), config)
        split.write(path)
        back = read_split(path)
        assert back.donors == split.donors
        assert back.genes == split.genes
        assert back.config == split.config
        assert back.hashes() == split.hashes()
        for name in ("train", "valid", "A", "B", "C"):
            np.testing.assert_array_equal(back.mask(name), split.mask(name))
        with pytest.raises(InputError, match="--overwrite"):
            split.write(path)
    value = json.loads(path.read_text())
    value["donors"]["set"][0], value["donors"]["set"][-1] = "population", "train"
    path.write_text(json.dumps(value))
    with pytest.raises(FormatError, match=r"do not have their hashes \(donors.train"):
        read_split(path)
    value = json.loads((tmp_path / "global.json").read_text())
    for change, words in (
        ({"format": "x"}, "a cohort split"),
        ({"format_version": 9}, "version 9"),
        ({"donors": {}}, "KeyError"),
    ):
        path.write_text(json.dumps(value | change))
        with pytest.raises(FormatError, match=words):
            read_split(path)


def test_hashes_ignore_order_and_see_every_set():
    one = make_split(donors_of(), genes_of(), HELD)
    genes = genes_of()
    two = make_split(donors_of(), genes[::-1], HELD)
    assert one.hashes() == two.hashes()
    assert {"donors.train", "donors.test", "donors.population", "genes.unseen"} <= set(one.hashes())


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match=r"found FIN.*EUR, YRI"):
        make_split(donors_of(), genes_of(), CohortSplitConfig(test_populations=["FIN"]))
    for wrong in ({"test_share": 1.0}, {"valid_share": -0.1}, {"class_shares": [1.0, 1.0]}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CohortSplitConfig(**wrong)


def test_relatives_in_different_sets_are_warned_about():
    donors = donors_of(family=[f"F{k // 2}" for k in range(EUR)] + [""] * YRI)
    config = CohortSplitConfig(test_populations=["YRI"], relatives="warn")
    with pytest.warns(Seq2ExpWarning, match="pairs of relatives lie in different sets"):
        make_split(donors, genes_of(), config)
