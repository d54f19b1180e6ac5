"""Finished Parquet tables of scores, read back: what was scored, how, and the rows.

Backgrounds and calibrations are made of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.variants.background import KEY_COLUMNS, Background, BackgroundBuilder
from seq2exp.variants.columns import ScoreColumn

__all__ = ["ScoredTable", "make_background", "open_scored", "p_values"]

_ROWS = 65_536


@dataclass(frozen=True)
class ScoredTable:
    """A Parquet file that `seq2exp variants` wrote.

    Attributes
    ----------
    path : Path
    columns : list of ScoreColumn
    header : mapping
        Model, settings and checksums.
    """

    path: Path
    columns: list[ScoreColumn]
    header: Mapping[str, Any]

    def read(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield some columns, so many rows at a time.

        Raises
        ------
        FormatError
            The file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_ROWS, columns=list(names)):
                    yield batch.to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, str(error).splitlines()[0]) from error


def open_scored(path: Path) -> ScoredTable:
    """Read what a table of scores says of itself.

    Raises
    ------
    InputError
        There is no such file, or it is a table with one row per score.
    FormatError
        It is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(
                str(path),
                found="no such file",
                expected="a Parquet table that `seq2exp variants` wrote",
                fix="check the path; score with --out NAME.parquet",
            )
        )
    try:
        schema = pq.read_schema(path)
        notes = schema.metadata or {}
        columns = [ScoreColumn(**each) for each in json.loads(notes[b"seq2exp.columns"])]
        header = json.loads(notes[b"seq2exp.variants"])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise _unreadable(path, type(error).__name__) from error
    if "scorer" in schema.names:
        raise InputError(
            facts(
                str(path),
                found="a table with one row per score",
                expected="one column per score",
                fix="score again without --long",
            )
        )
    return ScoredTable(path, columns, header)


def _unreadable(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=found,
            expected="a Parquet table that `seq2exp variants` wrote",
            fix="score again with --out NAME.parquet",
        )
    )


def make_background(
    paths: Sequence[Path], out: Path, *, overwrite: bool = False, seed: int = 0
) -> Background:
    """Collect the scores of common variants, among which others find their place.

    Parameters
    ----------
    paths : sequence of Path
        Tables that one run scored in one way; a pair of variant and gene in several counts once.
    out : Path
    overwrite : bool
    seed : int
        Chooses the pairs that are kept where there are very many.

    Raises
    ------
    InputError
        Tables of different runs, settings or scores, or too few variants.
    """
    tables = [open_scored(path) for path in paths]
    first = tables[0]
    names = [column.name for column in first.columns if column.kind == "score"]
    for table in tables[1:]:
        others = [column.name for column in table.columns if column.kind == "score"]
        if table.header["score_hash"] != first.header["score_hash"] or others != names:
            raise InputError(
                facts(
                    str(table.path),
                    found="another model, other settings or other scores",
                    expected=f"those of {first.path}",
                    fix="score all common variants with the same command",
                )
            )
    builder = BackgroundBuilder(
        first.columns, model_hash=str(first.header["score_hash"]), seed=seed
    )
    # Positions in files count from 1.
    written = {"norm_position": "norm_pos1"}
    wanted = [written.get(name, name) for name in KEY_COLUMNS]
    for table in tables:
        for frame in table.read([*wanted, "variant_type", "distance_to_tss", *names]):
            builder.add(frame.rename(columns={v: k for k, v in written.items()}))
    background = builder.build()
    background.save(out, overwrite=overwrite)
    return background


def p_values(
    table: ScoredTable, names: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return the p-values of a table, a column per score, and of what they are multiples.

    Parameters
    ----------
    table : ScoredTable
    names : sequence of str
        Scores, such as ``expr_delta:K562``; all with p-values when empty.

    Returns
    -------
    p : DataFrame
        And the column ``gene_id``.
    step : dict
        By score.

    Raises
    ------
    InputError
        No p-values, or not of a score that was named.
    """
    signed = {c.name: c.signed for c in table.columns if c.kind == "score"}
    known = [c.name.removesuffix(":p") for c in table.columns if c.kind == "p"]
    missing = [name for name in names if name not in known]
    if missing or not known:
        raise InputError(
            facts(
                f"p-values of {table.path}",
                found=f"none of {missing[0]}" if missing else "none",
                expected="one of " + ", ".join(known) if known else "columns of p-values",
                fix="name one of them" if known else "score with --null shuffle",
            )
        )
    chosen = list(names) or known
    unit = 1 / (int(table.header["null_draws"]) + 1)
    frames = list(table.read(["gene_id", *(f"{name}:p" for name in chosen)]))
    frame = pd.concat(frames, ignore_index=True)
    frame.columns = pd.Index(["gene_id", *chosen])
    return frame, {name: unit * (2 if signed[name] else 1) for name in chosen}
