"""Seqlets: planted peaks are found once, their false-discovery rate is counted."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError
from seq2exp.interpret.seqlets import SeqletConfig, find_stretches, null_scale, q_values


def test_a_planted_stretch_is_found_with_its_width():
    random = np.random.default_rng(0)
    share = random.normal(0, 0.1, 400)
    null = random.normal(0, 0.1, 400)
    share[100:108] += 1
    share[300:316] -= 1
    scale = null_scale(null, (6, 8, 10, 16))
    found = find_stretches(share, scale, weakest=8)
    assert found.start.tolist() == pytest.approx([100, 300], abs=1)
    assert found.width.tolist() == [8, 16]
    assert found.z[0] > 0 > found.z[1]
    # z is the sum over what sums are like by chance.
    sums = np.convolve(null, np.ones(8), mode="valid")
    assert scale[8] == pytest.approx(np.sqrt((sums**2).mean()))


def test_stretches_do_not_overlap_and_short_arrays_have_none():
    share = np.random.default_rng(1).normal(0, 1, 500)
    found = find_stretches(share, {6: 1.0, 20: 2.0}, weakest=0.5)
    assert found.start.size > 10
    assert (found.start[1:] >= found.start[:-1] + found.width[:-1]).all()
    assert find_stretches(share[:3], {6: 1.0}).start.size == 0
    assert find_stretches(share, {6: 0.0}).start.size == 0


def test_q_values_count_decoys():
    """Scores 9 8 3 2 and decoys 5 1: q = (1+0)/1, (1+0)/2, (1+1)/3, (1+1)/4, minimum from below."""
    found = q_values(np.array([3.0, 9.0, 2.0, 8.0]), np.array([5.0, 1.0]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.5])
    found = q_values(np.array([9.0, 8.0, 7.0, 2.0]), np.array([5.0, 4.0, 3.0]))
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 3, 1.0])
    # Ties count together, and the ratio scales what was searched.
    np.testing.assert_allclose(q_values(np.array([2.0, 2.0]), np.array([2.0])), [1.0, 1.0])
    np.testing.assert_allclose(q_values(np.array([2.0, 2.0]), np.array([]), ratio=0.5), 0.25)
    assert q_values(np.array([]), np.array([1.0])).size == 0


def test_q_values_keep_the_rate_they_state():
    """Half of 2,000 scores are chance: of those called at 10 %, about 10 % are chance."""
    random = np.random.default_rng(2)
    chance, real = np.abs(random.normal(0, 1, 1000)), np.abs(random.normal(4, 1, 1000))
    q = q_values(np.concatenate([chance, real]), np.abs(random.normal(0, 1, 1000)))
    called = q <= 0.1
    assert called[:1000].sum() / called.sum() == pytest.approx(0.1, abs=0.03)
    assert called[1000:].mean() > 0.95


def test_settings_that_make_no_sense():
    for changes in ({"fdr": 0}, {"fdr": 2}, {"widths": ()}, {"widths": (1,)}):
        with pytest.raises(ConfigError):
            SeqletConfig(**changes)
