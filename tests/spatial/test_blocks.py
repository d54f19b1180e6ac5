from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.blocks import Apeg2d, Attention, CrossBlock, GridBiasAttention, SelfBlock


def by_hand(layer, query, context, mask=None, bias=None):
    """Attention head by head, with loops and exponentials."""
    width, heads = query.shape[-1], layer.num_heads
    size = width // heads
    q = query @ layer.query.weight.T
    k = context @ layer.key_value.weight[:width].T
    v = context @ layer.key_value.weight[width:].T
    parts = []
    for head in range(heads):
        cut = slice(head * size, (head + 1) * size)
        score = q[..., cut] @ k[..., cut].transpose(1, 2) / math.sqrt(size)
        if bias is not None:
            score = score + bias[head]
        weight = score.exp()
        if mask is not None:
            weight = weight * mask[:, None]
        parts.append(weight / weight.sum(-1, keepdim=True) @ v[..., cut])
    return layer.out(torch.cat(parts, dim=-1))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_of_scaled_products_over_keys_there_are(heads):
    torch.manual_seed(0)
    layer = Attention(8, num_heads=heads).eval()
    query, context = torch.randn(3, 2, 8), torch.randn(3, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    torch.testing.assert_close(
        layer(query, context, mask=mask), by_hand(layer, query, context, mask)
    )
    torch.testing.assert_close(layer(query), by_hand(layer, query, query))
    assert isinstance(layer.out, nn.Identity) == (heads == 1)
    assert layer.query.bias is None


def test_a_hidden_key_has_no_influence_wherever_it_stands():
    torch.manual_seed(0)
    block = CrossBlock(8, num_heads=2).eval()
    query, context = torch.randn(1, 1, 8), torch.randn(1, 4, 8)
    for hidden in range(4):
        mask = torch.ones(1, 4, dtype=torch.bool)
        mask[0, hidden] = False
        other = context.clone()
        other[0, hidden] = 1e4
        kept = [key for key in range(4) if key != hidden]
        expected = block(query, context[:, kept])
        torch.testing.assert_close(block(query, context, mask), expected)
        torch.testing.assert_close(block(query, other, mask), expected)


def test_a_query_without_keys_keeps_its_own_path_and_a_finite_gradient():
    torch.manual_seed(0)
    block = CrossBlock(8, num_heads=2).eval()
    query, context = torch.randn(2, 1, 8), torch.randn(2, 4, 8, requires_grad=True)
    mask = torch.tensor([[True] * 4, [False] * 4])
    out = block(query, context, mask)
    torch.testing.assert_close(out[1], query[1] + block.mlp(block.mlp_norm(query[1])))
    out.sum().backward()
    assert context.grad[0].abs().sum() > 0
    assert context.grad[1].abs().sum() == 0
    assert all(weight.grad.isfinite().all() for weight in block.parameters())


def test_dropout_acts_in_training_only_and_follows_the_module():
    torch.manual_seed(0)
    block = SelfBlock(8, num_heads=2, dropout=0.5, side=2)
    x = torch.randn(1, 4, 8)
    assert not torch.equal(block(x), block(x))
    assert block.eval() is block
    assert torch.equal(block(x), block(x))
    assert all("train" not in vars(kind) for kind in (Attention, GridBiasAttention, SelfBlock))


def test_the_grid_bias_has_a_number_per_head_and_distance():
    torch.manual_seed(0)
    layer = GridBiasAttention(8, num_heads=2, side=5).eval()
    assert layer.bias.shape == (2, 25)
    assert layer.bias.abs().sum() == 0
    assert len(layer.offset.unique()) == 25
    # Tile 7 is row 1, column 2; tile 16 is row 3, column 1: 2 rows and 1 column apart.
    assert layer.offset[7, 16] == layer.offset[16, 7] == 2 * 5 + 1
    x = torch.randn(2, 25, 8)
    before = layer(x)
    torch.testing.assert_close(before, by_hand(layer, x, x))
    state = layer.state_dict()
    state["bias"] = torch.randn(2, 25)
    layer.load_state_dict(state)
    assert not torch.allclose(layer(x), before)
    mask = torch.rand(2, 25) > 0.4
    bias = torch.stack([torch.stack([row[at] for at in layer.offset]) for row in layer.bias])
    torch.testing.assert_close(layer(x, mask=mask), by_hand(layer, x, x, mask, bias))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="use 2 heads"):
        Attention(10, num_heads=4)


# Positions ------------------------------------------------------------------------------------


def shuffled_cells(seed=0):
    random = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    return cells[torch.randperm(12, generator=random)[:9]]


@pytest.mark.parametrize("origin", [(0, 0), (-7, 100)])
def test_positions_without_weights_change_nothing(origin):
    layer = Apeg2d(4)
    nn.init.zeros_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    x = torch.randn(9, 4)
    assert torch.equal(layer(x, shuffled_cells() + torch.tensor(origin)), x)


def test_a_spot_takes_from_its_eight_neighbours_by_place_not_by_order():
    torch.manual_seed(0)
    layer = Apeg2d(4)
    x, grid = torch.randn(9, 4), shuffled_cells()
    by_cell = {tuple(cell): value for cell, value in zip(grid.tolist(), x, strict=True)}
    expected = []
    for (row, column), value in by_cell.items():
        total = value + layer.conv.bias
        for r in range(3):
            for c in range(3):
                near = by_cell.get((row + r - 1, column + c - 1), torch.zeros(4))
                total = total + layer.conv.weight[:, 0, r, c] * near
        expected.append(total)
    torch.testing.assert_close(layer(x, grid), torch.stack(expected))
    order = torch.randperm(9)
    torch.testing.assert_close(layer(x[order], grid[order]), layer(x, grid)[order])
    moved = grid + torch.tensor([-50, 8])
    torch.testing.assert_close(layer(x, moved), layer(x, grid))


def test_a_spot_whose_features_are_zero_is_still_a_spot():
    """Its output is what its neighbours and the bias give it, not zero."""
    layer = Apeg2d(2)
    x = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    out = layer(x, torch.tensor([[0, 0], [0, 1]]))
    expected = layer.conv.bias + layer.conv.weight[:, 0, 1, 2] * x[1]
    torch.testing.assert_close(out[0], expected)


def test_two_spots_on_one_cell_are_refused():
    with pytest.raises(InputError, match="row 1, column 2"):
        Apeg2d(2)(torch.randn(3, 2), torch.tensor([[1, 2], [0, 0], [1, 2]]))
