"""Runs side by side: the same numbers as `evaluate`, signs, names, and what makes it unfair."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from seq2exp.baselines.compare import compare
from seq2exp.baselines.evaluate import evaluate
from seq2exp.cli.main import main
from seq2exp.core.config import load_yaml
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import read_json
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="module")
def found(toy_run):
    other = toy_run / "controls" / "sequence_only"
    return compare([toy_run, other], num_resamples=200, controls=["mean"])


def value(rows, name, metric, sample=None):
    (row,) = [r for r in rows if (r["name"], r["metric"], r["sample"]) == (name, metric, sample)]
    return row


def test_numbers_are_those_of_evaluate_on_the_same_genes(found, toy_run):
    single = evaluate(toy_run, num_resamples=200)
    for metric in ("mse", "pearson", "r2"):
        ours, theirs = value(found.rows, "run", metric), value(single.rows, "model", metric)
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-9)
        ours = value(found.rows, "sequence_only", metric)
        theirs = value(single.rows, "sequence_only", metric)
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-9)
    ours = value(found.rows, "sequence_only", "mse_difference")
    theirs = value(single.rows, "sequence_only", "mse_difference")
    assert {**ours, "name": ""} == {**theirs, "name": ""}


def test_a_difference_is_in_favour_of_the_reference(found, toy_run):
    other = toy_run / "controls" / "sequence_only"
    turned = compare(
        [toy_run, other], num_resamples=200, controls=["mean"], reference="sequence_only"
    )
    forth = value(found.rows, "sequence_only", "mse_difference")
    back = value(turned.rows, "run", "mse_difference")
    assert back["value"] == pytest.approx(-forth["value"])
    assert (back["low"], back["high"]) == (
        pytest.approx(-forth["high"]),
        pytest.approx(-forth["low"]),
    )
    difference = value(found.rows, "sequence_only", "mse")["value"]
    difference -= value(found.rows, "run", "mse")["value"]
    assert forth["value"] == pytest.approx(difference)


def test_the_table_says_what_was_compared(found, toy_run):
    text = found.text
    assert "run (reference)" in text
    assert "control mean" in text
    (facts, _) = found.runs
    model = load_yaml(toy_run / "model" / "config.yaml")["model"]
    assert facts.window_bp == model["window_bp"]
    assert f"{facts.parameters:,}" in text
    assert facts.updates == facts.epochs * -(-_train_genes(toy_run) // 12)
    assert found.notes == []


def test_steps_are_those_that_were_taken(toy_run, tmp_path):
    """Not what the number of training genes says: some have no label, and runs stop early."""
    run = tmp_path / "longer"
    shutil.copytree(toy_run, run)
    _take_steps(run, 77)
    assert compare([run], controls=["mean"]).runs[0].updates == 77


def _take_steps(run, number):
    """Add an epoch that ends with this step to the record of a run."""
    metrics = run / "metrics.csv"
    last = metrics.read_text().splitlines()[-1].split(",")
    with metrics.open("a") as record:
        record.write(",".join([str(int(last[0]) + 1), str(number), *last[2:]]) + "\n")


def _train_genes(toy_run):
    from seq2exp.dataset.store import Dataset
    from seq2exp.training.run import open_run

    return len(Dataset(open_run(toy_run).dataset_path()).gene_rows(("train",)))


def test_unequal_steps_are_noted(toy_run, tmp_path):
    copy = tmp_path / "longer"
    shutil.copytree(toy_run, copy)
    _take_steps(copy, 77)
    found = compare([toy_run, copy], num_resamples=50, controls=["mean"])
    assert found.notes == ["the runs were trained for different numbers of steps"]
    # The same weights: no difference at all.
    row = value(found.rows, "longer", "mse_difference")
    assert (row["value"], row["low"], row["high"]) == (0.0, 0.0, 0.0)


def test_another_dataset_is_noted_and_a_foreign_one_refused(toy_run, tmp_path):
    plan = dataclasses.replace(ToyPlan(), seed=5)
    other = toy_dataset(tmp_path / "other", plan)
    found = compare([toy_run], other, num_resamples=50, controls=["mean"])
    assert any("trained on another dataset" in note for note in found.notes)
    foreign = toy_dataset(tmp_path / "foreign", dataclasses.replace(plan, tracks=("ATAC",)))
    with pytest.raises(ConfigError, match="no track"):
        compare([toy_run], foreign)


def test_wrong_names_are_refused(toy_run):
    with pytest.raises(InputError, match="give each run a --name"):
        compare([toy_run, toy_run])
    with pytest.raises(InputError, match="2 names for 1 runs"):
        compare([toy_run], names=["a", "b"])
    with pytest.raises(InputError, match="one of run"):
        compare([toy_run], reference="ran")


def test_the_command_writes_the_same_rows(found, toy_run, tmp_path, capsys):
    target = tmp_path / "table.json"
    other = toy_run / "controls" / "sequence_only"
    arguments = ["compare", str(toy_run), str(other), "--control", "mean", "--resamples", "200"]
    assert main([*arguments, "--json", str(target)]) == 0
    document = read_json(target)
    assert document["command"] == "compare"
    assert document["rows"] == found.rows
    assert document["inputs"]["reference"] == "run"
    assert capsys.readouterr().out.strip() == found.text.strip()
    assert main(["compare", str(tmp_path / "nothing")]) == 2
