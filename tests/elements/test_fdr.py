from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.fdr import (
    FdrCurve,
    count_runs,
    fdr_curve,
    fdr_summary,
    learned_histogram,
    null_share,
)
from seq2exp.elements.masks import EXCLUDED, PROMOTER
from tests.elements.hand import BIN, drawn_masks, masks_of


def true_rate(masks, element, elements):
    """Return the share of called distal elements without a bin of a true one."""
    false = []
    for call in elements[elements["element_class"] == "distal"].itertuples():
        gene = masks.index(call.gene_id)
        first = (call.start - int(masks.genes["start"][gene])) // BIN
        last = (call.end - int(masks.genes["start"][gene])) // BIN
        false.append(not element[gene, first:last].any())
    return np.mean(false)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_stated_level_is_the_true_one(level, seed):
    """Null and element bins come from known distributions; about 9,800 elements are there."""
    masks, null, element = drawn_masks(num_genes=2000, num_bins=100, share=0.1, seed=seed)
    curve = fdr_curve(masks, [null], min_length=BIN)
    elements, threshold = call_elements(masks, CallConfig(fdr=level, max_gap_bp=0), curve=curve)
    found = true_rate(masks, element, elements)
    assert found == pytest.approx(level, rel=0.2)
    assert curve.value(threshold) <= level
    # A null that is not scaled by pi0 would state too much.
    assert curve.pi0 == pytest.approx(0.9, abs=0.04)


@pytest.mark.filterwarnings("ignore::seq2exp.core.errors.Seq2ExpWarning")
def test_without_elements_nothing_is_called():
    masks, null, _ = drawn_masks(num_genes=200, num_bins=60, share=0, seed=3)
    curve = fdr_curve(masks, [null])
    assert curve.pi0 == pytest.approx(1, abs=0.02)
    elements, threshold = call_elements(masks, CallConfig(fdr=0.05), curve=curve)
    called = (elements["element_class"] == "distal").sum()
    # The best few of noise may beat the best few of other noise; a map it is not.
    assert called < 10 or np.isinf(threshold)


def test_a_level_out_of_reach_calls_nothing_and_says_so():
    masks = masks_of([[0.1, 0.5, 0.1, 0.9, 0.1, 0.3]])
    curve = fdr_curve(masks, [masks], min_length=BIN)
    assert curve.choose(0.1) is None
    with pytest.warns(Seq2ExpWarning, match="at best"):
        elements, threshold = call_elements(masks, CallConfig(fdr=0.1), curve=curve)
    assert elements.empty
    assert np.isinf(threshold)


def test_numbers_by_hand():
    """Two draws with 3 and 4 elements: (7 + 1) / 2 of 10 called ones, times pi0 of a half."""
    curve = FdrCurve(
        threshold=np.array([0.2, 0.4, 0.6, 0.8]),
        observed=np.array([10, 8, 4, 1]),
        null=np.array([3.5, 1.5, 2.0, 0.0]),
        pi0=0.5,
        num_draws=2,
    )
    np.testing.assert_allclose(curve.fdr, [0.2, 0.125, 2.5 / 8, 0.25])
    np.testing.assert_allclose(curve.q_value, [0.2, 0.125, 0.125, 0.125])
    found = curve.at([0.1, 0.2, 0.59, 0.7, 0.95])
    np.testing.assert_allclose(found, [1, 0.2, 0.125, 0.125, 0.125])
    assert curve.choose(0.2) == 0.2
    assert curve.choose(0.15) == 0.4
    assert curve.choose(0.1) is None
    assert curve.value(0.7) == 2.5 / 8
    with pytest.raises(ConfigError, match="0 < value < 1"):
        curve.choose(1.0)


@pytest.mark.parametrize(("gap", "length"), [(0, 100), (100, 100), (200, 300)])
def test_counts_are_those_of_the_caller(gap, length):
    random = np.random.default_rng(5)
    forced = np.where(random.random((20, 40)) < 0.05, EXCLUDED, 0)
    masks = masks_of(random.random((20, 40)), forced)
    thresholds = np.array([0.8, 0.3, 0.6])
    counts = count_runs(masks, thresholds, max_gap=gap, min_length=length)
    for threshold, count in zip(thresholds, counts, strict=True):
        rule = CallConfig(threshold=threshold, max_gap_bp=gap, min_length_bp=length)
        elements, _ = call_elements(masks, rule)
        assert count == (elements["element_class"] == "distal").sum()
    kept = count_runs(masks, thresholds, max_gap=gap, min_length=length, keep=np.arange(20) < 7)
    assert (kept < counts).all()


def test_thresholds_stop_where_elements_grow_together():
    """At 0.2 everything is one run; no threshold below the peak of the count is tabulated."""
    masks = masks_of([[0.9, 0.2, 0.8, 0.2, 0.7, 0.2]] * 4)
    curve = fdr_curve(masks, [masks_of(np.full((4, 6), 0.05))], min_length=BIN)
    # Two sides of the window do not matter here: nothing is forced.
    assert curve.threshold[0] == pytest.approx(0.7, abs=1e-3)
    assert curve.observed[0] == 12


def test_thresholds_stop_before_noise_is_added():
    """Strong elements stand alone; null bins and noise of equal law fill the rest below 0.5."""
    random = np.random.default_rng(0)
    noise, null = 0.5 * random.random((2, 200, 60))
    forced = np.zeros((200, 60), dtype=np.uint8)
    forced[:, 1::2] = EXCLUDED
    noise[:, 10] = 0.9
    curve = fdr_curve(masks_of(noise, forced), [masks_of(null, forced)], min_length=BIN)
    # Half of the bins exceed 0.25, where runs are most; true elements are most above the noise.
    assert (
        count_runs(masks_of(noise, forced), np.array([0.25, 0.5]), max_gap=0, min_length=BIN)[0]
        > 2 * curve.observed[0]
    )
    assert curve.threshold[0] > 0.35
    # A level that no threshold reaches gets the last useful one.
    assert curve.choose(0.9) == curve.threshold[0]


def test_null_share_by_hand():
    """A share lam of null bins lies above c; 3 of 10 observed bins are elements above it."""
    observed = learned_histogram(masks_of([[0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.9, 0.9, 0.9]]))
    null = learned_histogram(masks_of([[0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4, 0.1, 0.5]]))
    # At lam 0.1 the cut is 0.4, below which 9 of 10 null bins lie: (7 / 10) / (9 / 10).
    assert null_share(observed, null, lam=0.1) == pytest.approx(7 / 9)
    assert null_share(null, null) == 1


def test_forced_bins_do_not_count():
    values = [[0.9, 0.9, 0.1, 0.9, 0.1, 0.9]]
    forced = [[EXCLUDED, PROMOTER, 0, 0, 0, 0]]
    counts = learned_histogram(masks_of(values, forced))
    assert counts.sum() == 4
    assert count_runs(masks_of(values, forced), np.array([0.5]), max_gap=0, min_length=1) == [2]


def test_genes_without_a_learned_bin():
    """Some are passed over; when all are, that is an error."""
    masks, null, _ = drawn_masks(num_genes=6, num_bins=12, share=0.3, seed=0)
    forced = masks.forced.copy()
    forced[2] = EXCLUDED
    partly = dataclasses.replace(masks, forced=forced)
    assert fdr_curve(partly, [dataclasses.replace(null, forced=forced)]).observed.max() > 0
    forced[:] = PROMOTER
    nothing = dataclasses.replace(masks, forced=forced)
    with pytest.raises(InputError, match="no learned bin"):
        fdr_curve(nothing, [nothing])


def test_null_masks_of_other_genes_are_refused():
    masks, null, _ = drawn_masks(num_genes=6, num_bins=12, share=0.3, seed=0)
    other = dataclasses.replace(null, genes=null.genes.iloc[::-1].reset_index(drop=True))
    with pytest.raises(InputError, match="same run, dataset and rows"):
        fdr_curve(masks, [other])
    with pytest.raises(InputError, match="at least one draw"):
        fdr_curve(masks, [])


def test_summary_adds_up():
    masks, null, _ = drawn_masks(num_genes=40, num_bins=60, share=0.1, seed=2)
    curve = fdr_curve(masks, [null, null])
    found = fdr_summary(curve, masks, [null, null], threshold=0.5, max_gap=0, min_length=100)
    total = count_runs(masks, np.array([0.5]), max_gap=0, min_length=100)[0]
    for part in ("by_split", "by_distance_bp"):
        assert sum(entry["observed"] for entry in found[part].values()) == total
    assert set(found["by_split"]) == {"valid", "test"}
    entry = found["by_split"]["test"]
    assert entry["fdr"] == pytest.approx(curve.pi0 * (entry["null"] + 0.5) / entry["observed"])
    assert "by_split" not in fdr_summary(
        curve, masks, [null], threshold=None, max_gap=0, min_length=100
    )
