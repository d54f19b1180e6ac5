"""In which windows substitutions, and insertions and deletions, are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.variants import engine as engines_module
from seq2exp.variants.command import score_hash
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.joint import JointScorer
from seq2exp.variants.joint_groups import JointConfig, find_items
from seq2exp.variants.shifts import all_phases, usual_shifts, with_shifts
from seq2exp.variants.source import open_source
from tests.toys import toy_dataset
from tests.variants.engines import WINDOW, Additive, engine_of, table_of
from tests.variants.test_engine import random_alleles

NAME = "expr_delta:cell_a"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("shifts") / "toy"))


@pytest.mark.parametrize(
    ("bin_size", "jitter", "shifts"),
    [(32, 0, (0,)), (32, 4, (-4, 0, 4)), (32, 99, (-10, 0, 10)), (128, 56, (-42, 0, 42))],
)
def test_usual_shifts_are_a_third_of_a_bin_and_no_more_than_was_trained(bin_size, jitter, shifts):
    config = SampleConfig(window_bp=WINDOW, bin_size=bin_size, jitter_bp=jitter)
    assert usual_shifts(config) == shifts


@pytest.mark.parametrize(
    ("bin_size", "first", "last", "step", "count"),
    [(64, -32, 28, 4, 16), (128, -64, 56, 8, 16), (8, -4, 3, 1, 8), (25, -12, 12, 2, 13)],
)
def test_phases_lie_evenly_over_one_bin(bin_size, first, last, step, count):
    phases = all_phases(bin_size)
    assert (phases[0], phases[-1], len(phases)) == (first, last, count)
    assert set(np.diff(phases)) == {step}
    assert len({shift % bin_size for shift in phases}) == count
    assert 0 in phases


def test_one_base_per_bin_has_one_phase():
    assert all_phases(1) == (0,)


def test_shifts_that_are_named_hold_for_everything_else_has_its_usual_ones():
    data = SampleConfig(window_bp=WINDOW, bin_size=32, jitter_bp=9)
    usual = with_shifts(ScoreConfig(), data)
    assert (usual.shifts, usual.indel_shifts) == ((-9, 0, 9), all_phases(32))
    named = with_shifts(ScoreConfig(shifts=(0, 5)), data)
    assert (named.shifts, named.indel_shifts) == ((0, 5), (0, 5))
    apart = with_shifts(ScoreConfig(indel_shifts=(0, 5)), data)
    assert (apart.shifts, apart.indel_shifts) == ((-9, 0, 9), (0, 5))
    assert with_shifts(apart, data) == apart


def test_shifts_of_indels_are_checked(dataset):
    with pytest.raises(ConfigError, match="--indel-shifts"):
        ScoreConfig(indel_shifts=(1, 1))
    with (
        pytest.raises(ConfigError, match=r"--indel-shifts: found 1000000, .*TSS stays"),
        engine_of(dataset, [Additive()], indel_shifts=(0, 10**6)),
    ):
        pass


def test_backgrounds_of_other_shifts_are_others():
    one, two = (score_hash("m", ScoreConfig(indel_shifts=shifts)) for shifts in ((0,), (0, 4)))
    assert one != two


def test_substitutions_and_indels_have_the_scores_of_their_own_shifts(dataset):
    table = table_of(dataset, random_alleles(dataset, count=60, seed=3))
    few, many = (0,), (-8, 0, 8)
    found = {}
    for name, settings in {
        "few": {"shifts": few},
        "many": {"shifts": many},
        "each": {"shifts": few, "indel_shifts": many},
    }.items():
        with engine_of(dataset, [Additive()], **settings) as engine:
            found[name] = engine.score(table)
    each = found["each"]
    kinds = table["variant_type"].to_numpy()[each["record"]]
    same_length = (table["norm_ref"].str.len() == table["norm_alt"].str.len()).to_numpy()
    moved = ~same_length[each["record"]] & (each["score_status"] == "scored").to_numpy()
    still = same_length[each["record"]] & (each["score_status"] == "scored").to_numpy()
    assert {"ins", "del"} <= set(kinds[moved])
    assert {"snv", "mnv"} <= set(kinds[still])
    np.testing.assert_array_equal(each[NAME][moved], found["many"][NAME][moved])
    np.testing.assert_array_equal(each[NAME][still], found["few"][NAME][still])
    assert (found["many"][NAME][still] != found["few"][NAME][still]).any()
    assert set(each["num_members"][moved]) == {3}
    assert set(each["num_members"][still]) == {1}
    assert each[f"{NAME}:sd"][moved].gt(0).all()
    assert each[f"{NAME}:sd"][still].isna().all()


def test_draws_of_a_null_are_compared_as_the_score_is(dataset):
    table = table_of(dataset, random_alleles(dataset, count=20, seed=3, kinds=("del",)))
    settings = {"null_draws": 7, "null_flank": 20}
    with engine_of(dataset, [Additive()], indel_shifts=(-8, 0, 8), **settings) as engine:
        ours = engine.score(table)
    with engine_of(dataset, [Additive()], shifts=(-8, 0, 8), **settings) as engine:
        wanted = engine.score(table)
    pd.testing.assert_frame_equal(ours, wanted)
    assert ours[f"{NAME}:p"].notna().any()


def test_the_gradient_knows_no_indels_and_has_the_members_of_substitutions(dataset):
    table = table_of(dataset, random_alleles(dataset, count=20, seed=3))
    with engine_of(
        dataset, [Additive()], method="gradient", scorers=("expr_delta",), indel_shifts=(0, 4)
    ) as engine:
        found = engine.score(table)
    assert f"{NAME}:sd" not in found
    assert set(found["num_members"]) == {0, 1}


def test_variants_of_a_group_are_compared_in_the_same_windows(dataset, tmp_path):
    """Joint and alone: all as indels are, as soon as one of the group is one."""
    contig, tss, _ = dataset.sites[2]
    text = "".join("ACGTN"[code] for code in dataset.contig_codes(contig)[tss - 60 : tss + 60])
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for place, more, groups in ((10, "", "a"), (25, "", "a|b"), (95, "GT", "b")):
        ref = text[place]
        alt = ref + more if more else "ACGT"[("ACGT".index(ref) + 1) % 4]
        lines.append(f"{contig}\t{tss - 60 + place + 1}\t.\t{ref}\t{alt}\t.\t.\tHAP={groups}")
    vcf = tmp_path / "in.vcf"
    vcf.write_text("\n".join(lines) + "\n")
    gene = (str(dataset.genes["gene_id"].iloc[2]),)
    found = {}
    for name, settings in {
        "few": {"shifts": (0,)},
        "many": {"shifts": (-8, 0, 8)},
        "each": {"shifts": (0,), "indel_shifts": (-8, 0, 8)},
    }.items():
        source, joint = open_source(vcf, dataset=dataset), JointConfig(("input",))
        with engine_of(dataset, [Additive()], genes=gene, **settings) as engine:
            items = find_items(joint, source, engine, None)
            score = JointScorer(engine, items, joint, None)
            found[name] = pd.concat([score(items.read(shard)) for shard in items.shards])
    each = found["each"].set_index("haplotype")
    assert each["num_members"].to_dict() == {"a": 1, "b": 3}
    for group, like in (("a", "few"), ("b", "many")):
        wanted = found[like].set_index("haplotype").loc[group]
        for part in ("joint", "sum", "epistasis"):
            assert each.loc[group, f"{NAME}:{part}"] == wanted[f"{NAME}:{part}"]
    assert found["few"][f"{NAME}:joint"].iloc[1] != found["many"][f"{NAME}:joint"].iloc[1]


def test_so_many_windows_are_kept_and_no_more(dataset, monkeypatch):
    monkeypatch.setattr(engines_module, "_WINDOWS_KEPT", 6)
    table = table_of(dataset, random_alleles(dataset, count=40, seed=5))
    with engine_of(dataset, [Additive()], indel_shifts=(-8, 0, 8)) as engine:
        limited = engine.score(table)
        kept = [len(scores.passes.views) for scores in engine._seen.values()]
    assert 1 < len(kept) < limited["gene_id"].nunique()
    assert sum(kept) <= 6
    monkeypatch.setattr(engines_module, "_WINDOWS_KEPT", 10**6)
    with engine_of(dataset, [Additive()], indel_shifts=(-8, 0, 8)) as engine:
        pd.testing.assert_frame_equal(engine.score(table), limited)
