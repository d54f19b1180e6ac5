"""The compiled loop over pixels against torch in double precision."""

from __future__ import annotations

import pytest
import torch

from seq2exp.nn.numba_use import numba_refuses
from seq2exp.spatial.systems import pixel_pool
from seq2exp.spatial.systems.pixel_pool import pooled_moments

pytestmark = pytest.mark.skipif(numba_refuses() is not None, reason="numba cannot compile here")


def pooled(density, share, weight, moments):
    weight = weight.clone().requires_grad_()
    found = pooled_moments(density, share, weight, phi="softplus", beta=4.0, num_moments=moments)
    scale = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
    (found * scale).sum().backward()
    return found.detach(), weight.grad


@pytest.mark.parametrize("num_pixels", [1, 16, 37, 1024])
@pytest.mark.parametrize("moments", [1, 2])
def test_values_and_gradients_are_those_of_double_precision(monkeypatch, num_pixels, moments):
    """Also where pixels do not fill the last vector, and far out on both sides of the bend."""
    random = torch.Generator().manual_seed(num_pixels)
    density = 3 * torch.rand(5, num_pixels, 3, generator=random)
    share = torch.rand(5, num_pixels, generator=random)
    share = share / share.sum(dim=1, keepdim=True)
    weight = 10 * torch.randn(4, 23, generator=random)
    called = []
    loop = pixel_pool._in_numba
    monkeypatch.setattr(pixel_pool, "_in_numba", lambda *a: called.append(1) or loop(*a))
    single = pooled(density, share, weight, moments)
    assert called == [1]
    double = pooled(density.double(), share.double(), weight.double(), moments)
    assert called == [1]
    for found, expected in zip(single, double, strict=True):
        top = float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-6 * top)


def test_the_number_of_threads_changes_no_bit():
    random = torch.Generator().manual_seed(0)
    density, weight = torch.rand(9, 64, 3, generator=random), torch.randn(4, 6, generator=random)
    share = torch.full((9, 64), 1 / 64)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(pooled(density, share, weight, 2))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
