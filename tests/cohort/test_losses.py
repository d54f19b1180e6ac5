"""Losses on groups of people, against the formulas written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from seq2exp.cohort.losses import (
    LOSSES,
    GroupPrediction,
    GroupTargets,
    LossConfig,
    group_loss,
    pair_probability,
)
from seq2exp.core.errors import ConfigError

NAN = math.nan


@pytest.fixture
def groups():
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    predicted = GroupPrediction(draw(3, 5), draw(3, 5), draw(3), draw(3))
    raw, z = draw(3, 5) + 3, draw(3, 5)
    raw[0, 2] = z[0, 2] = NAN
    raw[2, 3:] = z[2, 3:] = NAN
    percentile = torch.where(torch.isnan(z), torch.tensor(NAN).double(), 50 + 25 * z)
    return predicted, GroupTargets(raw, z, percentile, raw.nanmean(dim=1))


def known_pairs(target):
    for row, values in enumerate(target.tolist()):
        for i, j in itertools.combinations(range(len(values)), 2):
            if not (math.isnan(values[i]) or math.isnan(values[j])):
                yield row, i, j


def by_hand(name, predicted, targets, config):
    level, diff, level_ref, diff_ref = (part.numpy() for part in predicted)
    raw, z, percentile, mean = (part.numpy() for part in targets)
    single = np.nanmean((level - raw) ** 2)
    pairs = [
        ((diff[r, i] - diff[r, j]) - (z[r, i] - z[r, j])) ** 2
        for r, i, j in known_pairs(targets[1])
    ]
    if name == "reference":
        return np.mean((level_ref - mean) ** 2)
    if name == "single_mse":
        return single
    if name == "single_smape":
        return np.nanmean(2 * np.abs(level - raw) / (np.abs(level) + np.abs(raw) + 1e-3))
    if name == "pair_mse":
        return np.mean(pairs)
    if name == "pair_bce":
        total = []
        for r, i, j in known_pairs(targets[1]):
            if abs(percentile[r, i] - percentile[r, j]) > config.min_gap:
                a, b = (math.log1p(math.exp(diff[r, k])) for k in (i, j))
                x = (2 * math.sqrt(a + 3 / 8) - 2 * math.sqrt(b + 3 / 8)) / math.sqrt(2)
                chance = (1 + math.erf(x / math.sqrt(2))) / 2
                total.append(-math.log(chance if z[r, i] >= z[r, j] else 1 - chance))
        assert 0 < len(total) < len(pairs)
        return np.mean(total)
    if name == "mse_pairs":
        raw_pairs = [
            ((level[r, i] - level[r, j]) - (raw[r, i] - raw[r, j])) ** 2
            for r, i, j in known_pairs(targets[0])
        ]
        return (1 - config.pair_share) * single + config.pair_share * np.mean(raw_pairs)
    if name == "joint":
        return config.level_weight * single + config.difference_weight * np.mean(pairs)
    difference = np.nanmean((diff - diff_ref[:, None] - z) ** 2)
    return config.level_weight * np.mean((level_ref - mean) ** 2) + (
        config.difference_weight * difference
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name, groups):
    config = LossConfig(name, level_weight=0.7, difference_weight=2.0, pair_share=0.3)
    found = group_loss(config, *groups)
    assert found.total.item() == pytest.approx(by_hand(name, *groups, config), rel=1e-9)
    kind = LOSSES[name]
    assert (found.level is not None) == kind.level


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right_and_unknown_people_have_none(name, groups):
    predicted, targets = groups
    config = LossConfig(name)
    inputs = [part.clone().requires_grad_() for part in predicted]

    def total(*parts):
        return group_loss(config, GroupPrediction(*parts), targets).total

    assert torch.autograd.gradcheck(total, inputs)
    total(*inputs).backward()
    for part in inputs[:2]:
        if part.grad is not None:
            assert torch.isfinite(part.grad).all()
            assert (part.grad[torch.isnan(targets.raw_QD)] == 0).all()


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(4, 1, 0.90315), (10, 4, 0.94489), (1, 1, 0.5)]
)
def test_golden_probabilities_of_pairs(first, second, expected):
    found = pair_probability(torch.tensor(float(first)), torch.tensor(float(second)))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_pairs_do_not_see_a_shift_of_the_whole_group(groups):
    predicted, targets = groups
    moved = predicted._replace(difference_QD=predicted.difference_QD + torch.tensor([[5.0]]))
    config = LossConfig("pair_mse")
    before, after = (group_loss(config, part, targets).total for part in (predicted, moved))
    assert after.item() == pytest.approx(before.item(), rel=1e-9)


def test_single_people_on_z_are_refused_unless_forced(groups):
    with pytest.raises(ConfigError, match="noise no sequence explains"):
        LossConfig("single_mse", target="z")
    forced = LossConfig("single_mse", target="z", force=True)
    predicted, targets = groups
    expected = np.nanmean((predicted.level_QD - targets.z_QD).numpy() ** 2)
    assert group_loss(forced, predicted, targets).total.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "mse"},
        {"name": "joint", "target": "z"},
        {"name": "mse_pairs", "pair_share": 1.5},
        {"name": "single_mse", "target": "log"},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError):
        LossConfig(**settings)


def test_a_group_of_one_has_no_pairs_and_no_nan():
    one = torch.zeros(1, 1, requires_grad=True)
    targets = GroupTargets(*[torch.ones(1, 1)] * 3, torch.ones(1))
    loss = group_loss(
        LossConfig("pair_mse"), GroupPrediction(one, one, one[0], one[0]), targets
    ).total
    loss.backward()
    assert loss.item() == 0
    assert one.grad.item() == 0
