"""Ridge: parity with scikit-learn, choice on validation only, unknown labels and values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from seq2exp.baselines.ridge import block_weights, fit_ridge
from seq2exp.core.errors import InputError


def problem(*, num_genes=40, num_columns=7, num_labels=2, seed=0):
    random = np.random.default_rng(seed)
    columns = random.normal(2.0, 3.0, (num_genes, num_columns)) * np.arange(1, num_columns + 1)
    truth = random.normal(size=(num_columns, num_labels))
    labels = columns @ truth + random.normal(0, 5.0, (num_genes, num_labels))
    half = num_genes // 2
    return columns[:half], labels[:half], columns[half:], labels[half:]


def fit(x, y, xv, yv, alphas, **options):
    return fit_ridge(x, y, valid_columns=xv, valid_labels=yv, alphas=alphas, **options)


@pytest.mark.parametrize("num_columns", [7, 60], ids=["genes > columns", "columns > genes"])
@pytest.mark.parametrize("alpha", [0.01, 3.0, 500.0])
def test_parity_with_scikit_learn(num_columns, alpha):
    x, y, xv, yv = problem(num_columns=num_columns)
    ours = fit(x, y, xv, yv, [alpha])
    scaler = StandardScaler().fit(x)
    theirs = SklearnRidge(alpha=alpha).fit(scaler.transform(x), y)
    np.testing.assert_allclose(
        ours.predict(xv), theirs.predict(scaler.transform(xv)), rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(ours.coefficients, theirs.coef_.T, rtol=1e-6, atol=1e-9)


def test_the_penalty_with_the_smallest_validation_error_is_taken_per_label():
    x, y, xv, yv = problem(num_columns=30)
    # A second label of pure noise wants all the shrinkage it can get.
    y[:, 1] = np.random.default_rng(1).normal(size=len(y))
    yv[:, 1] = 0.0
    alphas = np.logspace(-2, 6, 9)
    chosen = fit(x, y, xv, yv, alphas)
    single = [fit(x, y, xv, yv, [alpha]) for alpha in alphas]
    errors = np.array([np.mean((one.predict(xv) - yv) ** 2, axis=0) for one in single])
    np.testing.assert_array_equal(chosen.alpha, alphas[errors.argmin(axis=0)])
    np.testing.assert_allclose(chosen.error, errors.min(axis=0))
    assert chosen.alpha[1] > chosen.alpha[0]


def test_validation_genes_choose_but_do_not_fit():
    x, y, xv, yv = problem()
    first = fit(x, y, xv, yv, [1.0])
    second = fit(x, y, xv * 3 + 1, yv[::-1], [1.0])
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    np.testing.assert_array_equal(first.centre, second.centre)


def test_columns_in_other_units_give_the_same_predictions():
    x, y, xv, yv = problem()
    factor, shift = np.array([1e3, 1e-3, 7, 1, 2, -5, 10.0]), np.arange(7.0)
    plain = fit(x, y, xv, yv, [2.0]).predict(xv)
    scaled = fit(x * factor + shift, y, xv * factor + shift, yv, [2.0]).predict(xv * factor + shift)
    np.testing.assert_allclose(plain, scaled, rtol=1e-8)


def test_labels_with_unknown_genes_equal_separate_fits():
    x, y, xv, yv = problem(num_labels=3)
    y[[2, 5], 1] = np.nan
    y[7, 2] = np.nan
    yv[:4, 1] = np.nan
    together = fit(x, y, xv, yv, np.logspace(-1, 3, 5))
    for k in range(3):
        known, judged = np.isfinite(y[:, k]), np.isfinite(yv[:, k])
        alone = fit(
            x[known], y[known, k : k + 1], xv[judged], yv[judged, k : k + 1], np.logspace(-1, 3, 5)
        )
        np.testing.assert_allclose(together.predict(xv)[:, k], alone.predict(xv)[:, 0])
        assert together.alpha[k] == alone.alpha[0]


def test_a_label_without_validation_genes_takes_the_penalty_of_the_others():
    x, y, xv, yv = problem()
    yv[:, 1] = np.nan
    fitted = fit(x, y, xv, yv, np.logspace(-1, 3, 5))
    assert fitted.alpha[1] == fitted.alpha[0]
    assert np.isnan(fitted.error[1])


def test_unknown_values_count_as_the_training_mean_and_constant_columns_not_at_all():
    x, y, xv, yv = problem()
    x[3, 0] = np.nan
    filled, mean = x.copy(), np.nanmean(x[:, 0])
    fitted = fit(x, y, xv, yv, [1.0])
    missing, known = xv.copy(), xv.copy()
    missing[:, 0], known[:, 0] = np.nan, mean
    np.testing.assert_allclose(fitted.predict(missing), fitted.predict(known))
    filled[3, 0] = mean
    padded = np.hstack((x, np.full((len(x), 1), 0.1 + 0.2)))
    far = np.hstack((xv, np.full((len(xv), 1), 1e9)))
    np.testing.assert_allclose(fit(padded, y, far, yv, [1.0]).predict(far), fitted.predict(xv))


def test_block_weights_share_the_variance_between_blocks():
    weights = block_weights([3, 1000], [2.0, 1.0])
    assert weights.shape == (1003,)
    # Standardised columns have variance 1, so a block's total is the sum of its squared factors.
    assert (weights[:3] ** 2).sum() == pytest.approx(4.0)
    assert (weights[3:] ** 2).sum() == pytest.approx(1.0)


def test_a_heavier_block_is_penalised_less():
    x, y, xv, yv = problem()
    light = fit(x, y, xv, yv, [50.0], column_weights=block_weights([1, 6], [0.01, 1.0]))
    heavy = fit(x, y, xv, yv, [50.0], column_weights=block_weights([1, 6], [100.0, 1.0]))
    slope = [abs(one.coefficients[0] * one.scale[0, 0]).max() for one in (light, heavy)]
    assert slope[1] > 100 * slope[0]


def test_bad_input():
    x, y, xv, yv = problem()
    with pytest.raises(InputError, match="at least one training gene per label"):
        fit(x, np.full_like(y, np.nan), xv, yv, [1.0])
    with pytest.raises(InputError, match="labelled validation gene"):
        fit(x, y, xv, np.full_like(yv, np.nan), [1.0])
