from __future__ import annotations

import pytest
from matplotlib.colors import to_hex

from seq2exp.report.spatial_plot import plot_systems
from seq2exp.report.style import COLOURS
from seq2exp.training.metrics import Estimate

VALUES = {
    ("ridge", "pearson"): (0.10, 0.08, 0.12),
    ("nsl", "pearson"): (0.07, 0.05, 0.09),
    ("nsl: mean density ridge", "pearson"): (0.06, 0.03, 0.09),
    ("depth", "pearson"): (0.15, 0.14, 0.16),
    ("ridge: shuffled patches", "pearson"): (0.0, -0.01, 0.02),
    ("nsl: shuffled patches", "pearson"): (0.0, -0.03, 0.01),
    ("ridge", "pearson_partial"): (0.05, 0.04, 0.06),
    ("nsl", "pearson_partial"): (0.02, 0.01, 0.03),
}


@pytest.fixture(scope="module")
def axes():
    rows = [Estimate(*number, 9).row(*key, split="test") for key, number in VALUES.items()]
    return plot_systems(rows, ["nsl", "ridge"], reference="ridge", note="two patients").axes


def test_every_system_has_an_interval_and_its_own_control_below_it(axes):
    first = axes[0]
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels == ["ridge", "nsl: mean density ridge", "nsl"]
    bars = {
        round(line.get_ydata()[0]): tuple(line.get_xdata())
        for line in first.lines
        if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]
    }
    assert bars == {0: (0.08, 0.12), 1: (0.03, 0.09), 2: (0.05, 0.09)}


def test_controls_and_reference_are_lines_at_their_values(axes):
    upright = {line.get_label(): line for line in axes[0].lines if line.get_ydata()[-1] == 1}
    places = {
        label: line.get_xdata()[0] for label, line in upright.items() if not label.startswith("_")
    }
    assert places == {"ridge": 0.10, "depth": 0.15, "train mean (0)": 0}
    assert to_hex(upright["ridge"].get_color()) == COLOURS["blue"].lower()
    band = axes[0].patches[0]
    assert band.get_x() == pytest.approx(-0.03)
    assert band.get_x() + band.get_width() == pytest.approx(0.02)


def test_depth_has_no_line_where_it_is_taken_out(axes):
    labels = {line.get_label() for line in axes[1].lines}
    assert "depth" not in labels
    assert "ridge" in labels
