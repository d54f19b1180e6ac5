from __future__ import annotations

import math

import pytest
import torch

from seq2exp.spatial.standard import ProjectionHead, RunningStandard, make_head


def test_moments_of_all_batches_are_those_of_the_whole():
    torch.manual_seed(0)
    x = 5 * torch.randn(200, 3) + 100
    x[::7, 1] = math.nan
    layer = RunningStandard(3).train()
    for part in x.split(17):
        layer(part)
    layer.eval()
    found = layer(x)
    known = torch.isfinite(x)
    for column in range(3):
        values = x[known[:, column], column]
        expected = (values - values.mean()) / values.std(correction=0)
        assert torch.allclose(found[known[:, column], column], expected, atol=1e-4)
    assert not found[~known].any()
    assert torch.equal(layer(x[:1]), found[:1])


def test_constant_and_wild_features_stay_finite():
    layer = RunningStandard(2).train()
    layer(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    layer.eval()
    assert layer(torch.tensor([[1.0, 1e9]])).tolist() == [[0.0, 10.0]]
    fresh = RunningStandard(2).train()
    assert torch.isfinite(fresh(torch.tensor([[3.0, math.nan]]))).all()


def test_memory_is_bounded():
    layer = RunningStandard(1).train()
    for level in (0.0, 50.0):
        for _ in range(40):
            layer(level + torch.randn(5000, 1))
    assert float(layer.count_F) <= 50_000
    assert float(layer.mean_F) == pytest.approx(50 * (1 - (50 / 55) ** 40), rel=0.05)


def test_a_projection_is_its_formula():
    torch.manual_seed(0)
    head, h = ProjectionHead(5, 4).eval(), torch.randn(3, 5)
    p = h @ head.first.weight.T + head.first.bias
    q = 0.5 * p * (1 + torch.erf(p / math.sqrt(2))) @ torch.eye(4)
    x = p + q @ head.second.weight.T + head.second.bias
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(head(h), x, atol=1e-5)


@pytest.mark.parametrize("kind", ["projection", "mlp", "linear"])
def test_heads_have_the_width_asked_for(kind):
    assert make_head(kind, 6, 3, hidden=8)(torch.randn(2, 6)).shape == (2, 3)
