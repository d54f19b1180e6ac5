"""Star attention against torch's masked attention over all pairs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError
from seq2exp.nn.star import StarBlock


def make(dim=8, num_heads=2):
    torch.manual_seed(0)
    block = StarBlock(dim, num_heads=num_heads).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return block


def dense(block, x, filled):
    """The published block: MultiheadAttention with a mask of pairs and one of empty slots."""
    dim, num_rows = x.shape[2], x.shape[1]
    attention = nn.MultiheadAttention(dim, block.num_heads, batch_first=True).double()
    with torch.no_grad():
        attention.in_proj_weight.copy_(block.in_proj.weight)
        attention.in_proj_bias.copy_(block.in_proj.bias)
        attention.out_proj.load_state_dict(block.out_proj.state_dict())
    hidden = ~torch.eye(num_rows, dtype=torch.bool)
    hidden[0] = hidden[:, 0] = False
    u = block.norm_attention(x)
    x = x + attention(u, u, u, attn_mask=hidden, key_padding_mask=~filled)[0]
    return x + block.network(block.norm_network(x))


@pytest.mark.parametrize("num_rows", [1, 2, 6])
def test_block_equals_masked_attention(num_rows):
    block, x = make(), torch.randn(3, num_rows, 8, dtype=torch.float64, requires_grad=True)
    filled = torch.rand(3, num_rows) < 0.6
    filled[:, 0] = True
    ours, theirs = block(x, filled), dense(block, x, filled)
    torch.testing.assert_close(ours[filled], theirs[filled], rtol=0, atol=1e-12)
    seed = torch.randn_like(ours) * filled[..., None]
    a, b = (torch.autograd.grad(out, x, seed)[0] for out in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_the_hub_alone_has_the_same_value_and_gradient():
    block, x = make(), torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    filled = torch.tensor([[True, True, False, True, True], [True, False, False, False, False]])
    whole, hub = block(x, filled)[:, :1], block(x, filled, hub_only=True)
    torch.testing.assert_close(hub, whole, rtol=0, atol=1e-14)
    seed, wanted = torch.randn_like(hub), [x, *block.parameters()]
    for a, b in zip(
        torch.autograd.grad(hub, wanted, seed),
        torch.autograd.grad(whole, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_rows_do_not_see_each_other_in_one_block():
    block, x = make(), torch.randn(1, 4, 8, dtype=torch.float64)
    filled, other = torch.ones(1, 4, dtype=torch.bool), x.clone()
    other[:, 2] = torch.randn(8)
    changed = (block(other, filled) - block(x, filled)).abs().amax((0, 2)) > 1e-9
    assert changed.tolist() == [True, False, True, False]
    twice = block(block(other, filled), filled) - block(block(x, filled), filled)
    assert (twice.abs().amax((0, 2)) > 1e-9).all()


def test_empty_slots_are_invisible():
    block, x = make(), torch.randn(1, 4, 8, dtype=torch.float64)
    filled, other = torch.tensor([[True, True, False, True]]), x.clone()
    other[:, 2] = 1e6
    kept = [0, 1, 3]
    assert torch.equal(block(other, filled)[:, kept], block(x, filled)[:, kept])
    torch.testing.assert_close(
        block(x[:, kept], filled[:, kept]), block(x, filled)[:, kept], rtol=0, atol=1e-14
    )


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads"):
        StarBlock(8, num_heads=3)
