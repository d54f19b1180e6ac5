"""Golden numbers of the specification (section 10) and the behaviour of the mask distributions."""

from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.nn.beta import (
    PUBLISHED_TRACK_BETAS,
    PUBLISHED_TRACK_WEIGHTS,
    BetaParameters,
    BetaPrior,
    TrackBeta,
    beta_kl,
    fuse,
    sequence_beta,
)

TRACKS = ("H3K27ac", "DNase", "contact")
SOFT = {"beta_min": 1.0, "scale_factor": 10.0}
HARD = {"beta_min": 0.0, "scale_factor": 1.0}
HARD_PRIOR = (0.1, 0.1 * 0.55 / 0.45)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def params(alpha, beta):
    return BetaParameters(f64(alpha)[None], f64(beta)[None])


def published(tracks=TRACKS, **settings):
    return TrackBeta(
        tracks,
        betas=[PUBLISHED_TRACK_BETAS[name] for name in tracks],
        weights=[PUBLISHED_TRACK_WEIGHTS[name] for name in tracks],
        **settings,
    ).double()


def fused(l0, l1, signal, settings, tracks=TRACKS):
    logits = f64(l0, l1).view(1, 1, 2)
    return fuse(
        sequence_beta(logits, beta_min=settings["beta_min"]),
        published(tracks, **settings)(f64(*signal).view(1, 1, -1)),
    )


@pytest.mark.parametrize(
    ("alpha", "beta", "alpha3", "beta3", "expected"),
    [
        (11.693147, 20.493147, 10, 90, 18.729885),
        (11, 99, 10, 90, 0.002270),
        (1, 1, 10, 90, 65.320452),
        (0.693147, 1.573147, *HARD_PRIOR, 1.088738),
        (14.693147, 23.8, 10, 90, 20.836895),
    ],
)
def test_golden_kl(alpha, beta, alpha3, beta3, expected):
    kl = beta_kl(params(alpha, beta), f64(alpha3), f64(beta3))
    assert kl.item() == pytest.approx(expected, abs=2e-6)


def test_kl_equals_the_integral():
    """KL = integral of q log(q / p), here on a fine grid."""
    q, p = (
        torch.distributions.Beta(f64(3.0), f64(5.0)),
        torch.distributions.Beta(f64(2.0), f64(9.0)),
    )
    grid = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    log_q = q.log_prob(grid[:, None])
    integral = (log_q.exp() * (log_q - p.log_prob(grid[:, None]))).mean()
    kl = beta_kl(params(3.0, 5.0), f64(2.0), f64(9.0))
    assert kl.item() == pytest.approx(integral.item(), abs=1e-8)


def test_kl_is_zero_at_the_prior_and_its_gradient_is_right():
    assert beta_kl(params(10, 90), f64(10), f64(90)).abs().item() < 1e-12
    alpha, beta = f64(2.0).requires_grad_(), f64(7.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: beta_kl(BetaParameters(a[None], b[None]), f64(10.0), f64(90.0)), (alpha, beta)
    )


def test_golden_fresh_start():
    """l0 = l1 = 0 and no signal: a1 = b1 = ln 2 + c; soft a2 = k c, b2 = k (0.88 + c)."""
    soft = fused(0, 0, (0, 0, 0), SOFT)
    assert soft.alpha_BN.item() == pytest.approx(11.693147, abs=1e-6)
    assert soft.beta_BN.item() == pytest.approx(20.493147, abs=1e-6)
    assert soft.mean().item() == pytest.approx(0.363296, abs=1e-6)
    hard = fused(0, 0, (0, 0, 0), HARD)
    assert hard.alpha_BN.item() == pytest.approx(0.693147, abs=1e-6)
    assert hard.beta_BN.item() == pytest.approx(1.573147, abs=1e-6)
    assert hard.mean().item() == pytest.approx(0.305850, abs=1e-6)


def test_golden_chance_of_being_kept_at_the_hard_start():
    """P(z >= 0.5) = 0.235959, by the integral of the density in u with z = 0.5 + 0.5 (1 - u^8).

    The substitution removes the singularity of the density at z = 1 (beta > 1 here, so that none
    is left at all) and leaves a smooth integrand.
    """
    q = fused(0, 0, (0, 0, 0), HARD)
    density = torch.distributions.Beta(q.alpha_BN.squeeze(), q.beta_BN.squeeze())
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    z = 0.5 + 0.5 * (1 - u**8)
    chance = (density.log_prob(z).exp() * 4 * u**7).mean()
    assert chance.item() == pytest.approx(0.235959, abs=1e-6)


@pytest.mark.parametrize(("height", "expected"), [(0, 0.116279), (2, 0.226917), (10, 0.484880)])
def test_golden_mean_with_signal(height, expected):
    q = fuse(
        BetaParameters(f64(1.0)[None], f64(80.0)[None]),
        published(**SOFT)(f64(height, height, 1).view(1, 1, 3)),
    )
    assert q.mean().item() == pytest.approx(expected, abs=1e-6)


def test_golden_worked_example():
    signal = (2.0, 1.0, 0.3)
    sequence = sequence_beta(f64(0.5, -0.2).view(1, 1, 2), beta_min=1.0)
    assert sequence.alpha_BN.item() == pytest.approx(1.598139, abs=1e-6)
    assert sequence.beta_BN.item() == pytest.approx(1.974077, abs=1e-6)
    tracks = published(**SOFT)(f64(*signal).view(1, 1, 3))
    assert tracks.alpha_BN.item() == pytest.approx(22.6, abs=1e-6)
    assert tracks.beta_BN.item() == pytest.approx(18.8, abs=1e-6)
    soft = fused(0.5, -0.2, signal, SOFT)
    assert soft.mean().item() == pytest.approx(0.538069, abs=1e-6)
    prior = BetaPrior(mean=0.1, scale=10).double()
    assert prior.kl(soft).item() == pytest.approx(44.081146, abs=1e-5)
    hard = fused(0.5, -0.2, signal, HARD)
    assert hard.alpha_BN.item() == pytest.approx(1.858139, abs=1e-6)
    assert hard.beta_BN.item() == pytest.approx(1.854077, abs=1e-6)
    assert hard.mean().item() == pytest.approx(0.500547, abs=1e-6)
    hard_kl = beta_kl(hard, f64(HARD_PRIOR[0]), f64(HARD_PRIOR[1]))
    assert hard_kl.item() == pytest.approx(1.482953, abs=1e-6)


def test_missing_track_equals_weight_zero():
    """Specification test 16: the weights of the tracks that are present are renormalised."""
    with_nan = published(**SOFT)(f64(2.0, 1.0, torch.nan).view(1, 1, 3))
    without = published(("H3K27ac", "DNase"), **SOFT)(f64(2.0, 1.0).view(1, 1, 2))
    torch.testing.assert_close(with_nan.alpha_BN, without.alpha_BN)
    torch.testing.assert_close(with_nan.beta_BN, without.beta_BN)
    assert with_nan.alpha_BN.item() == pytest.approx((3.0 + 2.0) / 2 * 10)


def test_single_track_uses_its_own_values():
    """F5 of the specification: a lone DNase track has its own 0.2, not the 1.5 of the first."""
    only = published(("DNase",), **SOFT)(f64(4.0).view(1, 1, 1))
    assert only.alpha_BN.item() == pytest.approx(50.0)
    assert only.beta_BN.item() == pytest.approx(12.0)


def test_no_track_at_all_leaves_the_sequence():
    none = published(**SOFT)(torch.full((1, 1, 3), torch.nan, dtype=torch.float64))
    assert none.alpha_BN.item() == 0
    assert none.beta_BN.item() == 0
    sequence = sequence_beta(f64(0.3, 0.1).view(1, 1, 2), beta_min=1.0)
    for fusion in ("sum", "product"):
        q = fuse(sequence, none, fusion=fusion)
        torch.testing.assert_close(q.alpha_BN, sequence.alpha_BN)
        torch.testing.assert_close(q.beta_BN, sequence.beta_BN)


def test_gradient_is_finite_with_missing_tracks():
    module = TrackBeta(TRACKS, betas=(1.5, 0.2, 1), weights=(2, 2, 1), **SOFT, learn=True)
    signal = torch.tensor([[[1.0, torch.nan, 0.2], [torch.nan] * 3]]).requires_grad_()
    q = module(signal)
    (q.alpha_BN.sum() + q.beta_BN.sum()).backward()
    for gradient in (signal.grad, module.betas_T.grad, module.log_weights_T.grad):
        assert torch.isfinite(gradient).all()
    assert module.log_weights_T.grad.abs().sum() > 0


def test_product_of_densities():
    """Beta(a1,b1) * Beta(a2,b2) is proportional to Beta(a1 + a2 - 1, b1 + b2 - 1)."""
    first, second = params(2.0, 3.0), params(4.0, 1.5)
    q = fuse(first, second, fusion="product")
    grid = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)

    def log_density(p):
        return torch.distributions.Beta(p.alpha_BN[0], p.beta_BN[0]).log_prob(grid)

    difference = log_density(q) - log_density(first) - log_density(second)
    torch.testing.assert_close(difference, difference[0].expand(9), rtol=0, atol=1e-12)
    assert fuse(first, second).alpha_BN.item() == 6.0


def test_fuse_needs_a_source():
    assert fuse(None, params(1, 2)).beta_BN.item() == 2
    with pytest.raises(ConfigError, match="no source of evidence"):
        fuse(None, None)


def test_sample_has_the_moments_of_the_beta():
    torch.manual_seed(0)
    q = BetaParameters(torch.full((1, 200_000), 3.0), torch.full((1, 200_000), 5.0))
    sample = q.rsample()
    variance = 3 * 5 / (8**2 * 9)
    # Five standard errors.
    assert sample.mean().item() == pytest.approx(3 / 8, abs=5 * (variance / 200_000) ** 0.5)
    assert sample.var().item() == pytest.approx(variance, rel=0.02)


def test_sample_gradient_is_the_derivative_of_its_quantile():
    """Pathwise: dz / da at a fixed quantile is -(dF / da) / density, F the cumulative."""
    from scipy.special import betainc

    torch.manual_seed(0)
    alpha, beta = f64(*[2.0] * 50).requires_grad_(), f64(*[4.0] * 50).requires_grad_()
    z = BetaParameters(alpha[None], beta[None]).rsample()
    z.sum().backward()
    at, step = z.detach().numpy()[0], 1e-6
    slope = (betainc(2 + step, 4, at) - betainc(2 - step, 4, at)) / (2 * step)
    density = torch.distributions.Beta(f64(2.0), f64(4.0)).log_prob(z[0].detach()).exp().numpy()
    torch.testing.assert_close(alpha.grad, torch.from_numpy(-slope / density), rtol=2e-3, atol=1e-5)


def test_sample_never_touches_the_ends():
    torch.manual_seed(0)
    q = BetaParameters(torch.full((1, 10_000), 1e-4), torch.full((1, 10_000), 1e-4))
    sample = q.rsample()
    assert sample.min() > 0
    assert sample.max() < 1


def test_half_precision_logits_are_widened():
    q = sequence_beta(torch.zeros(1, 1, 2, dtype=torch.bfloat16), beta_min=1.0)
    assert q.alpha_BN.dtype == torch.float32
    assert q.alpha_BN.item() == pytest.approx(1.6931472, abs=1e-6)


def test_prior_travels_with_the_weights():
    prior = BetaPrior(mean=0.1, scale=10)
    assert set(prior.state_dict()) == {"alpha", "beta"}
    assert prior.beta.item() == pytest.approx(90)


def test_track_found_by_name():
    module = published(**SOFT)
    assert module.index("contact") == 2
    with pytest.raises(ConfigError, match="use 'DNase'"):
        module.index("Dnase")
