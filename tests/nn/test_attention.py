"""Rotary attention against its definition, and the mask on its keys."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from seq2exp.nn import attention as module
from seq2exp.nn.attention import AttentionBlock, RotaryAttention, rotate


def make(width=16, heads=2):
    torch.manual_seed(0)
    return RotaryAttention(width, num_heads=heads).double()


def by_definition(attention, u, mask=None):
    """Weights m_j exp(q_i . R(j - i) k_j / sqrt(E)) over their sum, head by head."""
    width, heads = u.shape[-1], attention.num_heads
    size = width // heads
    q, k, v = (u @ w.t() for w in attention.in_proj.weight.split(width))
    out = torch.zeros_like(u)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for i in range(u.shape[1]):
            scores = []
            for j in range(u.shape[1]):
                # Pairs of channels as complex numbers, turned by the distance only.
                half = size // 2
                speed = 10_000.0 ** (-torch.arange(half).double() / half)
                turn = torch.polar(torch.ones(half).double(), (i - j) * speed)
                qc = torch.complex(q[:, i, part][:, :half], q[:, i, part][:, half:])
                kc = torch.complex(k[:, j, part][:, :half], k[:, j, part][:, half:])
                scores.append((qc * turn * kc.conj()).real.sum(-1) / math.sqrt(size))
            weights = torch.stack(scores, -1).exp()
            if mask is not None:
                weights = weights * mask
            weights = weights / weights.sum(-1, keepdim=True)
            out[:, i, part] = torch.einsum("bj,bje->be", weights, v[..., part])
    return out @ attention.out_proj.weight.t()


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_its_definition(masked):
    attention, u = make(), torch.randn(2, 7, 16, dtype=torch.float64)
    mask = torch.rand(2, 7, dtype=torch.float64) if masked else None
    if mask is not None:
        mask[0, 2] = 0
    torch.testing.assert_close(
        attention(u, mask), by_definition(attention, u, mask), rtol=0, atol=1e-12
    )


def test_turned_products_depend_on_the_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).unbind(0)
    products = [(rotate(q, first=i) * rotate(k, first=i + 5)).sum() for i in (0, 3, 1000)]
    torch.testing.assert_close(torch.stack(products), products[0].expand(3), rtol=0, atol=1e-10)
    torch.testing.assert_close(rotate(q), q)


def test_angles_are_float32_whatever_the_input():
    """Position 4,095 in bfloat16 would be 4,096."""
    x = torch.zeros(1, 4096, 1, 4).bfloat16()
    x[..., 0] = 1
    turned = rotate(x)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(
        turned[0, 4095, 0, 0].float(), torch.tensor(4095.0).cos(), atol=4e-3, rtol=0
    )


def test_windows_without_any_key_add_nothing():
    attention = make()
    u = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 5, dtype=torch.float64)
    mask[1] = 0
    mask.requires_grad_()
    out = attention(u, mask)
    assert not out[1].any()
    torch.testing.assert_close(out[0], attention(u)[0])
    for grad in torch.autograd.grad(out.square().sum(), [u, mask, *attention.parameters()]):
        assert grad.isfinite().all()


def test_a_small_mask_weighs_a_key_and_subnormal_ones_hide_it():
    attention, u = make(), torch.randn(1, 5, 16, dtype=torch.float64)
    mask = torch.ones(1, 5, dtype=torch.float64)
    outs = []
    for value in (1e-12, 1e-320, 0.0):
        mask[0, 1] = value
        weighed = mask.clone().requires_grad_()
        outs.append(attention(u, weighed))
        assert torch.autograd.grad(outs[-1].sum(), weighed)[0].isfinite().all()
    assert torch.equal(outs[1], outs[2])
    torch.testing.assert_close(outs[0], outs[2], rtol=0, atol=1e-9)


def test_without_a_mask_the_fused_kernels_get_no_bias(monkeypatch):
    """A bias would lock flash attention out."""
    seen = []
    plain = module.F.scaled_dot_product_attention

    def spy(*args, attn_mask=None):
        seen.append(attn_mask)
        return plain(*args, attn_mask=attn_mask)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", spy)
    attention, u = make(), torch.randn(2, 5, 16, dtype=torch.float64)
    attention(u)
    attention(u, span=(1, 2))
    attention(u, torch.ones(2, 5))
    assert seen[0] is None
    assert seen[1] is None
    assert seen[2].shape == (2, 1, 1, 5)


def test_flash_and_plain_attention_agree():
    attention, u = make().float(), torch.randn(2, 65, 16)
    outs = []
    for kind in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(kind):
            outs.append(attention(u))
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-6)


def test_block_is_the_sum_of_attention_and_gated_mlp():
    torch.manual_seed(0)
    block = AttentionBlock(16, num_heads=2, d_inner=24, norm="layer").double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    middle = x + block.attention(torch.nn.functional.layer_norm(x, (16,)))
    u = torch.nn.functional.layer_norm(middle, (16,)) @ block.fc1.weight.t()
    gated = u[..., :24] * u[..., :24].sigmoid() * u[..., 24:]
    torch.testing.assert_close(block(x), middle + gated @ block.fc2.weight.t())
