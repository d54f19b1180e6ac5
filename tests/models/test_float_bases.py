"""Every model takes one-hot columns for base codes, and its gradients are those of the function."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.models.registry import build_model
from seq2exp.nn.kmers import KmerStem
from seq2exp.nn.sequence import one_hot, reverse_complement

WINDOW, BIN = 256, 32
SMALL = {
    "d_model": 8,
    "d_state": 4,
    "generator_layers": 1,
    "predictor_layers": 1,
    "promoter_bp": 64,
    "readout_bp": 64,
    "head_hidden": 8,
    "tracks": ("a", "b"),
    "window_bp": WINDOW,
}
SEQ2EXP = {
    "conv": {"bin_size": BIN, "stem": {"channels": 8, "width": 5}},
    "summed": {
        "bin_size": BIN,
        "stem": {
            "channels": 8, "width": 5, "pool": "sum", "norm": False, "activation": "relu",
            "inner_pool": 1,
        },
    },
    "words": {"bin_size": BIN, "stem": {"kmer": 3, "channels": 8}},
    "linear": {"bin_size": 1},
    "both strands": {"bin_size": BIN, "stem": {"channels": 8, "width": 5}, "rc_average": True},
    "multiplied": {"bin_size": BIN, "stem": {"kmer": 2, "channels": 4}, "gate": "multiply"},
}  # fmt: skip
ENCODERS = {
    "conv": {"encoder_params": {"d_model": 8, "num_layers": 1}, "bin_size": BIN},
    "caduceus": {"encoder_params": {"d_model": 8, "num_layers": 1}, "bin_size": 1},
    "mamba": {"encoder_params": {"d_model": 8, "num_layers": 1, "embedding": "table"},
              "bin_size": 1},
    "enformer": {"encoder_params": {"dim": 24, "depth": 1, "num_heads": 2, "num_halvings": 5,
                                    "channel_multiple": 2}, "bin_size": 32},
}  # fmt: skip


def make(kind):
    torch.manual_seed(0)
    if kind in SEQ2EXP:
        model = build_model("seq2exp", {**SMALL, **SEQ2EXP[kind]})
    else:
        encoder = kind.removeprefix("baseline ")
        params = {"encoder": encoder, "window_bp": WINDOW, "readout_bp": 64, **ENCODERS[encoder]}
        model = build_model("baseline", params)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.eval().double()
    bins = WINDOW // model.config.bin_size
    codes = torch.randint(0, 5, (2, WINDOW), generator=torch.Generator().manual_seed(1))
    signal = torch.rand(2, bins, 2, generator=torch.Generator().manual_seed(2)).double() + 0.2
    return model, codes.to(torch.uint8), signal


@pytest.mark.parametrize("kind", [*SEQ2EXP, *(f"baseline {name}" for name in ENCODERS)])
def test_columns_give_what_codes_give_and_exact_gradients(kind):
    model, codes, signal = make(kind)
    columns = one_hot(codes, dtype=torch.float64).requires_grad_()
    from_codes = model(codes, signal).expression_BK
    from_columns = model(columns, signal).expression_BK
    torch.testing.assert_close(from_columns, from_codes, rtol=1e-9, atol=1e-12)
    assert from_codes.std() > 1e-6  # the two windows differ, so something is read
    (gradient,) = torch.autograd.grad(from_columns.sum(), columns)
    # Central differences at bases of both halves, all four columns of each.
    step = 1e-6
    for place in (WINDOW // 2 - 9, WINDOW // 2, WINDOW // 2 + 13):
        for base in range(4):
            moved = []
            for sign in (1, -1):
                shifted = columns.detach().clone()
                shifted[0, place, base] += sign * step
                moved.append(model(shifted, signal).expression_BK[0].sum())
            found = (moved[0] - moved[1]) / (2 * step)
            torch.testing.assert_close(gradient[0, place, base], found, rtol=1e-5, atol=1e-8)
    assert gradient.abs().max() > 1e-6


def test_word_gradients_are_the_values_after_a_substitution():
    """The sum over words is linear in each base, so its slope is a difference of two sums."""
    torch.manual_seed(0)
    stem = KmerStem(4, bin_size=12, length=4, channels=3).double().eval()
    bins = torch.randint(0, 4, (1, 12), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    columns = one_hot(bins, dtype=torch.float64).requires_grad_()
    total = stem._sum_columns(columns)[0, 0]
    (gradient,) = torch.autograd.grad(total, columns)
    stem.requires_grad_(requires_grad=False)
    for place in range(12):
        for base in range(4):
            changed = bins.clone()
            changed[0, place] = base
            expected = stem._sum_words(changed)[0, 0] - stem._sum_words(bins)[0, 0]
            found = gradient[0, place, base] - gradient[0, place, int(bins[0, place])]
            assert float(found) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_words_with_n_count_for_nothing_in_both_forms(length):
    stem = KmerStem(4, bin_size=16, length=length, channels=3).double().eval()
    bins = torch.tensor([[0, 1, 4, 2, 3, 3, 2, 4, 4, 0, 1, 2, 3, 0, 0, 1]], dtype=torch.uint8)
    found = stem._sum_columns(one_hot(bins, dtype=torch.float64))
    torch.testing.assert_close(found, stem._sum_words(bins))


def test_columns_are_turned_like_codes():
    codes = torch.tensor([[0, 1, 2, 3, 4, 0]], dtype=torch.uint8)
    expected = one_hot(reverse_complement(codes))
    np.testing.assert_array_equal(reverse_complement(one_hot(codes)), expected)


def test_columns_of_another_number_of_letters_are_refused():
    model, _, signal = make("words")
    with pytest.raises(ValueError, match=r"found shape \(2, 256, 5\).*\(batch, 256, 4\)"):
        model(torch.zeros(2, WINDOW, 5), signal)
