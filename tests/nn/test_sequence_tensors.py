"""One-hot and reverse complement on batches, against the numpy functions of the core."""

from __future__ import annotations

import numpy as np
import torch

from seq2exp.core import sequence
from seq2exp.nn.sequence import flip_bins, one_hot, reverse_complement


def test_one_hot_order_and_n():
    codes = torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert one_hot(codes)[0].tolist() == expected
    assert one_hot(codes, dtype=torch.float64).dtype == torch.float64


def test_agrees_with_the_core():
    codes = sequence.encode("ACGTNNTTGCA")
    batch = torch.from_numpy(np.stack([codes, codes]))
    assert one_hot(batch)[1].numpy().tolist() == sequence.one_hot(codes).tolist()
    assert reverse_complement(batch)[0].tolist() == sequence.reverse_complement(codes).tolist()
    assert torch.equal(reverse_complement(reverse_complement(batch)), batch)


def test_signals_are_mirrored_but_not_complemented():
    signal = torch.arange(6.0).view(1, 3, 2)
    assert flip_bins(signal).tolist() == [[[4, 5], [2, 3], [0, 1]]]
    assert flip_bins(torch.tensor([[True, False, False]])).tolist() == [[False, False, True]]
