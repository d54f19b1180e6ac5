"""Groups of variants: their stretch of the mask, what is left out, and what says so.

Each of these tests was written because a broken line of the library passed all others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.dataset.store import Dataset
from seq2exp.variants.joint_output import write_joint
from tests.toys import toy_dataset
from tests.variants import inputs
from tests.variants.engines import BIN, WINDOW, Additive
from tests.variants.haplotypes import GENE, letters, opened, other, snv, vcf_of
from tests.variants.test_engine import naive_window
from tests.variants.test_engine_formulas import Shares
from tests.variants.test_joint import JOINT, REST, SUM, grouped, scored


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("joint") / "toy"))


class Ahead(Shares):
    """The mask of a bin is the mean of its own share of G and T and that of the bin 4 behind it."""

    def one_strand(self, call):
        output = super().one_strand(call)
        mean_BN = (output.mean_BN + output.mean_BN.roll(-4, dims=1)) / 2
        return replace(output, mean_BN=mean_BN, mask_BN=mean_BN)

    def mean(self, codes):
        share = super().of(codes)[0]
        return (share + np.roll(share, -4)) / 2


def test_masks_of_a_group_are_compared_in_one_stretch_for_all_of_it(dataset, tmp_path):
    """From half of 101 bases before the first variant to as much behind the last, in whole bins.

    So the last one is in it, and what a variant alone does within counts, nothing further out.
    """
    model, mask_bp = Ahead(), 101
    calls = []
    for offset in (-205, -40, 130):
        position, ref = letters(dataset, offset)
        # G for A, T for C, or the other way round.
        calls.append((position, ref, other(ref, 2), []))
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["h"] * 3)
    found = scored(dataset, model, vcf, "input", scorers=("mask_delta",), mask_bp=mask_bp).iloc[0]
    first, last = calls[0][0], calls[2][0]
    tss = dataset.sites[GENE][1]
    start = tss - WINDOW // 2
    num = -(-(mask_bp + last - first) // BIN)
    low = ((first + last) // 2 - start) // BIN - num // 2
    before = model.mean(naive_window(dataset, GENE, []))

    def change(some):
        after = model.mean(naive_window(dataset, GENE, [call[:3] for call in some]))
        return float((after - before)[low : low + num].sum()), float((after - before).sum())

    together, everywhere = change(calls)
    alone = sum(change([call])[0] for call in calls)
    assert found["mask_delta:joint"] == pytest.approx(together, abs=1e-6)
    assert found["mask_delta:sum"] == pytest.approx(alone, abs=1e-6)
    assert found["mask_delta:epistasis"] == pytest.approx(0, abs=1e-6)
    # What the first one does 4 bins before itself lies outside, what the others do, inside.
    assert abs(together - everywhere) == pytest.approx(0.5 / BIN, abs=1e-6)
    assert abs(together) > 0.4 / BIN


def test_a_group_that_deletes_the_tss_says_so(dataset, tmp_path):
    position, ref = letters(dataset, -3, 6)
    deletion, beside = (position, ref, ref[0], []), snv(dataset, 90, [])
    vcf = grouped(dataset, tmp_path / "in.vcf", [deletion, beside, beside], ["a", "a|b", ""])
    found = scored(dataset, Additive(), vcf, "input")
    assert found["haplotype"].tolist() == ["a", "b"]
    assert found["tss_deleted"].tolist() == [True, False]


def test_an_allele_that_names_a_group_twice_is_in_it_once(dataset, tmp_path):
    calls = [snv(dataset, -90, []), snv(dataset, 40, [])]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["h|g|h", "h"])
    found = scored(dataset, Additive(), vcf, "input")
    assert found["haplotype"].tolist() == ["h", "g"]
    assert found["variants"].tolist() == ["v0,v1", "v0"]
    assert found["group_size"].tolist() == [2, 1]
    assert found["score_status"].tolist() == ["scored", "scored"]


def test_all_variants_of_no_window_are_no_group(dataset, tmp_path):
    base = inputs.sequence(dataset, "chr2")[900]
    line = inputs.vcf_line("chr2", 901, base, other(base), info="HAP=far")
    vcf = inputs.put(tmp_path / "in.vcf", inputs.header(dataset) + line)
    assert scored(dataset, Additive(), vcf, "input")["score_status"].tolist() == ["skipped:no_gene"]
    with pytest.raises(InputError, match="no group of variants in the window of a gene"):
        scored(dataset, Additive(), vcf, "all")


def test_a_group_of_references_is_scored_with_zeros(dataset, tmp_path):
    """Nothing changes, which is no want of resolution, as it would be for a change unseen."""
    position, ref = letters(dataset, 40)
    vcf = grouped(dataset, tmp_path / "in.vcf", [(position, ref, ref, [])], ["h"])
    found = scored(dataset, Additive(), vcf, "input").iloc[0]
    assert found[[JOINT, SUM, REST]].tolist() == [0, 0, 0]
    assert (found["status"], found["score_status"]) == ("ok", "scored")


def test_what_a_deletion_brings_in_stands_there_and_is_no_member(dataset, tmp_path):
    """A|1 deletes 9 bases, so that a base from behind the window comes in; A|2 has nothing there.

    B carries the outer variant alone: it stays outside.
    """
    position, ref = letters(dataset, 200, 10)
    deletion = (position, ref, ref[0], ["1|0", "0|0"])
    inner = snv(dataset, -60, ["1|1", "0|1"])
    outer = snv(dataset, WINDOW // 2 + 4, ["1|0", "1|1"])
    vcf = vcf_of(dataset, tmp_path / "in.vcf", [inner, deletion, outer], samples=["A", "B"])
    _, genotypes = opened(dataset, vcf)
    model = Additive()
    found = scored(dataset, model, vcf, "A", "B", genotypes=genotypes)
    assert found["haplotype"].tolist() == ["A|1", "A|2", "B|1", "B|2"]
    assert found["variants"].tolist() == ["v0,v1", "v0", "", "v0"]
    assert found["num_left_out"].tolist() == [0, 0, 0, 0]
    assert found["group_size"].tolist() == [2, 1, 0, 1]
    before = model.value(naive_window(dataset, GENE, []))
    held = [[call[:3] for call in some] for some in ([inner, deletion, outer], [inner], [inner])]
    wanted = [model.value(naive_window(dataset, GENE, some)) - before for some in held]
    assert found.loc[[0, 1, 3], JOINT].tolist() == pytest.approx(wanted, abs=1e-3)
    without = model.value(naive_window(dataset, GENE, held[0][:2])) - before
    assert abs(wanted[0] - without) > 0.01


def test_what_is_left_out_is_counted_for_each_haplotype_by_itself(dataset, tmp_path):
    """A|2 has a base inside of its own deletion, A|1 three that stand together."""
    position, ref = letters(dataset, -160, 6)
    calls = [
        (position, ref, ref[0], ["0|1"]),
        (position + 3, ref[3], other(ref[3]), ["0|1"]),
        *(snv(dataset, offset, ["1|0"]) for offset in (-90, 40, 60)),
    ]
    vcf = vcf_of(dataset, tmp_path / "in.vcf", calls, samples=["A"])
    _, genotypes = opened(dataset, vcf)
    found = scored(dataset, Additive(), vcf, "A", genotypes=genotypes)
    assert found["num_variants"].tolist() == [3, 1]
    assert found["num_left_out"].tolist() == [0, 1]
    assert found["group_size"].tolist() == [3, 2]


def test_a_name_with_a_tab_is_one_cell(dataset, tmp_path):
    vcf = grouped(dataset, tmp_path / "in.vcf", [snv(dataset, 40, [])], ["h"])
    found = scored(dataset, Additive(), vcf, "input", scorers=("expr_delta",))
    found = found.assign(haplotype="a\tb")
    write_joint(tmp_path / "out.tsv", tmp_path / "out.tsv", [found], [], {})
    read = pd.read_csv(tmp_path / "out.tsv", sep="\t", comment="#", index_col=False)
    assert read["haplotype"].tolist() == ["a b"]
    assert read["variants"].tolist() == ["v0"]
