"""Results as TSV and as Parquet, a part at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.result import SCHEMA_VERSION, Part, table_of, table_schema, texts

__all__ = ["ParquetWriter", "TsvWriter", "header_lines", "meaning", "open_text_output"]

_ROW_GROUP = 65_536


def open_text_output(path: Path, *, blocked: bool) -> IO[bytes] | Any:  # noqa: ANN401
    """Open a file for text, bgzip or plain. Equal text gives equal bytes."""
    if not blocked:
        return path.open("wb")
    import pysam

    return pysam.BGZFile(str(path), "wb", None)


class TsvWriter:
    """A table with a header: lines of ``##key=value``, one of names, then rows.

    Parameters
    ----------
    path : Path
    columns : sequence of ScoreColumn
    header : mapping
        Metadata.
    blocked : bool
        Write bgzip.
    long : bool
        One row per allele, gene, scorer and sample.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[ScoreColumn],
        header: Mapping[str, Any],
        *,
        blocked: bool,
        long: bool,
    ) -> None:
        self._columns, self._long = columns, long
        self._out = open_text_output(path, blocked=blocked)
        lines = header_lines(columns, header)
        lines.append("\t".join(_cell(name) for name in table_schema(columns, long=long).names))
        self._out.write(("\n".join(lines) + "\n").encode())

    def write(self, part: Part) -> None:
        """Write the rows of a part."""
        table = table_of(part, self._columns, long=self._long)
        cells = []
        for column in table.columns:
            column = texts(column.combine_chunks(), missing="")
            cells.append(pc.replace_substring_regex(column, r"[\t\r\n]", " "))
        rows = pc.binary_join_element_wise(*cells, "\t")
        if len(rows):
            self._out.write(("\n".join(rows.to_pylist()) + "\n").encode())

    def close(self) -> None:
        """Finish the file; a second time does nothing."""
        if not self._out.closed:
            self._out.close()


class ParquetWriter:
    """A Parquet file with page checksums, the metadata in its schema.

    Parameters
    ----------
    path : Path
    columns : sequence of ScoreColumn
    header : mapping
        Metadata.
    long : bool
        One row per allele, gene, scorer and sample.
    """

    def __init__(
        self, path: Path, columns: Sequence[ScoreColumn], header: Mapping[str, Any], *, long: bool
    ) -> None:
        self._columns, self._long = columns, long
        self._waiting: list[pa.Table] = []
        notes = {
            "seq2exp.schema_version": SCHEMA_VERSION,
            "seq2exp.variants": json.dumps(dict(header), default=str),
            "seq2exp.columns": json.dumps([dataclasses.asdict(column) for column in columns]),
        }
        self._schema = table_schema(columns, long=long).with_metadata(notes)
        self._out = pq.ParquetWriter(path, self._schema, write_page_checksum=True)

    def write(self, part: Part) -> None:
        """Write the rows of a part; groups of rows do not depend on how parts were cut."""
        self._waiting.append(table_of(part, self._columns, long=self._long))
        if sum(table.num_rows for table in self._waiting) < _ROW_GROUP:
            return
        rows = pa.concat_tables(self._waiting)
        whole = rows.num_rows // _ROW_GROUP * _ROW_GROUP
        self._put(rows.slice(0, whole))
        self._waiting = [rows.slice(whole)]

    def _put(self, rows: pa.Table) -> None:
        rows = rows.replace_schema_metadata(self._schema.metadata)
        self._out.write_table(rows.combine_chunks(), row_group_size=_ROW_GROUP)

    def close(self) -> None:
        """Finish the file; a second time does nothing."""
        if not self._out.is_open:
            return
        rest = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        if rest.num_rows:
            self._put(rest)
        self._out.close()


def header_lines(columns: Sequence[ScoreColumn], header: Mapping[str, Any]) -> list[str]:
    """Return the lines of a TSV before that of its names."""
    return [
        f"##schema_version={SCHEMA_VERSION}",
        *(f"##{key}={_one_line(value)}" for key, value in header.items()),
        *(f"##column={column.name}: {meaning(column)}" for column in columns),
    ]


def meaning(column: ScoreColumn) -> str:
    """Return what a column holds, in one sentence for a header."""
    sign = "signed, ALT minus REF" if column.signed else "without a sign"
    kinds = {
        "score": "",
        "sd": "",
        "haplotype_sd": "standard deviation over haplotypes; ",
        "p": "probability under the null; ",
        "q": "after Benjamini and Hochberg; ",
        "quantile": "place among common variants; ",
    }
    unit = f"; unit {column.unit}" if column.unit else ""
    sample = f"; label {column.sample}" if column.sample else ""
    return f"{kinds[column.kind]}{column.formula}{unit}; {sign}{sample}"


def _one_line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return " ".join(text.split())


def _cell(name: str) -> str:
    return " ".join(name.split())
