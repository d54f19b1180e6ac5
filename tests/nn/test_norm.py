"""RMS normalisation against its formula."""

from __future__ import annotations

import pytest
import torch

from seq2exp.nn.norm import RMSNorm, rms_norm


def by_formula(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5)])
def test_value_and_gradient(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(rms_norm(x, weight), by_formula(x, weight), rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(rms_norm, (x, weight))


def test_row_of_zeros_stays_zero_with_finite_gradient():
    x = torch.zeros(2, 5, requires_grad=True)
    out = RMSNorm(5)(x)
    out.sum().backward()
    assert out.eq(0).all()
    # d out / d x at zero is 1 / sqrt(eps).
    torch.testing.assert_close(x.grad, torch.full((2, 5), 1e-5**-0.5))


def test_half_precision_uses_float32_statistics():
    x = torch.full((1, 256), 300.0, dtype=torch.bfloat16)
    out = RMSNorm(256).to(torch.bfloat16)(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), torch.ones(1, 256), rtol=0.01, atol=0)


@pytest.mark.parametrize("shape", [(7, 16), (2, 300, 48), (1, 1, 64), (0, 16)])
def test_compiled_rows_equal_the_formula(shape):
    """Float32 and whole vectors run in compiled loops; 600 rows are three spans."""
    generator = torch.Generator().manual_seed(1)
    x, weight, seed = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in (shape, shape[-1:], shape)
    )
    single = [x.float().requires_grad_(), weight.float().requires_grad_()]
    exact = [x.requires_grad_(), weight.requires_grad_()]
    ours, theirs = rms_norm(*single), by_formula(*exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)
    for mine, other in zip(
        torch.autograd.grad(ours, single, seed.float()),
        torch.autograd.grad(theirs, exact, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-5)


def test_compiled_rows_may_have_gaps_and_any_number_of_threads():
    wide = torch.randn(2, 500, 64, generator=torch.Generator().manual_seed(2))
    weight = torch.linspace(0.5, 2, 32).requires_grad_()
    found, before = [], torch.get_num_threads()
    try:
        for x, threads in ((wide[..., :32], 1), (wide[..., :32].contiguous(), 2)):
            torch.set_num_threads(threads)
            leaf = x.detach().requires_grad_()
            out = rms_norm(leaf, weight)
            found.append([out, *torch.autograd.grad(out.square().sum(), (leaf, weight))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
