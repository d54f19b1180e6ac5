"""Carriers by hand: how many are looked at, and what stands behind the ends of a window.

Each of these tests was written because a broken line of the library passed all others.
"""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.dataset.store import Dataset
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from tests.toys import toy_dataset
from tests.variants.engines import WINDOW, Additive, run_of
from tests.variants.haplotypes import GENE, Both, letters, opened, other, snv, vcf_of
from tests.variants.test_carriers import SCORE, SPREAD, scored


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("carriers") / "toy"))


def test_carriers_are_people_with_both_of_their_copies(dataset, tmp_path):
    samples = [f"S{number}" for number in range(6)]
    calls = [snv(dataset, 40, ["1|1"] * 6), snv(dataset, 60, ["1|0"] * 3 + ["0|0"] * 3)]
    alleles, genotypes = opened(
        dataset, vcf_of(dataset, tmp_path / "in.vcf", calls, samples=samples)
    )
    found = scored(dataset, Additive(), alleles, genotypes, max_carriers=2)
    assert found.context.tolist() == ["carriers:4", "carriers:2"]


def test_moved_windows_hold_what_is_carried_behind_the_end_of_the_plain_one(dataset, tmp_path):
    """20 bases behind it, in a window that is moved by 40: there the inner one acts beside it."""
    outer, inner = WINDOW // 2 + 20, 60
    calls = [snv(dataset, inner, ["1|0"]), snv(dataset, outer, ["1|0"])]
    vcf = vcf_of(dataset, tmp_path / "in.vcf", calls, samples=["A"])
    alleles, genotypes = opened(dataset, vcf)
    # Sites of the model count from the middle of its window.
    model = Both((inner - 40, calls[0][2]), (outer - 40, calls[1][2]))
    found = scored(dataset, model, alleles, genotypes, shifts=(40,))
    assert found.loc[0, SCORE] == 1
    assert found.loc[0, "num_haplotypes"] == 1
    apart = vcf_of(
        dataset, tmp_path / "apart.vcf", [calls[0], (*calls[1][:3], ["0|1"])], samples=["A"]
    )
    assert scored(dataset, model, *opened(dataset, apart), shifts=(40,)).loc[0, SCORE] == 0


def test_deletions_bring_in_what_lies_on_their_own_side_of_the_tss(dataset, tmp_path):
    """A|1 deletes 5 bases before the TSS, A|2 as many behind it, B nothing.

    So the base just before the window comes into that of A|1, the one just behind it into that of
    A|2, and B carries both for nothing.
    """
    left, right = (letters(dataset, offset, 6) for offset in (-200, 200))
    calls = [
        snv(dataset, -WINDOW // 2 - 1, ["1|1", "1|1"]),
        (left[0], left[1], left[1][0], ["1|0", "0|0"]),
        snv(dataset, -60, ["1|1", "1|1"]),
        (right[0], right[1], right[1][0], ["0|1", "0|0"]),
        snv(dataset, WINDOW // 2, ["1|1", "1|1"]),
    ]
    vcf = vcf_of(dataset, tmp_path / "in.vcf", calls, samples=["A", "B"])
    alleles, genotypes = opened(dataset, vcf)
    genes = (dataset.genes["gene_id"][GENE],)
    config = ScoreConfig(context="carriers", genes=genes, shifts=(0,))
    with open_engine(run_of(dataset, Additive()), dataset, config, genotypes=genotypes) as engine:
        here = engine.contexts.carried(GENE, np.array([0, 1]))
        found = engine.score(alleles)
    places = [[allele.position for allele in here.put(number)] for number in here.haplotype_H]
    near, out = [calls[2][0]], (calls[0][0], calls[4][0])
    assert places[0] == [out[0], left[0], *near]
    assert places[1] == [*near, right[0], out[1]]
    assert places[2] == places[3] == near
    assert found.loc[found.record == 2, "num_haplotypes"].tolist() == [3]


@pytest.mark.parametrize(("offset", "inside"), [(-513, 0), (-512, 1), (511, 1), (512, 0)])
def test_what_changes_no_base_of_the_window_makes_no_other_haplotype(
    dataset, tmp_path, offset, inside
):
    """The window of a gene of the plus strand holds the 512 bases before its TSS, and 512 more."""
    calls = sorted([snv(dataset, offset, ["1|0"]), snv(dataset, 40, ["1|1"])])
    vcf = vcf_of(dataset, tmp_path / "in.vcf", calls, samples=["A"])
    # Windows that are moved for indels are wider.
    found = scored(dataset, Additive(), *opened(dataset, vcf), shifts=(0,))
    here = found[found.distance_to_tss == 40].iloc[0]
    assert here["context"] == "carriers:2"
    assert here["num_haplotypes"] == 1 + inside


def test_of_several_alleles_at_one_place_each_is_found(dataset, tmp_path):
    """A site with three ALTs: whoever carries one of them is no carrier of the others."""
    position, ref = letters(dataset, 40)
    alts = [other(ref, step) for step in (1, 2, 3)]
    calls = [(position, ref, ",".join(alts), ["1|2", "2|3", "2|2"])]
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls))
    found = scored(dataset, Additive(), alleles, genotypes)
    assert found.context.tolist() == ["carriers:1", "carriers:4", "carriers:1"]


def test_a_swapped_record_has_none_of_the_carriers_of_the_right_one(dataset, tmp_path):
    """It is the same change, but its genotypes count the other allele."""
    (position, ref), calls = letters(dataset, 40), ["1|0", "0|1", "1|1"]
    rows = [(position, other(ref), ref, ["0|1", "1|0", "0|0"]), (position, ref, other(ref), calls)]
    found = scored(dataset, Additive(), *opened(dataset, vcf_of(dataset, tmp_path / "v.vcf", rows)))
    assert found["status"].tolist() == ["swapped", "ok"]
    assert found["context"].tolist() == ["reference", "carriers:4"]


def test_where_nobody_carries_anything_all_haplotypes_are_one(dataset, tmp_path):
    far, alone = snv(dataset, 2 * WINDOW, ["1|0"]), snv(dataset, 40, ["1|0"])
    _, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "far.vcf", [far], samples=["A"]))
    alleles, _ = opened(dataset, vcf_of(dataset, tmp_path / "v.vcf", [alone], samples=["A"]))
    config = ScoreConfig(context="carriers", genes=(dataset.genes["gene_id"][GENE],))
    with open_engine(run_of(dataset, Additive()), dataset, config, genotypes=genotypes) as engine:
        here = engine.contexts.carried(GENE, np.array([0]))
        found = engine.score(alleles)
    assert here.haplotype_H.tolist() == [0, 0]
    assert here.put(0) == ()
    assert found["context"].tolist() == ["reference"]


def test_copies_weigh_what_is_averaged_over_haplotypes(dataset, tmp_path):
    """Beside the other variant in 1 of 4 copies: mean 1/4, spread sqrt(1/4 x 3/4)."""
    inner, beside = snv(dataset, 40, ["1|1", "1|1"]), snv(dataset, -90, ["1|0", "0|0"])
    vcf = vcf_of(dataset, tmp_path / "in.vcf", [beside, inner], samples=["A", "B"])
    alleles, genotypes = opened(dataset, vcf)
    found = scored(dataset, Both((40, inner[2]), (-90, beside[2])), alleles, genotypes).loc[1]
    assert (found["context"], found["num_haplotypes"]) == ("carriers:4", 2)
    assert found[SCORE] == pytest.approx(1 / 4)
    assert found[SPREAD] == pytest.approx(np.sqrt(3) / 4)
