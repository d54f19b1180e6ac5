"""An element map as `seq2exp elements` leaves it in a folder: the one reader of it."""

from __future__ import annotations

import csv
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.contigs import same_assembly
from seq2exp.core.errors import AssemblyError, FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.core.files import read_json
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import GeneMasks, load_masks
from seq2exp.training.run import TrainedRun

__all__ = ["CalledElements", "ElementMap", "called_elements", "open_elements", "other_origin"]

_TEXT = frozenset(("chrom", "name", "strand", "gene_id", "symbol", "element_class"))
_WHOLE = ("start", "end", "summit")
_REQUIRED = ("chrom", "start", "end", "name", "summit", "gene_id", "element_class")


@dataclass(frozen=True, eq=False)
class CalledElements:
    """The called elements of a map.

    Attributes
    ----------
    folder : Path
    elements : DataFrame
        Columns as summary.json lists them, promoters included; 0-based half-open.
    summary : dict
        Content of summary.json.
    """

    folder: Path
    elements: pd.DataFrame
    summary: dict[str, Any]

    def check_places(self, dataset: Dataset) -> None:
        """Refuse elements of another assembly than that of a dataset.

        Raises
        ------
        AssemblyError
            Another assembly is stated, or an element ends beyond its contig.
        """
        stated, ours = str(self.summary.get("assembly")), dataset.manifest.assembly
        fix = "map the elements on this dataset, or name the one they were mapped on with --data"
        if not same_assembly(stated, ours):
            raise AssemblyError(
                facts(
                    str(self.folder),
                    found=f"elements of assembly {stated}",
                    expected=f"{ours}, that of the dataset",
                    fix=fix,
                )
            )
        lengths = self.elements["chrom"].map(dataset.manifest.contigs)
        beyond = self.elements[lengths.isna() | (self.elements["end"] > lengths)]
        if len(beyond):
            raise AssemblyError(
                facts(
                    str(self.folder),
                    found="elements outside of the contigs of the dataset",
                    expected=f"elements on its contigs, of assembly {ours}",
                    fix=fix,
                    count=len(beyond),
                    examples=[f"{e.chrom}:{e.start}-{e.end}" for e in beyond.head(3).itertuples()],
                )
            )

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse elements of other places or genes; warn where a dataset is another one.

        Raises
        ------
        AssemblyError
            As :meth:`check_places`.
        InputError
            The dataset has none of their genes.
        """
        self.check_places(dataset)
        named = self.elements["gene_id"].drop_duplicates()
        unknown = named[~named.isin(dataset.genes["gene_id"].astype(str))].tolist()
        if unknown:
            none_known = len(unknown) == len(named)
            text = facts(
                str(self.folder),
                found="genes that the dataset lacks",
                expected=f"genes such as {dataset.genes['gene_id'].iloc[0]}",
                fix="map the elements on this dataset" if none_known else "they are left out",
                count=len(unknown),
                examples=unknown,
            )
            if none_known:
                raise InputError(text)
            warnings.warn(text, Seq2ExpWarning, stacklevel=2)
        if other := other_origin(self.summary, dataset=dataset):
            warnings.warn(
                facts(
                    str(self.folder),
                    found="elements that were mapped on another dataset: " + other[0],
                    expected=f"elements mapped on {dataset.root.name}",
                    fix="map them again if genes, tracks or windows differ",
                ),
                Seq2ExpWarning,
                stacklevel=2,
            )


@dataclass(frozen=True, eq=False)
class ElementMap(CalledElements):
    """What `seq2exp elements` wrote.

    Attributes
    ----------
    folder, elements, summary
        As for `CalledElements`.
    masks : GeneMasks
    """

    masks: GeneMasks


def open_elements(folder: Path) -> ElementMap:
    """Open what `seq2exp elements RUN --out` wrote; a map may hold no element.

    Raises
    ------
    InputError
        The folder holds no element map.
    FormatError
        A file is damaged.
    """
    called = _read(Path(folder))
    masks = load_masks(called.folder / "masks")
    return ElementMap(called.folder, called.elements, called.summary, masks)


def called_elements(folder: Path) -> CalledElements:
    """Read the called elements of a folder, of which there must be one at least.

    Raises
    ------
    InputError
        The folder holds no element map, or no element is called.
    FormatError
        A file is damaged, or the table lacks a column.
    """
    called = _read(Path(folder))
    if called.elements.empty:
        raise InputError(
            facts(
                str(folder),
                found="no called element",
                expected="at least one",
                fix="call elements with a larger --budget, or a lower --threshold",
            )
        )
    return called


def other_origin(
    summary: dict[str, Any], *, run: TrainedRun | None = None, dataset: Dataset | None = None
) -> list[str]:
    """Tell what a map was made from other than a run and a dataset; what is not known is alike.

    Returns
    -------
    list of str
        Such as ``model 0123456789ab instead of ba9876543210``, by checksum; empty where all agree.
    """
    wanted = {
        "model": ("model_sha256", run.card.weights_sha256 if run else None),
        "dataset": ("dataset_checksum", dataset.manifest.checksum if dataset else None),
    }
    pairs = ((what, str(summary.get(key) or ""), mine) for what, (key, mine) in wanted.items())
    return [
        f"{what} {theirs[:12]} instead of {mine[:12]}"
        for what, theirs, mine in pairs
        if theirs and mine and theirs != mine
    ]


def _read(folder: Path) -> CalledElements:
    path, place = folder / "elements.bed.gz", folder / "summary.json"
    missing = [name.name for name in (path, place) if not name.is_file()]
    if missing:
        raise InputError(
            facts(
                str(folder),
                found=f"no element map ({' and '.join(missing)} missing)",
                expected="a folder that `seq2exp elements RUN --out` wrote",
                fix="check the path, or run `seq2exp elements` first",
            )
        )
    summary = read_json(place)
    try:
        columns = [str(name) for name in summary["columns"]["elements.bed.gz"]]
        frame = _table(path, len(columns))
        return CalledElements(folder, _typed(frame, columns), summary)
    except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"no {error}" if isinstance(error, KeyError) else str(error),
                expected="the columns that summary.json lists, "
                + ", ".join(_REQUIRED)
                + " among them",
                fix="run `seq2exp elements` again",
            )
        ) from error


def _table(path: Path, num_columns: int) -> pd.DataFrame:
    """Return the cells as text: a contig may be called 1, and a gene NA."""
    try:
        frame = pd.read_csv(
            path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=range(num_columns), dtype=str)
    if frame.shape[1] != num_columns:
        raise ValueError(f"{frame.shape[1]} columns instead of {num_columns}")
    return frame


def _typed(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Name the columns; numbers are numbers, and NA among them is NaN."""
    lacking = [name for name in _REQUIRED if name not in columns]
    if lacking:
        raise KeyError(", ".join(lacking))
    frame = frame.set_axis(columns, axis=1)
    numbers = {
        name: pd.to_numeric(frame[name].where(frame[name] != "NA"))
        for name in columns
        if name not in _TEXT
    }
    typed = frame.assign(**numbers)
    return typed.astype(dict.fromkeys(_WHOLE, "int64"))
