from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from seq2exp.elements.precision import Ranking, average_precision, cut_to_budget

bins = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60)


def split(items):
    label, score = zip(*items, strict=True)
    return np.array(label), np.array(score, dtype=float)


def test_hand_made_value():
    """Ranked: true, false, true, true. AP = (1/1 + 2/3 + 3/4) / 3."""
    label = np.array([True, False, True, True])
    assert average_precision(label, np.array([4.0, 3, 2, 1])) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3
    )


def test_a_constant_score_gives_the_base_rate():
    label = np.arange(20) < 3
    assert average_precision(label, np.zeros(20)) == pytest.approx(3 / 20)
    assert np.isnan(average_precision(np.zeros(4, bool), np.arange(4.0)))


@given(bins)
def test_equals_scikit_learn_with_many_ties(items):
    label, score = split(items)
    if label.any():
        expected = average_precision_score(label, score)
        assert average_precision(label, score) == pytest.approx(expected, abs=1e-6)


@given(bins, st.integers(0, 1000))
def test_a_resample_equals_repeating_the_bins_of_its_genes(items, seed):
    label, score = split(items)
    random = np.random.default_rng(seed)
    gene = random.integers(0, 4, label.size)
    counts = random.integers(0, 4, (3, 4))
    found = Ranking(label, score, gene, num_genes=4).average_precisions(counts.astype(float))
    for row, value in zip(counts, found, strict=True):
        times = row[gene]
        repeated, ranked = np.repeat(label, times), np.repeat(score, times)
        if repeated.any():
            expected = average_precision_score(repeated, ranked)
            assert value == pytest.approx(expected, abs=1e-6)
        else:
            assert np.isnan(value)


def test_budget_takes_the_best_bins_and_shares_ties():
    """Budget 40 % of 10 bins = 4: the best one, and 3 of the 6 tied bins, half of each."""
    score = np.array([9, 5, 5, 5, 5, 5, 5, 1, 1, 1], dtype=float)
    label = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 0], dtype=bool)
    ranking = Ranking(label, score, np.zeros(10, np.int64), num_genes=1)
    precision, recall = ranking.at_budget(np.ones((1, 1)), 0.4)
    assert precision[0] == pytest.approx((1 + 0.5 * 2) / 4)
    assert recall[0] == pytest.approx(2 / 4)


def test_cutting_keeps_the_order_inside_the_budget_and_ties_the_rest():
    score = np.array([0.1, 0.9, 0.8, 0.8, 0.3])
    assert cut_to_budget(score, 0.6).tolist() == [-0.9, 0.9, 0.8, 0.8, -0.9]
    # Two bins are allowed, but the tie would make them three: it is left out.
    assert cut_to_budget(score, 0.4).tolist() == [-0.9, 0.9, -0.9, -0.9, -0.9]
    assert cut_to_budget(score, 1.0).tolist() == score.tolist()


def test_curve_ends_at_full_recall():
    label = np.array([True, False, True])
    recall, precision = Ranking(
        label, np.array([3.0, 2, 1]), np.zeros(3, np.int64), num_genes=1
    ).curve()
    assert recall.tolist() == [0.5, 1.0]
    np.testing.assert_allclose(precision, [1, 2 / 3])
