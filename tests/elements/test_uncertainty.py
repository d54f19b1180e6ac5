from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import beta as beta_law

from seq2exp.core.errors import InputError
from seq2exp.elements.uncertainty import element_betas, mixture_above, mixture_quantile
from tests.elements.hand import BIN, masks_of

ALPHA = np.array([[2.0, 0.5, 8.0, 1.0, 3.0, 4.0]])
BETA = np.array([[3.0, 0.25, 2.0, 6.0, 3.0, 1.0]])


def learned(members=None):
    mean = ALPHA / (ALPHA + BETA)
    arrays = {"alpha": ALPHA.astype(np.float16), "beta": BETA.astype(np.float16)}
    return masks_of(mean, members=members, **arrays)


def spans(*bins):
    first, last = (np.array(side, dtype=np.int64) * BIN for side in zip(*bins, strict=True))
    return np.zeros(len(bins), dtype=np.int64), first, last


def test_one_bin_is_its_own_beta():
    alpha, beta = element_betas(learned(), *spans((0, 1), (1, 2), (5, 6)))
    np.testing.assert_allclose(alpha[:, 0], ALPHA[0, [0, 1, 5]])
    np.testing.assert_allclose(beta[:, 0], BETA[0, [0, 1, 5]])
    for level in (0.05, 0.95):
        exact = beta_law.ppf(level, ALPHA[0, [0, 1, 5]], BETA[0, [0, 1, 5]])
        np.testing.assert_allclose(mixture_quantile(alpha, beta, level), exact, atol=1e-9)
    np.testing.assert_allclose(
        mixture_above(alpha, beta, 0.3), beta_law.sf(0.3, ALPHA[0, [0, 1, 5]], BETA[0, [0, 1, 5]])
    )


def test_several_bins_against_samples():
    alpha, beta = element_betas(learned(), *spans((2, 6)))
    random = np.random.default_rng(0)
    drawn = random.beta(ALPHA[0, 2:6], BETA[0, 2:6], (200_000, 4)).mean(axis=1)
    assert (alpha / (alpha + beta))[0, 0] == pytest.approx(drawn.mean(), abs=2e-3)
    for level in (0.05, 0.5, 0.95):
        exact = np.quantile(drawn, level)
        assert mixture_quantile(alpha, beta, level)[0] == pytest.approx(exact, abs=0.01)
    above = (drawn > 0.6).mean()
    assert mixture_above(alpha, beta, 0.6)[0] == pytest.approx(above, abs=0.01)


def test_members_that_disagree_widen_the_interval():
    """One member sure of 0.9, one sure of 0.1: a mixture, not a Beta around 0.5."""
    alpha = np.full((2, 1, 6), 90.0)
    alpha[1] = 10.0
    arrays = {"mask": alpha / 100, "alpha": alpha, "beta": 100 - alpha}
    members = {name: values.astype(np.float16) for name, values in arrays.items()}
    found = element_betas(learned(members), *spans((0, 1)))
    assert found[0].shape == (1, 2)
    low, high = (mixture_quantile(*found, level)[0] for level in (0.05, 0.95))
    assert low < 0.12
    assert high > 0.88
    assert mixture_above(*found, 0.5)[0] == pytest.approx(0.5, abs=1e-6)
    both = beta_law.cdf(low, [10, 90], [90, 10]).mean()
    assert both == pytest.approx(0.05, abs=1e-9)


def test_a_bin_cut_by_the_contig_end_weighs_less():
    """The last bin covers 50 of 100 bases, so it has a third of the weight of both."""
    masks = learned()
    genes = masks.genes.assign(contig_length=550)
    cut = dataclasses.replace(masks, genes=genes)
    zero = np.zeros(1, dtype=np.int64)
    alpha, beta = element_betas(cut, zero, np.array([400]), np.array([550]))
    expected = (2 * 3 / 6 + 4 / 5) / 3
    assert alpha[0, 0] / (alpha[0, 0] + beta[0, 0]) == pytest.approx(expected)


def test_a_beta_that_vanished_in_float16_gives_numbers():
    masks = learned()
    nothing = np.zeros_like(masks.beta)
    alpha, beta = element_betas(dataclasses.replace(masks, beta=nothing), *spans((0, 2)))
    for level in (0.05, 0.95):
        assert 0.99 < mixture_quantile(alpha, beta, level)[0] <= 1


def test_masks_without_posterior_are_refused():
    with pytest.raises(InputError, match="not learned"):
        element_betas(masks_of([[0.0, 1.0]]), *spans((0, 1)))
    assert mixture_above(*(np.empty((0, 1)),) * 2, 0.5).size == 0
