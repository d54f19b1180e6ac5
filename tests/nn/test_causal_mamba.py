"""A causal Mamba-1 block against a loop over tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.nn.causal_mamba import MambaBlock
from tests.encoders.measure import shaken
from tests.nn.test_mamba import one_direction


def by_tokens(block, x):
    u = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm.weight
    return x + one_direction(block.mixer, block.mixer.fwd, u)


@pytest.mark.parametrize("length", [1, 3, 4, 63, 64, 65, 300])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_block_equals_a_loop_over_tokens_with_gradients(length, backend):
    torch.manual_seed(0)
    block = shaken(MambaBlock(12, d_state=5, backend=backend))
    x = torch.randn(2, length, 12, dtype=torch.float64, requires_grad=True)
    ours, plain = block(x), by_tokens(block, x)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    seed, wanted = torch.randn_like(ours), [x, *block.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(plain, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


def test_the_gate_inside_the_scan_is_the_gate_behind_it():
    torch.manual_seed(0)
    block = shaken(MambaBlock(12))
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    x_BLE, z_BLE = block.mixer.in_proj(x).chunk(2, dim=-1)
    inside = block.mixer.fwd(x_BLE, z_BLE=z_BLE)
    torch.testing.assert_close(inside, block.mixer.fwd(x_BLE) * F.silu(z_BLE))


def test_published_parameter_count():
    """A direction with its projections 116,480, its norm 128 (specification 3.7)."""
    assert sum(p.numel() for p in MambaBlock(128).parameters()) == 116_608


@pytest.mark.parametrize(("length", "width"), [(1000, 12), (4097, 4)])
def test_long_sequences_equal_a_loop_over_tokens(length, width):
    torch.manual_seed(0)
    block = shaken(MambaBlock(width, d_state=5))
    x = torch.randn(1, length, width, dtype=torch.float64)
    with torch.no_grad():
        plain = by_tokens(block, x)
        torch.testing.assert_close(block(x), plain, rtol=0, atol=1e-10)
        single = block.float()(x.float())
    torch.testing.assert_close(single.double(), plain, rtol=1e-4, atol=1e-5)
