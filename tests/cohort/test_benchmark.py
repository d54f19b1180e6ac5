"""The benchmark: what is shared, what is made once, the same numbers twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.cohort.benchmark import evaluate_run, run_benchmark
from seq2exp.cohort.benchmark_config import BenchmarkConfig, model_config
from seq2exp.cohort.text import benchmark_text
from seq2exp.core.config import bind, dump_yaml, merge
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.report.cohort import write_cohort_page
from tests.cohort.conftest import TINY

ROOT = Path(__file__).parents[2]
PLAN = {"num_resamples": 60, "num_permutations": 60, "reference": "joint"}
SETTINGS = {
    "cohort": merge(TINY, {"fit": {"max_epochs": 1}}),
    "models": {
        "reference": {"loss": {"name": "reference"}},
        "joint": {"start_from": "@reference"},
    },
    "linear": {"models": ["mean", "top1", "blup", "enet"], "num_alphas": 20},
    "plan": PLAN,
}


def protocol(**changes):
    return bind(BenchmarkConfig, merge(SETTINGS, changes), where="test")


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "out"
    found = run_benchmark(protocol(), people, out)
    write_cohort_page(out)
    return out, found


def find(found, name, metric, split):
    rows = [
        row for row in found.rows
        if (row["name"], row["metric"], row["split"], row["stratum"]) == (name, metric, split, None)
    ]  # fmt: skip
    assert len(rows) == 1
    return rows[0]


def test_everything_is_judged_alike(made):
    _, found = made
    names = {"mean", "top1", "blup", "enet", "reference", "joint", "untrained"}
    assert {row["name"] for row in found.rows} == names
    assert {row["split"] for row in found.rows} == {"A", "B", "C", "C_new"}
    for split in ("A", "B", "C", "C_new"):
        counts = {find(found, name, "pearson_mean", split)["n"] for name in names}
        assert len(counts) == 1, "all on the same genes"
    # Linear models say nothing of genes that they were not fitted on.
    for name in ("mean", "top1", "blup", "enet"):
        row = find(found, name, "pearson_num_undefined", "C")
        assert row["value"] == row["n"]
        assert find(found, name, "pearson_mean", "C")["value"] == 0
    assert find(found, "mean", "pearson_num_undefined", "A")["value"] > 0


def test_numbers_are_those_of_the_files(made, people):
    """The mean correlation on A, from the written predictions and expression alone."""
    out, found = made
    donors = Dataset(people).genotypes.donors
    from seq2exp.cohort.splits import read_split

    split = read_split(out / "split.json")
    tested = [d for d, kind in zip(split.donors, split.donor_sets, strict=True) if kind == "test"]
    seen = [g for g, kind in zip(split.genes, split.gene_sets, strict=True) if kind == "seen"]
    assert set(tested) <= set(donors)
    observed = pd.read_parquet(out / "expression.parquet")
    observed = observed[observed["donor"].isin(tested) & observed["gene_id"].isin(seen)]
    for name in ("blup", "joint"):
        guess = pd.read_parquet(out / "predictions" / f"{name}.parquet")
        both = observed.merge(guess, on=["gene_id", "donor"])
        r = [part["corrected"].corr(part["value"]) for _, part in both.groupby("gene_id")]
        value = find(found, name, "pearson_mean", "A")["value"]
        assert np.nan_to_num(r).mean() == pytest.approx(value, abs=1e-4)


def test_linear_models_find_what_was_planted(made):
    """Six tested people, fourteen genes: well above 0 is all that can be said."""
    _, found = made
    assert find(found, "blup", "pearson_mean", "A")["low"] > 0.1


def test_a_second_run_makes_nothing_anew_and_says_the_same(made, people):
    out, found = made
    before = {path: path.stat().st_mtime_ns for path in (out / "predictions").iterdir()}
    again = run_benchmark(protocol(), people, out)
    assert json.dumps(again.rows) == json.dumps(found.rows)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "predictions").iterdir()}


def test_an_interrupted_benchmark_ends_with_the_same_bytes(made, people, tmp_path):
    """Killed for real, at the moment its first predictions of a model are there."""
    out, _ = made
    other = tmp_path / "out"
    config = tmp_path / "protocol.yaml"
    dump_yaml(SETTINGS, config)
    line = ["cohort", "benchmark", "--config", config, "--data", people, "--out", other]
    process = subprocess.Popen(
        [sys.executable, "-m", "seq2exp.cli.main", *map(str, line)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wanted = other / "predictions" / "reference.parquet"
    while process.poll() is None and not wanted.is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wanted.is_file()
    assert not (other / "table.json").is_file()
    run_benchmark(protocol(), people, other)
    for path in [*(out / "predictions").iterdir(), out / "table.json", out / "genes.parquet"]:
        assert path.read_bytes() == (other / path.relative_to(out)).read_bytes(), path.name


def test_heritability_is_of_snvs_in_people_of_the_training_populations(made, people):
    out, found = made
    from seq2exp.cohort.heritability import cis_heritability
    from seq2exp.cohort.train import open_cohort

    cohort = open_cohort(protocol().cohort, Dataset(people))
    sets = np.array(cohort.targets.split.donor_sets)
    donors = np.flatnonzero(sets != "population")
    table = pd.read_parquet(out / "heritability.parquet").set_index("gene_id")
    ids = cohort.dataset.genes["gene_id"].astype(str)
    compared = 0
    for gene in range(0, 30, 3):
        if ids[gene] not in table.index:
            continue
        dosage, snv = cohort.personal.dosage(gene, donors)
        expected = cis_heritability(
            dosage[:, snv], cohort.targets.corrected_GD[gene, donors].astype(float), min_maf=0.05
        )
        assert table.loc[ids[gene], "h2"] == pytest.approx(expected.h2, nan_ok=True)
        compared += np.isfinite(expected.h2) and not snv.all()
    assert compared > 2
    note = next(note for note in found.notes if note.startswith("h2"))
    assert f"all {len(donors)} people" in note
    assert f"the {(sets == 'test').sum()} tested ones" in note


def test_another_protocol_is_refused_in_the_same_folder(made, people):
    out, _ = made
    with pytest.raises(InputError, match=r"plan\.seed"):
        run_benchmark(protocol(plan={"seed": 9}), people, out)


def test_neighbouring_genes_are_resampled_together(made):
    """All seen genes lie on one contig: as one block there is nothing left to resample."""
    out, found = made
    from seq2exp.cohort.judging import judge
    from seq2exp.cohort.train import open_cohort
    from seq2exp.dataset.format import read_table
    from seq2exp.training.run import open_run

    dataset = open_run(out / "runs" / "joint").open_dataset()
    config = protocol(block_bp=10**9)
    tables = {"blup": read_table(out / "predictions" / "blup.parquet")}
    h2 = read_table(out / "heritability.parquet").set_index("gene_id")
    rows, _ = judge(open_cohort(config.cohort, dataset), tables, h2, config)
    whole = next(r for r in rows if (r["metric"], r["split"]) == ("pearson_mean", "A"))
    apart = find(found, "blup", "pearson_mean", "A")
    assert whole["value"] == apart["value"]
    assert whole["low"] == pytest.approx(whole["value"])
    assert apart["low"] < apart["value"] - 0.02
    with pytest.raises(ConfigError, match="block_bp"):
        protocol(block_bp=-1)


def test_a_learning_curve_uses_nested_people(people, tmp_path):
    config = bind(BenchmarkConfig, {**SETTINGS, "models": {}, "learning_curve": [0.3, 0.6],
        "linear": {"models": ["mean", "blup"]},
        "plan": {**PLAN, "reference": "blup"}}, where="test")  # fmt: skip
    found = run_benchmark(config, people, tmp_path / "out")
    assert {row["name"] for row in found.rows} == {"mean", "blup", "blup@0.3", "blup@0.6"}
    r = [
        find(found, name, "pearson_mean", "A")["value"] for name in ("blup@0.3", "blup@0.6", "blup")
    ]
    assert len(set(r)) == 3
    used = pd.read_parquet(tmp_path / "out" / "linear@0.3.parquet")
    whole = pd.read_parquet(tmp_path / "out" / "linear.parquet")
    few, all_of = (t.loc[t["name"] == "blup", "num_donors"].max() for t in (used, whole))
    assert few == round(0.3 * all_of)
    from seq2exp.cohort.train import open_cohort

    cohort = open_cohort(config.cohort, Dataset(people))
    some, more = (cohort.training_cells(share) for share in (0.3, 0.6))
    assert (some <= more).all()
    assert some.any(axis=0).sum() == few
    assert (more <= cohort.cells("train")).all()


def test_predictions_of_another_tool_are_judged_too(made, people, tmp_path):
    out, found = made
    copy = pd.read_parquet(out / "predictions" / "blup.parquet").rename(columns={"gene_id": "gene"})
    copy["value"] = -2 * copy["value"]
    copy.to_csv(tmp_path / "other.tsv", sep="\t", index=False)
    # A linear model says nothing of unseen genes.
    with pytest.warns(Seq2ExpWarning, match="tested values are predicted"):
        again = run_benchmark(protocol(), people, out, tables={"other": tmp_path / "other.tsv"})
    with pytest.raises(InputError, match="a name that a model or baseline has"):
        run_benchmark(protocol(), people, out, tables={"blup": tmp_path / "other.tsv"})
    ours, theirs = (find(again, name, "pearson_mean", "A")["value"] for name in ("blup", "other"))
    assert theirs == pytest.approx(-ours, abs=1e-6)
    assert len(again.rows) > len(found.rows)
    (tmp_path / "wrong.tsv").write_text("gene\tperson\tvalue\n")
    with pytest.raises(InputError, match="columns gene, person, value"):
        run_benchmark(protocol(), people, out, tables={"x": tmp_path / "wrong.tsv"})
    with pytest.raises(InputError, match="no such file"):
        run_benchmark(protocol(), people, out, tables={"x": tmp_path / "none.tsv"})


def test_a_page_and_a_text_show_the_numbers(made):
    out, found = made
    text = benchmark_text(found.rows, notes=found.notes)
    value = find(found, "joint", "pearson_mean", "A")["value"]
    assert f"{value:.3f} [" in text
    assert "A: seen genes, new people" in text
    page = (out / "report.html").read_text()
    assert f"{value:.3f} [" in page
    assert (out / "plots" / "accuracy_A.png").stat().st_size > 5_000
    assert (out / "plots" / "people_A.svg").is_file()


def test_a_single_run_is_evaluated_in_the_same_way(made, people, tmp_path, capsys):
    out, found = made
    rows = evaluate_run(out / "runs" / "joint", data=None, out=tmp_path / "numbers")
    for split in ("A", "C"):
        ours = find(found, "joint", "pearson_mean", split)["value"]
        assert find(rows, "model", "pearson_mean", split)["value"] == pytest.approx(ours)
    target = tmp_path / "numbers.json"
    line = ["cohort", "evaluate", str(out / "runs" / "joint"), "--out", str(tmp_path / "numbers")]
    assert main([*line, "--json", str(target)]) == 0
    values = json.loads(target.read_text())
    assert values["command"] == "cohort evaluate"
    assert {"name", "metric", "split", "value", "low", "high", "n"} <= set(values["rows"][0])
    assert "seen genes, new people" in capsys.readouterr().out


def test_runs_of_train_are_no_runs_of_people(people, tmp_path, capsys):
    plain = {"data": TINY["data"], "model": TINY["model"], "fit": {"max_epochs": 1}}
    dump_yaml(plain, tmp_path / "plain.yaml")
    run = tmp_path / "plain"
    line = ["train", "--config", str(tmp_path / "plain.yaml"), "--data", str(people)]
    assert main([*line, "--out", str(run)]) == 0
    assert main(["cohort", "evaluate", str(run)]) == 2
    assert "a run of `seq2exp cohort train`" in capsys.readouterr().err


def test_models_share_the_protocol():
    known = protocol()
    joint = model_config(known, "joint", known=["reference"], runs="/runs")
    assert joint.start_from == "/runs/reference"
    assert joint.model == {"name": "seq2exp"}
    assert joint.splits == known.cohort.splits
    changes = {"reference": {"loss": {"name": "pair_mse"}, "model": {"d_model": 4}}}
    other = model_config(protocol(models=changes), "reference", known=[])
    assert other.model["d_model"] == 4
    assert other.model["stem"] == TINY["model"]["stem"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a": {"splits": {"test_share": 0.5}}}, "splits of its own"),
        ({"enet": {}}, "a baseline has"),
        ({"untrained": {}}, "a baseline has"),
        ({"a/b": {}}, "no file name"),
        ({"a": {"start_from": "@b"}, "b": {}}, "@b"),
        ({"a": {"los": {}}}, "los"),
        ({"a": 3}, "instead of settings"),
        ({"a": {"people_share": 0.0}}, "people_share"),
    ],
)
def test_protocols_that_mean_nothing_are_refused(models, message):
    settings = {**SETTINGS, "models": models}
    with pytest.raises(ConfigError, match=message):
        bind(BenchmarkConfig, settings, where="test")


def test_values_that_are_unknown_are_no_zero(made):
    _, found = made
    for row in found.rows:
        assert row["value"] is None or not np.isinf(row["value"])
