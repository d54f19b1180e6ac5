"""Losses on groups of people of one gene: level of the gene, differences between people.

A model of a cohort has two outputs: the `level`, in the unit of the expression, and the
`difference`, in standard deviations of the gene over the training people. Which of them a loss
trains, and which of them then ranks people, stands in :data:`LOSSES`.

Shapes: Q groups (one gene each), D people of a group. The prediction for a person is the mean over
the haplotypes. People that a group lacks, and unknown expression, are NaN in the targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "LOSSES",
    "GroupLoss",
    "GroupPrediction",
    "GroupTargets",
    "LossConfig",
    "group_loss",
    "pair_probability",
]

_ANSCOMBE = 3 / 8
_SMAPE_FLOOR = 1e-3
_SURE = 1e-6


@dataclass(frozen=True)
class LossKind:
    """What a loss leaves in the model."""

    people: str
    """Output that ranks people: level or difference."""
    level: bool
    """Whether the level is trained, so that genes can be compared."""


LOSSES = {
    "reference": LossKind("level", level=True),
    "single_mse": LossKind("level", level=True),
    "single_smape": LossKind("level", level=True),
    "pair_mse": LossKind("difference", level=False),
    "pair_bce": LossKind("difference", level=False),
    "mse_pairs": LossKind("level", level=True),
    "joint": LossKind("difference", level=True),
    "mean_diff": LossKind("difference", level=True),
}


@dataclass(frozen=True)
class LossConfig:
    """Which loss people are trained with (docs/cohort.md)."""

    name: str = "joint"
    """reference, single_mse, single_smape, pair_mse, pair_bce, mse_pairs, joint or mean_diff."""
    level_weight: float = 0.05
    """Weight of the level in joint and mean_diff (lambda_ref). Genes differ far more than people:
    at equal weights the level takes over the network."""
    difference_weight: float = 1.0
    """Weight of the differences in joint and mean_diff (lambda_diff)."""
    pair_share: float = 0.5
    """Weight of the pairs in mse_pairs; the rest is that of single people."""
    min_gap: float = 25.0
    """Percentiles by which the two people of a pair differ at least, in pair_bce."""
    target: str = "raw"
    """Target of single_mse and single_smape: raw, log expression without correction; z, that of
    the gene, which published work and ours found to fail, so it has to be forced."""
    force: bool = False
    """Train single people on z all the same."""

    def __post_init__(self) -> None:
        require_known("loss.name", self.name, list(LOSSES), expected="a loss")
        require_known("loss.target", self.target, ("raw", "z"), expected="raw or z")
        if self.target == "z" and self.name not in ("single_mse", "single_smape"):
            raise ConfigError(
                facts(
                    "loss.target",
                    found=f"z with {self.name}",
                    expected="raw; this loss chooses its targets itself",
                    fix="leave loss.target out",
                )
            )
        if self.target == "z" and not self.force:
            raise ConfigError(
                facts(
                    "loss.target",
                    found=f"z with {self.name}",
                    expected="raw: most of a single person's z-score is noise no sequence explains",
                    fix="use loss.name: pair_mse or joint, or set loss.force: true to see it fail",
                )
            )
        for key, low, high in (("pair_share", 0.0, 1.0), ("min_gap", 0.0, 100.0)):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(
                    facts(
                        f"loss.{key}",
                        found=getattr(self, key),
                        expected=f"{low:g} to {high:g}",
                        fix="use the default",
                    )
                )

    @property
    def kind(self) -> LossKind:
        """What the loss leaves in the model."""
        return LOSSES[self.name]


class GroupPrediction(NamedTuple):
    """Outputs of the model.

    Attributes
    ----------
    level_QD, difference_QD : float tensors
        Mean over the haplotypes of each person.
    level_Q, difference_Q : float tensors
        For the sequence of the reference.
    """

    level_QD: Tensor
    difference_QD: Tensor
    level_Q: Tensor
    difference_Q: Tensor


class GroupTargets(NamedTuple):
    """What was measured; NaN where unknown.

    Attributes
    ----------
    raw_QD : float tensor
        Log expression without correction.
    z_QD : float tensor
        Corrected expression, centred and scaled by the gene's training people.
    percentile_QD : float tensor
        0 to 100 among the gene's training people.
    mean_Q : float tensor
        Mean of `raw` over the gene's training people.
    """

    raw_QD: Tensor
    z_QD: Tensor
    percentile_QD: Tensor
    mean_Q: Tensor


class GroupLoss(NamedTuple):
    """Total, and its parts before weights; a part that the loss lacks is None."""

    total: Tensor
    level: Tensor | None
    difference: Tensor | None


def group_loss(config: LossConfig, predicted: GroupPrediction, targets: GroupTargets) -> GroupLoss:
    """Return the loss of groups of people.

    Formulas: Rastogi et al. 2024 (pairs), Spiro et al. 2025 (mean and difference), Drusinsky et al.
    2024 (`mse_pairs`); every mean is over what is known.

    Parameters
    ----------
    config : LossConfig
    predicted : GroupPrediction
    targets : GroupTargets
    """
    level, difference = predicted.level_QD, predicted.difference_QD
    if config.name == "reference":
        error = _mean_error(predicted.level_Q, targets.mean_Q)
        return GroupLoss(error, error, None)
    if config.name in ("single_mse", "single_smape"):
        target = targets.raw_QD if config.target == "raw" else targets.z_QD
        one = _squared if config.name == "single_mse" else _smape
        error = _mean_error(level, target, one)
        return GroupLoss(error, error, None)
    if config.name == "pair_mse":
        pairs = _pair_mse(difference, targets.z_QD)
        return GroupLoss(pairs, None, pairs)
    if config.name == "pair_bce":
        pairs = _pair_bce(difference, targets, config.min_gap)
        return GroupLoss(pairs, None, pairs)
    if config.name == "mse_pairs":
        single = _mean_error(level, targets.raw_QD)
        pairs = _pair_mse(level, targets.raw_QD)
        share = config.pair_share
        return GroupLoss((1 - share) * single + share * pairs, single, pairs)
    if config.name == "joint":
        single = _mean_error(level, targets.raw_QD)
        pairs = _pair_mse(difference, targets.z_QD)
    else:
        single = _mean_error(predicted.level_Q, targets.mean_Q)
        pairs = _mean_error(difference - predicted.difference_Q[:, None], targets.z_QD)
    total = config.level_weight * single + config.difference_weight * pairs
    return GroupLoss(total, single, pairs)


def pair_probability(first: Tensor, second: Tensor) -> Tensor:
    """Return the probability that the first of two counts is the larger one.

    Phi((2 sqrt(a + 3/8) - 2 sqrt(b + 3/8)) / sqrt 2): the Anscombe transform makes Poisson counts
    about normal with variance 1. Both must be 0 or more.
    """
    gap = 2 * torch.sqrt(first + _ANSCOMBE) - 2 * torch.sqrt(second + _ANSCOMBE)
    # Phi(x / sqrt 2) = (1 + erf(x / 2)) / 2.
    return (1 + torch.erf(gap / 2)) / 2


def _squared(predicted: Tensor, target: Tensor) -> Tensor:
    return (predicted - target) ** 2


def _smape(predicted: Tensor, target: Tensor) -> Tensor:
    # Log expression can be near 0 or below, where the published formula has no bound.
    return 2 * (predicted - target).abs() / (predicted.abs() + target.abs() + _SMAPE_FLOOR)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of what is known; 0, with a gradient of 0, when nothing is."""
    return (values * known).sum() / known.sum().clamp(min=1)


def _mean_error(
    predicted: Tensor, target: Tensor, error: Callable[[Tensor, Tensor], Tensor] = _squared
) -> Tensor:
    known = torch.isfinite(target)
    # NaN is filled before the error: its gradient would be NaN however it is weighted.
    return _mean(error(predicted, torch.where(known, target, 0.0)), known)


def _pairs(values_QD: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sides of all pairs of each group, shape (Q, pairs)."""
    size = values_QD.shape[1]
    first, second = torch.triu_indices(size, size, offset=1, device=values_QD.device)
    return values_QD[:, first], values_QD[:, second]


def _pair_mse(predicted_QD: Tensor, target_QD: Tensor) -> Tensor:
    ours, theirs = _pairs(predicted_QD)
    first, second = _pairs(target_QD)
    return _mean_error(ours - theirs, first - second)


def _pair_bce(predicted_QD: Tensor, targets: GroupTargets, min_gap: float) -> Tensor:
    # The probability is of counts, so outputs are made positive first.
    ours, theirs = _pairs(torch.nn.functional.softplus(predicted_QD))
    first, second = _pairs(targets.z_QD)
    rank = _pairs(targets.percentile_QD)
    apart = (rank[0] - rank[1]).abs() > min_gap
    larger = (first >= second).to(ours.dtype)
    chance = pair_probability(ours, theirs).clamp(_SURE, 1 - _SURE)
    return _mean(-(larger * chance.log() + (1 - larger) * (1 - chance).log()), apart)
