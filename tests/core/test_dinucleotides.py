from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.sequence import decode, encode


def pairs(codes):
    return Counter(zip(codes[:-1].tolist(), codes[1:].tolist(), strict=True))


@given(st.text("ACGTN", min_size=1, max_size=80), st.integers(0, 5))
def test_pairs_ends_and_unknown_bases_stay(text, seed):
    codes = encode(text)
    shuffled = shuffle_dinucleotides(codes, np.random.default_rng(seed))
    assert pairs(shuffled) == pairs(codes)
    np.testing.assert_array_equal(shuffled == 4, codes == 4)
    known = np.concatenate(([False], codes != 4, [False]))
    borders = np.flatnonzero(known[1:] != known[:-1]).reshape(-1, 2)
    for first, last in zip(borders[:, 0], borders[:, 1] - 1, strict=True):
        assert (shuffled[first], shuffled[last]) == (codes[first], codes[last])


def test_every_shuffle_is_equally_likely():
    """All sequences with the pairs of AACAGACTA, found by trying every order of its bases."""
    text = "AACAGACTA"
    wanted = pairs(encode(text))
    inner = set(permutations(text[1:-1]))
    possible = {
        "A" + "".join(order) + "A"
        for order in inner
        if pairs(encode("A" + "".join(order) + "A")) == wanted
    }
    random = np.random.default_rng(1)
    draws = Counter(decode(shuffle_dinucleotides(encode(text), random)) for _ in range(6000))
    assert set(draws) == possible
    assert len(possible) > 10
    expected = 6000 / len(possible)
    # Mean of chi-square with k degrees of freedom is k, its standard deviation sqrt(2 k).
    freedom = len(possible) - 1
    statistic = sum((count - expected) ** 2 / expected for count in draws.values())
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def test_long_sequences_lose_their_words():
    random = np.random.default_rng(0)
    text = "".join(random.choice(list("ACGT"), 3000)) + "GATAAGGATAAG" * 50
    shuffled = decode(shuffle_dinucleotides(encode(text), random))
    assert text.count("GATAAG") >= 100
    assert shuffled.count("GATAAG") < 25


def test_the_input_is_not_changed():
    codes = encode("ACGTACGTTGCA")
    before = codes.copy()
    shuffle_dinucleotides(codes, np.random.default_rng(0))
    np.testing.assert_array_equal(codes, before)
