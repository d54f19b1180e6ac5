"""Variants named by id only, found in a table of ids."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.variants.rows import Columns, Row, RowError
from seq2exp.variants.texts import VariantText, open_variant_text

__all__ = ["look_up"]

_COLUMNS = Columns(
    "\t", 7, 1, chrom=0, position=1, id=2, ref=3, alt=4, gene=5, haplotype=6, look_up=True
)
_Place = tuple[str, int, str]


def look_up(
    text: VariantText, table: Path | None, *, cache: Path, zero_based: bool | None
) -> VariantText:
    """Return the variants with the places of their ids; the same text where none is needed.

    An id that is not found keeps its row, without a place. One that stands at several places of the
    table gets the first; several ALTs at one place are one record.

    Parameters
    ----------
    text : VariantText
    table : Path or None
        VCF, TSV, CSV or Parquet with id, chromosome, position, REF and ALT.
    cache : Path
        Folder for the rows that were found.
    zero_based : bool or None
        Base of the positions of the table where its column does not name it.

    Raises
    ------
    ConfigError
        Ids have to be looked up and there is no table; or there is one and nothing to look up.
    InputError
        No id is found, or the table is none.
    """
    by_id = text.columns is not None and (text.columns.ids_only or text.columns.look_up)
    if text.columns is not None and text.columns.ids_only and table is None:
        raise ConfigError(
            facts(
                str(text.path),
                found="variants named by id only",
                expected="a table with the places of the ids",
                fix="give --lookup TABLE (VCF, TSV or Parquet with id, chrom, pos1, ref, alt)",
            )
        )
    if table is None:
        return text
    wanted = {row.id.lower() for row in _rows(text) if _lacks_place(row)} if by_id else set()
    if not wanted and by_id and text.start >= text.size:
        return text
    if not wanted:
        raise ConfigError(
            facts(
                f"--lookup {table}",
                found=f"no variant named by id only in {text.path}",
                expected="ids to look up",
                fix="leave out --lookup",
            )
        )
    places = open_variant_text(table, cache=cache, zero_based=zero_based)
    if places.columns is not None and (places.columns.ids_only or places.columns.id is None):
        raise InputError(
            facts(
                str(table),
                found="a table without the columns id, chrom, pos1, ref, alt",
                expected="the place of every id",
                fix="name the columns so",
            )
        )
    found, num_moved = _find(places, wanted)
    _judge(text, table, wanted, found, num_moved)
    digest = hashlib.sha256(f"{text.sha256} {places.sha256}".encode()).hexdigest()
    target = cache / digest[:16] / "found.tsv"
    if not target.is_file():
        _write(target, text, found)
    size = target.stat().st_size
    return dataclasses.replace(
        text, text=target, blocked=False, start=0, size=size, columns=_COLUMNS, sha256=digest
    )


def _lacks_place(row: Row) -> bool:
    return row.chrom == "." and row.position == -1 and row.id != "."


def _rows(text: VariantText) -> Iterator[Row]:
    """Yield the rows of a text; lines that are none stop it."""
    with text.open() as handle:
        lines = text.lines(handle, text.start, text.size)
        for number, (_, line) in enumerate(lines, start=1):
            try:
                yield text.row(line)
            except RowError as error:
                raise FormatError(
                    facts(
                        f"{text.path}, row {number}",
                        found=str(error),
                        expected="a row like the others",
                        fix="mend this row",
                    )
                ) from None


def _find(places: VariantText, wanted: set[str]) -> tuple[dict[str, tuple[_Place, list[str]]], int]:
    """Return place and ALTs of the wanted ids, and how many ids stand at several places."""
    found: dict[str, tuple[_Place, list[str]]] = {}
    moved: set[str] = set()
    for row in _rows(places):
        for name in row.id.lower().split(";"):
            if name not in wanted:
                continue
            here = row.chrom, row.position, row.ref
            place, alts = found.setdefault(name, (here, []))
            if place != here:
                moved.add(name)
                continue
            alts += [alt for alt in row.alts.split(",") if alt not in alts]
    return found, len(moved)


def _judge(
    text: VariantText,
    table: Path,
    wanted: set[str],
    found: dict[str, tuple[_Place, list[str]]],
    num_moved: int,
) -> None:
    missing = [name for name in wanted if name not in found]
    if not found:
        raise InputError(
            facts(
                str(table),
                found=f"none of the ids of {text.path}",
                expected="their places",
                fix="give the table of these ids",
                count=len(missing),
                examples=sorted(missing)[:3],
            )
        )
    if missing:
        warnings.warn(
            facts(
                str(table),
                found="ids that are not there",
                expected=f"all of {text.path}",
                fix="nothing, if these are not needed: their rows stay, without scores",
                count=len(missing),
                examples=sorted(missing)[:3],
            ),
            Seq2ExpWarning,
            stacklevel=4,
        )
    if num_moved:
        warnings.warn(
            facts(
                str(table),
                found="ids at several places",
                expected="one place each",
                fix="nothing, if the first place is meant; else name these variants by place",
                count=num_moved,
            ),
            Seq2ExpWarning,
            stacklevel=4,
        )


def _write(target: Path, text: VariantText, found: dict[str, tuple[_Place, list[str]]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial.{target.name}")
    with partial.open("w", encoding="utf-8", newline="\n") as out:
        for row in _rows(text):
            place = found.get(row.id.lower()) if _lacks_place(row) else None
            if place is not None:
                (chrom, position, ref), alts = place
                row = row._replace(chrom=chrom, position=position, ref=ref, alts=",".join(alts))
            cells = (row.chrom, str(row.position + 1), *row[2:])
            out.write("\t".join(cell.replace("\t", " ") for cell in cells) + "\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(target)
