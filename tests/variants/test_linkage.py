from __future__ import annotations

import numpy as np
import pytest

from seq2exp.variants.evaluate import EffectJudge
from seq2exp.variants.linkage import linked_pairs, squared_correlation


def test_squared_correlation_of_four_people():
    """Copies 0 0 1 1 and 0 1 1 2: covariance 1/4, variances 1/4 and 1/2, so r^2 = 1/2."""
    first, second = np.array([[0, 0, 1, 1]]).T, np.array([[0, 1, 1, 2]]).T
    assert squared_correlation(first, second) == pytest.approx(np.array([[0.5]]))


def test_squared_correlation_is_that_of_numpy():
    random = np.random.default_rng(0)
    dosage = random.integers(0, 3, size=(40, 6)).astype(float)
    expected = np.corrcoef(dosage.T) ** 2
    assert squared_correlation(dosage, dosage) == pytest.approx(expected)


def test_a_variant_that_all_people_share_has_no_linkage():
    dosage = np.array([[1.0, 0], [1, 1], [1, 2]])
    assert np.isnan(squared_correlation(dosage[:, :1], dosage)).all()
    # The mean of three times 0.1 is not 0.1: what rounding leaves is no difference of people.
    assert np.mean([0.1] * 3) != 0.1
    imputed = np.array([[0.1], [0.1], [0.1]])
    assert np.isnan(squared_correlation(imputed, dosage)).all()


def test_pairs_join_causal_variants_with_idle_ones_they_are_inherited_with():
    """Variants 0 and 3 act. 1 goes with 0 (r^2 = 1 the other way round), 2 with nobody, and 4 goes
    with 3 but has a small effect of its own."""
    one, other = np.array([0, 1, 2, 0, 1, 2.0]), np.array([0, 0, 0, 2, 2, 2.0])
    dosage = np.stack([one, 2 - one, [0, 2, 0, 0, 2, 0], other, other], axis=1)
    effect = np.array([-0.3, 0, 0, 0.06, 0.01])
    pairs = linked_pairs(effect, dosage, causal=0.05, negligible=1e-4)
    assert pairs.causal.tolist() == [0]
    assert pairs.linked.tolist() == [1]


def test_the_limit_of_linkage_belongs_to_it():
    first, second = np.array([[0, 0, 1, 1]]).T, np.array([[0, 1, 1, 2]]).T
    dosage = np.concatenate([first, second], axis=1)
    effect = np.array([1.0, 0.0])
    found = [
        len(linked_pairs(effect, dosage, causal=0.5, negligible=0.1, min_r2=limit).causal)
        for limit in (0.5, 0.51)
    ]
    assert found == [1, 0]


def test_the_limits_of_effects_are_those_of_the_judge():
    """An effect of the limit is causal, one of the lower limit is not idle."""
    together = np.array([0, 1, 2, 0, 1, 2.0])
    effect = np.array([0.05, 1e-4, 0.0499, 0.0, -0.05])
    dosage = np.stack([together] * len(effect), axis=1)
    pairs = linked_pairs(effect, dosage, causal=0.05, negligible=1e-4)
    assert list(zip(pairs.causal.tolist(), pairs.linked.tolist(), strict=True)) == [(0, 3), (4, 3)]
    judge = EffectJudge(np.zeros(5), effect)
    assert np.flatnonzero(judge.causal_P).tolist() == [0, 4]
    assert np.flatnonzero(judge.idle_P).tolist() == [3]
