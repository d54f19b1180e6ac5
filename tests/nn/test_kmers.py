from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.nn.kmers import KmerStem, word_numbers


def stem(**changes):
    torch.manual_seed(0)
    settings = {"bin_size": 16, "length": 3, "channels": 5} | changes
    return KmerStem(4, **settings).double().eval()


def random_codes(batch, length, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(5, size=(batch, length)).astype(np.uint8))


def test_words_are_numbered_as_strings_are():
    codes = random_codes(2, 40)
    numbers = word_numbers(codes, length=3)
    values = {"".join(w): i for i, w in enumerate(itertools.product("ACGT", repeat=3))}
    for row, letters in enumerate(decode(c.numpy()) for c in codes):
        for start in range(38):
            word = letters[start : start + 3]
            other = decode(reverse_complement(encode(word)))
            expected = 64 if "N" in word else min(values[word], values[other])
            assert numbers[row, start].item() == expected


def test_a_bin_and_its_reverse_complement_have_one_embedding():
    codes = random_codes(3, 16)
    mirrored = torch.from_numpy(np.stack([reverse_complement(c.numpy()) for c in codes]))
    model = stem()
    torch.testing.assert_close(model(model.scan_bases(codes)), model(model.scan_bases(mirrored)))


def test_no_bin_reads_another():
    codes = random_codes(1, 64)
    changed = codes.clone()
    changed[0, 16:32] = torch.from_numpy(encode("ACGTACGTACGTACGT"))
    model = stem()
    first, second = (model(model.scan_bases(c)) for c in (codes, changed))
    assert torch.equal(first[:, [0, 2, 3]], second[:, [0, 2, 3]])
    assert not torch.equal(first[:, 1], second[:, 1])


def test_a_bin_of_n_counts_no_word_and_gives_no_gradient_to_the_table():
    model = stem()
    out = model(model.scan_bases(torch.full((1, 32), 4, dtype=torch.uint8)))
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert model.words.weight.grad.abs().sum() == 0


def test_gradients_agree_with_finite_differences():
    model = stem()
    codes = random_codes(2, 32, seed=3)

    def loss(weight):
        with torch.no_grad():
            model.words.weight.copy_(weight)
        return model(model.scan_bases(codes)).square().sum()

    weight = torch.randn_like(model.words.weight)
    value = loss(weight)
    value.backward()
    step = torch.zeros_like(weight)
    step[int(word_numbers(codes, length=3)[0, 0]), 2] = 1e-6
    numeric = (loss(weight + step) - loss(weight - step)) / 2e-6
    analytic = (model.words.weight.grad * step).sum() / 1e-6
    torch.testing.assert_close(analytic, numeric.detach(), rtol=1e-5, atol=1e-8)


def test_words_are_dropped_in_training_only():
    model = stem(word_dropout=0.5)
    codes = random_codes(1, 64)
    assert torch.equal(*(model(model.scan_bases(codes)) for _ in range(2)))
    model.train()
    first, second = (model(model.scan_bases(codes)) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("length", [0, 9, 20])
def test_word_lengths_that_cannot_be_are_refused(length):
    with pytest.raises(ConfigError, match=r"stem\.kmer"):
        stem(length=length)
