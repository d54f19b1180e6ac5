from __future__ import annotations

import torch

from seq2exp.spatial.spot_blocks import SpotBlock, grid_encoding, nearest_spots


def places(num_sections=2, rows=4, columns=5):
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    section = torch.arange(num_sections).repeat_interleave(len(grid))
    return grid.repeat(num_sections, 1), section, torch.arange(len(grid)).repeat(num_sections)


def test_neighbours_are_the_nearest_of_the_section():
    grid, section, spot = places()
    rows, counts = nearest_spots(grid, section, spot, num_neighbours=8)
    assert counts.all()
    assert torch.equal(rows[:, 0], torch.arange(40))
    assert torch.equal(section[rows], section[:, None].expand(-1, 9))
    # Spot (1, 1) has its eight neighbours around it.
    around = sorted(5 * r + c for r in (0, 1, 2) for c in (0, 1, 2))
    assert sorted(rows[6].tolist()) == around


def test_few_spots_of_a_section_are_marked():
    grid, section, spot = places(1)
    section = torch.tensor([1, 1] + [0] * 18)
    rows, counts = nearest_spots(grid, section, spot, num_neighbours=4)
    assert counts[0].tolist() == [True, True, False, False, False]
    assert rows[0, :2].tolist() == [0, 1]


def test_the_order_of_the_batch_does_not_matter():
    torch.manual_seed(0)
    grid, section, spot = places()
    values = torch.randn(40, 6)
    block = SpotBlock(6, num_heads=2).eval()
    near = nearest_spots(grid, section, spot, num_neighbours=5)
    order = torch.randperm(40)
    again = nearest_spots(grid[order], section[order], spot[order], num_neighbours=5)
    assert torch.allclose(block(values, near)[order], block(values[order], again), atol=1e-6)


def test_all_spots_as_neighbours_are_attention_over_the_batch():
    torch.manual_seed(0)
    values, block = torch.randn(7, 6), SpotBlock(6, num_heads=2).eval()
    everyone = torch.arange(7).expand(7, 7), torch.ones(7, 7, dtype=torch.bool)
    assert torch.allclose(block(values), block(values, everyone), atol=1e-6)


def test_a_block_without_heads_sees_one_spot_only():
    block = SpotBlock(6, num_heads=0).eval()
    values = torch.randn(7, 6)
    assert torch.allclose(block(values)[2:3], block(values[2:3]), atol=1e-6)
    assert not any(name.startswith(("qkv", "out")) for name, _ in block.named_parameters())


def test_positions_are_smooth_small_and_told_apart():
    grid, _, _ = places(1, 35, 35)
    code = grid_encoding(grid / 34, 200)
    assert code.shape == (1225, 200)
    assert 0.018 < float(code.std()) < 0.022
    assert len(code.unique(dim=0)) == 1225
    near, far = (code[0] - code[1]).norm(), (code[0] - code[17]).norm()
    assert near < far
    assert not torch.allclose(code[1], code[35])
