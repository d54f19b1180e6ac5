"""Blocks of Enformer against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.nn.enformer import (
    AttentionPool,
    ConvBlock,
    EnformerBlock,
    FinalPointwise,
    Stem,
    TowerStage,
    channel_ladder,
    sigmoid_gelu,
)
from seq2exp.nn.relative import position_features


def double(module, seed=0):
    """Weights and statistics away from their trivial start."""
    torch.manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer += torch.rand_like(buffer)
    return module


def test_sigmoid_gelu():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(sigmoid_gelu(x), x * torch.sigmoid(1.702 * x))
    assert torch.autograd.gradcheck(sigmoid_gelu, x)


def test_the_ladder_of_the_published_model():
    ladder = channel_ladder(1536, num_halvings=7, multiple=128)
    assert ladder == (768, 768, 896, 1024, 1152, 1280, 1536)


@pytest.mark.parametrize(
    ("num_halvings", "expected"), [(2, (24, 48)), (3, (24, 24, 48)), (4, (24, 24, 32, 48))]
)
def test_ladders_of_small_models(num_halvings, expected):
    """24 * 2**(1/2) = 33.9, which rounds to 32."""
    assert channel_ladder(48, num_halvings=num_halvings, multiple=8) == expected


def test_attention_pool_is_a_softmax_over_pairs():
    pool = double(AttentionPool(3))
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    logits = torch.einsum("ij,bjl->bil", pool.weight, x)
    pairs, weights = x.view(2, 3, 4, 2), logits.view(2, 3, 4, 2).softmax(-1)
    plain = (pairs * weights).sum(-1)
    torch.testing.assert_close(pool(x), plain, rtol=0, atol=1e-14)
    seed = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(pool(x), (x, pool.weight), seed),
        torch.autograd.grad(plain, (x, pool.weight), seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_a_fresh_pool_weighs_by_twice_the_values():
    x = torch.tensor([[[1.0, 0.0, 3.0, 3.0]]])
    first = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(AttentionPool(1)(x), torch.tensor([[[first, 3.0]]]))


def conv_block(block, x):
    norm, conv = block.norm, block.conv
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    x = (x - norm.running_mean[:, None]) * scale[:, None] + norm.bias[:, None]
    return F.conv1d(x * torch.sigmoid(1.702 * x), conv.weight, conv.bias, padding="same")


@pytest.mark.parametrize("width", [1, 5])
def test_conv_block_in_evaluation(width):
    block = double(ConvBlock(3, 4, width=width)).eval()
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    torch.testing.assert_close(block(x), conv_block(block, x), rtol=0, atol=1e-12)


def test_stem_and_stage_are_convolution_residual_pool():
    stem, stage = double(Stem(6)).eval(), double(TowerStage(6, 8)).eval()
    x = torch.randn(2, 4, 32, dtype=torch.float64)
    inner = F.conv1d(x, stem.conv.weight, stem.conv.bias, padding=7)
    wanted = stem.pool(inner + conv_block(stem.pointwise, inner))
    torch.testing.assert_close(stem(x), wanted, rtol=0, atol=1e-12)
    inner = conv_block(stage.conv, wanted)
    wanted = stage.pool(inner + conv_block(stage.pointwise, inner))
    torch.testing.assert_close(stage(stem(x)), wanted, rtol=0, atol=1e-12)


def test_block_is_attention_then_network():
    block = double(EnformerBlock(12, num_heads=2, key_dim=3)).eval()
    features, x = position_features(5, 6), torch.randn(2, 5, 12, dtype=torch.float64)
    attended = x + block.attention(block.norm_attention(x), features)
    hidden = block.project_in(block.norm_network(attended)).relu()
    wanted = attended + block.project_out(hidden)
    torch.testing.assert_close(block(x, features), wanted, rtol=0, atol=1e-13)
    torch.testing.assert_close(block(x, features, span=(1, 3)), wanted[:, 1:3], rtol=0, atol=1e-13)


def test_final_pointwise():
    final = double(FinalPointwise(5)).eval()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    wanted = sigmoid_gelu(conv_block(final.block, x.mT).mT)
    torch.testing.assert_close(final(x), wanted, rtol=0, atol=1e-12)
