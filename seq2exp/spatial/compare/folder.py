"""Write the tables of a comparison; every file appears whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.files import atomic_file, write_json
from seq2exp.training.metrics import Row

__all__ = ["write_tables"]

_KEYS = ("name", "metric", "split", "value", "low", "high", "n")


def write_tables(
    out: Path,
    *,
    rows: Sequence[Row],
    costs: Sequence[Any],
    text: str,
    about: Mapping[str, Any],
) -> None:
    """Write ``table.tsv``, ``table.json``, ``costs.tsv`` and ``table.md``.

    Parameters
    ----------
    out : Path
    rows : sequence of dict
        As the metrics return them; further columns come after those of every table.
    costs : sequence of dataclass
    text : str
        Markdown.
    about : mapping
        Plain values that say what was compared, for the JSON file.
    """
    more = [key for key in (rows[0] if rows else {}) if key not in _KEYS]
    _tsv(pd.DataFrame(rows, columns=[*_KEYS, *more]), out / "table.tsv")
    plain = [dataclasses.asdict(cost) for cost in costs]
    _tsv(pd.DataFrame(plain), out / "costs.tsv")
    content = {"command": "spatial compare", "inputs": dict(about), "costs": plain, "rows": rows}
    write_json(content, out / "table.json")
    with atomic_file(out / "table.md", overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _tsv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_file(path, overwrite=True) as partial:
        frame.to_csv(partial, sep="\t", index=False, float_format="%.6g")
