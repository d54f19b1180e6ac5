"""Metrics: golden values by formula, parity with SciPy, honest intervals, NaN rules."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from seq2exp.core.errors import InputError
from seq2exp.training.metrics import (
    METRICS,
    Estimate,
    bootstrap,
    bootstrap_draws,
    interval,
    mae,
    mse,
    paired_bootstrap,
    pearson,
    r2,
    spearman,
)

OBSERVED = np.array([1.0, 2.0, 3.0, 4.0])
PREDICTED = np.array([1.0, 3.0, 2.0, 6.0])


def test_golden_values_by_formula():
    # Errors 0, 1, -1, 2.
    assert mse(OBSERVED, PREDICTED) == pytest.approx((0 + 1 + 1 + 4) / 4)
    assert mae(OBSERVED, PREDICTED) == pytest.approx((0 + 1 + 1 + 2) / 4)
    # Variance of 1..4 is 1.25.
    assert r2(OBSERVED, PREDICTED) == pytest.approx(1 - 1.5 / 1.25)
    # Centred: (-1.5,-.5,.5,1.5) and (-2,0,-1,3): products 3 + 0 - .5 + 4.5 = 7; norms 5 and 14.
    assert pearson(OBSERVED, PREDICTED) == pytest.approx(7 / math.sqrt(5 * 14))
    # Ranks 1,2,3,4 and 1,3,2,4: 1 - 6 * (0+1+1+0) / (4 * 15).
    assert spearman(OBSERVED, PREDICTED) == pytest.approx(1 - 6 * 2 / 60)


@pytest.mark.parametrize("seed", range(5))
def test_parity_with_scipy_and_sklearn_also_with_ties(seed):
    random = np.random.default_rng(seed)
    observed = random.integers(0, 6, 50).astype(float)
    predicted = observed + random.integers(-3, 4, 50)
    assert pearson(observed, predicted) == pytest.approx(
        stats.pearsonr(observed, predicted).statistic
    )
    assert spearman(observed, predicted) == pytest.approx(
        stats.spearmanr(observed, predicted).statistic
    )
    assert mse(observed, predicted) == pytest.approx(mean_squared_error(observed, predicted))
    assert mae(observed, predicted) == pytest.approx(mean_absolute_error(observed, predicted))
    assert r2(observed, predicted) == pytest.approx(r2_score(observed, predicted))


def test_a_constant_side_is_undefined_not_zero():
    constant = np.full(4, 0.1 + 0.2)
    assert math.isnan(pearson(OBSERVED, constant))
    assert math.isnan(spearman(constant, OBSERVED))
    assert math.isnan(r2(constant, OBSERVED))
    estimate = bootstrap(OBSERVED, constant, "pearson")
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert estimate.n == 4
    assert bootstrap(OBSERVED, constant, "mse").value == pytest.approx(mse(OBSERVED, constant))


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_draws_equal_the_plain_metric_on_the_same_resampled_genes(metric):
    """The vectorised path against the definition: draw genes, call the scalar function."""
    random = np.random.default_rng(3)
    observed = random.integers(0, 9, 30) / 2.0
    predicted = np.round(observed + random.normal(0, 1, 30), 1)
    drawn = np.random.default_rng(11).integers(30, size=(200, 30))
    expected = [METRICS[metric](observed[rows], predicted[rows]) for rows in drawn]
    found = bootstrap_draws(
        observed[:, None], predicted[None, :, None], (metric,), num_resamples=200, seed=11
    )
    np.testing.assert_allclose(found[metric][:, 0, 0], expected, atol=1e-10)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_tiny_splits_draw_undefined_resamples_as_nan(metric):
    observed, predicted = np.array([0.3, 1.7]), np.array([0.2, 0.9])
    drawn = np.random.default_rng(0).integers(2, size=(50, 2))
    found = bootstrap_draws(
        observed[:, None], predicted[None, :, None], (metric,), num_resamples=50
    )[metric][:, 0, 0]
    expected = [METRICS[metric](observed[rows], predicted[rows]) for rows in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert np.isnan(found).any() == (metric in ("pearson", "spearman", "r2"))


def test_chunks_do_not_change_the_draws(monkeypatch):
    random = np.random.default_rng(0)
    observed, predicted = random.normal(size=(40, 1)), random.normal(size=(2, 40, 1))
    whole = bootstrap_draws(observed, predicted, ("pearson",), num_resamples=64)
    monkeypatch.setattr("seq2exp.training.metrics._CHUNK", 40 * 16)
    parts = bootstrap_draws(observed, predicted, ("pearson",), num_resamples=64)
    np.testing.assert_array_equal(whole["pearson"], parts["pearson"])


def test_unknown_labels_are_left_out_of_value_and_n():
    observed = np.append(OBSERVED, np.nan)
    predicted = np.append(PREDICTED, 100.0)
    estimate = bootstrap(observed, predicted, "mse")
    assert estimate == bootstrap(OBSERVED, PREDICTED, "mse")
    assert estimate.n == 4
    # Among several labels, a gene counts for those it has.
    table = np.stack((observed, np.full(5, np.nan)), axis=1)
    guess = np.stack((predicted, predicted), axis=1)[None]
    draws = bootstrap_draws(table, guess, ("mse",), num_resamples=20)["mse"]
    assert np.isfinite(draws[:, 0, 0]).all()
    assert draws[:, 0, 0].max() <= 4.0
    assert np.isnan(draws[:, 0, 1]).all()


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Errors are N(0, 1), so the expected MSE is 1; 400 intervals at 90 % cover it 360 times.

    Binomial deviation 6; the percentile interval is slightly short at n = 150.
    """
    random = np.random.default_rng(5)
    covered = 0
    for i in range(400):
        error = random.normal(size=150)
        estimate = bootstrap(np.zeros(150), error, "mse", num_resamples=300, level=0.9, seed=i)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 325 <= covered <= 378


def test_paired_difference_is_positive_when_the_first_is_better():
    random = np.random.default_rng(0)
    observed = random.normal(size=300)
    good, bad = observed + random.normal(0, 0.3, 300), observed + random.normal(0, 1.0, 300)
    for metric in METRICS:
        ahead = paired_bootstrap(observed, good, bad, metric)
        behind = paired_bootstrap(observed, bad, good, metric)
        assert ahead.low > 0
        assert behind.value == pytest.approx(-ahead.value)
        assert (behind.low, behind.high) == pytest.approx((-ahead.high, -ahead.low))
    expected = mse(observed, bad) - mse(observed, good)
    assert paired_bootstrap(observed, good, bad, "mse").value == pytest.approx(expected)


def test_pairing_is_tighter_than_two_separate_intervals():
    random = np.random.default_rng(1)
    observed = random.normal(size=200)
    shared = random.normal(size=200)
    one, two = observed + shared, observed + 1.05 * shared
    paired = paired_bootstrap(observed, one, two, "mse")
    alone = bootstrap(observed, one, "mse")
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap(OBSERVED, PREDICTED, "mse") == bootstrap(OBSERVED, PREDICTED, "mse")
    other = bootstrap(OBSERVED, PREDICTED, "mse", seed=1, num_resamples=7)
    assert other != bootstrap(OBSERVED, PREDICTED, "mse", num_resamples=7)


def test_interval_takes_the_percentiles_of_finite_draws():
    draws = np.append(np.arange(101.0), np.nan)
    estimate = interval(50.0, draws, n=9, level=0.9)
    assert (estimate.low, estimate.high, estimate.n) == pytest.approx((5.0, 95.0, 9))
    assert math.isnan(interval(float("nan"), draws, n=9).low)


def test_bad_input():
    with pytest.raises(InputError, match="one prediction per gene"):
        bootstrap(OBSERVED, PREDICTED[:3], "mse")
    with pytest.raises(InputError, match="no known label"):
        bootstrap(np.full(3, np.nan), np.zeros(3), "mse")


def test_a_row_holds_what_json_can():
    row = Estimate(0.5, float("nan"), float("inf"), 7).row(
        "model", "mse", split="test", sample=None
    )
    assert row == {
        "name": "model", "metric": "mse", "split": "test", "sample": None, "value": 0.5,
        "low": None, "high": None, "n": 7,
    }  # fmt: skip
    assert Estimate(np.float32(2), n=np.int64(3)).row("a", "b", split=None)["low"] is None
    json.dumps(Estimate(np.float32(2), n=np.int64(3)).row("a", "b", split=None), allow_nan=False)
