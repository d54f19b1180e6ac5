from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core.errors import ConfigError, Seq2ExpWarning
from seq2exp.elements.calling import (
    CallConfig,
    budget_threshold,
    call_elements,
    merge_elements,
)
from seq2exp.elements.masks import FREE, PROMOTER, GeneMasks


def hand_masks(mask, forced, *, strand="+", start=1000, bin_size=100):
    mask = np.atleast_2d(np.asarray(mask, dtype=np.float16))
    forced = np.atleast_2d(np.asarray(forced, dtype=np.uint8))
    num_genes, num_bins = mask.shape
    genes = pd.DataFrame(
        {
            "row": np.arange(num_genes),
            "gene_id": [f"g{i}" for i in range(num_genes)],
            "symbol": [f"S{i}" for i in range(num_genes)],
            "contig": "chr1",
            "tss": start + num_bins * bin_size // 2,
            "strand": strand,
            "split": "test",
            "start": start,
            "contig_length": 10_000,
        }
    )
    info = {"assembly": "toy", "num_members": 1, "promoter_bp": 2 * bin_size}
    return GeneMasks(genes, mask, forced, None, None, bin_size, info)


P, F = PROMOTER, FREE


def test_promoter_is_its_own_class_and_never_joins_a_run():
    """Bins 3 and 4 are forced; the runs on both sides would be one run otherwise."""
    masks = hand_masks([0.1, 0.6, 0.8, 1, 1, 0.9, 0.1, 0.1], [F, F, F, P, P, F, F, F])
    elements, threshold = call_elements(
        masks, CallConfig(threshold=0.5, max_gap_bp=500, min_length_bp=100)
    )
    assert threshold == 0.5
    rows = elements[["start", "end", "element_class", "distance"]].to_numpy().tolist()
    # The TSS is at 1400. The last base of the left run is 1299, the first of the right one 1500.
    assert rows == [
        [1100, 1300, "distal", -101],
        [1300, 1500, "promoter", 0],
        [1500, 1600, "distal", 100],
    ]
    left = elements.iloc[0]
    assert left["score"] == 700
    assert left["mean_mask"] == pytest.approx(0.7, abs=1e-3)
    assert left["summit"] == 1250
    assert elements.iloc[1]["summit"] == 1400


def test_distance_follows_transcription():
    masks = hand_masks([0.1, 0.9, 0.1, 1, 1, 0.1, 0.1, 0.1], [F, F, F, P, P, F, F, F], strand="-")
    elements, _ = call_elements(masks, CallConfig(threshold=0.5))
    distal = elements[elements["element_class"] == "distal"].iloc[0]
    assert distal["distance"] == 201  # lower positions are downstream of a minus-strand TSS
    assert distal["strand"] == "-"


def test_budget_counts_learned_bins_only():
    """Ten learned bins with values 0.1 ... 1.0: a budget of 30 % keeps 0.8, 0.9 and 1.0."""
    values = [*np.arange(1, 11) / 10, 1, 1]
    masks = hand_masks(values, [F] * 10 + [P] * 2)
    threshold = budget_threshold(masks, 0.3)
    assert threshold == pytest.approx(0.8, abs=1e-3)
    assert threshold == float(np.float16(0.8))
    assert budget_threshold(masks, 0.39) == threshold
    assert budget_threshold(masks, 1.0) == pytest.approx(0.1, abs=1e-3)


@given(
    st.lists(st.integers(0, 1000), min_size=4, max_size=60).filter(lambda x: len(x) % 2 == 0),
    st.floats(0.01, 1),
)
def test_budget_is_kept_and_cannot_be_used_better(values, budget):
    scores = np.asarray(values, dtype=np.float16) / np.float16(1000)
    masks = hand_masks(scores, [F] * len(values))
    threshold = budget_threshold(masks, budget)
    kept = (scores >= threshold).sum()
    assert kept <= budget * len(values)
    below = scores[scores < threshold]
    if below.size:
        assert (scores >= below.max()).sum() > budget * len(values)


def test_a_flat_mask_calls_nothing_and_says_so():
    masks = hand_masks([0.3] * 8, [F] * 8)
    with pytest.warns(Seq2ExpWarning, match="no distal element"):
        elements, _ = call_elements(masks, CallConfig(budget=0.5))
    assert len(elements) == 0


def test_called_elements_of_a_run_are_sorted_and_reach_the_threshold(masks):
    elements, threshold = call_elements(masks, CallConfig(budget=0.1, min_length_bp=64))
    assert elements[["chrom", "start", "end"]].apply(tuple, axis=1).is_monotonic_increasing
    distal = elements[elements["element_class"] == "distal"]
    assert len(distal) > 5
    assert (distal["mean_mask"] >= threshold).all()
    assert (distal["max_mask"] >= distal["mean_mask"]).all()
    assert ((distal["summit"] >= distal["start"]) & (distal["summit"] < distal["end"])).all()
    assert (elements["element_class"] == "promoter").sum() == len(masks)


def test_union_joins_overlaps_and_keeps_the_genes():
    elements = pd.DataFrame(
        {
            "chrom": ["chr1", "chr1", "chr1", "chr2"],
            "start": [0, 50, 100, 50],
            "end": [100, 90, 200, 60],
            "score": [100, 900, 5, 7],
            "mean_mask": [0.1, 0.9, 0.005, 0.007],
            "max_mask": [0.2, 1.0, 0.01, 0.01],
            "gene_id": ["b", "a", "a", "c"],
            "element_class": ["distal", "promoter", "distal", "distal"],
        }
    )
    union = merge_elements(elements)
    assert union[["chrom", "start", "end"]].to_numpy().tolist() == [
        ["chr1", 0, 100],
        ["chr1", 100, 200],
        ["chr2", 50, 60],
    ]
    assert union["genes"].tolist() == ["a,b", "a", "c"]
    assert union["element_class"].tolist() == ["promoter", "distal", "distal"]
    assert union["score"].tolist() == [900, 5, 7]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", 0.0),
        ("budget", 1.5),
        ("max_gap_bp", -1),
        ("min_length_bp", 0),
        ("fdr", 1.0),
    ],
)
def test_wrong_settings_are_named(key, value):
    with pytest.raises(ConfigError, match=key):
        CallConfig(**{key: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"fdr": 0.1, "budget": 0.05},
        {"fdr": 0.1, "threshold": 0.5},
        {"threshold": 0.5, "budget": 0.1},
    ],
)
def test_only_one_setting_may_set_the_threshold(settings):
    with pytest.raises(ConfigError, match="one of threshold, budget and fdr"):
        CallConfig(**settings)


def test_defaults_follow_the_setting():
    assert (CallConfig().budget, CallConfig().gap) == (0.05, 0)
    assert (CallConfig(fdr=0.1).budget, CallConfig(fdr=0.1).gap) == (None, 256)
    assert CallConfig(fdr=0.1, max_gap_bp=0).gap == 0
    assert CallConfig(threshold=0.5).budget is None


def test_a_level_needs_null_masks():
    with pytest.raises(ConfigError, match="no null masks"):
        call_elements(hand_masks([0.1, 0.6], [F, F]), CallConfig(fdr=0.1))
