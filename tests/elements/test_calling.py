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
    call_runs,
    merge_elements,
)
from seq2exp.elements.masks import FREE, PROMOTER, GeneMasks

# start, end, value; cutoff 5, longest gap 30, shortest run 200.
GOLDEN = [
    (0, 100, 9.0),  # run A
    (100, 130, 1.0),  # gap of exactly 30: bridged
    (130, 240, 5.0),  # a value equal to the cutoff is kept
    (240, 271, 0.0),  # gap of 31: ends run A
    (271, 470, 7.0),  # 199 bases: too short
    (470, 600, 0.0),
    (600, 700, 6.0),  # run B, 200 bases: just long enough
    (700, 800, 8.0),
]


def golden(**changes):
    starts, ends, values = zip(*GOLDEN, strict=True)
    settings = {"cutoff": 5.0, "max_gap": 30, "min_length": 200} | changes
    return call_runs(starts, ends, values, **settings)


def test_run_length_rule_on_hand_made_data():
    runs = golden()
    assert list(zip(runs.start, runs.end, strict=True)) == [(0, 240), (600, 800)]
    assert runs.height.tolist() == [9.0, 8.0]
    assert runs.summit.tolist() == [50, 750]
    # (100 * 9 + 30 * 1 + 110 * 5) / 240 and (100 * 6 + 100 * 8) / 200
    np.testing.assert_allclose(runs.mean, [1480 / 240, 7.0])


def test_each_setting_matters():
    assert golden(max_gap=29, min_length=1).start.tolist() == [0, 130, 271, 600]
    assert golden(max_gap=31, min_length=1).end.tolist() == [470, 800]
    assert golden(min_length=199).start.tolist() == [0, 271, 600]
    assert golden(min_length=201).start.tolist() == [0]
    assert golden(cutoff=5.1, min_length=1).end.tolist() == [100, 470, 800]
    assert len(golden(cutoff=10)) == 0


def test_groups_are_never_joined():
    runs = call_runs([0, 10, 20], [10, 20, 30], [1, 1, 1], cutoff=1, groups=[4, 4, 7])
    assert runs.end.tolist() == [20, 30]
    assert runs.group.tolist() == [4, 7]


def test_nan_and_empty_intervals_are_no_signal():
    runs = call_runs([0, 10, 10, 20], [10, 10, 20, 30], [2, 2, np.nan, 2], cutoff=1)
    assert list(zip(runs.start, runs.end, strict=True)) == [(0, 10), (20, 30)]


def test_the_middle_of_tied_summits_is_taken():
    runs = call_runs([0, 10, 20], [10, 20, 30], [3, 3, 3], cutoff=1)
    assert runs.summit.tolist() == [15]


def slow_runs(starts, ends, values, cutoff, max_gap, min_length):
    """The rule once more, one interval at a time."""
    runs, current = [], []
    for item in zip(starts, ends, values, strict=True):
        if item[2] < cutoff:
            continue
        if current and item[0] - current[-1][1] > max_gap:
            runs.append(current)
            current = []
        current.append(item)
    if current:
        runs.append(current)
    long = [run for run in runs if run[-1][1] - run[0][0] >= min_length]
    return [(run[0][0], run[-1][1], max(value for *_, value in run)) for run in long]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(0, 4)), max_size=40),
    st.integers(1, 4),
    st.integers(0, 50),
    st.integers(1, 120),
)
def test_vectorised_rule_equals_the_plain_loop(steps, cutoff, max_gap, min_length):
    starts, ends, values, position = [], [], [], 0
    for gap, length, value in steps:
        starts.append(position + gap)
        position += gap + length
        ends.append(position)
        values.append(float(value))
    runs = call_runs(starts, ends, values, cutoff=cutoff, max_gap=max_gap, min_length=min_length)
    found = list(zip(runs.start.tolist(), runs.end.tolist(), runs.height.tolist(), strict=True))
    assert found == slow_runs(starts, ends, values, cutoff, max_gap, min_length)


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
    [("threshold", 0.0), ("budget", 1.5), ("max_gap_bp", -1), ("min_length_bp", 0)],
)
def test_wrong_settings_are_named(key, value):
    with pytest.raises(ConfigError, match=key):
        CallConfig(**{key: value})
