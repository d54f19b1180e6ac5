"""Stems against a plain convolution of the whole sequence, and what crosses a bin border."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.nn.sequence import one_hot
from seq2exp.nn.stem import ConvStem, LinearStem, StemConfig, TrackEmbedding, build_stem

CASES = [
    StemConfig(channels=6, width=7, inner_pool=1, pool="mean"),
    StemConfig(channels=6, width=7, inner_pool=2, pool="max"),
    StemConfig(channels=6, width=5, inner_pool=4, pool="attention", num_queries=3),
    StemConfig(channels=6, width=7, num_layers=3, inner_width=5, inner_pool=2, pool="attention"),
    StemConfig(channels=6, width=1, inner_pool=2, pool="mean"),
]
BIN = 16


def make(config, seed=0):
    torch.manual_seed(seed)
    stem = ConvStem(10, bin_size=BIN, config=config).double()
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return stem


def make_codes(num_bins=6, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (batch, num_bins * BIN), generator=generator, dtype=torch.uint8)


def plain_layer(layer, x_BCL, channels_in):
    kernel = layer.conv.weight.view(-1, layer.width, channels_in).transpose(1, 2)
    x_BCL = F.conv1d(x_BCL, kernel, layer.conv.bias, padding=layer.width // 2)
    x_BCL = F.max_pool1d(x_BCL, layer.pool)
    normed = x_BCL / (x_BCL.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    return F.gelu(normed * layer.scale[:, None])


def plain_stem(stem, codes):
    """Whole-sequence convolutions with zero padding, then pooling inside each bin."""
    channels = stem.config.channels
    x = plain_layer(stem.first, one_hot(codes, dtype=torch.float64).transpose(1, 2), 4)
    for layer in stem.inner:
        x = x + plain_layer(layer, x, channels)
    per_bin = BIN // stem.config.inner_pool
    x = x.view(*x.shape[:2], -1, per_bin)
    if stem.config.pool == "mean":
        pooled = x.mean(-1).transpose(1, 2)
    elif stem.config.pool == "max":
        pooled = x.amax(-1).transpose(1, 2)
    else:
        logits = torch.einsum("qc,bcns->bqns", stem.queries.weight, x)
        pooled = torch.einsum("bqns,bcns->bnqc", logits.softmax(-1), x).flatten(2)
    return stem.proj(pooled)


def embed(stem, codes, mask=None):
    return stem(stem.scan_bases(codes), mask)


@pytest.mark.parametrize("config", CASES)
def test_equals_plain_convolution_with_gradients(config):
    stem, codes = make(config), make_codes()
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
        ({"width": 8}, "odd"),
        ({"channels": 0}, "at least 1"),
        ({"pool": "median"}, "attention"),
        ({"width": 41}, "narrower"),
        ({"inner_pool": 3}, "divides"),
        ({"inner_pool": 4, "num_layers": 2, "inner_width": 11}, "narrower"),
    ],
)
def test_settings_that_cannot_work_are_refused(params, match):
    with pytest.raises(ConfigError, match=match):
        ConvStem(8, bin_size=BIN, config=StemConfig(**params))


@pytest.mark.parametrize(
    ("transform", "function"),
    [("none", lambda x: x), ("log1p", torch.log1p), ("arcsinh", torch.arcsinh)],
)
def test_tracks_are_transformed_then_scaled(transform, function):
    torch.manual_seed(0)
    embedding = TrackEmbedding(2, 5, transform=transform)
    mean, std = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 4.0])
    embedding.set_scaling(mean, std)
    signal = torch.rand(3, 4, 2) * 10
    expected = embedding.proj((function(signal) - mean) / std)
    torch.testing.assert_close(embedding(signal), expected)
    assert set(embedding.state_dict()) >= {"mean_T", "std_T"}


def test_missing_track_adds_nothing_unless_learned():
    torch.manual_seed(0)
    signal = torch.tensor([[[1.0, torch.nan], [torch.nan, torch.nan]]])
    plain = TrackEmbedding(2, 5)
    plain.set_scaling(torch.tensor([0.5, 7.0]), torch.tensor([2.0, 3.0]))
    expected = plain.proj.weight[:, 0] * 0.25 + plain.proj.bias
    torch.testing.assert_close(plain(signal)[0, 0], expected)
    torch.testing.assert_close(plain(signal)[0, 1], plain.proj.bias)
    learned = TrackEmbedding(2, 5, learn_missing=True)
    learned(signal).sum().backward()
    # Track 0 is missing once, track 1 twice.
    assert learned.missing.weight.grad.tolist() == [[1, 2]] * 5
    assert torch.isfinite(learned.proj.weight.grad).all()


def test_constant_or_absent_track_is_not_divided_by_zero():
    embedding = TrackEmbedding(3, 5)
    embedding.set_scaling(torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([0.0, torch.nan, 4.0]))
    assert embedding.mean_T.tolist() == [1, 0, 2]
    assert embedding.std_T.tolist() == [1, 1, 4]
