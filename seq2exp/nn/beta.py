"""Beta distributions of the mask: from the sequence, from the tracks, fused, sampled, and their KL.

Formulas: Su et al., arXiv 2502.13991, and the constants of its published code. Everything here is
computed in float32 or wider whatever the dtype of the network.

Shapes: B batch, N bins, T tracks.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "PUBLISHED_TRACK_BETAS",
    "PUBLISHED_TRACK_WEIGHTS",
    "SAMPLE_MARGIN",
    "BetaParameters",
    "BetaPrior",
    "TrackBeta",
    "beta_kl",
    "fuse",
    "sequence_beta",
]

PUBLISHED_TRACK_BETAS = {"H3K27ac": 1.5, "DNase": 0.2, "contact": 1.0}
"""Second Beta parameter of each published track (t in the specification)."""
PUBLISHED_TRACK_WEIGHTS = {"H3K27ac": 2.0, "DNase": 2.0, "contact": 1.0}
"""Relative weight of each published track; they are normalised over the tracks present."""

_TINY = 1e-8
SAMPLE_MARGIN = 1e-6
"""Samples stay this far from 0 and 1, to which a float32 Beta can round: there its gradient is not
defined."""


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class BetaParameters:
    """Parameters of one Beta distribution per bin.

    Attributes
    ----------
    alpha_BN, beta_BN : float32 or float64 tensor, shape (batch, bins)
        First and second parameter, positive.
    """

    alpha_BN: Tensor
    beta_BN: Tensor

    def mean(self) -> Tensor:
        """Return ``alpha / (alpha + beta)``, shape (batch, bins)."""
        return self.alpha_BN / (self.alpha_BN + self.beta_BN)

    def rsample(self) -> Tensor:
        """Draw a sample with pathwise gradients, shape (batch, bins), strictly inside (0, 1)."""
        with torch.autocast(device_type=self.alpha_BN.device.type, enabled=False):
            sample_BN: Tensor = torch.distributions.Beta(
                self.alpha_BN, self.beta_BN, validate_args=False
            ).rsample()
        return sample_BN.clamp(SAMPLE_MARGIN, 1 - SAMPLE_MARGIN)

    def kept(self) -> Tensor:
        """Return where the mean is at least 0.5, exactly ``alpha >= beta``, bool."""
        return self.alpha_BN >= self.beta_BN

    def kl(self, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor:
        """KL divergence from Beta(prior_alpha, prior_beta) per bin, in nats; see `beta_kl`."""
        return beta_kl(self, prior_alpha, prior_beta)


def sequence_beta(logits_BN2: Tensor, *, beta_min: float) -> BetaParameters:
    """Turn the two outputs of the mask head into a Beta.

    ``alpha = softplus(l1) + c + 1e-8`` and ``beta = softplus(l0) + c + 1e-8`` with c = `beta_min`.

    Parameters
    ----------
    logits_BN2 : float tensor, shape (batch, bins, 2)
        (l0, l1).
    beta_min : float
        Added to both parameters.
    """
    positive_BN2 = F.softplus(_wide(logits_BN2)) + (beta_min + _TINY)
    return BetaParameters(positive_BN2[..., 1], positive_BN2[..., 0])


class TrackBeta(nn.Module):
    """Beta of the tracks: ``alpha_i = (g_i + c) k + 1e-8``, ``beta_i = (t_i + c) k``, averaged.

    The weights are stored as logarithms and passed through a softmax over the tracks that are
    present; a missing track contributes nothing, and with no track at all both parameters are 0.

    Parameters
    ----------
    tracks : sequence of str
        Track names, in the order of the signal.
    betas, weights : sequence of float
        t_i and w_i of every track, in the same order.
    beta_min : float
        c.
    scale_factor : float
        k.
    learn : bool
        Train t_i and w_i; a t_i that falls below 0 counts as 0.
    """

    def __init__(
        self,
        tracks: Sequence[str],
        *,
        betas: Sequence[float],
        weights: Sequence[float],
        beta_min: float,
        scale_factor: float,
        learn: bool = False,
    ) -> None:
        super().__init__()
        self.tracks = tuple(tracks)
        self.beta_min, self.scale_factor = beta_min, scale_factor
        betas_T = torch.tensor(betas, dtype=torch.float32)
        log_weights_T = torch.tensor(weights, dtype=torch.float32).log()
        self.betas_T = nn.Parameter(betas_T, requires_grad=learn)
        self.log_weights_T = nn.Parameter(log_weights_T, requires_grad=learn)

    def index(self, track: str) -> int:
        """Position of a track by its name; an unknown name raises ConfigError."""
        if track in self.tracks:
            return self.tracks.index(track)
        near = difflib.get_close_matches(track, self.tracks, n=1)
        raise ConfigError(
            facts(
                f"track {track!r}",
                found="no such track",
                expected="one of " + ", ".join(self.tracks),
                fix=f"use {near[0]!r}" if near else "name a track of the model",
            )
        )

    def forward(self, signal_BNT: Tensor) -> BetaParameters:
        """Beta of every bin.

        Parameters
        ----------
        signal_BNT : float tensor, shape (batch, bins, tracks)
            Non-negative signal; NaN where a track is missing.
        """
        signal_BNT = _wide(signal_BNT)
        present_BNT = ~torch.isnan(signal_BNT)
        signal_BNT = torch.where(present_BNT, signal_BNT, 0.0)
        logits_BNT = torch.where(present_BNT, self.log_weights_T.to(signal_BNT), -torch.inf)
        # A bin without any track has weights 0, not NaN.
        largest_BN1 = logits_BNT.detach().amax(-1, keepdim=True).clamp(min=-1e30)
        odds_BNT = torch.exp(logits_BNT - largest_BN1)
        weights_BNT = odds_BNT / odds_BNT.sum(-1, keepdim=True).clamp(min=_TINY)
        alpha_BNT = (signal_BNT + self.beta_min) * self.scale_factor + _TINY
        beta_T = (self.betas_T.to(signal_BNT).clamp(min=0) + self.beta_min) * self.scale_factor
        return BetaParameters((weights_BNT * alpha_BNT).sum(-1), (weights_BNT * beta_T).sum(-1))


def fuse(
    sequence: BetaParameters | None,
    tracks: BetaParameters | None,
    *,
    fusion: Literal["sum", "product"] = "sum",
) -> BetaParameters:
    """Combine the two sources of evidence.

    "sum" adds the parameters (published code). "product" is the density of the product of the two
    distributions, ``alpha_1 + alpha_2 - 1``, kept positive. A bin whose tracks are all missing
    (both track parameters 0) keeps the Beta of the sequence in both cases.
    """
    if sequence is None or tracks is None:
        only = sequence or tracks
        if only is None:
            raise ConfigError(
                facts(
                    "mask",
                    found="no source of evidence",
                    expected="the sequence, the tracks, or both",
                    fix="set mask_from_sequence or mask_from_tracks, or mask: none",
                )
            )
        return only
    alpha_BN = sequence.alpha_BN + tracks.alpha_BN
    beta_BN = sequence.beta_BN + tracks.beta_BN
    if fusion == "product":
        present_BN = (tracks.beta_BN > 0).to(alpha_BN)
        alpha_BN = (alpha_BN - present_BN).clamp(min=_TINY)
        beta_BN = (beta_BN - present_BN).clamp(min=_TINY)
    return BetaParameters(alpha_BN, beta_BN)


def beta_kl(q: BetaParameters, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor:
    """KL divergence of q from Beta(prior_alpha, prior_beta) per bin, shape (batch, bins), in nats.

    ``lnB(a3,b3) - lnB(a,b) + (a-a3) psi(a) + (b-b3) psi(b) + (a3-a+b3-b) psi(a+b)``.
    """
    a, b = q.alpha_BN, q.beta_BN
    a3, b3 = prior_alpha.to(a), prior_beta.to(a)
    return (
        _log_beta(a3, b3)
        - _log_beta(a, b)
        + (a - a3) * torch.digamma(a)
        + (b - b3) * torch.digamma(b)
        + (a3 - a + b3 - b) * torch.digamma(a + b)
    )


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


class _Divergence(Protocol):
    def kl(self, prior_alpha: Tensor, prior_beta: Tensor) -> Tensor: ...


class BetaPrior(nn.Module):
    """Prior of the mask: Beta(scale, scale (1 - mean) / mean), held as buffers.

    Parameters
    ----------
    mean : float
        Mean of "share of the window that is kept", inside (0, 1). Note that the published
        settings (0.1, 10) give Beta(10, 90).
    scale : float
        First parameter.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, *, mean: float, scale: float) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(float(scale)))
        self.register_buffer("beta", torch.tensor(scale * (1 - mean) / mean))

    def kl(self, q: _Divergence) -> Tensor:
        """KL divergence of a posterior from the prior per bin, shape (batch, bins), in nats."""
        return q.kl(self.alpha, self.beta)
