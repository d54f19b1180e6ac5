"""Kumaraswamy and logistic-normal masks: matching, KL, samples and their derivatives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import integrate, special

from seq2exp.nn.beta import BetaParameters, beta_kl
from seq2exp.nn.posterior import Kumaraswamy, LogisticNormal, matched_posterior

KINDS = ("beta", "kumaraswamy", "logistic_normal")
PRIOR = (10.0, 90.0)
# From the published soft and hard settings, and close to "off or on".
EVIDENCE = [(11.693147, 20.493147), (0.693147, 1.573147), (24.2, 20.8), (1.4, 80.0), (0.08, 0.4)]


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)[None]


def evidence(alpha, beta):
    return BetaParameters(f64(alpha), f64(beta))


def log_density(q):
    """Log density of the logit x at one bin, written from the definitions."""
    if isinstance(q, LogisticNormal):
        mu, sigma = q.mu_BN.item(), q.sigma_BN.item()
        return lambda x: -0.5 * ((x - mu) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    if isinstance(q, Kumaraswamy):
        a, b = q.a_BN.item(), q.b_BN.item()

        def inner(x):
            log_z, log_rest = -math.log1p(math.exp(-x)), -math.log1p(math.exp(x))
            gap = math.log(-math.expm1(a * log_z))
            return math.log(a * b) + a * log_z + (b - 1) * gap + log_rest

        return inner
    a, b = q.alpha_BN.item(), q.beta_BN.item()
    norm = float(special.betaln(a, b))
    return lambda x: -a * math.log1p(math.exp(-x)) - b * math.log1p(math.exp(x)) - norm


def expect(q, function):
    density = log_density(q)
    edges = [-600.0, -250.0, -100.0, -40.0, -10.0, -3.0, 0.0, 3.0, 12.0, 30.0, 100.0]
    return sum(
        integrate.quad(lambda x: math.exp(density(x)) * function(x), low, high, limit=400)[0]
        for low, high in itertools.pairwise(edges)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", EVIDENCE)
def test_mean_and_kl_are_the_integrals(kind, counts):
    """KL = E_q[log q - log p] in the logit, where both densities carry the same Jacobian."""
    q = matched_posterior(kind, evidence(*counts))
    assert expect(q, lambda x: 1.0) == pytest.approx(1, abs=1e-6)
    assert q.mean().item() == pytest.approx(expect(q, special.expit), abs=1e-6)
    for prior in (PRIOR, (0.1, 0.1222222)):
        log_q, log_p = log_density(q), log_density(evidence(*prior))
        integral = expect(q, lambda x: log_q(x) - log_p(x))  # noqa: B023
        kl = q.kl(*(torch.tensor(value, dtype=torch.float64) for value in prior))
        assert kl.item() == pytest.approx(integral, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("counts", [(1.0, 7.0), (1.0, 0.3), (4.0, 1.0), (1.0, 1.0)])
def test_kumaraswamy_is_the_beta_where_the_families_meet(counts):
    """Kumaraswamy(a, b) is Beta(a, b) when either is 1."""
    q = Kumaraswamy.matched(evidence(*counts))
    assert q.a_BN.item() == pytest.approx(counts[0], rel=1e-9)
    assert q.b_BN.item() == pytest.approx(counts[1], rel=1e-9)
    prior = torch.tensor(10.0).double(), torch.tensor(90.0).double()
    theirs = beta_kl(evidence(*counts), *prior)
    assert q.kl(*prior).item() == pytest.approx(theirs.item(), rel=2e-6)


@pytest.mark.parametrize("counts", EVIDENCE[:4])
def test_matched_families_keep_the_size_of_the_mask(counts):
    """Within a tenth of the mean of the Beta: the option changes the shape, not the meaning."""
    mean = counts[0] / sum(counts)
    for kind in KINDS:
        found = matched_posterior(kind, evidence(*counts)).mean().item()
        assert found == pytest.approx(mean, rel=0.1), kind


def test_logistic_normal_has_the_moments_of_the_logit():
    """E logit = psi(a) - psi(b), Var = psi1(a) + psi1(b): at (1, 1) that is 0 and pi^2 / 3."""
    q = LogisticNormal.matched(evidence(1.0, 1.0))
    assert q.mu_BN.item() == pytest.approx(0, abs=1e-12)
    assert q.sigma_BN.item() == pytest.approx(math.pi / math.sqrt(3))
    assert LogisticNormal.matched(evidence(3.0, 2.0)).kept().item()
    assert not LogisticNormal.matched(evidence(2.0, 3.0)).kept().item()


@pytest.mark.parametrize("sigma", [0.05, 1.0, 1.499, 1.501, 4.0, 30.0])
@pytest.mark.parametrize("mu", [-6.0, 0.0, 2.0])
def test_logistic_normal_quadratures_have_no_seam(mu, sigma):
    """Both rules, on their side of the width at which they change, agree with adaptive ones."""
    q = LogisticNormal(f64(mu), f64(sigma))

    def exact(function):
        edges = sorted({mu - 10 * sigma, min(max(0.0, mu - 10 * sigma), mu + 10 * sigma),
                        mu, mu + 10 * sigma})  # fmt: skip
        return sum(
            integrate.quad(
                lambda x: math.exp(log_density(q)(x)) * function(x), *pair, epsabs=1e-12, limit=300
            )[0]
            for pair in itertools.pairwise(edges)
        )

    assert q.mean().item() == pytest.approx(exact(special.expit), abs=2e-8)
    softplus = exact(lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))))
    assert q._mean_softplus().item() == pytest.approx(softplus, abs=2e-8, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", EVIDENCE[:4])
def test_samples_have_the_moments(kind, counts):
    torch.manual_seed(0)
    wide = BetaParameters(*(torch.full((1, 200_000), value) for value in counts))
    sample = matched_posterior(kind, wide).rsample()
    assert sample.min() > 0
    assert sample.max() < 1
    q = matched_posterior(kind, evidence(*counts))
    second = expect(q, lambda x: special.expit(x) ** 2)
    spread = math.sqrt(second - q.mean().item() ** 2)
    # Five standard errors.
    assert sample.mean().item() == pytest.approx(
        q.mean().item(), abs=5 * spread / math.sqrt(200_000)
    )
    assert sample.std().item() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_gradient_is_the_derivative_of_the_quantile(kind):
    """dz / d theta = -(dF / d theta) / density at the sample, F the cumulative, from scipy."""

    def cumulative(q, x):
        first, second = (getattr(q, name).detach().numpy() for name in q.__slots__)
        if kind == "beta":
            return special.betainc(first, second, x)
        if kind == "kumaraswamy":
            return 1 - (1 - x**first) ** second
        return special.ndtr((special.logit(x) - first) / second)

    alpha, beta = f64(*[2.0] * 40).requires_grad_(), f64(*[4.0] * 40).requires_grad_()
    torch.manual_seed(1)
    z = matched_posterior(kind, BetaParameters(alpha, beta)).rsample()
    slopes = torch.autograd.grad(z.sum(), (alpha, beta))
    at, step = z.detach().numpy(), 1e-5

    def moved(first, second):
        return cumulative(matched_posterior(kind, BetaParameters(first, second)), at)

    low, high = at - 1e-6, at + 1e-6
    with torch.no_grad():
        q = matched_posterior(kind, BetaParameters(alpha, beta))
        density = (cumulative(q, high) - cumulative(q, low)) / 2e-6
        expected = (
            -(moved(alpha + step, beta) - moved(alpha - step, beta)) / (2 * step) / density,
            -(moved(alpha, beta + step) - moved(alpha, beta - step)) / (2 * step) / density,
        )
    # torch's own derivative of a Beta sample is an approximation, good to 1e-3.
    tolerance = 2e-3 if kind == "beta" else 2e-6
    for slope, wanted in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, torch.as_tensor(wanted), rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_mean_and_kl_agree_with_finite_differences(kind):
    alpha, beta = f64(0.6, 2.0, 12.0).requires_grad_(), f64(1.1, 7.0, 3.0).requires_grad_()
    prior = torch.tensor(10.0).double(), torch.tensor(90.0).double()

    def values(a, b):
        q = matched_posterior(kind, BetaParameters(a, b))
        return q.mean(), q.kl(*prior)

    assert torch.autograd.gradcheck(values, (alpha, beta))


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_evidence_stays_finite_in_float32(kind):
    grid = torch.tensor([1e-2, 0.3, 1.0, 30.0, 1e3])
    alpha, beta = (x.reshape(1, -1).clone().requires_grad_() for x in torch.meshgrid(
        grid, grid, indexing="ij"))  # fmt: skip
    torch.manual_seed(0)
    q = matched_posterior(kind, BetaParameters(alpha, beta))
    values = (q.mean(), q.rsample(), q.kl(torch.tensor(10.0), torch.tensor(90.0)))
    assert all(torch.isfinite(value).all() for value in values)
    assert ((values[0] >= 0) & (values[0] <= 1)).all()
    sum(value.sum() for value in values).backward()
    assert torch.isfinite(alpha.grad).all()
    assert torch.isfinite(beta.grad).all()
