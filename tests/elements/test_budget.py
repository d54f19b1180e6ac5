from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.samples import SampleConfig
from seq2exp.elements.budget import (
    OPEN,
    OWN,
    PROMOTER_ONLY,
    RANDOM,
    BudgetConfig,
    budget_curve,
)
from seq2exp.elements.masks import FREE
from seq2exp.elements.scored import MODEL
from seq2exp.training.metrics import mse, pearson
from tests.elements.fakes import fake_run

CONFIG = BudgetConfig(budgets=(0.1, 0.5), num_resamples=20)
RIVALS = {"distance": "distance", "signal": "signal DNase"}


class Counting(torch.nn.Module):
    """Predicts, from the mask it is given, a weighted sum of open bins: every position counts."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, codes_BL, signal_BNT, features_BF, *, mask_BN=None, **options):
        out = self.inner(codes_BL, signal_BNT, features_BF, **options)
        seen_BN = out.mean_BN if mask_BN is None else mask_BN
        weight_N = torch.arange(1, seen_BN.shape[1] + 1, dtype=torch.float32)
        total_B1 = (seen_BN * weight_N).sum(1, keepdim=True)
        return dataclasses.replace(out, expression_BK=total_B1.expand(-1, 2))


@pytest.fixture
def counting(dataset):
    run = fake_run(dataset)
    run.models = [Counting(model) for model in run.models]
    return run


def curve(run, dataset, masks, **options):
    return budget_curve(run, dataset, masks, rivals=RIVALS, config=CONFIG, **options)


def value(found, name, metric):
    return next(r["value"] for r in found.rows if (r["name"], r["metric"]) == (name, metric))


def test_the_best_bins_are_open_in_the_direction_of_the_model(counting, dataset, masks):
    """Recomputed: of the learned bins of all test genes the best half, flipped on minus strands."""
    order = np.random.default_rng(0).permutation(masks.mask.size)
    untied = (order / 2048).astype(np.float16).reshape(masks.mask.shape)
    masks = dataclasses.replace(masks, mask=untied)
    found = curve(counting, dataset, masks)
    genes = np.flatnonzero((masks.genes["split"] == "test").to_numpy())
    free = masks.forced[genes] == FREE
    count = int(0.5 * free.sum())
    assert found.info["kept_bins"] == {"0.1": int(0.1 * free.sum()), "0.5": count}
    scores = np.where(free, masks.mask[genes].astype(float), -1)
    kept = scores >= np.sort(scores[free])[::-1][count - 1]
    assert kept.sum() == count
    minus = masks.genes["strand"].to_numpy()[genes] == "-"
    kept[minus] = kept[minus, ::-1]
    guess = (kept * np.arange(1, kept.shape[1] + 1)).sum(axis=1).astype(float)
    observed = dataset.expression[masks.genes["row"].to_numpy()[genes]].astype(float)
    errors, correlations = [], []
    for label in range(2):
        known = np.isfinite(observed[:, label])
        errors.append(mse(observed[known, label], guess[known]))
        correlations.append(pearson(observed[known, label], guess[known]))
    assert value(found, MODEL, "curve_mse@0.5") == pytest.approx(np.mean(errors))
    assert value(found, MODEL, "curve_pearson@0.5") == pytest.approx(np.mean(correlations))


def test_references_and_differences(counting, dataset, masks):
    found = curve(counting, dataset, masks)
    names = {row["name"] for row in found.rows}
    assert {MODEL, RANDOM, "distance", "signal DNase", PROMOTER_ONLY, OPEN, OWN} <= names
    assert found.methods == [MODEL, "distance", "signal DNase", RANDOM]
    # No bin is open without the promoter, which this model does not force: it predicts 0.
    genes = masks.genes["row"].to_numpy()[(masks.genes["split"] == "test").to_numpy()]
    observed = dataset.expression[genes].astype(float)
    expected = np.mean([np.nanmean(column**2) for column in observed.T])
    assert value(found, PROMOTER_ONLY, "curve_mse") == pytest.approx(expected)
    assert value(found, PROMOTER_ONLY, "curve_pearson") is None  # constant
    gain = value(found, f"{MODEL} - distance", "curve_mse@0.1")
    assert gain == pytest.approx(
        value(found, "distance", "curve_mse@0.1") - value(found, MODEL, "curve_mse@0.1")
    )
    gain = value(found, f"{MODEL} - {RANDOM}", "curve_pearson@0.5")
    assert gain == pytest.approx(
        value(found, MODEL, "curve_pearson@0.5") - value(found, RANDOM, "curve_pearson@0.5")
    )
    assert "curve_mse@0.1" in found.text


def test_batches_do_not_matter(counting, dataset, masks):
    one, two = (curve(counting, dataset, masks, batch_size=size) for size in (1, 7))
    assert one.rows == two.rows


def test_what_cannot_be_drawn_is_refused(counting, run, dataset, masks):
    other = fake_run(dataset, config=SampleConfig(window_bp=512, bin_size=32))
    other.models = [Counting(model) for model in other.models]
    with pytest.raises(ConfigError, match=r"\(16, 32\).*\(32, 32\)"):
        curve(other, dataset, masks)
    with pytest.raises(ConfigError, match="takes no mask"):
        curve(run, dataset, masks)
    with pytest.raises(InputError, match="no mask of a gene of split 'excluded'"):
        budget_curve(counting, dataset, masks, rivals=RIVALS, config=BudgetConfig(split="excluded"))
    with pytest.raises(ConfigError, match="budgets"):
        BudgetConfig(budgets=(0.0,))
