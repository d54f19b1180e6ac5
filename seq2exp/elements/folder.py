"""An element map as `seq2exp elements` leaves it in a folder: the one reader of it as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import read_json
from seq2exp.elements.masks import GeneMasks, load_masks

__all__ = ["ElementMap", "open_elements"]


@dataclass(frozen=True, eq=False)
class ElementMap:
    """What `seq2exp elements` wrote.

    Attributes
    ----------
    folder : Path
    masks : GeneMasks
    elements : DataFrame
        Columns as summary.json lists them.
    summary : dict
        Content of summary.json.
    """

    folder: Path
    masks: GeneMasks
    elements: pd.DataFrame
    summary: dict[str, Any]


def open_elements(folder: Path) -> ElementMap:
    """Open what `seq2exp elements RUN --out` wrote.

    Raises
    ------
    InputError
        The folder holds no element map.
    FormatError
        A file is damaged.
    """
    folder = Path(folder)
    place = folder / "summary.json"
    if not place.is_file() or not (folder / "elements.bed.gz").is_file():
        raise InputError(
            facts(
                str(folder),
                found="no element map",
                expected="a folder that `seq2exp elements RUN --out` wrote",
                fix="check the path, or run `seq2exp elements` first",
            )
        )
    summary = read_json(place)
    try:
        columns = summary["columns"]["elements.bed.gz"]
        elements = pd.read_csv(folder / "elements.bed.gz", sep="\t", names=columns)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise FormatError(
            facts(
                str(folder),
                found=str(error),
                expected="elements.bed.gz with the columns that summary.json lists",
                fix="run `seq2exp elements` again",
            )
        ) from error
    return ElementMap(folder, load_masks(folder / "masks"), elements, summary)
