"""The first attention for edits of a window against the whole block, in float64 and float32."""

from __future__ import annotations

import pytest
import torch

from seq2exp.encoders import first_attention
from seq2exp.encoders.first_attention import FirstAttention
from seq2exp.nn.enformer import EnformerBlock
from seq2exp.nn.relative import position_features

BINS, DIM = 30, 24


def make_block(seed=0, *, loud=1.0):
    torch.manual_seed(seed)
    block = EnformerBlock(DIM, num_heads=2, key_dim=4, dropout=0.4, attention_dropout=0.1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        block.attention.to_k.weight *= loud
    return block.double().eval().requires_grad_(requires_grad=False)


def edited(x, *places, size=1.0):
    changed = x.repeat(len(places), 1, 1)
    for row, bins in enumerate(places):
        changed[row, list(bins)] += size * torch.randn(len(bins), DIM, dtype=x.dtype)
    return changed


def spy(monkeypatch, block):
    """Count the windows that go through the whole attention."""
    seen = []
    whole = block.attention.forward
    monkeypatch.setattr(
        block.attention, "forward", lambda *a, **k: seen.append(1) or whole(*a, **k)
    )
    return seen


PLACES = [(0,), (29,), (14, 15, 16), (3, 20), tuple(range(8, 24)), ()]


def test_edits_have_the_values_of_the_whole_block_without_it(monkeypatch):
    block, features = make_block(), position_features(BINS, 12)
    x = torch.randn(1, BINS, DIM, dtype=torch.float64)
    first, changed = FirstAttention(block, x, features), edited(x, *PLACES)
    wanted = block(changed, features)
    seen = spy(monkeypatch, block)
    found = first(changed)
    assert not seen
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert (found[:5] != wanted[5]).any(-1).all(), "every bin differs after an attention"


def test_float32_agrees_to_its_rounding():
    block, features = make_block().float(), position_features(BINS, 12).float()
    x = torch.randn(1, BINS, DIM)
    changed = edited(x, *PLACES)
    found = FirstAttention(block, x, features)(changed)
    torch.testing.assert_close(found, block(changed, features), rtol=1e-5, atol=2e-5)


def test_more_keys_than_pay_are_attended_as_a_whole(monkeypatch):
    block, features = make_block(), position_features(BINS, 12)
    x = torch.randn(1, BINS, DIM, dtype=torch.float64)
    changed = edited(x, tuple(range(16)), tuple(range(17)))
    first, wanted, seen = FirstAttention(block, x, features), block(changed, features), spy(
        monkeypatch, block
    )  # fmt: skip
    torch.testing.assert_close(first(changed), wanted, rtol=0, atol=1e-12)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_queries_that_lean_on_what_is_exchanged_are_attended_again(dtype, monkeypatch):
    """With loud keys one bin takes nearly all weight of many queries, here the one that changes.

    Taken out of a sum it would leave rounding; the new key may also be beyond what exp can hold.
    """
    block = make_block(loud=25.0).to(dtype)
    features = position_features(BINS, 12).to(dtype)
    x = torch.randn(1, BINS, DIM, dtype=dtype)
    again = []
    logits = FirstAttention._logits

    def counted(self, query, queries, key):
        again.append(len(queries))
        return logits(self, query, queries, key)

    first = FirstAttention(block, x, features)
    monkeypatch.setattr(FirstAttention, "_logits", counted)
    changed = edited(x, *[(place,) for place in range(BINS)], size=3.0)
    found, wanted = first(changed), block(changed, features)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    assert max(again) > 5, "no query was spoiled"
    # Left as they are, the spoiled ones are wrong.
    monkeypatch.setattr(first_attention, "_LEAST_LEFT", 0.0)
    monkeypatch.setattr(first_attention, "_LARGEST_RISE", float("inf"))
    careless = first(changed)
    worst = (careless - wanted).abs().nan_to_num(float("inf")).max()
    assert worst > 100 * (found - wanted).abs().max()


def test_too_many_spoiled_queries_are_left_to_the_whole(monkeypatch):
    block, features = make_block(), position_features(BINS, 12)
    x = torch.randn(1, BINS, DIM, dtype=torch.float64)
    first, changed = FirstAttention(block, x, features), edited(x, (3, 4, 5))
    wanted, seen = block(changed, features), spy(monkeypatch, block)
    monkeypatch.setattr(first_attention, "_MOST_QUERIES", 2)
    torch.testing.assert_close(first(changed), wanted, rtol=0, atol=1e-12)
    assert len(seen) == 1
