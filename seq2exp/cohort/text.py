"""The numbers of a benchmark as a table to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SPLIT_TEXTS", "benchmark_text", "model_names", "value_of"]

Row = Mapping[str, Any]
SPLIT_TEXTS = {
    "A": "seen genes, new people",
    "B": "seen genes, new population",
    "C": "unseen genes, all people",
    "C_new": "unseen genes, new people",
}
"""What each test asks."""
_COLUMNS = (
    ("pearson_mean", "r across people"),
    ("pearson_num_undefined", "undefined"),
    ("pearson_sign_flip_fraction", "sign flips"),
    ("fraction_of_h2_corrected", "share of h2"),
    ("null_pearson_mean_p", "p, permuted"),
    ("pearson_mean_p", "p, signs"),
    ("across_genes_pearson_mean", "r across genes"),
)


def model_names(rows: Sequence[Row]) -> list[str]:
    """Return the names of models and baselines, in the order of the rows."""
    return list(dict.fromkeys(str(row["name"]) for row in rows))


def value_of(rows: Sequence[Row], name: str, metric: str, split: str) -> Row | None:
    """Return the row of all genes, or None."""
    wanted = (name, metric, split, None)
    for row in rows:
        if (row["name"], row["metric"], row["split"], row.get("stratum")) == wanted:
            return row
    return None


def benchmark_text(rows: Sequence[Row], *, notes: Sequence[str] = ()) -> str:
    """Return one table per test: models and baselines, with intervals.

    Parameters
    ----------
    rows : sequence of dict
        As :func:`seq2exp.cohort.judging.judge` returns them.
    notes : sequence of str
        Lines below the tables.
    """
    parts = []
    for split in dict.fromkeys(str(row["split"]) for row in rows):
        names = [name for name in model_names(rows) if value_of(rows, name, "pearson_mean", split)]
        num = max(value_of(rows, name, "pearson_mean", split)["n"] for name in names)  # type: ignore[index]
        header = ["", *(label for _, label in _COLUMNS)]
        lines = [[name, *_cells(rows, name, split)] for name in names]
        parts.append(f"{split}: {SPLIT_TEXTS.get(split, split)} ({num} genes)")
        parts.append(_aligned([header, *lines]))
    return "\n".join([*parts, *notes])


def _cells(rows: Sequence[Row], name: str, split: str) -> list[str]:
    return [_cell(value_of(rows, name, metric, split)) for metric, _ in _COLUMNS]


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None or math.isnan(row["value"]):
        return "-"
    value = row["value"]
    text = f"{value:.0f}" if str(row["metric"]).endswith("num_undefined") else f"{value:.3f}"
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or math.isnan(low):
        return text
    return f"{text} [{low:.3f}, {high:.3f}]"


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
