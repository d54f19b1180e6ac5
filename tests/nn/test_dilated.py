"""Dilated blocks against torch's own padded convolution."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.nn.dilated import DilatedBlock


@pytest.mark.parametrize(("width", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 3), (3, 30)])
def test_block_equals_a_padded_convolution(width, dilation):
    torch.manual_seed(0)
    block = DilatedBlock(6, d_inner=10, width=width, dilation=dilation).double()
    x = torch.randn(2, 21, 6, dtype=torch.float64)
    mask = torch.rand(2, 21, dtype=torch.float64)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mask[..., None]
    hidden = F.conv1d(
        normed.transpose(1, 2), block.conv.weight, block.conv.bias,
        padding=(width - 1) // 2 * dilation, dilation=dilation,
    )  # fmt: skip
    plain = x + block.out_proj(F.gelu(hidden).transpose(1, 2))
    torch.testing.assert_close(block(x, mask), plain, rtol=0, atol=1e-12)
    assert block.reach == (width - 1) // 2 * dilation
