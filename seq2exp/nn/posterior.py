"""Distributions of the mask value that may stand for the fused evidence of a bin.

Generator and tracks give pseudo-counts, which are added as the parameters of a Beta
(`seq2exp.nn.beta`). The Beta itself is the published posterior. The other two are families on
(0, 1) that are matched to it, so that fusion, tracks and prior mean the same under each:

* Kumaraswamy(a, b): equal variance of log z and equal mean of z**a. Where the families coincide
  (alpha = 1 or beta = 1) this is the Beta itself.
* logistic-normal: logit z is normal with the mean and variance that it has under the Beta.

Samples are reparameterised, with exact derivatives. Expectations that have no closed form are
quadratures with fixed nodes, differentiable in the parameters; their errors are stated below.

Shapes: B batch, N bins, Q quadrature nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seq2exp.nn.beta import SAMPLE_MARGIN, BetaParameters

__all__ = [
    "Kumaraswamy",
    "LogisticNormal",
    "MaskPosterior",
    "PosteriorKind",
    "matched_posterior",
]

PosteriorKind = Literal["beta", "kumaraswamy", "logistic_normal"]

_EULER = 0.5772156649015329
# Tanh-sinh rule on (0, 1) for the Kumaraswamy: 31 nodes.
_UNIT_STEP, _UNIT_END = 0.2, 3.0
# Gauss-Hermite rule for the logistic-normal.
_NORMAL_NODES = 32
# Wider than this, the rule would miss the bend of sigmoid and softplus at 0; see `_around_zero`.
_WIDE = 1.5
_BUMP_NODES = 24
# From here on 1 - exp(-x) is 1 in float32, so that its logarithm must be found another way.
_FAR = 15.0


class MaskPosterior(Protocol):
    """Distribution of every mask value, all independent."""

    def mean(self) -> Tensor:
        """Return the mean, shape (batch, bins)."""
        ...

    def rsample(self) -> Tensor:
        """Draw a sample with pathwise gradients, shape (batch, bins), inside (0, 1)."""
        ...

    def kept(self) -> Tensor:
        """Return where the mean is at least 0.5, bool, shape (batch, bins)."""
        ...

    def kl(self, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor:
        """KL divergence from Beta(prior_alpha, prior_beta) per bin, in nats."""
        ...


def matched_posterior(kind: PosteriorKind, evidence: BetaParameters) -> MaskPosterior:
    """Return the posterior of one family for the fused evidence.

    Parameters
    ----------
    kind : str
        "beta", "kumaraswamy" or "logistic_normal".
    evidence : BetaParameters
        What `seq2exp.nn.beta.fuse` returned.
    """
    if kind == "kumaraswamy":
        return Kumaraswamy.matched(evidence)
    if kind == "logistic_normal":
        return LogisticNormal.matched(evidence)
    return evidence


@dataclass(frozen=True, slots=True)
class Kumaraswamy:
    """``P(z <= x) = 1 - (1 - x**a)**b``, per bin.

    Attributes
    ----------
    a_BN, b_BN : float32 or float64 tensor, shape (batch, bins)
        Positive.
    """

    a_BN: Tensor
    b_BN: Tensor

    @classmethod
    def matched(cls, evidence: BetaParameters) -> Kumaraswamy:
        """Match a Beta: equal variance of log z (to the b of the Beta), equal mean of z**a.

        With ``psi1`` the trigamma function, Var(log z) is ``psi1(alpha) - psi1(alpha + beta)`` for
        the Beta and ``(psi1(1) - psi1(1 + b)) / a**2`` for the Kumaraswamy; E(z**a) is
        ``1 / (1 + b)`` for the latter.
        """
        alpha, beta = evidence.alpha_BN, evidence.beta_BN
        theirs = _trigamma_drop(alpha, beta)
        ours = _trigamma_drop(torch.ones_like(beta), beta)
        a = torch.sqrt(ours / theirs)
        log_moment = (
            torch.lgamma(alpha + a)
            - torch.lgamma(alpha)
            + torch.lgamma(alpha + beta)
            - torch.lgamma(alpha + beta + a)
        )
        return cls(a, torch.expm1(-log_moment).clamp(min=torch.finfo(a.dtype).tiny))

    def mean(self) -> Tensor:
        """Return ``E z`` by quadrature, shape (batch, bins)."""
        log_v_Q, weight_Q = self._nodes()
        return (self._log_quantile(log_v_Q).exp() * weight_Q).sum(-1)

    def rsample(self) -> Tensor:
        """Draw ``(1 - (1 - u)**(1 / b))**(1 / a)`` with u uniform."""
        # 1 - u is uniform too, and its logarithm is minus an exponential variable.
        log_v_BN = -torch.empty_like(self.a_BN).exponential_()
        sample_BN = self._log_quantile(log_v_BN[..., None])[..., 0].exp()
        return sample_BN.clamp(SAMPLE_MARGIN, 1 - SAMPLE_MARGIN)

    def kept(self) -> Tensor:
        """Return where the mean is at least 0.5."""
        return self.mean() >= 0.5

    def kl(self, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor:
        """KL divergence from a Beta; closed but for ``E log(1 - z)``, which is a quadrature."""
        a, b = self.a_BN, self.b_BN
        a3, b3 = prior_alpha.to(a), prior_beta.to(a)
        mean_log = (-_EULER - torch.digamma(b) - 1 / b) / a
        log_v_Q, weight_Q = self._nodes()
        mean_log_rest = (self._log_rest(log_v_Q) * weight_Q).sum(-1)
        entropy = -torch.log(a) - torch.log(b) - (a - 1) * mean_log + (b - 1) / b
        return -entropy - (a3 - 1) * mean_log - (b3 - 1) * mean_log_rest + _log_beta(a3, b3)

    def _nodes(self) -> tuple[Tensor, Tensor]:
        """Logarithms of 1 - u at the quadrature nodes, and weights, both of shape (nodes,)."""
        log_v, weight = _unit_interval()
        return _like(self.a_BN, log_v), _like(self.a_BN, weight)

    def _log_quantile(self, log_v: Tensor) -> Tensor:
        """Return ``log z`` where ``1 - P(z)`` is exp(log_v); the last axis is free."""
        return _log1mexp(-log_v / self.b_BN[..., None]) / self.a_BN[..., None]

    def _log_rest(self, log_v: Tensor) -> Tensor:
        """Return ``log(1 - z)`` at the same place."""
        depth = -log_v / self.b_BN[..., None]
        far = depth > _FAR
        log_z = _log1mexp(torch.where(far, 1.0, depth)) / self.a_BN[..., None]
        # Close to 1: 1 - z = exp(-depth) / a up to its square.
        return torch.where(far, -depth - torch.log(self.a_BN)[..., None], _log1mexp(-log_z))


@dataclass(frozen=True, slots=True)
class LogisticNormal:
    """``logit z`` is normal, per bin.

    Attributes
    ----------
    mu_BN, sigma_BN : float32 or float64 tensor, shape (batch, bins)
        Mean and standard deviation of the logit.
    """

    mu_BN: Tensor
    sigma_BN: Tensor

    @classmethod
    def matched(cls, evidence: BetaParameters) -> LogisticNormal:
        """Match mean and variance of the logit of a Beta.

        They are ``psi(alpha) - psi(beta)`` and ``psi1(alpha) + psi1(beta)``.
        """
        alpha, beta = evidence.alpha_BN, evidence.beta_BN
        variance = torch.polygamma(1, alpha) + torch.polygamma(1, beta)
        return cls(torch.digamma(alpha) - torch.digamma(beta), variance.sqrt())

    def mean(self) -> Tensor:
        """Return ``E sigmoid(x)`` by quadrature, shape (batch, bins)."""
        x, weight_Q = self._nodes()
        narrow = (torch.sigmoid(x) * weight_Q).sum(-1)
        # sigmoid(x) is the step at 0, less a bump on its right and more a bump on its left.
        left, right, size_Q, _ = self._around_zero()
        step = torch.special.ndtr(self.mu_BN / self.sigma_BN)
        wide = step + ((left - right) * size_Q).sum(-1)
        return torch.where(self.sigma_BN < _WIDE, narrow, wide)

    def rsample(self) -> Tensor:
        """Draw ``sigmoid(mu + sigma e)`` with e standard normal."""
        sample_BN = torch.sigmoid(self.mu_BN + self.sigma_BN * torch.randn_like(self.mu_BN))
        return sample_BN.clamp(SAMPLE_MARGIN, 1 - SAMPLE_MARGIN)

    def kept(self) -> Tensor:
        """Return where the mean is at least 0.5, which is where ``mu >= 0``."""
        return self.mu_BN >= 0

    def kl(self, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor:
        """KL divergence from a Beta, with ``E log z`` and ``E log(1 - z)`` by quadrature."""
        a3, b3 = prior_alpha.to(self.mu_BN), prior_beta.to(self.mu_BN)
        mean_log_rest = -self._mean_softplus()
        # log z - log(1 - z) is the logit, whose mean is known.
        mean_log = mean_log_rest + self.mu_BN
        entropy_of_logit = 0.5 * math.log(2 * math.pi * math.e) + torch.log(self.sigma_BN)
        return -entropy_of_logit - a3 * mean_log - b3 * mean_log_rest + _log_beta(a3, b3)

    def _mean_softplus(self) -> Tensor:
        """Return ``E log(1 + exp(x))``."""
        x, weight_Q = self._nodes()
        narrow = (F.softplus(x) * weight_Q).sum(-1)
        # softplus(x) is relu(x), whose mean is known, and a bump log(1 + exp(-|x|)) around 0.
        left, right, _, bump_Q = self._around_zero()
        ratio = self.mu_BN / self.sigma_BN
        density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
        relu = self.mu_BN * torch.special.ndtr(ratio) + self.sigma_BN * density
        wide = relu + ((left + right) * bump_Q).sum(-1)
        return torch.where(self.sigma_BN < _WIDE, narrow, wide)

    def _nodes(self) -> tuple[Tensor, Tensor]:
        """Gauss-Hermite nodes of the logit, shape (batch, bins, nodes), and their weights."""
        node, weight = np.polynomial.hermite_e.hermegauss(_NORMAL_NODES)
        node_Q, weight_Q = (_like(self.mu_BN, x) for x in (node, weight / math.sqrt(2 * math.pi)))
        return self.mu_BN[..., None] + self.sigma_BN[..., None] * node_Q, weight_Q

    def _around_zero(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Density at -y and at y for the Gauss-Laguerre nodes y, and weights for two bumps.

        The bumps are ``sigmoid(-y)`` and ``log(1 + exp(-y))``, which decay like the weight function
        exp(-y) of the rule, while the density of a wide logit hardly changes.
        """
        node, weight = np.polynomial.laguerre.laggauss(_BUMP_NODES)
        size, bump = weight / (1 + np.exp(-node)), weight * np.log1p(np.exp(-node)) * np.exp(node)
        node_Q, size_Q, bump_Q = (_like(self.mu_BN, x) for x in (node, size, bump))
        sigma = self.sigma_BN.clamp(min=_WIDE)[..., None]

        def density(x: Tensor) -> Tensor:
            scaled = (x - self.mu_BN[..., None]) / sigma
            return torch.exp(-0.5 * scaled.square()) / (sigma * math.sqrt(2 * math.pi))

        return density(-node_Q), density(node_Q), size_Q, bump_Q


def _like(tensor: Tensor, values: NDArray[np.float64]) -> Tensor:
    """Return constants as a tensor of the same kind and place as another."""
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)


def _unit_interval() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log of the nodes and the weights of the tanh-sinh rule on (0, 1)."""
    t = np.arange(-_UNIT_END, _UNIT_END + 1e-9, _UNIT_STEP)
    x = math.pi * np.sinh(t)
    # v = 1 / (1 + exp(-x)), whose logarithm is exact on both sides.
    log_v = -np.logaddexp(0, -x)
    weight = math.pi * np.cosh(t) * np.exp(log_v - np.logaddexp(0, x))
    return log_v, weight / weight.sum()


def _trigamma_drop(first: Tensor, more: Tensor) -> Tensor:
    """Return ``psi1(first) - psi1(first + more)``, which is positive."""
    drop = torch.polygamma(1, first) - torch.polygamma(1, first + more)
    return drop.clamp(min=torch.finfo(drop.dtype).tiny)


def _log1mexp(x: Tensor) -> Tensor:
    """Return ``log(1 - exp(-x))`` for x > 0, accurate for small and large x."""
    small = x < math.log(2)
    near = torch.log(-torch.expm1(-torch.where(small, x, 1.0)))
    return torch.where(small, near, torch.log1p(-torch.exp(-torch.where(small, 1.0, x))))


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
