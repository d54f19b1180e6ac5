"""BED files of other people, as intervals on the contigs of a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from seq2exp.core.bed import read_bed
from seq2exp.core.contigs import match_contigs
from seq2exp.core.errors import AssemblyError, FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.dataset.store import Dataset
from seq2exp.elements.tables import check_assembly, read_text, stated_assembly

__all__ = ["on_contigs", "read_intervals", "warn_left_out"]

_OVERHANG_BP = 1_000
"""No longer than the fragments that peak callers extend reads to."""
_NARROWPEAK = ("strand", "signalValue", "pValue", "qValue", "peak")


def read_intervals(path: Path, dataset: Dataset, *, narrowpeak: bool = False) -> pd.DataFrame:
    """Read a BED file as it is: order and names of contigs are those of the file.

    Parameters
    ----------
    path : Path
        Plain, gzip or bgzip; a strand is not needed.
    dataset : Dataset
        The assembly must be its own, where the file states one.
    narrowpeak : bool
        Ask for the ten columns of a narrowPeak.

    Returns
    -------
    DataFrame
        ``chrom, start, end``, 0-based half-open; may overlap. For `on_contigs`.

    Raises
    ------
    InputError
        The file is missing or holds no interval.
    AssemblyError
        It states another assembly.
    FormatError
        It is damaged, a column is missing, or a line holds no interval.
    """
    lines = read_text(path).split("\n")
    check_assembly(stated_assembly(lines[:100]), dataset.manifest.assembly, path)
    frame = read_bed(path)
    if frame.empty:
        raise InputError(
            facts(str(path), found="no interval", expected="at least one", fix="check the file")
        )
    if narrowpeak and frame.shape[1] < 10:
        raise FormatError(
            facts(
                str(path),
                found=f"{frame.shape[1]} columns",
                expected="the 10 of a narrowPeak; missing: "
                + ", ".join(_NARROWPEAK[-10 + frame.shape[1] :]),
                fix="give the kind with --kind bed",
            )
        )
    return frame[["chrom", "start", "end"]]


def on_contigs(
    frame: pd.DataFrame, dataset: Dataset, path: Path, notes: dict[str, int]
) -> pd.DataFrame:
    """Name contigs as the dataset does; leave out those it lacks, and count them.

    Peak callers extend reads past the end of a contig: what overhangs by less is cut there.

    Parameters
    ----------
    frame : DataFrame
        ``chrom, start, end`` and any other column.
    dataset : Dataset
    path : Path
        Where the intervals are from, for messages.
    notes : dict
        Gets the counts.

    Raises
    ------
    InputError
        No contig is shared.
    AssemblyError
        An interval lies beyond the end of its contig, or overhangs it by more than 1 kb.
    """
    sizes: Mapping[str, int] = dataset.manifest.contigs
    shared = match_contigs(sizes, frame["chrom"].unique(), what=str(path), partial="ignore")
    ours = {theirs: name for name, theirs in shared.items()}
    known = frame["chrom"].isin(ours)
    notes["on contigs the dataset lacks"] = int((~known).sum())
    kept = frame[known].assign(chrom=frame["chrom"].map(ours))
    length = kept["chrom"].map(sizes)
    beyond = kept[(kept["start"] >= length) | (kept["end"] > length + _OVERHANG_BP)]
    if len(beyond):
        first = beyond.iloc[0]
        raise AssemblyError(
            facts(
                str(path),
                found=f"intervals beyond the end of {first['chrom']}",
                expected=f"at most {sizes[first['chrom']]:,}, its length in "
                f"{dataset.manifest.assembly}",
                fix="use a file of that assembly, or lift this one over",
                count=len(beyond),
                examples=[f"{r.chrom}:{r.start}-{r.end}" for r in beyond.head(3).itertuples()],
            )
        )
    notes["cut at the end of their contig"] = int((kept["end"] > length).sum())
    return kept.assign(end=kept["end"].clip(upper=length))


def warn_left_out(path: Path, notes: Mapping[str, int]) -> None:
    """Warn of rows that are left out, with the count for each reason.

    Parameters
    ----------
    path : Path
    notes : mapping of str to int
        ``rows``, all of them, and the counts.
    """
    told = {
        reason: count
        for reason, count in notes.items()
        if count and reason not in ("rows", "used") and not reason.startswith("joined")
    }
    if told:
        warnings.warn(
            facts(
                str(path),
                found="rows that are left out or cut: "
                + ", ".join(f"{count} {reason}" for reason, count in told.items()),
                expected=f"all {notes['rows']} rows",
                fix="nothing, if they are not needed",
                count=sum(told.values()),
            ),
            Seq2ExpWarning,
            stacklevel=3,
        )
