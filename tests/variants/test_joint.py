"""Several variants scored together: joint, sum and what is left, by hand and by strings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.store import Dataset
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variants.joint import JointScorer, joint_columns
from seq2exp.variants.joint_groups import JointConfig, find_items
from seq2exp.variants.joint_output import check_joint_output, write_joint
from seq2exp.variants.source import open_source
from tests.toys import toy_dataset
from tests.variants import inputs
from tests.variants.engines import Additive, run_of, seq2exp
from tests.variants.haplotypes import GENE, Both, letters, opened, other, snv, vcf_of
from tests.variants.test_carriers import random_calls
from tests.variants.test_engine import naive_window

JOINT, SUM, REST = (f"expr_delta:cell_a:{part}" for part in ("joint", "sum", "epistasis"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("joint") / "toy"))


def scored(dataset, models, vcf, *which, overlap="skip", genotypes=None, genes=None, **settings):
    genes = (dataset.genes["gene_id"][GENE],) if genes is None else genes
    source, joint = open_source(vcf, dataset=dataset, max_mismatch=1), JointConfig(which, overlap)
    models = models if isinstance(models, list) else [models]
    settings = {"shifts": (0,), **settings}
    with open_engine(
        run_of(dataset, *models), dataset, ScoreConfig(genes=genes, **settings)
    ) as engine:
        items = find_items(joint, source, engine, genotypes)
        score = JointScorer(engine, items, joint, genotypes)
        parts = [score(items.read(shard)) for shard in items.shards]
    return pd.concat(parts, ignore_index=True)


def grouped(dataset, path, calls, groups):
    infos = [f"HAP={name};DB" if name else "DB" for name in groups]
    calls = [(*call[:3], ["0|1"]) for call in calls]
    return vcf_of(dataset, path, calls, samples=["A"], infos=infos)


def test_an_and_of_two_sites_is_all_epistasis(dataset, tmp_path):
    first, second, third = (snv(dataset, offset, []) for offset in (-90, 40, 60))
    vcf = grouped(dataset, tmp_path / "in.vcf", [first, second, third], ["h1", "h1|h2", "h2"])
    model = Both((-90, first[2]), (40, second[2]))
    found = scored(dataset, model, vcf, "input")
    assert found["haplotype"].tolist() == ["h1", "h2"]
    assert found["variants"].tolist() == ["v0,v1", "v1,v2"]
    assert found[[JOINT, SUM, REST]].to_numpy().tolist() == [[1, 0, 1], [0, 0, 0]]
    # REF at one site, ALT at the other: each alone takes 1 away or adds nothing, together -1.
    ref = letters(dataset, -90)[1]
    other_way = Both((-90, ref), (40, letters(dataset, 40)[1]))
    found = scored(dataset, other_way, vcf, "input")
    assert found[[JOINT, SUM, REST]].to_numpy().tolist() == [[-1, -2, 1], [-1, -1, 0]]


def test_an_additive_model_has_no_epistasis_and_gives_the_closed_form(dataset, tmp_path):
    calls = [snv(dataset, offset, []) for offset in range(-200, 200, 30)]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["all_of_them"] * len(calls))
    models = [Additive(seed=1), Additive(seed=2)]
    found = scored(dataset, models, vcf, "input").iloc[0]
    before = naive_window(dataset, GENE, [])
    after = naive_window(dataset, GENE, [call[:3] for call in calls])
    expected = np.mean([model.value(after) - model.value(before) for model in models])
    assert found[JOINT] == pytest.approx(expected, abs=1e-4)
    assert found[SUM] == pytest.approx(expected, abs=1e-4)
    assert abs(found[REST]) < 1e-5
    assert found["expr_delta:cell_b:joint"] == pytest.approx(2 * expected, abs=1e-4)
    assert found["num_members"] == 2


def test_insertions_and_deletions_together_are_one_sequence(dataset, tmp_path):
    """Not additive here: an indel moves what stands further out."""
    calls = [c for c in random_calls(dataset, seed=8, size=12) if c[0] != dataset.sites[GENE][1]]
    tss = dataset.sites[GENE][1]
    calls = [c for c in calls if not c[0] <= tss < c[0] + len(c[1])]
    keep, end = [], 0
    for call in calls:
        if call[0] > end + 8:
            keep.append(call)
            end = call[0] + len(call[1])
    vcf = grouped(dataset, tmp_path / "in.vcf", keep, ["h"] * len(keep))
    model = Additive()
    found = scored(dataset, model, vcf, "input").iloc[0]
    before = model.value(naive_window(dataset, GENE, []))
    joint = model.value(naive_window(dataset, GENE, [call[:3] for call in keep])) - before
    alone = [model.value(naive_window(dataset, GENE, [call[:3]])) - before for call in keep]
    assert found[JOINT] == pytest.approx(joint, abs=1e-3)
    assert found[SUM] == pytest.approx(sum(alone), abs=1e-3)
    assert found[REST] == pytest.approx(joint - sum(alone), abs=2e-3)
    assert abs(found[REST]) > 1


def test_all_signed_scores_and_only_those(dataset, tmp_path):
    calls = [snv(dataset, offset, []) for offset in (-200, -40, 70)]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["h"] * 3)
    model = seq2exp(dataset, track_loss_weight=1.0)
    config = {"scorers": ("expr_delta", "expr_delta_fixed", "mask_delta", "mask_max", "log2_sum")}
    found = scored(dataset, model, vcf, "input", **config)
    names = [name for name in found if name.endswith(":epistasis")]
    scorers = {name.split(":")[0] for name in names}
    assert scorers == {"expr_delta", "expr_delta_fixed", "mask_delta", "log2_sum"}
    assert found[names].notna().all(axis=None)
    for name in names:
        joint, total = (found[name.replace("epistasis", part)] for part in ("joint", "sum"))
        np.testing.assert_allclose(found[name], joint - total, rtol=1e-4, atol=1e-6)
    # One variant alone is scored as without a group.
    vcf = grouped(dataset, tmp_path / "one.vcf", calls[:1], ["h"])
    alone = scored(dataset, model, vcf, "input", **config)
    source = open_source(vcf, dataset=dataset)
    genes = (dataset.genes["gene_id"][GENE],)
    with open_engine(
        run_of(dataset, model), dataset, ScoreConfig(genes=genes, shifts=(0,), **config)
    ) as engine:
        single = engine.score(source.read(source.shard(0)))
    for name in names:
        plain = name.removesuffix(":epistasis")
        assert alone[f"{plain}:joint"][0] == alone[f"{plain}:sum"][0] == single[plain][0]
        assert alone[name][0] == 0


def test_variants_that_cannot_stand_together(dataset, tmp_path):
    position, ref = letters(dataset, -160, 6)
    calls = [
        (position, ref, ref[0], []),
        (position + 3, ref[3], other(ref[3]), []),
        snv(dataset, 40, []),
    ]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["h"] * 3)
    skipped = scored(dataset, Additive(), vcf, "input").iloc[0]
    assert (skipped.status, skipped.score_status) == ("ok", "skipped:overlap")
    assert np.isnan(skipped[JOINT])
    assert skipped.num_members == 0
    first = scored(dataset, Additive(), vcf, "input", overlap="first").iloc[0]
    assert (first.score_status, first.variants, first.num_left_out) == ("scored", "v0,v2", 1)
    only = grouped(dataset, tmp_path / "only.vcf", [calls[0], calls[2]], ["h"] * 2)
    assert first[JOINT] == scored(dataset, Additive(), only, "input").iloc[0][JOINT]


def test_groups_with_alleles_that_are_not_scored(dataset, tmp_path):
    position, ref = letters(dataset, 40)
    bad = [(position, ref, "<DEL>", []), (position, other(ref), other(ref, 2), []),
           (position, other(ref), ref, [])]  # fmt: skip
    good = snv(dataset, -90, [])
    calls = [good, *bad, (good[0] + 1, *snv(dataset, -89, [])[1:])]
    far = ("chr2", 900, *[inputs.sequence(dataset, "chr2")[900]] * 1)
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["a|b|c", "a", "b", "c", ""])
    text = vcf.read_text()
    base = far[2]
    text += inputs.vcf_line("chr2", 901, base, other(base), info="HAP=nowhere", tail="\tGT\t0|1")
    vcf.write_text(text)
    found = scored(dataset, Additive(), vcf, "input")
    assert found["haplotype"].tolist() == ["a", "b", "c", "nowhere"]
    assert found["status"].tolist() == ["unsupported", "ref_mismatch", "swapped", "no_gene"]
    assert found["score_status"].tolist() == [
        "skipped:symbolic", "skipped:mismatch", "skipped:swapped", "skipped:no_gene",
    ]  # fmt: skip
    assert found["gene_id"].tolist() == [dataset.genes["gene_id"][GENE]] * 3 + [""]
    together = scored(dataset, Additive(), vcf, "all")
    assert together["score_status"].tolist() == ["scored"]
    assert (together.num_variants[0], together.num_left_out[0]) == (2, 3)


def test_every_gene_of_a_group_has_a_row(dataset, tmp_path):
    tss = [dataset.sites[row][1] for row in (4, 5, 6)]
    contig = dataset.sites[GENE][0]
    text = inputs.sequence(dataset, contig)
    calls = [(t + 30, text[t + 30], other(text[t + 30]), []) for t in tss]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, ["h"] * 3)
    found = scored(dataset, Additive(), vcf, "input", genes=())
    assert (found.group_size == 3).all()
    assert set(found.gene_row) >= {4, 5, 6}
    assert found.gene_row.is_monotonic_increasing
    alone = found[found.num_variants == 1]
    np.testing.assert_array_equal(alone[JOINT], alone[SUM])


def test_haplotypes_of_samples(dataset, tmp_path):
    first, second = snv(dataset, -90, ["1|0", "0|1"]), snv(dataset, 40, ["1|0", "1|0"])
    position, ref = letters(dataset, -160, 6)
    deletion = (position, ref, ref[0], ["0|1", "0|0"])
    inside = (position + 3, ref[3], other(ref[3]), ["0|1", "0|0"])
    vcf = vcf_of(
        dataset, tmp_path / "in.vcf", [deletion, inside, first, second], samples=["A", "B"]
    )
    _, genotypes = opened(dataset, vcf)
    model = Both((-90, first[2]), (40, second[2]))
    found = scored(dataset, model, vcf, "A", "B", genotypes=genotypes)
    assert found["haplotype"].tolist() == ["A|1", "A|2", "B|1", "B|2"]
    # The haplotypes of samples take the first of what cannot stand together.
    assert found["variants"].tolist() == ["v2,v3", "v0", "v3", "v2"]
    assert found["num_left_out"].tolist() == [0, 1, 0, 0]
    assert found["group_size"].tolist() == [2, 2, 1, 1]
    assert found[REST].tolist() == [1, 0, 0, 0]
    with pytest.raises(InputError, match="nobody"):
        scored(dataset, model, vcf, "nobody", genotypes=genotypes)


def test_shards_change_nothing_and_tables_hold_the_same(dataset, tmp_path):
    calls = [snv(dataset, offset, []) for offset in range(-100, 100, 20)]
    groups = [f"h{number % 3}" for number in range(len(calls))]
    vcf = grouped(dataset, tmp_path / "in.vcf", calls, groups)
    config, joint = ScoreConfig(), JointConfig(("input", "all"))
    source = open_source(vcf, dataset=dataset)
    with open_engine(run_of(dataset, seq2exp(dataset)), dataset, config) as engine:
        items = find_items(joint, source, engine, None)
        score = JointScorer(engine, items, joint)
        whole = [score(items.read(shard)) for shard in items.shards]
        cut = type(items)(items.table, items.members_M, items.alleles, 1)
        parts = [score(cut.read(shard)) for shard in cut.shards]
        columns = joint_columns(engine.scoring.computed)
    names = [column.name for column in columns]
    one, many = pd.concat(whole, ignore_index=True), pd.concat(parts, ignore_index=True)
    assert one.drop(columns=names).equals(many.drop(columns=names))
    np.testing.assert_allclose(one[names], many[names], atol=1e-5)
    for name in ("out.tsv", "out.tsv.gz", "out.parquet"):
        write_joint(tmp_path / name, tmp_path / name, parts, columns, {"model": "abc"})
    table = pq.read_table(tmp_path / "out.parquet")
    read = pd.read_csv(tmp_path / "out.tsv", sep="\t", comment="#")
    assert read.columns.tolist() == table.column_names
    np.testing.assert_array_equal(read[names].astype(np.float32), table.select(names).to_pandas())
    assert len(read) == len(many)
    assert b"abc" in table.schema.metadata[b"seq2exp.variants"]
    assert "##column=" + JOINT in (tmp_path / "out.tsv").read_text()


def test_what_cannot_be_asked_for(dataset, tmp_path):
    vcf = grouped(dataset, tmp_path / "in.vcf", [snv(dataset, 40, [])], [""])
    with pytest.raises(InputError, match="INFO/HAP"):
        scored(dataset, Additive(), vcf, "input")
    with pytest.raises(ConfigError, match="each once"):
        JointConfig(("all", "all"))
    with pytest.raises(ConfigError, match="--haplotype-out"):
        check_joint_output(tmp_path / "out.vcf")


def test_groups_of_any_input(dataset, tmp_path):
    """A column of a table, one value for all ALTs or one each, several groups of one variant."""
    position, ref = letters(dataset, 40)
    alts = f"{other(ref)},{other(ref, 2)}"
    rows = [f"chr1\t{position + 1}\t{ref}\t{alts}\t{name}" for name in ("a,b", "c", ".,d", "a|b")]
    path = inputs.put(
        tmp_path / "in.tsv", "\n".join(["chrom\tpos1\tref\talt\thaplotype", *rows, ""])
    )
    source = open_source(path, dataset=dataset)
    assert source.read(source.shard(0))["haplotype"].tolist() == [
        "a", "b", "c", "c", "", "d", "a|b", "a|b",
    ]  # fmt: skip
    infos = ["HAP=x", "DB;HAP=y;AF=1", "SHAP=z;DB", "HAP=.", "AF=1"]
    calls = [(position, ref, other(ref), ["0|1"])] * len(infos)
    vcf = vcf_of(dataset, tmp_path / "in.vcf", calls, samples=["A"], infos=infos)
    source = open_source(vcf, dataset=dataset)
    assert source.read(source.shard(0))["haplotype"].tolist() == ["x", "y", "", "", ""]
