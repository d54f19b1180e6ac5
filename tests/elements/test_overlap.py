from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.overlap import LearnedSpace, _shifted, overlap_rows
from tests.elements.test_calling import F, P, hand_masks


def intervals(*spans, contig="chr1"):
    return pd.DataFrame(spans, columns=["start", "end"]).assign(chrom=contig)


def overlap(masks, elements, true, **more):
    distal = elements[elements["element_class"] == "distal"]
    return overlap_rows(LearnedSpace(masks), distal, true, name="called", **more)


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


@pytest.fixture
def hand():
    """Learned: 1000-1300 and 1500-1800. Called: 1100-1300 and 1500-1600."""
    masks = hand_masks([0.1, 0.6, 0.8, 1, 1, 0.9, 0.1, 0.1], [F, F, F, P, P, F, F, F])
    elements, _ = call_elements(masks, CallConfig(threshold=0.5))
    return masks, elements


def test_ratios_of_bases(hand):
    """True learned bases: 1250-1300 and 1590-1650, 110; called among them: 50 + 10 = 60 of 300."""
    found = values(overlap(*hand, intervals((1250, 1450), (1590, 1650), (5000, 6000))))
    assert found["base_precision"] == pytest.approx(60 / 300)
    assert found["base_recall"] == pytest.approx(60 / 110)
    assert found["enrichment"] == pytest.approx((60 / 300) / (110 / 600))


def test_touching_is_not_overlapping(hand):
    found = values(overlap(*hand, intervals((1300, 1310), (1600, 1650))))
    assert found["base_precision"] == 0.0


def test_everything_true_is_enriched_by_nothing(hand):
    found = values(overlap(*hand, intervals((0, 9000))))
    assert found["base_precision"] == found["enrichment"] == 1.0


def test_nothing_true_is_undefined_not_zero(hand):
    rows = overlap(*hand, intervals((1, 2), contig="chr9"))
    assert values(rows)["base_recall"] is None
    assert all(row["low"] is None for row in rows)


def test_random_calls_are_not_enriched(masks):
    """Mask values that know nothing: enrichment near 1 on average over many intervals."""
    random = np.random.default_rng(1)
    elements = call_elements(masks, CallConfig(budget=0.3, min_length_bp=32))[0]
    lengths = masks.genes.groupby("contig")["contig_length"].first()
    found = []
    for _ in range(30):
        start = random.integers(0, lengths["chr1"] - 200, 40)
        truth = intervals(*zip(start, start + 150, strict=True))
        found.append(values(overlap(masks, elements, truth, num_resamples=1))["enrichment"])
    assert 0.8 < np.mean(found) < 1.2


def test_jaccard_and_the_null_of_shifts(hand):
    """Called and true 300 of 600 learned bases each, the same ones: Jaccard 1, enrichment 2.

    Shifting two runs of 200 and 100 bases round a circle of 600 keeps every base once, so the mean
    of the null is 1 whatever the runs.
    """
    rows = overlap(*hand, intervals((1100, 1300), (1500, 1600)), num_resamples=4000)
    found = {row["metric"]: row for row in rows}
    assert found["jaccard"]["value"] == 1.0
    assert found["enrichment"]["value"] == 2.0
    null = found["enrichment_null"]
    assert null["value"] == pytest.approx(1.0, abs=0.05)
    assert 0 <= null["low"] < 1 < null["high"] <= 2
    # The runs meet themselves again at the shift 0 only, one in 600.
    assert found["enrichment_p"]["value"] < 0.01


def test_shifted_bases_are_those_of_brute_force():
    random = np.random.default_rng(3)
    masks = hand_masks(random.random((1, 9)), [F, F, P, F, F, F, P, F, F])
    space = LearnedSpace(masks)
    called, true = (space.place(intervals(*spans)) for spans in (
        ((1010, 1130), (1290, 1350), (1640, 1720)), ((1050, 1070), (1320, 1500), (1880, 1900)),
    ))  # fmt: skip
    size = space.contigs["chr1"].size
    assert size == 700

    def painted(pair):
        bases = np.zeros(size, dtype=bool)
        for start, end in zip(*pair, strict=True):
            bases[start:end] = True
        return bases

    shifts = np.random.default_rng(5).integers(0, size, 50)
    expected = [
        (painted(called["chr1"]) & np.roll(painted(true["chr1"]), shift)).sum() for shift in shifts
    ]
    found = _shifted(space, called, true, np.random.default_rng(5), 50)
    np.testing.assert_allclose(found, expected)
