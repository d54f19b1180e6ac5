from __future__ import annotations

import pytest
import torch
from torch.distributions import NegativeBinomial

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.heads import CompositionHead, GeneQueryHead, LinearHead, NBHead, nb_loss


def test_a_gene_query_is_its_formula():
    torch.manual_seed(0)
    head = GeneQueryHead(6, 4, rank=3, num_seen=5)
    torch.nn.init.normal_(head.own)
    spot, tokens = torch.randn(2, 6), torch.randn(5, 4)
    found = head(spot, tokens)
    for b in range(2):
        for g in range(5):
            expected = (head.spot.weight @ spot[b]) @ (head.gene.weight @ tokens[g])
            expected = expected + head.level(tokens[g])[0] + head.own[g] @ spot[b]
            torch.testing.assert_close(found[b, g], expected)
    assert head.penalty().item() == pytest.approx(head.own.square().sum().item())


def test_unseen_genes_get_no_residual_and_the_order_of_genes_does_not_matter():
    torch.manual_seed(0)
    head = GeneQueryHead(6, 4, rank=3, num_seen=5)
    torch.nn.init.normal_(head.own)
    spot, tokens = torch.randn(2, 6), torch.randn(5, 4)
    whole = head(spot, tokens)
    rows = torch.tensor([3, 1, -1])
    asked = head(spot, tokens[[3, 1, 0]], rows)
    torch.testing.assert_close(asked[:, :2], whole[:, [3, 1]])
    torch.testing.assert_close(asked[:, 2], whole[:, 0] - spot @ head.own[0])
    with pytest.raises(ConfigError, match="5 genes that were trained"):
        head(spot, tokens[:3])
    free = GeneQueryHead(6, 4, rank=3)
    assert free(spot, tokens[:3]).shape == (2, 3)
    assert free.penalty().item() == 0


def test_a_composition_is_never_negative_and_mixes_profiles():
    torch.manual_seed(0)
    head = CompositionHead(6, 3, 4)
    spot, profiles = torch.randn(5, 6), torch.rand(4, 3)
    share = head.composition(spot)
    assert (share >= 0).all()
    torch.testing.assert_close(head(spot, profiles), share @ profiles.T)
    torch.nn.init.normal_(head.rest.weight)
    assert not torch.allclose(head(spot, profiles), share @ profiles.T)


def test_counts_have_the_likelihood_of_a_negative_binomial():
    torch.manual_seed(0)
    head = NBHead(6, 3)
    torch.nn.init.normal_(head.log_dispersion)
    counts = torch.randint(0, 9, (4, 3)).float()
    mean, dispersion = head(torch.randn(4, 6), torch.tensor([1.0, 2.0, 0.5, 3.0]))
    size = 1 / dispersion
    law = NegativeBinomial(size.expand(4, 3), probs=mean / (mean + size))
    torch.testing.assert_close(law.variance, mean + dispersion * mean**2, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(nb_loss(counts, mean, dispersion), -law.log_prob(counts).mean())
    counts[0, 0] = float("nan")
    expected = -law.log_prob(counts.nan_to_num()).flatten()[1:].mean()
    torch.testing.assert_close(nb_loss(counts, mean, dispersion), expected)


def test_twice_the_size_factor_is_twice_the_mean():
    head = NBHead(6, 3)
    spot = torch.randn(2, 6)
    one, _ = head(spot, torch.ones(2))
    two, _ = head(spot, torch.full((2,), 2.0))
    torch.testing.assert_close(two, 2 * one)


def test_a_linear_head_is_linear():
    head = LinearHead(4, 2)
    spot = torch.randn(3, 4)
    torch.testing.assert_close(head(spot), spot @ head.weight.T + head.bias)
