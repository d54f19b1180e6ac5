from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, Seq2ExpWarning
from seq2exp.spatial.contrastive_losses import (
    MAX_LOG_SCALE,
    ChanceWatch,
    LogitScale,
    info_nce,
    siglip,
    soft_clip,
)
from seq2exp.spatial.trainer import parameter_groups


@pytest.fixture
def views():
    torch.manual_seed(0)
    return torch.randn(37, 6, dtype=torch.float64), torch.randn(37, 6, dtype=torch.float64)


def small():
    torch.manual_seed(1)
    image, gene = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    unit = [x / x.square().sum(1, keepdim=True).sqrt() for x in (image, gene)]
    return image, gene, unit[1] @ unit[0].T


def test_clip_is_the_formula_on_four_spots():
    image, gene, cosine = small()
    weight = (5.0 * cosine).exp()
    rows = [-math.log(weight[i, i] / weight[i].sum()) for i in range(4)]
    columns = [-math.log(weight[i, i] / weight[:, i].sum()) for i in range(4)]
    expected = (sum(rows) / 4 + sum(columns) / 4) / 2
    assert float(info_nce(image, gene, scale=5.0)) == pytest.approx(expected, abs=1e-12)


def test_siglip_is_the_formula_on_four_spots():
    image, gene, cosine = small()
    expected = 0.0
    for i in range(4):
        for j in range(4):
            sign = 1 if i == j else -1
            expected += math.log1p(math.exp(-sign * (5.0 * float(cosine[i, j]) - 2.0)))
    assert float(siglip(image, gene, scale=5.0, bias=-2.0)) == pytest.approx(
        expected / 4, abs=1e-12
    )


def test_soft_targets_are_normalised_in_both_directions():
    image, gene, cosine = small()
    unit = [F.normalize(x, dim=1) for x in (image, gene)]
    alike = (unit[0] @ unit[0].T + unit[1] @ unit[1].T) / 2
    weight = (alike / 0.5).exp()
    target = weight / weight.sum(1, keepdim=True)
    expected = 0.0
    for logits in (5 * cosine, 5 * cosine.T):
        expected -= float((target * logits.log_softmax(1)).sum(1).mean()) / 2
    found = soft_clip(image, gene, scale=5.0, target_temperature=0.5)
    assert float(found) == pytest.approx(expected, abs=1e-12)
    # Rows of the transposed targets of the published code do not sum to 1.
    assert not torch.allclose(target.T.sum(1), torch.ones(4).double(), atol=1e-3)


def test_soft_targets_become_the_identity_when_cold(views):
    cold = soft_clip(*views, scale=7.0, target_temperature=1e-3)
    assert float(cold) == pytest.approx(float(info_nce(*views, scale=7.0)), abs=1e-9)


def test_targets_take_a_gradient_only_where_wanted():
    image, gene, _ = small()
    grads = []
    for detach in (True, False):
        x = image.clone().requires_grad_()
        soft_clip(x, gene, scale=5.0, detach=detach).backward()
        grads.append(x.grad)
    assert not torch.allclose(*grads)


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 100])
def test_chunks_give_the_dense_value_and_gradient(views, chunk):
    found = []
    hidden = torch.zeros(37, 37, dtype=torch.bool)
    hidden[3, 8] = hidden[8, 3] = True
    for size in (None, chunk):
        image, gene = (x.clone().requires_grad_() for x in views)
        scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
        loss = info_nce(image, gene, scale=scale, chunk=size, ignore_BB=hidden)
        loss.backward()
        found.append((loss.detach(), image.grad, gene.grad, scale.grad))
    for dense, chunked in zip(*found, strict=True):
        assert torch.allclose(dense, chunked, atol=1e-12)


@pytest.mark.parametrize("loss", [info_nce, soft_clip, siglip])
def test_the_length_of_an_embedding_carries_nothing(views, loss):
    image, gene = views
    settings = {"scale": 8.0} | ({"bias": -3.0} if loss is siglip else {})
    plain = loss(image, gene, **settings)
    assert torch.allclose(loss(10 * image, gene, **settings), plain)
    assert torch.allclose(loss(image, 10 * gene, **settings), plain)
    assert not torch.allclose(loss(10 * image, gene, normalise=False, **settings), plain)


def test_uniform_logits_cost_ln_b():
    same = torch.ones(16, 4)
    for loss in (info_nce(same, same, scale=20.0), soft_clip(same, same, scale=20.0)):
        assert float(loss) == pytest.approx(math.log(16), abs=1e-5)


def test_a_hidden_pair_is_no_negative(views):
    image, gene = (x[:3] for x in views)
    hidden = torch.ones(3, 3, dtype=torch.bool)
    assert float(info_nce(image, gene, scale=4.0, ignore_BB=hidden)) == pytest.approx(0, abs=1e-12)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.linear = LogitScale(temperature=0.07), nn.Linear(3, 3)


def test_the_scale_stays_in_its_bounds_and_does_not_decay():
    module = Scaled()
    assert module.scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    groups = parameter_groups(module, weight_decay=0.3)
    assert [len(group["params"]) for group in groups] == [1, 2]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    before = module.scale.log_scale.item()
    (0 * sum(each.sum() for each in module.parameters())).backward()
    optimiser.step()
    assert module.scale.log_scale.item() == before
    for push, bound in ((9.0, MAX_LOG_SCALE), (-9.0, 0.0)):
        with torch.no_grad():
            module.scale.log_scale.add_(push)
        module.scale.clamp_()
        assert module.scale.log_scale.item() == pytest.approx(bound)
    with pytest.raises(ConfigError, match="logit scale stays within 1 and 100"):
        LogitScale(temperature=0.001)


def test_a_loss_at_chance_is_said_once(caplog):
    watch = ChanceWatch(warmup=100, every=50)
    chance = torch.tensor(math.log(64))
    with caplog.at_level(logging.INFO):
        watch.look(chance, 64, step=50)
    assert "loss 4.1589, ln B 4.1589" in caplog.text
    watch.look(chance, 64, step=101)
    watch.look(chance - 0.06, 64, step=100)
    with pytest.warns(Seq2ExpWarning, match=r"ln B = 4\.159"):
        watch.look(chance - 0.04, 64, step=150)
    watch.look(chance, 64, step=200)
