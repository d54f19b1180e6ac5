"""Evaluation end to end on the toy run: schema, repeatability, files, notes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from seq2exp.baselines.controls import CONTROLS
from seq2exp.baselines.evaluate import evaluate, write_evaluation
from seq2exp.core.errors import FormatError, InputError
from seq2exp.training.metrics import METRICS
from seq2exp.training.predict import predict
from seq2exp.training.run import open_run
from tests.toys import SAMPLES, ToyPlan, toy_dataset


@pytest.fixture(scope="module")
def evaluation(toy_run):
    return evaluate(toy_run, num_resamples=200)


def test_rows_follow_the_schema_and_cover_every_model_and_metric(evaluation):
    keys = {"name", "metric", "split", "value", "low", "high", "n", "sample"}
    assert all(set(row) == keys for row in evaluation.rows)
    names = {"model", "sequence_only", *(control.name for control in CONTROLS if not control.extra)}
    found = {(row["name"], row["metric"], row["sample"]) for row in evaluation.rows}
    assert len(found) == len(evaluation.rows)
    for sample in (None, *SAMPLES):
        assert {(n, m, sample) for n in names for m in METRICS} <= found
        others = names - {"model"}
        assert {(n, f"{m}_difference", sample) for n in others for m in ("mse", "pearson")} <= found
    assert ("model", "mask_ratio", None) in found
    counts = {row["sample"]: row["n"] for row in evaluation.rows if row["metric"] == "mse"}
    assert counts == {None: 12, "cell_a": 12, "cell_b": 11}


def test_numbers_are_those_of_the_predictions_in_the_gene_table(evaluation):
    rows = {(r["name"], r["metric"], r["sample"]): r["value"] for r in evaluation.rows}
    genes = evaluation.genes
    for name, prefix in (("model", "predicted"), ("track_ridge", "control:track_ridge")):
        errors = []
        for sample in SAMPLES:
            error = (genes[f"observed:{sample}"] - genes[f"{prefix}:{sample}"]) ** 2
            assert rows[(name, "mse", sample)] == pytest.approx(error.mean(), rel=1e-5)
            errors.append(error.mean())
        assert rows[(name, "mse", None)] == pytest.approx(np.mean(errors), rel=1e-5)
    expected = rows[("track_ridge", "mse", None)] - rows[("model", "mse", None)]
    assert rows[("track_ridge", "mse_difference", None)] == pytest.approx(expected)
    # A constant has no correlation with anything: null, with its n.
    assert rows[("mean", "pearson", None)] is None
    assert rows[("mean", "pearson_difference", None)] is None


def test_evaluating_twice_and_in_other_batches_gives_the_same_numbers(evaluation, toy_run):
    again = evaluate(toy_run, num_resamples=200)
    assert again.document() == evaluation.document()
    pd.testing.assert_frame_equal(again.genes, evaluation.genes)
    other = evaluate(toy_run, num_resamples=200, batch_size=5, controls=["mean"])
    wanted = {(r["name"], r["metric"], r["sample"]): r["value"] for r in evaluation.rows}
    for row in other.rows:
        if row["value"] is not None:
            expected = wanted[(row["name"], row["metric"], row["sample"])]
            assert row["value"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_trained_control_is_the_run_in_its_folder(evaluation, toy_run, toy):
    other = open_run(toy_run / "controls" / "sequence_only")
    result = predict(other, toy, toy.gene_rows(("test",)))
    found = evaluation.genes[[f"control:sequence_only:{sample}" for sample in SAMPLES]]
    np.testing.assert_allclose(found, result.expression, rtol=1e-5)


def test_what_is_not_there_is_listed_with_its_reason(evaluation):
    reasons = {control.name: control.reason for control in evaluation.controls if control.reason}
    assert set(reasons) == {"shuffled_tracks"}
    assert "not trained" in reasons["shuffled_tracks"]
    assert "shuffled_tracks: not trained" in evaluation.text
    document = evaluation.document()
    assert "not trained" in document["inputs"]["controls"]["shuffled_tracks"]["not_applicable"]


def test_files_are_written_whole_and_read_back(evaluation, tmp_path):
    json_path, table_path = write_evaluation(evaluation, tmp_path)
    document = json.loads(json_path.read_text())
    assert set(document) == {"command", "inputs", "rows"}
    assert document["command"] == "evaluate"
    assert document["rows"] == evaluation.rows
    table = pd.read_parquet(table_path)
    assert table_path.name == "predictions.parquet"
    assert table["gene_id"].is_unique
    assert len(table) == 12
    write_evaluation(evaluation, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation.json",
        "predictions.parquet",
    ]


def test_two_rows_of_a_gene_or_nan_predictions_are_refused(evaluation, tmp_path):
    double = pd.concat([evaluation.genes, evaluation.genes[:1]])
    with pytest.raises(FormatError, match="two rows"):
        write_evaluation(dataclasses.replace(evaluation, genes=double), tmp_path)
    broken = evaluation.genes.assign(**{"predicted:cell_a": np.nan})
    with pytest.raises(FormatError, match="not numbers"):
        write_evaluation(dataclasses.replace(evaluation, genes=broken), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_notes_for_small_region_split_and_foreign_datasets(toy_run, tmp_path):
    plan = ToyPlan(contigs=(("chr1", "train", 24), ("chr2", "valid", 8), ("chr3", "test", 6)))
    root = toy_dataset(tmp_path / "small", plan)
    notes = " ".join(evaluate(toy_run, root, num_resamples=20, controls=["mean"]).notes)
    assert "too few genes to conclude: 6" in notes
    assert "not the dataset the run was trained on" in notes
    assert "split by region" not in notes
    valid = evaluate(toy_run, split="valid", num_resamples=20, controls=["mean"])
    assert any("only the test split is held out" in note for note in valid.notes)
    assert "Note: too few genes" in valid.text
    # Another split does not replace the files of the test split.
    paths = write_evaluation(valid, tmp_path / "out")
    assert [path.name for path in paths] == ["evaluation.valid.json", "predictions.valid.parquet"]


def test_one_contig_split_by_region_is_said(toy_run, tmp_path):
    root = toy_dataset(tmp_path / "toy", ToyPlan(seed=3))
    from seq2exp.dataset import format as layout

    genes = layout.read_table(layout.genes_path(root))
    genes.loc[genes["contig"] == "chr1", "split"] = ["train"] * 20 + ["test"] * 4
    layout.write_table(genes, layout.genes_path(root))
    layout.finish_manifest(root, layout.read_manifest(root))
    found = evaluate(toy_run, root, num_resamples=20, controls=["mean"])
    assert any("split by region" in note and "chr1" in note for note in found.notes)


def test_bad_input(toy_run, tmp_path):
    with pytest.raises(InputError, match="--split"):
        evaluate(toy_run, split="tset")
    with pytest.raises(InputError, match="no labelled gene in split 'excluded'"):
        evaluate(toy_run, split="excluded")
    with pytest.raises(InputError, match="no trained model"):
        evaluate(tmp_path)
