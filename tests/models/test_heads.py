"""Bands of distance from the TSS, and the options of the expression head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seq2exp.models.heads import ExpressionHead, Readout, band_edges, band_weights


def make_head(**options):
    torch.manual_seed(0)
    sizes = {"num_features": 3, "num_outputs": 2, "hidden": 8}
    return ExpressionHead(6, **sizes, **options).double().eval()


def make_inputs(batch=4):
    generator = torch.Generator().manual_seed(1)
    pooled = torch.randn(batch, 6, generator=generator, dtype=torch.float64)
    return pooled, torch.randn(batch, 3, generator=generator, dtype=torch.float64)


# Bands -------------------------------------------------------------------------------------------


def test_default_edges_double_and_cover_the_window():
    assert band_edges(200) == (-100, 0, 100)
    assert band_edges(256) == (-128, 0, 128)
    assert band_edges(1026) == (-513, -512, -256, -128, 0, 128, 256, 512, 513)


@settings(deadline=None)
@given(
    bin_size=st.sampled_from([1, 3, 16, 96]),
    num_bins=st.integers(2, 40),
    cuts=st.lists(st.integers(-400, 400), min_size=2, max_size=6, unique=True),
)
def test_weights_count_the_bases_of_a_bin_inside_a_band(bin_size, num_bins, cuts):
    edges = sorted(cuts)
    weights = band_weights(edges, num_bins=num_bins, bin_size=bin_size)
    half = num_bins * bin_size // 2
    distance = torch.arange(num_bins * bin_size) - half
    for k in range(len(edges) - 1):
        inside = (distance >= edges[k]) & (distance < edges[k + 1])
        expected = inside.view(num_bins, bin_size).double().mean(1)
        torch.testing.assert_close(weights[k].double(), expected)


def test_band_means_by_hand():
    """Bins of 10 bp at -20, -10, 0, 10; the band [-15, 5) holds half, all and half of three."""
    bands = band_weights((-20, -10, 10), num_bins=4, bin_size=10)
    split = band_weights((-15, 5), num_bins=4, bin_size=10)
    assert bands.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0]]
    assert split.tolist() == [[0.5, 1, 0.5, 0]]
    hidden = torch.tensor([[[1.0, 0], [2, 0], [4, 1], [100, 100]]])
    readout = Readout(2, kind="bands", span=(0, 4), width=1, bands=bands)
    assert readout(hidden).tolist() == [[1, 0, 3, 0.5]]
    # Divided by the width of the band, not by the mask: 2 * 0.5 / 2 + 4 * 1 / 2.
    mask = torch.tensor([[0, 0.5, 1, 1]])
    assert readout(hidden, mask).tolist() == [[0, 0, 2.5, 0.5]]
    plain = Readout(2, kind="bands", span=(0, 4), width=1, bands=bands, weighting="plain")
    assert torch.equal(plain(hidden, mask), readout(hidden))
    half = Readout(2, kind="bands", span=(0, 4), width=1, bands=split)
    assert half(hidden).tolist() == [[(0.5 * 1 + 2 + 0.5 * 4) / 2, 0.25]]


def test_bands_travel_with_the_configuration_not_with_the_weights():
    bands = band_weights((-20, 0, 20), num_bins=4, bin_size=10)
    assert not Readout(2, kind="bands", span=(0, 4), width=1, bands=bands).state_dict()


# Head --------------------------------------------------------------------------------------------


def test_linear_skip_starts_at_nothing_and_adds_a_linear_map():
    plain, skipping = make_head(), make_head(skip=True)
    pooled, features = make_inputs()
    assert torch.equal(plain(pooled, features), skipping(pooled, features))
    with torch.no_grad():
        skipping.skip.weight.normal_()
    added = skipping(pooled, features) - plain(pooled, features)
    expected = torch.cat([pooled, features], 1) @ skipping.skip.weight.t()
    torch.testing.assert_close(added, expected)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_number_of_hidden_layers_and_activation(num_layers):
    head = make_head(num_layers=num_layers, activation="gelu")
    linears = [m for m in head.layers if isinstance(m, nn.Linear)]
    widths = [(m.in_features, m.out_features) for m in linears]
    assert widths == [*[(9, 8), (8, 8), (8, 8)][:num_layers], (8 if num_layers else 9, 2)]
    x = torch.cat(make_inputs(), 1)
    for linear in linears[:-1]:
        x = nn.functional.gelu(x @ linear.weight.t() + linear.bias)
    expected = x @ linears[-1].weight.t() + linears[-1].bias
    torch.testing.assert_close(head(*make_inputs()), expected)


def test_features_are_clipped_after_scaling():
    head, free = make_head(feature_clip=2.0), make_head()
    for module in (head, free):
        module.feature_mean_F.fill_(10)
        module.feature_std_F.fill_(5)
    pooled, _ = make_inputs(batch=3)
    wild = torch.tensor([[25.0, 10, -1000], [19, 1, 12], [torch.nan, 20, 0]]).double()
    tame = torch.tensor([[20.0, 10, 0], [19, 1, 12], [10, 20, 0]]).double()
    assert torch.equal(head(pooled, wild), free(pooled, tame))
    assert not torch.equal(free(pooled, wild), free(pooled, tame))


def test_input_dropout_only_in_training():
    head, plain = make_head(input_dropout=0.5), make_head()
    inputs = make_inputs()
    assert torch.equal(head(*inputs), plain(*inputs))
    head.train()
    torch.manual_seed(0)
    assert not torch.equal(head(*inputs), head(*inputs))


def test_feature_layers_see_the_features_only_and_escape_dropout():
    """With all pooled states dropped, what is left is a function of the features alone."""
    head = make_head(feature_hidden=5, input_dropout=0.5)
    pooled, features = make_inputs()
    hidden = head.feature_layers(features)
    expected = head.layers(torch.cat([pooled, features, hidden], 1))
    torch.testing.assert_close(head(pooled, features), expected)
    head.train()
    head.input_dropout.p = 1.0
    dropped = head(pooled, features)
    torch.testing.assert_close(
        dropped, head.layers(torch.cat([pooled * 0, features, hidden], 1)), rtol=0, atol=0
    )
    dropped.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in head.feature_layers.parameters())


def test_feature_layers_need_features():
    head = ExpressionHead(6, num_features=0, num_outputs=2, hidden=8, feature_hidden=5)
    assert head.feature_layers is None
    assert head(torch.zeros(1, 6), None).shape == (1, 2)
