"""Rows of the numbers that commands write, as cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seq2exp.report import page

__all__ = ["MASK", "MODEL", "cell", "facts_table", "find_row", "interval", "number", "rivals"]

MODEL = "model"
MASK = "mask"
_ROLES = ("peak caller", "strongest signal", "distance", "contact x activity")


def facts_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of two columns: what, and its value."""
    cells = [[page.escape(key), page.escape(value)] for key, value in rows]
    return page.table(["", ""], cells, text="text")


def rivals(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Role and name of the rivals, in a fixed order (JSON files are sorted by key)."""
    chosen = comparison["chosen"]
    return {role: chosen[role] for role in _ROLES if role in chosen}


def find_row(document: Mapping[str, Any] | None, name: str, metric: str) -> dict[str, Any] | None:
    """Return the row of a name and metric over all samples; None where there is none."""
    if not document:
        return None
    rows = (
        row
        for row in document["rows"]
        if row["name"] == name and row["metric"] == metric and row.get("sample") is None
    )
    return next(rows, None)


def number(row: Mapping[str, Any]) -> str:
    """Return a value and its interval."""
    return f"{row['value']:.3f} {interval(row)}".strip()


def interval(row: Mapping[str, Any]) -> str:
    """Return the interval in brackets; empty without one."""
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f"[{row['low']:.3f}, {row['high']:.3f}]"


def cell(row: Mapping[str, Any] | None, *, sign: str = "") -> str:
    """Return a table cell: the value, and its interval below."""
    if row is None or row["value"] is None or not np.isfinite(row["value"]):
        return "-"
    value = f"{row['value']:{sign}.3f}"
    return f'{value}<br><span class="range">{interval(row)}</span>' if interval(row) else value
