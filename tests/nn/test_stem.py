"""Stems against a plain convolution of the whole sequence, and what crosses a bin border."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.nn.sequence import one_hot
from seq2exp.nn.stem import LinearStem, StemConfig, build_stem

CASES = [
    StemConfig(channels=6, width=7, inner_pool=1, pool="mean"),
    StemConfig(channels=6, width=7, inner_pool=2, pool="max"),
    StemConfig(channels=6, width=5, inner_pool=4, pool="attention", num_queries=3),
    StemConfig(channels=6, width=7, num_layers=3, inner_width=5, inner_pool=2, pool="attention"),
    StemConfig(channels=6, width=1, inner_pool=2, pool="mean"),
    StemConfig(channels=6, width=6, inner_pool=1, pool="sum", norm=False, activation="relu"),
    StemConfig(channels=6, width=8, num_layers=2, inner_width=3, inner_pool=2, pool="sum"),
]
BIN = 16
STRIDED = [
    StemConfig(channels=6, width=12, stride=3, inner_pool=1, pool="sum", norm=False),
    StemConfig(channels=6, width=5, stride=3, inner_pool=2, pool="mean", activation="relu"),
    StemConfig(channels=6, width=7, stride=3, num_layers=2, inner_width=3, inner_pool=2),
    StemConfig(channels=6, width=2, stride=3, inner_pool=1, pool="max"),
    StemConfig(channels=6, width=9, stride=6, inner_pool=1, pool="sum"),
]
STRIDED_BIN = 24


def make(config, seed=0, *, bin_size=BIN, tss=0):
    torch.manual_seed(seed)
    stem = build_stem(10, bin_size=bin_size, config=config, tss=tss).double()
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return stem


def make_codes(num_bins=6, batch=2, seed=1, *, bin_size=BIN):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, num_bins * bin_size)
    return torch.randint(0, 5, shape, generator=generator, dtype=torch.uint8)


def plain_layer(layer, x_BCL, channels_in):
    kernel = layer.conv.weight.view(-1, layer.width, channels_in).transpose(1, 2)
    x_BCL = F.pad(x_BCL, (layer.width // 2, (layer.width - 1) // 2))
    # Evaluated everywhere; positions between the strides are thrown away.
    x_BCL = F.conv1d(x_BCL, kernel, layer.conv.bias)[..., layer.offset :: layer.stride]
    x_BCL = F.max_pool1d(x_BCL, layer.pool)
    if layer.scale is not None:
        x_BCL = x_BCL / (x_BCL.pow(2).mean(1, keepdim=True) + 1e-5).sqrt() * layer.scale[:, None]
    return F.relu(x_BCL) if isinstance(layer.act, torch.nn.ReLU) else F.gelu(x_BCL)


def plain_stem(stem, codes):
    """Whole-sequence convolutions with zero padding, then pooling inside each bin."""
    channels = stem.config.channels
    x = plain_layer(stem.first, one_hot(codes, dtype=torch.float64).transpose(1, 2), 4)
    for layer in stem.inner:
        x = x + plain_layer(layer, x, channels)
    per_bin = stem.bin_size // stem.config.stride // stem.config.inner_pool
    x = x.view(*x.shape[:2], -1, per_bin)
    if stem.config.pool in ("mean", "sum"):
        scale = per_bin if stem.config.pool == "mean" else per_bin**0.5
        pooled = x.sum(-1).transpose(1, 2) / scale
    elif stem.config.pool == "max":
        pooled = x.amax(-1).transpose(1, 2)
    else:
        logits = torch.einsum("qc,bcns->bqns", stem.queries.weight, x)
        pooled = torch.einsum("bqns,bcns->bnqc", logits.softmax(-1), x).flatten(2)
    return stem.proj(pooled)


def embed(stem, codes, mask=None):
    return stem(stem.scan_bases(codes), mask)


def check_against_plain(stem, codes):
    ours, plain = embed(stem, codes), plain_stem(stem, codes)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)
    seed = torch.randn_like(ours)
    wanted = list(stem.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(plain, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CASES)
def test_equals_plain_convolution_with_gradients(config):
    check_against_plain(make(config), make_codes())


@pytest.mark.parametrize("tss", [72, 73, 74, 76])
@pytest.mark.parametrize("config", STRIDED)
def test_strided_equals_thinned_convolution_with_gradients(config, tss):
    stem = make(config, bin_size=STRIDED_BIN, tss=tss)
    check_against_plain(stem, make_codes(bin_size=STRIDED_BIN))


@pytest.mark.parametrize("tss", [72, 73, 74])
@pytest.mark.parametrize("config", STRIDED)
def test_strided_stem_respects_the_mask(config, tss):
    stem = make(config, bin_size=STRIDED_BIN, tss=tss)
    codes = make_codes(bin_size=STRIDED_BIN)
    mask = torch.tensor([[1.0, 0, 1, 0, 0, 1]] * 2, dtype=torch.float64)
    changed = codes.view(2, 6, STRIDED_BIN).clone()
    changed[:, [1, 3, 4]] = (changed[:, [1, 3, 4]] + 1) % 4
    changed = changed.view(2, -1)
    kept = mask.bool()
    assert torch.equal(embed(stem, codes, mask)[kept], embed(stem, changed, mask)[kept])
    assert torch.equal(embed(stem, codes, torch.ones_like(mask)), embed(stem, codes))
    if config.width > 3:
        assert not torch.equal(embed(stem, codes)[kept], embed(stem, changed)[kept])
        weights = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda m: embed(stem, codes, m), weights)


def test_stride_keeps_the_phase_of_the_tss():
    """One tap: only bases at multiples of three from the TSS are read."""
    config = StemConfig(channels=4, width=1, stride=3, inner_pool=1, pool="sum", norm=False)
    tss = 71
    stem, codes = make(config, bin_size=STRIDED_BIN, tss=tss), make_codes(bin_size=STRIDED_BIN)
    before = embed(stem, codes)
    for base in range(60, 90):
        changed = codes.clone()
        changed[:, base] = (changed[:, base] + 1) % 4
        assert torch.equal(embed(stem, changed), before) == ((base - tss) % 3 != 0), base


@pytest.mark.parametrize("config", CASES)
def test_mask_of_ones_is_no_mask(config):
    stem, codes = make(config), make_codes()
    ones = torch.ones(2, 6, dtype=torch.float64)
    assert torch.equal(embed(stem, codes, ones), embed(stem, codes))


@pytest.mark.parametrize("config", CASES[:4])
def test_masked_bin_is_invisible_to_its_neighbours(config):
    stem, codes = make(config), make_codes()
    mask = torch.tensor([[1.0, 0, 1, 0, 0, 1]] * 2, dtype=torch.float64)
    changed = codes.view(2, 6, BIN).clone()
    changed[:, [1, 3, 4]] = (changed[:, [1, 3, 4]] + 1) % 4
    changed = changed.view(2, -1)
    kept = mask.bool()
    assert torch.equal(embed(stem, codes, mask)[kept], embed(stem, changed, mask)[kept])
    assert not torch.equal(embed(stem, codes)[kept], embed(stem, changed)[kept])


def test_bin_reads_itself_in_full_whatever_its_own_mask():
    stem, codes = make(CASES[3]), make_codes()
    low, high = torch.ones(2, 6, dtype=torch.float64), torch.ones(2, 6, dtype=torch.float64)
    low[:, 2] = 0.1
    difference = (embed(stem, codes, low) - embed(stem, codes, high)).abs().sum(-1)
    assert difference[:, 2].eq(0).sum() == 0, "three layers bring back its own edges"
    one_layer = make(CASES[0])
    difference = (embed(one_layer, codes, low) - embed(one_layer, codes, high)).abs().sum(-1)
    assert difference[:, [0, 2, 4, 5]].eq(0).all()
    assert difference[:, [1, 3]].gt(0).all()


@pytest.mark.parametrize("config", [CASES[0], CASES[3]])
def test_gradient_reaches_the_mask(config):
    stem, codes = make(config), make_codes(num_bins=3, batch=1)
    mask = torch.tensor([[0.3, 0.8, 0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: embed(stem, codes, m), mask)


def test_single_bases_use_the_published_linear_layer():
    torch.manual_seed(0)
    stem = build_stem(8, bin_size=1, config=StemConfig())
    assert isinstance(stem, LinearStem)
    codes = torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)
    weight, bias = stem.proj.weight, stem.proj.bias
    expected = torch.cat([weight.t() + bias, bias[None]])
    torch.testing.assert_close(embed(stem, codes)[0], expected)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"inner_width": 4}, "odd"),
        ({"width": 0}, "at least 1"),
        ({"channels": 0}, "at least 1"),
        ({"stride": 0}, "at least 1"),
        ({"stride": 3}, "bins of 15 bp or stride 1"),
        ({"stride": 4, "inner_pool": 3}, "divides"),
        ({"activation": "tanh"}, "gelu, relu"),
        ({"pool": "median"}, "attention"),
        ({"width": 41}, "narrower"),
        ({"inner_pool": 3}, "divides"),
        ({"inner_pool": 4, "num_layers": 2, "inner_width": 11}, "narrower"),
    ],
)
def test_settings_that_cannot_work_are_refused(params, match):
    with pytest.raises(ConfigError, match=match):
        build_stem(8, bin_size=BIN, config=StemConfig(**params))


def test_stride_is_refused_for_single_bases():
    with pytest.raises(ConfigError, match=r"stem\.stride"):
        build_stem(8, bin_size=1, config=StemConfig(stride=3))
