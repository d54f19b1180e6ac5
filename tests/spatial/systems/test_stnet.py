from __future__ import annotations

import dataclasses

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.batch import SpatialSystem, SystemInfo
from seq2exp.spatial.losses import mse, pearson
from seq2exp.spatial.systems.stnet import StNet, StNetConfig
from tests.spatial.branchtoys import (
    FEAT,
    GENES,
    TinyCnn,
    batch_of,
    fit,
    rows,
    section,
    without_gradient,
)
from tests.spatial.systems.test_triplex import Tokens

INFO = SystemInfo(num_genes=GENES, feat_dim=FEAT)


@pytest.fixture
def batch():
    return batch_of({0: section(1, 12, 4)})


def system(config=None, **more):
    torch.manual_seed(0)
    return StNet(config or StNetConfig(), INFO, **more)


@pytest.mark.parametrize("trained", [True, False])
def test_it_is_an_encoder_and_a_linear_map(batch, trained):
    encoder = TinyCnn() if trained else None
    model = system(StNetConfig(dropout=0.4), encoder=encoder).eval()
    assert isinstance(model, SpatialSystem)
    assert model.requires == {"img" if trained else "feat"}
    feat = encoder.pool(batch.img) if trained else batch.feat
    whole = model.predict(batch)
    torch.testing.assert_close(whole, feat @ model.head.weight.T + model.head.bias)
    assert torch.equal(whole, model.predict(batch))
    order = torch.randperm(12)
    torch.testing.assert_close(model.predict(rows(batch, order)), whole[order])
    torch.testing.assert_close(model.predict(rows(batch, [3])), whole[[3]])
    model.train().loss(batch, 0)["total"].backward()
    assert without_gradient(model) == []
    assert not torch.equal(model(batch), model(batch))


def test_the_loss_is_squared_error_and_correlation_where_asked_for(batch):
    plain, mixed = (system(StNetConfig(pearson_weight=w)).eval() for w in (0.0, 0.5))
    guess = plain.predict(batch)
    torch.testing.assert_close(plain.loss(batch, 0)["total"], mse(guess, batch.y))
    expected = mse(guess, batch.y) + 0.5 * pearson(guess, batch.y)
    torch.testing.assert_close(mixed.loss(batch, 0)["total"], expected)


def test_it_finds_a_linear_truth(batch):
    torch.manual_seed(1)
    truth = batch.feat @ torch.randn(FEAT, GENES) + 2
    known = dataclasses.replace(batch, y=truth)
    model = fit(system(), known, steps=800, lr=0.03)
    assert mse(model.predict(known), truth).item() < 1e-3 * truth.var().item()


def test_negative_predictions_are_raised_where_asked_for(batch):
    plain, clipped = (system(StNetConfig(clip_at_zero=flag)).eval() for flag in (False, True))
    torch.testing.assert_close(clipped.predict(batch), plain.predict(batch).clamp(min=0))
    assert (plain.predict(batch) < 0).any()


def test_genes_may_come_as_tokens(batch):
    model = system(gene_tokens=Tokens(GENES))
    model.loss(batch, 0)["total"].backward()
    assert without_gradient(model) == []
    assert model.predict(batch).shape == (12, GENES)


def test_what_is_missing_or_wrong_is_named(batch):
    with pytest.raises(ConfigError, match=r"no feat.*choose an image encoder"):
        system().predict(dataclasses.replace(batch, feat=None))
    with pytest.raises(ConfigError, match="no width of feat"):
        StNet(StNetConfig(), SystemInfo(num_genes=3))
    with pytest.raises(ConfigError, match="pearson_weight"):
        StNetConfig(pearson_weight=-1)
