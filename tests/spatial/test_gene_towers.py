from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.gene_towers import make_gene_tower
from seq2exp.spatial.genes import GeneInputs, GeneTokenEncoder

NUM = 12
IDS = tuple(f"g{i}" for i in range(NUM))
KINDS = ("mlp", "linear", "pca", "priorpool", "tokens")


def make_inputs(ids=IDS, seed=0):
    random = np.random.default_rng(seed)
    z = random.normal(size=(NUM, 5)).astype(np.float32)
    whole = GeneInputs(IDS, {"z": z}, np.arange(NUM) != 7)
    return whole.take(ids)


def make_tower(kind, *, mode="prior", fitted=True):
    torch.manual_seed(0)
    tokens = GeneTokenEncoder(mode, 8, genes=make_inputs())
    tower = make_gene_tower(kind, NUM, width=6, tokens=tokens)
    if kind == "pca" and fitted:
        tower.fit(labels())
    tower.train()
    tower(labels())
    return tower.eval()


def labels(num=90, seed=1):
    torch.manual_seed(seed)
    return torch.randn(num, 3) @ torch.randn(3, NUM) + 0.3 * torch.randn(num, NUM) + 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_spot_is_encoded_alike_alone_and_in_a_batch(kind):
    tower, y = make_tower(kind), labels(33, seed=2)
    together = tower(y)
    assert together.shape == (33, tower.width)
    alone = torch.cat([tower(y[i : i + 1]) for i in range(33)])
    assert torch.allclose(together, alone, atol=1e-5)
    order = torch.randperm(33)
    assert torch.allclose(tower(y[order]), together[order], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_dropout_is_off_in_evaluation(kind):
    tower = make_tower(kind)
    tower.train()
    if kind == "pca":
        before = tower(labels())
        tower(5 + labels())
        assert torch.equal(tower(labels()), before)
        return
    (tower(labels()) * torch.randn(90, tower.width)).sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in tower.parameters())
    tower.eval()
    assert torch.equal(tower(labels()), tower(labels()))
    if kind == "mlp":
        tower.train()
        assert not torch.equal(tower(labels()), tower(labels()))


@pytest.mark.parametrize("kind", ["priorpool", "tokens"])
def test_columns_are_known_by_gene(kind):
    tower, y = make_tower(kind), labels()
    before = tower(y)
    order = np.random.default_rng(0).permutation(NUM)
    tower.use_genes(make_inputs([IDS[i] for i in order]), y[:, order])
    assert torch.allclose(tower(y[:, order]), before, atol=1e-4)


@pytest.mark.parametrize("kind", ["priorpool", "tokens"])
def test_missing_genes_have_no_weight(kind):
    tower, y = make_tower(kind), labels()
    y[:, 4] = torch.nan
    found = tower(y)
    assert torch.isfinite(found).all()
    tower.use_genes(
        make_inputs([IDS[i] for i in range(NUM) if i != 4]),
        labels()[:, [i for i in range(NUM) if i != 4]],
    )
    rest = [i for i in range(NUM) if i != 4]
    assert torch.allclose(tower(y[:, rest]), found, atol=1e-4)


def test_priorpool_is_linear_in_the_standardised_labels():
    tower = make_tower("priorpool")
    y = labels(1)
    mean, width = tower.standard.mean_F, (tower.standard.square_F / tower.standard.count_F).sqrt()
    expected = ((y - mean) / width) @ tower.tokens() / NUM**0.5
    assert torch.allclose(tower(y), expected, atol=1e-5)


def test_components_are_uncorrelated_and_of_deviation_one():
    tower, y = make_tower("pca"), labels()
    assert not list(tower.parameters())
    covariance = torch.cov(tower(y).T, correction=0)
    assert torch.allclose(covariance, torch.eye(6), atol=1e-3)
    with pytest.raises(ConfigError, match="call prepare"):
        make_tower("pca", fitted=False)


@pytest.mark.parametrize("kind", ["mlp", "linear", "pca"])
def test_towers_of_columns_refuse_another_panel(kind):
    with pytest.raises(ConfigError, match="it knows genes by column"):
        make_tower(kind).use_genes(make_inputs(), labels())


def test_token_towers_need_tokens():
    with pytest.raises(ConfigError, match="no gene tokens"):
        make_gene_tower("tokens", NUM, width=4)
    tokens = GeneTokenEncoder("none", 4, genes=make_inputs())
    with pytest.raises(ConfigError, match="12 tokens"):
        make_gene_tower("priorpool", 9, width=4, tokens=tokens)
