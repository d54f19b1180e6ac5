"""Heritability: the planted value, parity with the dense likelihood, degenerate genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from seq2exp.cohort.heritability import cis_heritability, expected_pearson
from seq2exp.cohort.linear import LinearConfig
from seq2exp.cohort.linear_genes import fit_genes
from seq2exp.cohort.metrics import across_donors
from seq2exp.core.errors import InputError
from tests.cohort.people import common, dosages, phenotype, standardised


def estimates(h2, genes, donors=400, variants=120, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for _ in range(genes):
        dosage = common(dosages(random, donors, variants, founders=60))
        found.append(cis_heritability(dosage, phenotype(random, dosage, h2, causal=None)))
    return found


@pytest.mark.parametrize("h2", [0.0, 0.2, 0.5])
def test_the_planted_heritability_is_recovered_by_both_estimates(h2):
    found = estimates(h2, 40)
    for name in ("h2", "he_h2"):
        values = np.array([getattr(one, name) for one in found])
        assert abs(values.mean() - h2) < 2.5 * values.std(ddof=1) / np.sqrt(len(values)), name
    # The stated error is that of the spread.
    spread = np.std([one.h2 for one in found], ddof=1)
    assert 0.7 < np.mean([one.se for one in found]) / spread < 1.4
    assert all(one.status == "ok" for one in found)
    if h2 == 0:
        assert any(one.h2 < 0 for one in found), "unconstrained"
        assert 0.3 < np.mean([one.p for one in found]) < 0.7
    if h2 == 0.5:
        assert max(one.p for one in found) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("h2", [0.0, 0.2, 0.5])
def test_100_genes_of_400_donors_are_within_two_errors(h2):
    values = np.array([one.h2 for one in estimates(h2, 100, variants=300, seed=1)])
    assert abs(values.mean() - h2) < 2 * values.std(ddof=1) / 10


@pytest.mark.slow
def test_p_is_uniform_without_heritability():
    p = np.array([one.p for one in estimates(0.0, 400, donors=200, variants=80, seed=2)])
    for level in (0.05, 0.2, 0.5):
        assert abs((p < level).mean() - level) < 3 * np.sqrt(level * (1 - level) / 400)


def dense_reml(dosage, y, covariates):
    """Maximise the restricted likelihood written with n x n matrices."""
    z = standardised(dosage)
    kinship, n = z @ z.T / z.shape[1], len(y)

    def deviance(h2):
        v = h2 * kinship + (1 - h2) * np.eye(n)
        inverse = np.linalg.inv(v)
        inner = covariates.T @ inverse @ covariates
        projection = inverse - inverse @ covariates @ np.linalg.solve(inner, covariates.T @ inverse)
        rank = n - covariates.shape[1]
        logs = np.linalg.slogdet(v)[1] + np.linalg.slogdet(inner)[1]
        return rank * np.log(y @ projection @ y / rank) + logs

    return minimize_scalar(deviance, bounds=(0.01, 0.95), method="bounded").x


@pytest.mark.parametrize("variants", [40, 200])
@pytest.mark.parametrize("extra", [0, 2])
def test_the_sum_over_eigenvalues_is_the_dense_likelihood(variants, extra):
    random = np.random.default_rng(4)
    dosage = common(dosages(random, 120, variants, switch=0.2))
    added = random.normal(size=(120, extra))
    y = phenotype(random, dosage, 0.5, causal=None) + 5 + added.sum(axis=1)
    found = cis_heritability(dosage, y, covariates_DC=added if extra else None)
    expected = dense_reml(dosage, y, np.column_stack([np.ones(120), added]))
    assert found.h2 == pytest.approx(expected, abs=1e-4)
    assert found.converged


def test_haseman_elston_is_the_regression_over_pairs():
    random = np.random.default_rng(6)
    dosage = common(dosages(random, 60, 30))
    y = phenotype(random, dosage, 0.5, causal=None)
    z = standardised(dosage)
    unit = (y - y.mean()) / y.std()
    pairs = np.triu_indices(60, 1)
    slope = np.polyfit((z @ z.T / z.shape[1])[pairs], np.outer(unit, unit)[pairs], 1)[0]
    assert cis_heritability(dosage, y).he_h2 == pytest.approx(slope)


def test_scale_shift_order_and_swapped_alleles_change_nothing():
    random = np.random.default_rng(7)
    dosage = common(dosages(random, 100, 50))
    y = phenotype(random, dosage, 0.4, causal=2)
    first = cis_heritability(dosage, y)
    order = random.permutation(100)
    flipped = np.where(np.arange(dosage.shape[1]) % 2, 2 - dosage, dosage)
    for other in (
        cis_heritability(dosage, 100 - 3 * y),
        cis_heritability(dosage[order], y[order]),
        cis_heritability(flipped, y),
    ):
        assert other.h2 == pytest.approx(first.h2, abs=1e-5)
        assert other.he_h2 == pytest.approx(first.he_h2)


def test_constrained_stops_at_zero():
    random = np.random.default_rng(0)
    for _ in range(20):
        dosage = common(dosages(random, 100, 40))
        y = random.normal(size=100)
        free, bound = (cis_heritability(dosage, y, constrained=c) for c in (False, True))
        if free.h2 < 0:
            break
    assert free.h2 < 0
    assert free.p > 0.5
    assert (bound.h2, bound.p) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("dosage", "y", "status"),
    [
        (np.zeros((30, 0)), np.arange(30.0), "no_variants"),
        (np.ones((30, 4)), np.arange(30.0), "no_variants"),
        (np.ones((30, 4)), np.full(30, 2.0), "constant_expression"),
        (np.ones((30, 4)), np.full(30, np.nan), "no_expression"),
        (np.ones((1, 4)), np.ones(1), "too_few_donors"),
    ],
)
def test_what_cannot_be_estimated_is_nan_with_a_reason(dosage, y, status):
    found = cis_heritability(dosage, y)
    assert found.status == status
    assert np.isnan([found.h2, found.se, found.p, found.he_h2]).all()
    assert found.row()["num_donors"] == np.isfinite(y).sum()


def test_one_variant_and_donors_without_expression():
    random = np.random.default_rng(8)
    dosage = random.binomial(2, 0.4, size=(300, 1)).astype(float)
    y = np.sqrt(0.3) * standardised(dosage)[:, 0] + np.sqrt(0.7) * random.normal(size=300)
    found = cis_heritability(dosage, np.append(y[:-50], np.full(50, np.nan)))
    assert found.num_donors == 250
    assert found.num_variants == 1
    assert 0.1 < found.h2 < 0.6
    with pytest.raises(InputError, match="align both by donor"):
        cis_heritability(dosage, y[:-1])


def test_expected_correlation_has_its_limits():
    """sqrt(h2) with endless donors; h2 sqrt(N / M) with few; 0 without heritability."""
    assert expected_pearson(0.25, num_donors=10**9, effective_variants=50) == pytest.approx(0.5)
    few = expected_pearson(0.01, num_donors=100, effective_variants=1e6)
    assert few == pytest.approx(0.01 * np.sqrt(100 / 1e6), rel=1e-4)
    assert expected_pearson(-0.1, num_donors=100, effective_variants=50) == 0


def test_blup_reaches_the_expected_correlation():
    """Many small effects: mean r on new donors beside the formula, for few and many donors."""
    random = np.random.default_rng(5)
    for num in (100, 300):
        data = {f"g{k}": common(dosages(random, num + 200, 100, founders=60)) for k in range(40)}
        train = np.arange(num + 200) < num
        y = np.array([phenotype(random, dosage, 0.4, causal=None) for dosage in data.values()])
        config = LinearConfig(models=["blup"])
        guess = fit_genes(list(data), data.get, y, train=train, config=config).predictions["blup"]
        table = across_donors(y[:, ~train], guess[:, ~train], genes=list(data))
        expected = []
        for gene, row in zip(data, y, strict=True):
            found = cis_heritability(data[gene][train], row[train])
            expected.append(
                expected_pearson(0.4, num_donors=num, effective_variants=found.effective_variants)
            )
        assert table["pearson"].mean() == pytest.approx(np.mean(expected), abs=0.05)


def test_effective_variants_count_independent_ones():
    random = np.random.default_rng(1)
    free = random.binomial(2, 0.4, size=(2000, 30)).astype(float)
    y = random.normal(size=2000)
    assert cis_heritability(free, y).effective_variants == pytest.approx(30, rel=0.05)
    doubled = np.repeat(free, 3, axis=1)
    assert cis_heritability(doubled, y).effective_variants == pytest.approx(30, rel=0.05)
    assert cis_heritability(free[:40], y[:40]).effective_variants <= 30
