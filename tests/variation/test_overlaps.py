"""Which records apply, told before sequences are built: against the builder and a slow telling."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import encode
from seq2exp.variation.alleles import Allele, normalise
from seq2exp.variation.haplotypes import build
from seq2exp.variation.overlaps import applied
from seq2exp.variation.table import Variants
from tests.variation.slow import drops, drops_longest


def crowded(seed):
    """A short contig and many variants of every class on it."""
    random = np.random.default_rng(seed)
    text = "".join(random.choice(list("ACGT"), 60))
    rows = set()
    while len(rows) < 14:
        position, size = int(random.integers(10, 45)), int(random.integers(1, 5))
        ref = text[position : position + size]
        alt = "".join(random.choice(list("ACGT"), random.integers(1, 5)))
        if alt != ref:
            rows.add(tuple(normalise(Allele(position, ref, alt), encode(text))))
    order = sorted(rows, key=lambda row: (row[0], random.random()))
    return text, order, random.integers(0, 2, (40, len(order))).astype(np.uint8)


@pytest.mark.parametrize("overlap", ["first", "longest"])
def test_what_applies_is_what_the_builder_puts_in(overlap):
    slow = {"first": drops, "longest": drops_longest}[overlap]
    num_dropped = 0
    for seed in range(25):
        text, rows, actions = crowded(seed)
        variants, codes = Variants.from_alleles(rows), encode(text)
        window = Window("c", 0, len(text), "+", len(text))
        found = applied(codes, variants, actions, overlap=overlap)
        for kept, carried in zip(found, actions, strict=True):
            left_out = [i for i in np.flatnonzero(carried) if not kept[i]]
            assert left_out == slow(rows, carried.tolist())
            num_dropped += len(left_out)
        expected = build(codes, variants, actions, window, 30, overlap=overlap)
        built = build(codes, variants, found, window, 30, overlap="error")
        np.testing.assert_array_equal(built.codes_HL, expected.codes_HL)
        # Without any one of them the others still apply.
        for row in found[:5]:
            for number in np.flatnonzero(row):
                fewer = row.copy()
                fewer[number] = 0
                np.testing.assert_array_equal(
                    applied(codes, variants, fewer[None], overlap=overlap)[0], fewer
                )
        assert (actions <= 1).all()
    assert num_dropped > 300


def test_what_is_no_rule_or_no_place_is_refused():
    variants = Variants.from_alleles([(8, "A", "C")])
    with pytest.raises(InputError, match="rule first or longest"):
        applied(encode("ACGTACGTA"), variants, np.ones((1, 1), np.uint8), overlap="error")
    with pytest.raises(InputError, match="outside of its contig"):
        applied(encode("ACGT"), variants, np.ones((1, 1), np.uint8))
