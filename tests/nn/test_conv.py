"""Convolutions against torch's own, and the two directions against each other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from seq2exp.nn.conv import conv_max_pool, conv_relu_sum, depthwise_conv, windows


def make(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_depthwise_equals_torch_conv1d(length):
    x, weight, bias = make(2, length, 5), make(5, 4, seed=1), make(5, seed=2)
    ours = depthwise_conv(x, weight, bias)
    padded = F.pad(x.transpose(1, 2), (3, 0))
    torchs = F.conv1d(padded, weight[:, None], bias, groups=5).transpose(1, 2)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-13)
    seed = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, weight, bias), seed),
        torch.autograd.grad(torchs, (x, weight, bias), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_reverse_is_flip_conv_flip(length):
    x, weight, bias = make(2, length, 5), make(5, 4, seed=1), make(5, seed=2)
    ours = depthwise_conv(x, weight, bias, reverse=True)
    flipped = depthwise_conv(x.flip(1), weight, bias).flip(1)
    torch.testing.assert_close(ours, flipped, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda *t: depthwise_conv(*t, reverse=True), (x, weight, bias))


def test_depthwise_sees_only_its_own_side():
    x, weight, bias = make(1, 10, 2), make(2, 4, seed=1), make(2, seed=2)
    changed = x.detach().clone()
    changed[:, 5] += 1
    for reverse, affected in ((False, range(5, 9)), (True, range(2, 6))):
        difference = depthwise_conv(changed, weight, bias, reverse=reverse) - depthwise_conv(
            x, weight, bias, reverse=reverse
        )
        moved = difference.abs().sum((0, 2)).nonzero().flatten().tolist()
        assert moved == list(affected)


def test_windows_lays_taps_side_by_side():
    x = torch.arange(8.0).view(1, 4, 2)
    assert windows(x, 3).tolist() == [[[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7]]]


@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("rows", [1, 700])
def test_conv_max_pool_equals_conv_then_pool(rows, pool):
    x, weight, bias = make(rows, 16, 4), make(6, 5 * 4, seed=1), make(6, seed=2)
    ours = conv_max_pool(x, weight, bias, pool=pool)
    kernel = weight.view(6, 5, 4).transpose(1, 2)
    torchs = F.max_pool1d(F.conv1d(x.transpose(1, 2), kernel, bias), pool).transpose(1, 2)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)
    seed = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, weight, bias), seed),
        torch.autograd.grad(torchs, (x, weight, bias), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("stride", "pool"), [(2, 1), (3, 2), (5, 1)])
def test_strided_conv_max_pool_is_the_thinned_convolution(stride, pool):
    x, weight, bias = make(3, 22, 2), make(4, 7 * 2, seed=1), make(4, seed=2)

    def thinned(x, weight, bias):
        kernel = weight.view(4, 7, 2).transpose(1, 2)
        full = F.conv1d(x.transpose(1, 2), kernel, bias)[..., ::stride]
        return F.max_pool1d(full, pool).transpose(1, 2)

    ours = conv_max_pool(x, weight, bias, pool=pool, stride=stride)
    plain = thinned(x, weight, bias)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    seed = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, weight, bias), seed),
        torch.autograd.grad(plain, (x, weight, bias), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [2, 500])
@pytest.mark.parametrize("stride", [1, 3])
def test_conv_relu_sum_with_gradients(stride, rows):
    x, weight, bias = make(rows, 22, 2).detach(), make(4, 7 * 2, seed=1), make(4, seed=2)
    kernel = weight.view(4, 7, 2).transpose(1, 2)
    plain = F.conv1d(x.transpose(1, 2), kernel, bias)[..., ::stride].relu().sum(-1)
    ours = conv_relu_sum(x, weight, bias, stride=stride)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    seed = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (weight, bias), seed),
        torch.autograd.grad(plain, (weight, bias), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-10)


def test_conv_max_pool_gives_a_tie_to_one_position():
    """A run of one base repeats the same window; its gradient must be counted once."""
    x = torch.zeros(1, 8, 4, dtype=torch.float64)
    x[..., 2] = 1
    weight = torch.ones(1, 4 * 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    conv_max_pool(x, weight, bias, pool=6).sum().backward()
    # One window of three G: each of its three taps for G has gradient 1.
    assert weight.grad.view(3, 4).tolist() == [[0, 0, 1, 0]] * 3


def test_conv_max_pool_under_autocast_runs_in_half_precision():
    x, weight, bias = (make(3, 16, 4).float(), make(6, 20).float(), make(6).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = conv_max_pool(x, weight, bias, pool=2)
    assert half.dtype == torch.bfloat16
    full = conv_max_pool(x, weight, bias, pool=2)
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_are_convolved_apart(reverse):
    """Gradients too: those of the parts, and finite differences."""
    torch.manual_seed(0)
    x = torch.randn(2, 12, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    starts = torch.zeros(2, 12, dtype=torch.bool)
    starts[0, [0, 2, 3, 9]] = True  # the first of a row may be marked or not
    starts[1, 5] = True
    packed = depthwise_conv(x, weight, bias, reverse=reverse, starts_BL=starts)
    for row, edges in enumerate([(0, 2, 3, 9, 12), (0, 5, 12)]):
        for first, stop in itertools.pairwise(edges):
            alone = depthwise_conv(x[row : row + 1, first:stop], weight, bias, reverse=reverse)
            torch.testing.assert_close(packed[row : row + 1, first:stop], alone)
    assert not torch.allclose(packed, depthwise_conv(x, weight, bias, reverse=reverse))
    assert torch.autograd.gradcheck(
        lambda *t: depthwise_conv(*t, reverse=reverse, starts_BL=starts), (x, weight, bias)
    )
