"""Relative attention against loops over queries and keys; position features against formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.nn import relative
from seq2exp.nn.relative import (
    RelativeAttention,
    align_distances,
    gamma_features,
    position_features,
)

# Values of the table that enformer-pytorch 0.8.10 stores from TensorFlow (tf_gammas.pt, 1,536
# positions and 32 features): distance, feature, value.
STORED = [
    (0, 0, 5.35614e-07),
    (24, 0, 0.805417),
    (48, 0, 0.872011),
    (100, 1, 0.917358),
    (400, 7, 0.771892),
    (768, 15, 1.0),
    (1000, 20, 0.953275),
    (1500, 31, 0.327199),
    (1535, 31, 1.0),
]


def make_attention(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"num_heads": 3, "key_dim": 4, "value_dim": 5, "num_features": 6} | options
    attention = RelativeAttention(7, **sizes).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return attention


def slow_attention(attention, x, features):
    """Every logit on its own: content and place of key j as seen from query i."""
    heads, width = attention.num_heads, attention.key_dim
    rows = []
    for sequence in x:
        length, parts = len(sequence), []
        for h in range(heads):
            keys = slice(h * width, (h + 1) * width)
            values = slice(h * attention.value_dim, (h + 1) * attention.value_dim)
            q = sequence @ attention.to_q.weight[keys].t() / math.sqrt(width)
            k = sequence @ attention.to_k.weight[keys].t()
            v = sequence @ attention.to_v.weight[values].t()
            logits = torch.zeros(length, length, dtype=x.dtype)
            for i in range(length):
                for j in range(length):
                    r = attention.to_rel_k.weight[keys] @ features[j - i + length - 1]
                    content = (q[i] + attention.content_bias[h, 0]) @ k[j]
                    logits[i, j] = content + (q[i] + attention.position_bias[h, 0]) @ r
            parts.append(logits.softmax(1) @ v)
        rows.append(F.linear(torch.cat(parts, 1), attention.to_out.weight, attention.to_out.bias))
    return torch.stack(rows)


def same_gradients(ours, theirs, wanted):
    seed = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(theirs, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_attention_equals_the_loop_with_gradients(length):
    attention, features = make_attention(), position_features(length, 6)
    x = torch.randn(2, length, 7, dtype=torch.float64, requires_grad=True)
    ours, slow = attention(x, features), slow_attention(attention, x, features)
    torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)
    seed, wanted = torch.randn_like(ours), [x, *attention.parameters()]
    mine = torch.autograd.grad(ours, wanted, seed, allow_unused=True)
    theirs = torch.autograd.grad(slow, wanted, seed, allow_unused=True)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("span", [(0, 1), (3, 6), (5, 6), (0, 6), (2, 4)])
def test_a_span_of_queries_has_the_values_and_gradients_of_the_whole(span):
    attention, features = make_attention(), position_features(6, 6)
    x = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
    part, whole = attention(x, features, span=span), attention(x, features)[:, span[0] : span[1]]
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-13)
    same_gradients(part, whole, [x, *attention.parameters()])


@pytest.mark.parametrize("span", [None, (0, 7), (2, 6), (4, 5)])
@pytest.mark.parametrize("queries_at_once", [1, 2, 3])
def test_queries_taken_in_parts_have_the_values_and_gradients_of_all_at_once(
    monkeypatch, span, queries_at_once
):
    attention, features = make_attention(), position_features(7, 6)
    x = torch.randn(2, 7, 7, dtype=torch.float64, requires_grad=True)
    whole = attention(x, features, span=span)
    monkeypatch.setattr(relative, "_FEW_QUERIES", queries_at_once)
    monkeypatch.setattr(relative, "_LOGITS_AT_ONCE", 1)
    parts = attention._at_once(x, 7)
    assert parts[0] == (0, queries_at_once)
    assert parts[-1][1] == 7
    ours = attention(x, features, span=span)
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-13)
    same_gradients(ours, whole, [x, *attention.parameters()])


@pytest.mark.parametrize(("batch", "length"), [(1, 64), (4, 1024), (40, 1024), (2, 4096)])
def test_logits_of_all_heads_and_sequences_of_a_part_fit_or_its_queries_are_few(batch, length):
    """3 heads x 4 sequences x 1,024 keys are 12,288 logits a query: 42 queries below 2^19."""
    attention, x = make_attention(), torch.empty(batch, length, 1)
    parts = attention._at_once(x, length)
    assert [a for a, _ in parts] == [0, *(b for _, b in parts[:-1])]
    assert parts[-1][1] == length
    size = parts[0][1]
    assert (parts[0][1] == 42) == ((batch, length) == (4, 1024))
    assert size * 3 * batch * length <= relative._LOGITS_AT_ONCE or size == relative._FEW_QUERIES
    more = (size + 1) * 3 * batch * length > relative._LOGITS_AT_ONCE
    assert more or size == length


def test_no_sequence_at_all_is_no_error():
    attention, features = make_attention(), position_features(5, 6)
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    assert attention(x[:0], features).shape == (0, 5, 7)


def test_a_fresh_attention_adds_nothing():
    attention = RelativeAttention(6, num_heads=1, key_dim=2, value_dim=3, num_features=6)
    assert not attention(torch.randn(1, 4, 6), position_features(4, 6).float()).any()


@pytest.mark.parametrize(("num_rows", "num_keys"), [(1, 1), (1, 5), (5, 5), (3, 5)])
def test_align_distances_moves_every_column_to_its_key(num_rows, num_keys):
    width = num_keys + num_rows - 1
    values = torch.arange(2 * num_rows * width).view(2, num_rows, width)
    aligned = align_distances(values, num_keys)
    assert aligned.shape == (2, num_rows, num_keys)
    for s in range(num_rows):
        for j in range(num_keys):
            assert (aligned[:, s, j] == values[:, s, j - s + num_rows - 1]).all()


def test_align_distances_copies_nothing():
    values = torch.randn(2, 4, 9)
    assert align_distances(values, 6).untyped_storage().data_ptr() == values.data_ptr()


def test_position_features_are_the_formulas():
    length, count = 12, 3
    features = position_features(length, 6 * count)
    assert features.shape == (2 * length - 1, 6 * count)
    gammas = gamma_features(length, count)
    for row, distance in enumerate(range(1 - length, length)):
        size = abs(distance)
        for k in range(count):
            half_life = 2 ** (3 + (math.log2(length) - 3) * k / (count - 1))
            assert features[row, k].item() == pytest.approx(0.5 ** (size / half_life), abs=1e-12)
            assert features[row, count + k].item() == float(size < 2 ** (k + 1) - 1)
            assert features[row, 2 * count + k] == gammas[row, k]
        signed = features[row, 3 * count :]
        sign = (distance > 0) - (distance < 0)
        torch.testing.assert_close(signed, sign * features[row, : 3 * count], rtol=0, atol=0)


@pytest.mark.parametrize(("scale", "axis"), [("distances", 0), ("features", 1)])
def test_gamma_features_are_scaled_densities(scale, axis):
    length, count = 20, 4
    gammas = gamma_features(length, count, scale=scale)
    stddev = length / (2 * count)
    density = torch.zeros(2 * length - 1, count, dtype=torch.float64)
    for k in range(count):
        mean = length / count + (length - length / count) * k / (count - 1)
        shape, rate = torch.tensor([(mean / stddev) ** 2, mean / stddev**2]).double()
        gamma = torch.distributions.Gamma(shape, rate)
        for row, distance in enumerate(range(1 - length, length)):
            # The shape is above 1 for every feature, so the density at 0 is 0.
            at = gamma.log_prob(rate.new_tensor(abs(distance))).exp() if distance else 0.0
            density[row, k] = at + 1e-8
    torch.testing.assert_close(
        gammas, density / density.amax(axis, keepdim=True), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("distance", "feature", "stored"), STORED)
def test_gamma_features_are_close_to_the_stored_ones(distance, feature, stored):
    """The stored ones were made in float32; scaled over features they would be off by up to 1."""
    gammas = gamma_features(1536, 32)
    assert gammas[1535 + distance, feature].item() == pytest.approx(stored, abs=2.5e-3)
    assert gammas[1535 - distance, feature] == gammas[1535 + distance, feature]


def test_a_wrong_number_of_features_is_refused():
    with pytest.raises(ConfigError, match="multiple of 6"):
        position_features(4, 8)


def test_flops_are_those_of_the_products():
    from torch.utils.flop_counter import FlopCounterMode

    attention, features = make_attention().float(), position_features(6, 6).float()
    for span in ((0, 6), (2, 3)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            attention(torch.randn(1, 6, 7), features, span=span)
        assert attention.flops(6, span[1] - span[0]) == counter.get_total_flops()
