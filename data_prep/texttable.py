"""Tables as users write them: TSV or CSV with a header, plain or gzip, and their mistakes."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from seq2exp.core.config import nearest
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = [
    "MISSING_CELLS",
    "find_column",
    "read_header",
    "read_numbers",
    "read_text_table",
    "refuse_repeated_columns",
]

MISSING_CELLS = ("", "NA", "NaN", "nan", "NULL", "null", ".")
_ROWS_AT_ONCE = 2000


def read_text_table(path: Path, *, what: str = "a label table") -> pd.DataFrame:
    """Return a table with every cell as text; columns may be repeated.

    Parameters
    ----------
    path : Path
        CSV when the name ends in ``.csv`` or ``.csv.gz``, else tab-separated; with a header.
    what : str
        What the file should be, for messages.

    Raises
    ------
    InputError
        No such file.
    FormatError
        The file is damaged or has no regular columns.
    """
    frame = _read(path, what)
    header = _header(frame.iloc[0])
    return frame.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)


def read_header(path: Path, *, what: str = "a label table") -> list[str]:
    """Return the names of the columns only."""
    return _header(_read(path, what, nrows=1).iloc[0])


def _header(row: pd.Series) -> list[str]:
    return [str(name).lstrip("\ufeff").strip() for name in row]


def _read(path: Path, what: str, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected=what, fix="check the path")
        )
    comma = path.name.removesuffix(".gz").endswith(".csv")
    given: dict[str, Any] = {"dtype": str, "keep_default_na": False, **options}
    try:
        # Without a header row of its own, pandas cannot rename repeated columns behind our back.
        frame = pd.read_csv(path, sep="," if comma else "\t", header=None, **given)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"text that cannot be read ({error})",
                expected=f"a table with a header, separated by {'comma' if comma else 'tab'}",
                fix="check that the suffix fits (.csv or .tsv) and that the file is whole",
            )
        ) from error
    found: pd.DataFrame = frame
    return found


def refuse_repeated_columns(names: Sequence[str], path: Path) -> None:
    """Raise when a column name stands twice."""
    twice = sorted(name for name, copies in Counter(names).items() if copies > 1)
    if twice:
        raise InputError(
            facts(
                str(path),
                found="columns used twice",
                expected="unique column names",
                fix="rename the columns",
                count=len(twice),
                examples=twice,
            )
        )


def find_column(name: str, names: Sequence[str], path: Path, *, key: str) -> int:
    """Return the number of a column; upper and lower case count only when they must.

    Parameters
    ----------
    name : str
    names : sequence of str
        All columns.
    path : Path
    key : str
        The key of the configuration that names the column, for the message.

    Raises
    ------
    InputError
        There is no such column, or there are several.
    """
    found = [i for i, other in enumerate(names) if other == name]
    found = found or [i for i, other in enumerate(names) if other.lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    raise InputError(
        facts(
            str(path),
            found=f"{len(found) or 'no'} column{'s' if found else ''} {name!r}",
            expected=f"the column that {key} names, once",
            fix=nearest(name, list(names[:200])) if not found else "rename one of them",
        )
    )


def read_numbers(path: Path, columns: Sequence[int], text: int) -> tuple[pd.Series, pd.DataFrame]:
    """Return one column of texts and some columns of numbers, without reading the others.

    Parameters
    ----------
    path : Path
    columns : sequence of int
        Numbers of the columns of numbers.
    text : int
        Number of the column of texts.

    Returns
    -------
    Series
    DataFrame
        float64, its columns named by their numbers; NaN in empty cells.

    Raises
    ------
    InputError
        A cell is no finite number.
    FormatError
        The file is damaged.
    """
    kinds = dict.fromkeys(columns, "float64") | {text: str}
    missing = {column: list(MISSING_CELLS) for column in columns}
    options = {"skiprows": 1, "usecols": [*kinds], "dtype": kinds, "na_values": missing}
    try:
        frame = _read(path, "a table of expression", **options)
    except FormatError:
        _refuse_bad_cells(path, columns)
        raise
    values = frame[list(columns)]
    if np.isinf(values.to_numpy()).any():
        _refuse_bad_cells(path, columns)
    return frame[text].fillna("").str.strip(), values


def _refuse_bad_cells(path: Path, columns: Sequence[int]) -> None:
    """Name the first cells that are no numbers; reads a part of the table at a time."""
    names = read_header(path)
    options = {"skiprows": 1, "usecols": list(columns), "chunksize": _ROWS_AT_ONCE}
    for part in cast("Iterator[pd.DataFrame]", _read(path, "a table of expression", **options)):
        for column in columns:
            cells = part[column].str.strip()
            empty = cells.isin(MISSING_CELLS)
            values = pd.to_numeric(cells.mask(empty), errors="coerce").astype("float64")
            wrong = (values.isna() & ~empty) | np.isinf(values)
            if wrong.any():
                raise InputError(
                    facts(
                        f"{path} column {names[column]}",
                        found="cells that are no finite number",
                        expected="numbers, or empty cells where none was measured",
                        fix="mend the cells, or add the column to donors.expression.ignore",
                        count=int(wrong.sum()),
                        examples=[repr(cell) for cell in cells[wrong][:3]],
                    )
                )
