"""Rows of a table that count, and what they say: which pairs were tested, and which act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from seq2exp.core.errors import ConfigError, FormatError, InputError, facts
from seq2exp.elements.tables import Table

__all__ = ["KINDS", "TESTED", "Kind", "ReadConfig", "acting", "chosen_rows", "column_numbers"]

Kind = Literal["auto", "bed", "narrowpeak", "bedpe", "links", "crispri", "simulated"]
Direction = Literal["decrease", "increase", "any"]
KINDS: tuple[str, ...] = get_args(Kind)
TESTED = ("effect", "remaining", "significant", "regulated", "p_adjusted")
"""Roles of columns, any of which makes a table one of tests."""
_TRUE = {"true", "t", "1", "1.0", "yes"}
_FALSE = {"false", "f", "0", "0.0", "no"}


@dataclass(frozen=True)
class ReadConfig:
    """How files are read."""

    kind: Kind = "auto"
    """Layout of the file; auto judges by its name and header."""
    direction: Direction = "decrease"
    """Effect of a perturbation that makes a pair positive, where it is significant."""
    alpha: float | None = None
    """Adjusted p-values below this are significant; without it the file's own column says so, and
    0.05 where it has none."""
    min_effect: float = 0.0
    """Smallest size of the effect of a positive pair."""
    min_score: float | None = None
    """Links of a lower score are pairs that do not act; without it all links act."""
    cell: str | None = None
    """Rows of this cell type only."""

    def __post_init__(self) -> None:
        checks = {
            "kind": (self.kind in KINDS, f"one of {', '.join(KINDS)}"),
            "direction": (self.direction in get_args(Direction), "decrease, increase or any"),
            "alpha": (self.alpha is None or 0 < self.alpha <= 1, "between 0 and 1"),
            "min_effect": (self.min_effect >= 0, "0 or more"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                found = getattr(self, name)
                raise ConfigError(facts(name, found=found, expected=expected, fix="change it"))


def chosen_rows(table: Table, config: ReadConfig, notes: dict[str, int]) -> Table:
    """Leave out other cells, pairs marked as invalid, and guides without a distal target.

    Parameters
    ----------
    table : Table
    config : ReadConfig
    notes : dict
        Gets the counts.

    Raises
    ------
    InputError
        The cell type does not occur, or no row is left.
    """
    frame = table.frame
    if config.cell is not None:
        table.require("cell")
        here = frame["cell"].astype(str) == config.cell
        if not here.any():
            known = ", ".join(sorted(frame["cell"].astype(str).unique())[:8])
            raise InputError(
                facts(
                    f"{table.path}, cell {config.cell!r}",
                    found=f"cells {known}",
                    expected="one of them",
                    fix="choose another with --cell",
                )
            )
        notes["of another cell"] = int((~here).sum())
        frame = frame[here]
    if "valid" in frame:
        valid = frame["valid"].map(_truth_value).fillna(0.0).astype(bool) | frame["valid"].isna()
        notes["marked as invalid"] = int((~valid).sum())
        frame = frame[valid]
    if "site" in frame:
        distal = frame["site"].astype(str).str.upper() == "DHS"
        notes["sites that are no candidate enhancer"] = int((~distal).sum())
        frame = frame[distal]
    if frame.empty:
        raise InputError(
            facts(
                str(table.path),
                found=f"no usable row of {len(table.frame)}",
                expected="at least one",
                fix="check the file",
                count=0,
            )
        )
    return Table(frame, table.header, table.assembly, table.path)


def acting(table: Table, config: ReadConfig) -> pd.Series:
    """Return whether each pair is positive: significant, and changed in the asked direction.

    Returns
    -------
    Series of float
        1 or 0; NaN where significance or effect is not known.

    Raises
    ------
    FormatError
        Columns are missing, or hold no numbers.
    """
    frame = table.frame
    effect: pd.Series | None = None
    if "effect" in frame:
        effect = column_numbers(table, "effect")
    elif "remaining" in frame:
        effect = column_numbers(table, "remaining") - 1
    if effect is None:
        plain = config.direction == "decrease" and config.alpha is None and not config.min_effect
        if plain and "regulated" in frame:
            return frame["regulated"].map(_truth_value)
        table.require("effect")
        effect = column_numbers(table, "effect")
    if "p_adjusted" in frame and (config.alpha is not None or "significant" not in frame):
        p_value = column_numbers(table, "p_adjusted")
        significant = (p_value < (config.alpha or 0.05)).astype(float).where(p_value.notna())
    else:
        table.require("p_adjusted" if config.alpha is not None else "significant")
        significant = frame["significant"].map(_truth_value)
    size = {"decrease": -effect, "increase": effect, "any": abs(effect)}[config.direction]
    strong = (size > 0) & (size >= config.min_effect)
    acts = (significant * strong).where(effect.notna())
    # What is not significant did nothing that could be seen, whatever its effect.
    return acts.where(significant != 0, 0.0).where(significant.notna())


def _truth_value(cell: object) -> float:
    text = str(cell).strip().lower()
    return 1.0 if text in _TRUE else 0.0 if text in _FALSE else float("nan")


def column_numbers(table: Table, role: str) -> pd.Series:
    """Return a column as numbers, NaN where it is empty.

    Raises
    ------
    FormatError
        A cell is no number.
    """
    values = pd.to_numeric(table.frame[role], errors="coerce")
    wrong = values.isna() & table.frame[role].notna()
    if wrong.any():
        raise FormatError(
            facts(
                f"{table.path} line {wrong.idxmax()}, column {role}",
                found=repr(table.frame[role][wrong].iloc[0]),
                expected="a number",
                fix="mend the lines",
                count=int(wrong.sum()),
            )
        )
    return values.astype(float)
