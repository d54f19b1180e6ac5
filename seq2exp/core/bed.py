"""BED files: read with checks, written sorted; bgzip and tabix when the name ends in ``.gz``."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from pathlib import Path

import pandas as pd

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import atomic_file

__all__ = ["BED_COLUMNS", "read_bed", "write_bed"]

BED_COLUMNS = ("chrom", "start", "end", "name", "score", "strand")


def read_bed(path: Path) -> pd.DataFrame:
    """Return the intervals of a BED, narrowPeak or similar file, one row each.

    Parameters
    ----------
    path : Path
        Plain, gzip or bgzip text with at least three tab-separated columns. Lines that start with
        ``#``, ``track`` or ``browser`` are skipped.

    Returns
    -------
    DataFrame
        Columns ``chrom, start, end`` and as many of ``name, score, strand, column_7, ...`` as the
        file has. 0-based half-open.

    Raises
    ------
    InputError
        The file is missing.
    FormatError
        A line has fewer than three columns, or its interval is empty or negative.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a BED file", fix="check the path")
        )
    rows = [_split(line, number, path) for number, line in _data_lines(path)]
    width = max((len(row) for row in rows), default=3)
    names = [*BED_COLUMNS, *(f"column_{i}" for i in range(7, width + 1))][:width]
    frame = pd.DataFrame(rows, columns=names)
    return frame.astype({"chrom": str, "start": "int64", "end": "int64"})


def _data_lines(path: Path) -> list[tuple[int, str]]:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="BED text", fix="restore the file")
        ) from error
    skipped = ("#", "track", "browser")
    return [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith(skipped)
    ]


def _split(line: str, number: int, path: Path) -> list[str]:
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) < 3:
        fields = line.split()
    good = len(fields) >= 3 and fields[1].isdigit() and fields[2].isdigit()
    if not good or int(fields[2]) <= int(fields[1]):
        raise FormatError(
            facts(
                f"{path} line {number}",
                found=repr(line[:60]),
                expected="chrom, start, end with 0 <= start < end, tab-separated",
                fix="mend the line; BED starts count from 0",
            )
        )
    return fields


def write_bed(frame: pd.DataFrame, path: Path, *, overwrite: bool = False) -> None:
    """Write intervals sorted by contig, start and end; columns in the order given.

    Parameters
    ----------
    frame : DataFrame
        Starts with ``chrom, start, end``; 0-based half-open.
    path : Path
        With suffix ``.gz`` the text is bgzipped and a ``.tbi`` index is written beside it.
        Tabs, line breaks and double quotes inside a cell become underscores; what is unknown (NaN
        or None) is NA.
    """
    ordered = frame.sort_values(["chrom", "start", "end"], kind="stable")
    texts = ordered.select_dtypes(include=["object", "string", "category"]).columns
    clean = ordered.assign(**{name: ordered[name].map(_cell) for name in texts})
    text = clean.to_csv(
        sep="\t",
        header=False,
        index=False,
        float_format="%.6g",
        quoting=csv.QUOTE_NONE,
        na_rep="NA",
    )
    with atomic_file(path, overwrite=overwrite) as partial:
        if path.suffix == ".gz":
            _write_indexed(text, partial, path)
        else:
            partial.write_text(text, encoding="utf-8")


def _cell(value: object) -> object:
    """Return a text without what would end the cell or the line; BED knows no quotes."""
    return re.sub(r'[\x00-\x1f\x7f"]', "_", value) if isinstance(value, str) else value


def _write_indexed(text: str, partial: Path, path: Path) -> None:
    import pysam

    plain = partial.with_name(partial.name + ".txt")
    plain.write_text(text, encoding="utf-8")
    try:
        pysam.tabix_compress(str(plain), str(partial), force=True)
    finally:
        plain.unlink()
    if text:
        index = partial.with_name(partial.name + ".tbi")
        pysam.tabix_index(str(partial), preset="bed", force=True)
        index.replace(path.with_name(path.name + ".tbi"))
