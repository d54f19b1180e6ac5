"""Tables of joint scores as TSV and Parquet, a part at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seq2exp.core.errors import ConfigError, facts
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.result import SCHEMA_VERSION, texts
from seq2exp.variants.write_table import header_lines, open_text_output

__all__ = ["JOINT_FORMATS", "check_joint_output", "write_joint"]

JOINT_FORMATS = (".tsv", ".tsv.gz", ".parquet")
_TEXT, _WHOLE = pa.string(), pa.int64()
_FIELDS = {
    "haplotype": _TEXT,
    "gene_id": _TEXT,
    "symbol": _TEXT,
    "gene_strand": _TEXT,
    "variants": _TEXT,
    "num_variants": _WHOLE,
    "num_left_out": _WHOLE,
    "group_size": _WHOLE,
    "status": _TEXT,
    "score_status": _TEXT,
    "edge_status": _TEXT,
    "tss_deleted": pa.bool_(),
    "num_members": _WHOLE,
}


def check_joint_output(path: Path) -> None:
    """Raise ConfigError where the ending of a path names no format of tables."""
    if path.name.lower().endswith(JOINT_FORMATS):
        return
    raise ConfigError(
        facts(
            f"--haplotype-out {path}",
            found=f"the name {path.name}",
            expected=f"a name ending in {', '.join(JOINT_FORMATS)}",
            fix="choose one of these endings: groups are no records of a VCF",
        )
    )


def write_joint(
    path: Path,
    partial: Path,
    parts: Iterable[pd.DataFrame],
    columns: Sequence[ScoreColumn],
    header: Mapping[str, Any],
) -> None:
    """Write the rows of all parts.

    Parameters
    ----------
    path : Path
        Its ending names the format.
    partial : Path
        Where to write.
    parts : iterable of DataFrame
        Of `seq2exp.variants.joint.JointScorer`.
    columns : sequence of ScoreColumn
        Of joint scores.
    header : mapping
        Metadata.
    """
    fields = [*_FIELDS.items(), *((column.name, pa.float32()) for column in columns)]
    notes = {
        "seq2exp.schema_version": SCHEMA_VERSION,
        "seq2exp.variants": json.dumps(dict(header), default=str),
        "seq2exp.columns": json.dumps([dataclasses.asdict(column) for column in columns]),
    }
    schema = pa.schema(fields, metadata=notes)
    tables = (_table(part, schema) for part in parts)
    if path.name.lower().endswith(".parquet"):
        with pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer:
            for table in tables:
                writer.write_table(table)
        return
    out = open_text_output(partial, blocked=path.name.lower().endswith(".gz"))
    try:
        lines = [
            *header_lines(columns, header),
            "\t".join(" ".join(n.split()) for n in schema.names),
        ]
        out.write(("\n".join(lines) + "\n").encode())
        for table in tables:
            cells = [texts(column.combine_chunks(), missing="") for column in table.columns]
            cells = [pc.replace_substring_regex(column, r"[\t\r\n]", " ") for column in cells]
            rows = pc.binary_join_element_wise(*cells, "\t")
            out.write(("\n".join(rows.to_pylist()) + "\n").encode())
    finally:
        out.close()


def _table(part: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        if pa.types.is_floating(field.type):
            values = part[field.name].to_numpy(np.float32)
            arrays.append(pa.array(values, field.type, from_pandas=True))
            continue
        array = pa.array(part[field.name], field.type, from_pandas=True)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if field.type == _TEXT:
            array = pc.if_else(pc.equal(array, ""), pa.scalar(None, _TEXT), array)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)
