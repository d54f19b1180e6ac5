"""Scores beside the alleles they belong to: the rows that every output is written from.

Shapes: A alleles, N rows (pairs of allele and gene), V columns of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts
from seq2exp.variants.columns import KINDS, ScoreColumn
from seq2exp.variants.source import Shard, VariantSource

__all__ = ["SCHEMA_VERSION", "Part", "in_step", "score_texts", "table_of", "table_schema", "texts"]

SCHEMA_VERSION = "1"
_TEXT, _WHOLE, _FLAG = pa.string(), pa.int64(), pa.bool_()
_ALLELE_FIELDS = {
    "record": _WHOLE,
    "allele": _WHOLE,
    "chrom": _TEXT,
    "pos1": _WHOLE,
    "id": _TEXT,
    "ref": _TEXT,
    "alt": _TEXT,
    "gene": _TEXT,
    "haplotype": _TEXT,
    "contig": _TEXT,
    "norm_pos1": _WHOLE,
    "norm_ref": _TEXT,
    "norm_alt": _TEXT,
    "variant_type": _TEXT,
    "ref_status": _TEXT,
    "was_normalised": _FLAG,
}
_FROM_ZERO = {"pos1": "position", "norm_pos1": "norm_position"}
_PAIR_FIELDS = {
    "gene_id": _TEXT,
    "symbol": _TEXT,
    "gene_strand": _TEXT,
    "distance_to_tss": _WHOLE,
    "window_start": _WHOLE,
    "window_end": _WHOLE,
    "status": _TEXT,
    "score_status": _TEXT,
    "edge_status": _TEXT,
    "indel_status": _TEXT,
    "num_members": _WHOLE,
    "in_element": _FLAG,
    "context": _TEXT,
    "num_haplotypes": _WHOLE,
}
_NEEDED = ("record", "allele", "gene_row", *_PAIR_FIELDS)


@dataclass(frozen=True, eq=False)
class Part:
    """Alleles of a shard and their scores.

    Attributes
    ----------
    shard : Shard
    alleles : DataFrame
        A rows.
    scores : DataFrame
        N rows, those of an allele together, alleles in order.
    first_A : int64 array
        First row of scores of every allele.
    """

    shard: Shard
    alleles: pd.DataFrame
    scores: pd.DataFrame
    first_A: NDArray[np.int64]

    @property
    def allele_N(self) -> NDArray[np.int64]:
        """Row of the table of alleles, for every row of scores."""
        counts = np.diff(np.append(self.first_A, len(self.scores)))
        return np.repeat(np.arange(len(self.alleles)), counts)


def in_step(
    source: VariantSource, parts: Iterable[pd.DataFrame], columns: Sequence[ScoreColumn]
) -> Iterator[Part]:
    """Read input and scores side by side; every allele of the input must have its rows of scores.

    Parameters
    ----------
    source : VariantSource
    parts : iterable of DataFrame
        Tables of scores, by record and allele; they need not end where shards end.
    columns : sequence of ScoreColumn

    Raises
    ------
    FormatError
        Alleles without scores, scores of alleles that the input does not have, or columns missing.
    """
    waiting = iter(parts)
    held: list[pd.DataFrame] = []
    for number in range(source.num_shards):
        shard = source.shard(number)
        end = shard.first_record + shard.num_records
        while not held or int(held[-1]["record"].iloc[-1]) < end:
            part = next(waiting, None)
            if part is None:
                break
            if len(part):
                _check_columns(part, columns)
                held.append(part)
        if not held:
            raise _not_in_step(source, f"no scores from record {shard.first_record:,} on")
        rows = pd.concat(held, ignore_index=True) if len(held) > 1 else held[0]
        here = rows["record"].to_numpy() < end
        scores = rows[here].reset_index(drop=True)
        held = [rows[~here]] if not here.all() else []
        alleles = source.read(shard)
        yield Part(shard, alleles, scores, _first_rows(source, alleles, scores))
    if held or any(len(part) for part in waiting):
        raise _not_in_step(source, f"scores beyond its last record {source.num_records - 1:,}")


def _check_columns(part: pd.DataFrame, columns: Sequence[ScoreColumn]) -> None:
    names = [*_NEEDED, *(column.name for column in columns)]
    missing = [name for name in names if name not in part.columns]
    if missing:
        raise FormatError(
            facts(
                "scores of variants",
                found="a table without columns",
                expected="all columns of this run",
                fix="remove the work folder and score again",
                count=len(missing),
                examples=missing,
            )
        )


def _first_rows(
    source: VariantSource, alleles: pd.DataFrame, scores: pd.DataFrame
) -> NDArray[np.int64]:
    """Return where the scores of each allele begin."""
    record, allele = scores["record"].to_numpy(), scores["allele"].to_numpy()
    new = np.ones(len(scores), dtype=bool)
    new[1:] = (np.diff(record) != 0) | (np.diff(allele) != 0)
    first = np.flatnonzero(new)
    wanted = alleles["record"].to_numpy(), alleles["allele"].to_numpy()
    size = min(len(first), len(alleles))
    differs = (record[first[:size]] != wanted[0][:size]) | (
        allele[first[:size]] != wanted[1][:size]
    )
    if differs.any() or len(first) != len(alleles):
        at = int(np.argmax(differs)) if differs.any() else size
        if at < len(alleles):
            place = f"record {wanted[0][at]:,} allele {wanted[1][at]}"
        else:
            place = "the end of a shard"
        raise _not_in_step(source, f"other alleles at {place}")
    return first.astype(np.int64)


def _not_in_step(source: VariantSource, found: str) -> FormatError:
    return FormatError(
        facts(
            f"scores of {source.path}",
            found=found,
            expected="every allele of the input once, in its order",
            fix="remove the work folder and score again",
        )
    )


def texts(values: pa.Array, *, missing: str) -> pa.Array:
    """Return values as text; true and false become 1 and 0."""
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.int8())
    return pc.fill_null(pc.cast(values, _TEXT), missing)


def score_texts(values: NDArray[np.float32], *, missing: str) -> pa.Array:
    """Return scores as the shortest text that reads back as the same float32; NaN is missing."""
    return texts(pa.array(values, pa.float32(), from_pandas=True), missing=missing)


def table_schema(columns: Sequence[ScoreColumn], *, long: bool) -> pa.Schema:
    """Return the columns of the table of results.

    Parameters
    ----------
    columns : sequence of ScoreColumn
    long : bool
        One row per allele, gene, scorer and sample, instead of a column per score.
    """
    fields = [*_ALLELE_FIELDS.items(), *_PAIR_FIELDS.items()]
    if long:
        fields += [("scorer", _TEXT), ("sample", _TEXT)]
        fields += [(kind, pa.float32()) for kind in _kinds(columns)]
    else:
        fields += [(column.name, pa.float32()) for column in columns]
    return pa.schema(fields)


def table_of(part: Part, columns: Sequence[ScoreColumn], *, long: bool) -> pa.Table:
    """Return the rows of a part: alleles as written and normalised, genes, statuses, scores.

    Missing is null, never 0; positions count from 1, windows are 0-based half-open.
    """
    alleles, which = part.alleles, pa.array(part.allele_N)
    arrays = []
    for name, kind in _ALLELE_FIELDS.items():
        values = alleles[_FROM_ZERO.get(name, name)]
        values = values + 1 if name in _FROM_ZERO else values
        arrays.append(pc.take(_array(values, kind), which))
    arrays += [_array(part.scores[name], kind) for name, kind in _PAIR_FIELDS.items()]
    if not long:
        arrays += [
            pa.array(part.scores[column.name].to_numpy(np.float32), from_pandas=True)
            for column in columns
        ]
        return pa.Table.from_arrays(arrays, schema=table_schema(columns, long=long))
    groups = list(dict.fromkeys((column.scorer, column.sample) for column in columns))
    repeat = pa.array(np.repeat(np.arange(len(part.scores)), len(groups)))
    arrays = [pc.take(array, repeat) for array in arrays]
    num = len(part.scores)
    arrays.append(pa.array([scorer for scorer, _ in groups] * num, _TEXT))
    arrays.append(pa.array([sample for _, sample in groups] * num, _TEXT))
    for kind in _kinds(columns):
        names = {(c.scorer, c.sample): c.name for c in columns if c.kind == kind}
        matrix = np.full((num, len(groups)), np.nan, dtype=np.float32)
        for number, group in enumerate(groups):
            if group in names:
                matrix[:, number] = part.scores[names[group]]
        arrays.append(pa.array(matrix.ravel(), from_pandas=True))
    return pa.Table.from_arrays(arrays, schema=table_schema(columns, long=long))


def _kinds(columns: Sequence[ScoreColumn]) -> list[str]:
    there = {column.kind for column in columns}
    return [kind for kind in KINDS if kind in there]


def _array(values: pd.Series, kind: pa.DataType) -> pa.Array:
    array = pa.array(values, kind, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if kind != _TEXT:
        return array
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, _TEXT), array)
