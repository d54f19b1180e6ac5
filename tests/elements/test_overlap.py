from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.overlap import overlap_table
from seq2exp.elements.truth import Truth
from tests.elements.test_calling import F, P, hand_masks


def intervals(*spans, contig="chr1"):
    frame = pd.DataFrame(spans, columns=["start", "end"])
    return Truth(frame.assign(chrom=contig, gene_id=None, causal=True, kind="element"), "peaks.bed")


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
    found = values(overlap_table(*hand, intervals((1250, 1450), (1590, 1650), (5000, 6000))))
    assert found["base_precision"] == pytest.approx(60 / 300)
    assert found["base_recall"] == pytest.approx(60 / 110)
    assert found["enrichment"] == pytest.approx((60 / 300) / (110 / 600))
    assert found["elements_overlapping"] == 1.0


def test_touching_is_not_overlapping(hand):
    found = values(overlap_table(*hand, intervals((1300, 1310), (1600, 1650))))
    assert found["elements_overlapping"] == 0.0
    assert found["base_precision"] == 0.0


def test_everything_true_is_enriched_by_nothing(hand):
    found = values(overlap_table(*hand, intervals((0, 9000))))
    assert found["base_precision"] == found["enrichment"] == 1.0


def test_nothing_true_is_undefined_not_zero(hand):
    rows = overlap_table(*hand, intervals((1, 2), contig="chr9"))
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
        found.append(values(overlap_table(masks, elements, truth, num_resamples=1))["enrichment"])
    assert 0.8 < np.mean(found) < 1.2
