"""The run-length rule of peak callers against hand-made data and a plain loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.core.runs import call_runs

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
