from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from seq2exp.core.errors import InputError
from seq2exp.elements.idr import IdrFit, expected_idr, fit_idr


def mixture(num, num_replicates, *, p, mu, sigma, rho, seed=0):
    """Draw normal values and who is reproducible; scores are a different rising map of each."""
    random = np.random.default_rng(seed)
    real = random.random(num) < p
    covariance = sigma**2 * ((1 - rho) * np.eye(num_replicates) + rho)
    signal = random.multivariate_normal(np.full(num_replicates, mu), covariance, num)
    noise = random.standard_normal((num, num_replicates))
    return np.where(real[:, None], signal, noise), real


@pytest.mark.parametrize("num_replicates", [2, 3])
def test_known_parameters_are_found(num_replicates):
    known = {"p": 0.6, "mu": 2.5, "sigma": 1.0, "rho": 0.8}
    values, real = mixture(2000, num_replicates, **known, seed=1)
    fit = fit_idr(values)
    assert fit.converged
    # Three standard deviations of the estimates over 12 seeds, whose means are those of
    # the known parameters to within two standard errors.
    spread = {"p": 0.03, "mu": 0.3, "sigma": 0.2, "rho": 0.02}
    for name, value in known.items():
        assert getattr(fit, name) == pytest.approx(value, abs=spread[name]), name
    # Of the elements at an IDR of 0.1, a tenth is expected not to be reproducible.
    chosen = fit.global_idr(values) <= 0.1
    assert 1 - real[chosen].mean() == pytest.approx(0.1, abs=0.03)
    assert chosen.sum() > 1000


def test_only_ranks_matter():
    values, _ = mixture(500, 2, p=0.5, mu=2, sigma=1, rho=0.7)
    one = fit_idr(values)
    two = fit_idr(np.column_stack([np.exp(values[:, 0]), 7 * values[:, 1] - 3]))
    assert (one.p, one.mu, one.rho) == pytest.approx((two.p, two.mu, two.rho), abs=1e-3)
    np.testing.assert_allclose(
        one.local(values),
        two.local(np.column_stack([np.exp(values[:, 0]), 7 * values[:, 1] - 3])),
        atol=1e-3,
    )
    order = np.random.default_rng(0).permutation(500)
    shuffled = fit_idr(values[order])
    np.testing.assert_allclose(shuffled.local(values), one.local(values), atol=1e-3)


def test_local_idr_is_bayes_rule():
    """Against scipy's densities; the candidates' ranks stand in the marginal's quantiles."""
    ordered = np.tile(np.arange(99.0)[:, None], (1, 3))
    fit = IdrFit(0.4, 2.0, 1.2, 0.5, ordered, rounds=1, converged=True)
    items = np.array([[98.0, 98, 98], [49, 49, 49], [98, 10, 50]])
    ranks = (items + 1) / 100
    grid = np.linspace(-8, 12, 200_001)
    marginal = 0.4 * norm.cdf(grid, 2, 1.2) + 0.6 * norm.cdf(grid)
    z = np.interp(ranks, marginal, grid)
    covariance = 1.44 * (0.5 * np.eye(3) + 0.5)
    signal = 0.4 * multivariate_normal(np.full(3, 2.0), covariance).pdf(z)
    noise = 0.6 * norm.pdf(z).prod(axis=1)
    np.testing.assert_allclose(fit.local(items), noise / (signal + noise), rtol=1e-3)
    # High everywhere is reproducible, high in one only is not.
    local = fit.local(items)
    assert local[0] < 0.1 < 0.6 < local[2]


def test_items_beyond_the_candidates_take_their_ends():
    values, _ = mixture(200, 2, p=0.5, mu=2.5, sigma=1, rho=0.8)
    fit = fit_idr(values)
    best = values.max(axis=0)[None]
    np.testing.assert_allclose(fit.local(best + 100), fit.local(best))
    assert np.isfinite(fit.local(values.min(axis=0)[None] - 100)).all()


def test_expected_idr_by_hand():
    """Running means of the sorted values; equal ones share the mean over all of them."""
    found = expected_idr(np.array([0.3, 0.1, 0.1, 0.5]))
    np.testing.assert_allclose(found, [0.5 / 3, 0.1, 0.1, 0.25])
    assert expected_idr(np.empty(0)).size == 0


def test_unrelated_replicates_are_not_reproducible():
    values = np.random.default_rng(2).standard_normal((1000, 2))
    fit = fit_idr(values)
    assert np.median(fit.local(values)) > 0.5 or fit.rho < 0.2


def test_identical_replicates_are():
    values = np.random.default_rng(2).standard_normal((300, 1)).repeat(2, axis=1)
    fit = fit_idr(values)
    assert np.isfinite(fit.local(values)).all()
    assert fit.rho > 0.99


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((30, 1)), "shape"),
        (np.random.default_rng(0).random((10, 2)), "20 or more"),
        (np.full((30, 2), np.nan), "not finite"),
        (np.column_stack([np.arange(30.0), np.ones(30)]), "alike"),
    ],
)
def test_scores_that_say_nothing_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        fit_idr(values)
