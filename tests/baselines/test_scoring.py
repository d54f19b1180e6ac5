"""Rows and the text table: golden numbers, undefined values, and honest sentences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from seq2exp.baselines.controls import FittedControl
from seq2exp.baselines.scoring import mean_row, score
from seq2exp.baselines.table import render, verdict

SAMPLES = ["a", "b"]


def case(*, model_noise=0.2, control_noise=1.0, num_genes=200):
    random = np.random.default_rng(0)
    observed = random.normal(size=(num_genes, 2))
    return observed, {
        "model": observed + random.normal(0, model_noise, observed.shape),
        "rival": observed + random.normal(0, control_noise, observed.shape),
        "mean": np.zeros_like(observed),
    }


def by_key(rows):
    return {(row["name"], row["metric"], row["sample"]): row for row in rows}


def test_golden_rows():
    observed = np.array([[1.0, 0.0], [2.0, np.nan], [3.0, 2.0]])
    # Errors of sample a: 1, 0, -1; of sample b, where known: 0, 3.
    model = np.array([[0.0, 0.0], [2.0, 7.0], [4.0, -1.0]])
    control = np.array([[1.0, 0.0], [2.0, 9.0], [3.0, 1.0]])
    rows = by_key(
        score(observed, {"model": model, "other": control}, samples=SAMPLES, split="test")
    )
    assert rows[("model", "mse", "a")]["value"] == pytest.approx(2 / 3)
    assert rows[("model", "mse", "b")]["value"] == pytest.approx(9 / 2)
    assert rows[("model", "mse", None)]["value"] == pytest.approx((2 / 3 + 9 / 2) / 2)
    assert rows[("model", "mae", "a")]["value"] == pytest.approx(2 / 3)
    # Variance of 1, 2, 3 is 2 / 3, as large as the error.
    assert rows[("model", "r2", "a")]["value"] == pytest.approx(0.0)
    assert rows[("model", "pearson", "a")]["value"] == pytest.approx(1.0)
    assert rows[("model", "spearman", "b")]["value"] == pytest.approx(-1.0)
    assert [rows[("model", "mse", s)]["n"] for s in (None, "a", "b")] == [3, 3, 2]
    # Control: 0 and 1 / 2. The model is worse, so the difference is negative.
    difference = rows[("other", "mse_difference", None)]
    assert difference["value"] == pytest.approx((0 + 1 / 2) / 2 - (2 / 3 + 9 / 2) / 2)
    assert rows[("other", "pearson_difference", "b")]["value"] == pytest.approx(-1 - 1)


def test_intervals_hold_the_value_and_pairing_has_its_sign():
    observed, predictions = case()
    rows = by_key(score(observed, predictions, samples=SAMPLES, split="test"))
    for row in rows.values():
        if row["value"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    assert rows[("rival", "mse_difference", None)]["low"] > 0
    assert rows[("rival", "pearson_difference", None)]["low"] > 0
    assert rows[("model", "pearson", "a")]["value"] == pytest.approx(
        pearsonr(observed[:, 0], predictions["model"][:, 0]).statistic
    )


def test_the_average_over_samples_has_a_narrower_interval_than_one_sample():
    observed, predictions = case()
    rows = by_key(score(observed, predictions, samples=SAMPLES, split="test"))
    width = {s: (r := rows[("rival", "mse", s)])["high"] - r["low"] for s in (None, "a", "b")}
    assert width[None] < min(width["a"], width["b"])


def test_undefined_is_null_with_its_n_and_unlabelled_genes_do_not_count():
    observed, predictions = case(num_genes=30)
    observed[:5] = np.nan
    observed[5:20, 1] = np.nan
    rows = by_key(score(observed, predictions, samples=SAMPLES, split="valid"))
    row = rows[("mean", "pearson", "a")]
    assert (row["value"], row["low"], row["high"], row["n"]) == (None, None, None, 25)
    assert rows[("model", "mse", "b")]["n"] == 10
    assert rows[("model", "mse", None)]["n"] == 25
    assert {row["split"] for row in rows.values()} == {"valid"}


def test_one_sample_gives_one_row_per_metric():
    observed, predictions = case()
    one = {name: values[:, :1] for name, values in predictions.items()}
    rows = score(observed[:, :1], one, samples=["a"], split="test")
    assert {row["sample"] for row in rows} == {None}
    assert len(rows) == 3 * 5 + 2 * 2


def test_mask_ratio_row_is_a_mean_with_interval():
    values = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)
    row = mean_row("model", "mask_ratio", values, split="test")
    assert row["value"] == pytest.approx(0.25)
    assert 0.1 <= row["low"] < 0.25 < row["high"] <= 0.4


def test_a_model_that_beats_everything_says_so():
    observed, predictions = case()
    text = verdict(score(observed, predictions, samples=SAMPLES, split="test"))
    assert text.startswith("The model beats all 2 controls")


def test_a_control_that_beats_the_model_is_named():
    observed, predictions = case(model_noise=1.0, control_noise=0.2)
    text = verdict(score(observed, predictions, samples=SAMPLES, split="test"))
    assert text == (
        "The model does not beat 2 of 2 controls. Better than the model: rival. "
        "No clear difference: mean."
    )


def test_the_table_marks_the_best_and_lists_what_is_missing():
    observed, predictions = case(model_noise=1.0, control_noise=0.2)
    rows = score(observed, predictions, samples=SAMPLES, split="test")
    controls = [FittedControl("track_ridge", "ridge", reason="the dataset has no tracks")]
    text = render(rows, controls, notes=["too few genes to conclude: 3"], split="test")
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["rival"].count("*") == 5
    assert "*" not in lines["model"]
    assert "n/a" in lines["mean"]
    assert "track_ridge: the dataset has no tracks" in text
    assert "Note: too few genes to conclude: 3." in text
    assert "200 genes" in text
    # One row per sample, with the best rival.
    assert lines["a"].split()[1] == "200"
    assert "rival" in lines["a"]
