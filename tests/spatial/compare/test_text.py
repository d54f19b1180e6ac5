from __future__ import annotations

import dataclasses

import pytest

from seq2exp.spatial.compare.text import comparison_text, markdown_table, of_patients
from seq2exp.training.metrics import Estimate


def facts(num_patients, *, leaky=False):
    return {"num_patients": num_patients, "num_sections": 8, "num_spots": 500, "leaky": leaky}


@pytest.mark.parametrize(
    ("num_patients", "leaky", "parts"),
    [
        (
            1,
            True,
            [
                "1 patient, 8 sections, 500 spots",
                "speak of that patient only. With so few units",
                "Leaky",
            ],
        ),
        (2, False, ["2 patients, 8 sections", "may be another with other patients. With so few"]),
        (23, False, ["23 patients, 8 sections"]),
    ],
)
def test_what_the_patients_allow_is_said(num_patients, leaky, parts):
    lines = of_patients(facts(num_patients, leaky=leaky))
    assert len(lines) == len(parts)
    assert all(part in line for part, line in zip(parts, lines, strict=True))


def test_the_page_names_protocol_controls_and_costs(compared):
    text = (compared[0] / "table.md").read_text()
    assert "20 genes (`heg`), chosen on the fitting sections of each fold" in text
    header = next(line for line in text.splitlines() if line.startswith("| system | Pearson"))
    assert "Pearson minus ridge | Pearson minus depth | shuffled patches" in header
    for line in ("| ridge |", "| stnet |", "| *depth of the spot* |", "| *train mean* | 0 | 0 |"):
        assert line in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows}
    assert widths == {header.count("|"), 6}
    assert "One training of each system" in text


def test_verdicts_follow_the_paired_intervals(compared):
    found = compared[1]
    number = {"a": (0.1, 0.2), "b": (-0.2, -0.1), "c": (-0.1, 0.1)}
    rows, costs = [], []
    for name, (low, high) in number.items():
        rows += [
            Estimate((low + high) / 2, low, high, 9).row(f"{name} - {other}", "pearson", split="t")
            for other in ("ridge", "depth", "shuffled patches")
        ]
        costs.append(dataclasses.replace(found.costs[0], name=name))
    rows += [row for row in found.rows if row["name"] in ("depth", "train mean")]
    text = comparison_text(dataclasses.replace(found, rows=rows, costs=costs))
    verdict = "(Pearson, interval of the difference; for the patients judged, no others): "
    for other in ("ridge", "depth"):
        assert f"Against {other} {verdict}above: a; below: b; not told apart: c." in text
    assert "Not shown to read the patches (shuffled ones do as well): b, c." in text


def test_short_rows_are_filled():
    assert markdown_table(["a", "b"], [["1"]]) == ["| a | b |", "|---|---|", "| 1 |  |"]
