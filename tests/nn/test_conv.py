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


def by_formula(x, weight, bias, *, reverse, starts=None):
    """Loops over tokens and taps, and silu."""
    taps, rows = weight.shape[1], []
    number = torch.zeros(x.shape[:2], dtype=torch.int64) if starts is None else starts.cumsum(1)
    for t in range(x.shape[1]):
        total = bias.expand(x.shape[0], -1)
        for k in range(taps):
            source = t + k if reverse else t - k
            if 0 <= source < x.shape[1]:
                same = (number[:, t] == number[:, source])[:, None].to(x.dtype)
                total = total + same * x[:, source] * weight[:, taps - 1 - k]
        rows.append(total * torch.sigmoid(total))
    return torch.stack(rows, dim=1)


def packed(batch, length):
    starts = torch.zeros(batch, length, dtype=torch.bool)
    starts[:, ::5] = True
    starts[-1, 1:3] = True
    return starts


# 16 channels run in compiled loops where the dtype is float32; five channels never do.
@pytest.mark.parametrize(
    ("channels", "dtype", "allowed"),
    [(5, torch.float64, 1e-12), (16, torch.float64, 1e-12), (48, torch.float32, 2e-6)],
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("length", "taps", "is_packed"),
    [(1, 4, False), (2, 4, True), (12, 4, True), (9, 1, False), (530, 3, True)],
)
def test_silu_and_packing_are_what_they_say(
    length, taps, is_packed, reverse, channels, dtype, allowed
):
    """530 tokens are three spans of 256."""
    x, weight, bias = (
        make(2, length, channels),
        make(channels, taps, seed=1),
        make(channels, seed=2),
    )
    starts = packed(2, length) if is_packed else None
    expected = by_formula(x, weight, bias, reverse=reverse, starts=starts)
    own = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, weight, bias)]
    found = depthwise_conv(*own, reverse=reverse, silu=True, starts_BL=starts)
    seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).double()
    ours = torch.autograd.grad((found * seed.to(dtype)).sum(), own)
    theirs = torch.autograd.grad((expected * seed).sum(), (x, weight, bias))
    for mine, other in zip((found, *ours), (expected, *theirs), strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= allowed * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("reverse", [False, True])
def test_compiled_without_silu_equals_the_plain_path(reverse):
    inputs = [make(*shape, seed=i) for i, shape in enumerate([(2, 40, 16), (16, 4), (16,)])]
    single = [tensor.detach().float().requires_grad_() for tensor in inputs]
    ours, plain = (depthwise_conv(*tensors, reverse=reverse) for tensors in (single, inputs))
    torch.testing.assert_close(ours.double(), plain, rtol=1e-6, atol=1e-6)
    for mine, other in zip(
        torch.autograd.grad(ours.square().sum(), single),
        torch.autograd.grad(plain.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-4)


def test_compiled_reads_a_part_of_a_wider_tensor_and_every_thread_count_alike():
    wide = make(2, 600, 64).detach().float()
    weight, bias = make(32, 4, seed=1).detach().float(), make(32, seed=2).detach().float()
    part = wide[..., :32].requires_grad_()
    assert not part.is_contiguous()
    copy = part.detach().contiguous().requires_grad_()
    weights = [weight.requires_grad_(), bias.requires_grad_()]
    found, before = [], torch.get_num_threads()
    try:
        for x, threads in ((part, 1), (copy, 2)):
            torch.set_num_threads(threads)
            out = depthwise_conv(x, *weights, silu=True)
            found.append([out, *torch.autograd.grad(out.square().sum(), [x, *weights])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_compiled_takes_nothing_and_one_row_of_gradient():
    weight, bias = torch.ones(16, 4, requires_grad=True), torch.zeros(16, requires_grad=True)
    for shape in ((0, 5, 16), (2, 0, 16)):
        x = torch.zeros(shape, requires_grad=True)
        depthwise_conv(x, weight, bias, silu=True).sum().backward()
        assert x.grad.shape == shape
        assert not weight.grad.any()
    x = torch.ones(1, 6, 16, requires_grad=True)
    # The gradient of a sum is one number for all places. x[t] is seen by min(4, 6 - t) tokens.
    depthwise_conv(x, weight.detach(), bias.detach()).sum().backward()
    assert x.grad[0, :, 0].tolist() == [4, 4, 4, 3, 2, 1]


def test_a_nan_reaches_no_further_than_the_taps():
    x = torch.zeros(1, 20, 16)
    x[0, 10, 3] = torch.nan
    weight, bias = torch.ones(16, 4), torch.zeros(16)
    for reverse, reached in ((False, range(10, 14)), (True, range(7, 11))):
        y = depthwise_conv(x, weight, bias, reverse=reverse, silu=True)
        assert y[0, :, 3].isnan().nonzero().flatten().tolist() == list(reached)
        assert not y[0, :, :3].isnan().any()


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
