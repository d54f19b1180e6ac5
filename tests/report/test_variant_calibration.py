from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.report.variant_calibration import plot_calibration, write_calibration
from seq2exp.variants.calibration import calibration_table


def p_values(num=500, draws=99, *, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(1, draws + 2, num) / (draws + 1)


def test_points_are_the_sorted_p_values_on_their_expected_places():
    p = np.array([0.5, 0.02, np.nan, 0.2, 1.0])
    sorted_, shares = plot_calibration({"null": p}, levels=(0.1, 0.5)).axes
    points = next(line for line in sorted_.lines if line.get_marker() == ".")
    assert len(points.get_xdata()) == 4
    np.testing.assert_allclose(10 ** -points.get_xdata(), np.arange(1, 5) / 5)
    np.testing.assert_allclose(10 ** -points.get_ydata(), [0.02, 0.2, 0.5, 1.0])
    drawn = np.array(shares.containers[0].lines[0].get_xydata(), dtype=float)
    np.testing.assert_allclose(drawn, [[0.1, 0.25], [0.5, 0.75]])
    assert [text.get_text() for text in sorted_.get_legend().get_texts()] == [
        "95 % of 4 uniform p", "null (n = 4)"]  # fmt: skip


def test_levels_that_no_p_value_can_reach_are_not_drawn():
    _, shares = plot_calibration({"null": p_values()}, step=0.01).axes
    assert shares.containers[0].lines[0].get_xdata().min() == pytest.approx(0.01)


def test_many_p_values_are_thinned_but_the_smallest_stay():
    p = np.random.default_rng(0).random(50_000)
    sorted_, _ = plot_calibration({"null": p}).axes
    points = next(line for line in sorted_.lines if line.get_marker() == ".")
    seen = 10 ** -points.get_ydata()
    assert len(seen) <= 2_000
    np.testing.assert_allclose(seen[:10], np.sort(p)[:10])


def test_files_are_written_and_the_same_each_time(tmp_path):
    p = {"no effect": p_values(), "causal": p_values() ** 2}
    table = write_calibration(p, tmp_path / "a", step={"no effect": 0.01, "causal": 0.0})
    write_calibration(p, tmp_path / "b", step={"no effect": 0.01, "causal": 0.0})
    for suffix in ("png", "svg", "tsv"):
        name = f"calibration.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    read = pd.read_csv(tmp_path / "a" / "calibration.tsv", sep="\t")
    assert list(read.columns[:4]) == ["name", "level", "expected", "observed"]
    pd.testing.assert_frame_equal(read, table)
    with pytest.raises(InputError, match="0 sets of p-values"):
        plot_calibration({"nothing": [np.nan]})


def test_the_intervals_drawn_are_those_of_the_table(tmp_path):
    """40 genes with 10 equal p-values each: an interval over genes is wider than Wilson's."""
    p = np.repeat(p_values()[:40], 10)
    groups = np.repeat(np.arange(40).astype(str), 10).astype(object)
    table = write_calibration({"null": p}, tmp_path / "a", groups=groups)
    _, shares = plot_calibration({"null": p}, groups=groups).axes
    (bars,) = shares.containers[0].lines[2]
    drawn = np.array([segment[:, 1] for segment in bars.get_segments()])
    kept = table[table["expected"] > 0]
    np.testing.assert_allclose(drawn, kept[["low", "high"]], atol=1e-12)
    alone = calibration_table(p)
    row = kept["level"] == 0.5
    wide = (kept["high"] - kept["low"])[row].iloc[0]
    assert wide > 2 * (alone["high"] - alone["low"])[alone["level"] == 0.5].iloc[0]
