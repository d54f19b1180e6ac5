"""Attributions made here against those of captum, on a trained model: two codes, one number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.dataset.store import Dataset
from seq2exp.interpret.attribution import AttributionConfig, attributions
from seq2exp.interpret.gradients import base_baselines, real_input
from seq2exp.interpret.target import make_target
from seq2exp.training.run import open_run
from tests.interpret.explained import Rectified, run_of

pytest.importorskip("captum")
pytestmark = pytest.mark.filterwarnings("ignore")
ROW = 6


@pytest.fixture(scope="module")
def run(finished):
    found = open_run(finished)
    for model in found.models:
        model.double()
    return found


def bases_of(run, data, kind):
    """The function of the bases, the bases and what they are compared with."""
    target = make_target(run, data, ROW, output=0, mask="recomputed")
    x_1LC, signal_1NT = real_input(target)
    random = np.random.default_rng((0, ROW))
    baselines = base_baselines(target, kind, num_shuffles=2, random=random)

    def value(bases_BLC):
        return target(bases_BLC, signal_1NT.expand(len(bases_BLC), -1, -1))

    return value, x_1LC, baselines


def own(run, data, method, baseline):
    """Shares as the command makes them, in the direction the model reads."""
    config = AttributionConfig(
        method=method, baseline=baseline, num_shuffles=2, steps=24, tracks=False, seed=0
    )
    (one,) = attributions(run, data, [ROW], config, output=0)
    share = np.asarray(one.share, dtype=np.float64)
    reverse = str(data.genes["strand"].iloc[ROW]) == "-"
    return share[::-1] if reverse else share


@pytest.mark.parametrize("baseline", ["uniform", "zero", "shuffled"])
def test_integrated_gradients_are_those_of_captum(run, toy, baseline):
    from captum.attr import IntegratedGradients

    data = Dataset(toy)
    value, x_1LC, baselines = bases_of(run, data, baseline)
    total = torch.zeros_like(x_1LC)
    for base in baselines:
        total += IntegratedGradients(value).attribute(
            x_1LC, base[None], n_steps=24, method="gausslegendre", internal_batch_size=8
        )
    theirs = (total / len(baselines)).sum(-1)[0].numpy()
    found = own(run, data, "integrated_gradients", baseline)
    assert np.abs(theirs).max() > 1e-4
    np.testing.assert_allclose(found, theirs, atol=2e-6 * np.abs(theirs).max())


def test_gradient_times_input_is_that_of_captum(run, toy):
    """With N as the baseline, the difference is the input."""
    from captum.attr import InputXGradient

    data = Dataset(toy)
    value, x_1LC, _ = bases_of(run, data, "zero")
    theirs = InputXGradient(value).attribute(x_1LC.clone().requires_grad_())
    theirs = theirs.detach().sum(-1)[0].numpy()
    found = own(run, data, "gradient_x_input", "zero")
    assert np.abs(theirs).max() > 1e-4
    np.testing.assert_allclose(found, theirs, atol=2e-6 * np.abs(theirs).max())


def test_saturation_is_what_captum_finds_base_by_base(run, toy):
    """Ablation of one base to another changes f by what `delta` says."""
    from captum.attr import FeatureAblation

    data = Dataset(toy)
    value, x_1LC, _ = bases_of(run, data, "zero")
    config = AttributionConfig(method="saturation", span_bp=6, tracks=False)
    (one,) = attributions(run, data, [ROW], config, output=0)
    (places,) = np.nonzero(np.isfinite(one.delta).all(1))
    reverse = str(data.genes["strand"].iloc[ROW]) == "-"
    # Read from the other strand, the last base comes first, and A is T.
    delta = one.delta[::-1, ::-1] if reverse else one.delta
    places = len(delta) - 1 - places[::-1] if reverse else places
    assert places.size == 6
    for base in range(4):
        other = x_1LC.clone()
        other[0, places] = torch.eye(4, dtype=x_1LC.dtype)[base]
        # One group per base that is replaced; all others are one group that stays as it is.
        groups = torch.zeros(x_1LC.shape[1], dtype=torch.long)
        groups[places] = torch.arange(1, 7)
        theirs = FeatureAblation(value).attribute(
            x_1LC, baselines=other, feature_mask=groups[None, :, None]
        )
        loss = theirs[0, places].max(-1).values.numpy()
        np.testing.assert_allclose(delta[places, base], -loss, atol=1e-6)


def test_deeplift_is_what_captum_gives_for_a_plain_module(dataset):
    """The same net without our input, as captum's users write it."""
    from captum.attr import DeepLift

    net = Rectified()
    found = own(run_of(dataset, net), dataset, "deeplift_shap", "uniform")

    class Times(torch.nn.Module):
        def forward(self, value):
            return value * 10

    plain = torch.nn.Sequential(torch.nn.Flatten(), net.first, Times(), net.act, net.second)
    _, x_1LC, baselines = bases_of(run_of(dataset, net), dataset, "uniform")
    theirs = DeepLift(plain).attribute(x_1LC, baselines=baselines, target=0)
    theirs = theirs.detach().sum(-1)[0].numpy()
    assert np.abs(theirs).max() > 1e-4
    np.testing.assert_allclose(found, theirs, atol=1e-6 * np.abs(theirs).max() + 1e-9)
