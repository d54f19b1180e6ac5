"""Lines of any input as the same rows: how to find chromosome, position and alleles in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seq2exp.core.contigs import assembly_named
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.variants.strings import is_rsid, parse_word

__all__ = ["Columns", "Row", "RowError", "table_columns", "vcf_row"]

_NAMES = {
    "chrom": ("chrom", "chr", "chromosome", "contig", "seqname"),
    "ref": ("ref", "reference", "ref_allele", "reference_allele"),
    "alt": ("alt", "alternate", "alt_allele", "alternate_allele", "alternative_allele"),
    "id": ("id", "rsid", "rs_id", "snp", "name"),
    "haplotype": ("haplotype",),
    "word": ("variant", "variant_id"),
}
_GENES = ("gene", "gene_id")
_STATED = {"pos1": 1, "pos0": 0, "start": 0, "start0": 0}
_UNSTATED = ("pos", "position", "bp")
_WHOLE = re.compile(r"-?\d{1,18}(?:\.0+)?")
_NOTHING = frozenset(("", ".", "na", "nan", "null", "none"))
_LAST = 8


class RowError(Exception):
    """A line is no row; the words say why."""


class Row(NamedTuple):
    """A record of the input.

    Attributes
    ----------
    chrom : str
        As written.
    position : int
        0-based; -1 where none is known.
    id, ref : str
        A dot where there is none.
    alts : str
        Commas between several; a dot for none.
    gene, haplotype : str
        Empty for none. Haplotypes of several ALTs may be apart by commas.
    """

    chrom: str
    position: int
    id: str
    ref: str
    alts: str
    gene: str = ""
    haplotype: str = ""


def vcf_row(line: bytes) -> Row:
    """Return the row of a line of a VCF.

    Raises
    ------
    RowError
        The line is no record.
    """
    parts = line.split(b"\t", _LAST)
    if line.startswith(b"#"):
        raise RowError("a header line among the records (put together without `bcftools concat`?)")
    if len(parts) < _LAST:
        raise RowError(f"{len(parts)} columns of a VCF")
    if not parts[1].isdigit() or len(parts[1]) > 18:
        raise RowError(f"position {parts[1][:20].decode('ascii', 'replace')!r}")
    if not (parts[0] and parts[3] and parts[4]):
        raise RowError("an empty CHROM, REF or ALT")
    chrom, position, label, ref, alts = parts[:5]
    return Row(
        chrom.decode("utf-8", "replace"),
        int(position) - 1,
        label.decode("utf-8", "replace") or ".",
        ref.decode("ascii", "replace"),
        alts.decode("ascii", "replace"),
        haplotype=_info_value(parts[_LAST - 1], b"HAP"),
    )


def _info_value(info: bytes, key: bytes) -> str:
    """Return the value of a key of INFO; empty where it is not there, or a dot."""
    start = 0 if info.startswith(key + b"=") else info.find(b";" + key + b"=") + 1
    if not start and not info.startswith(key + b"="):
        return ""
    value = info[start + len(key) + 1 :].partition(b";")[0].decode("utf-8", "replace")
    return "" if value == "." else value


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what; None for columns that it lacks.

    Attributes
    ----------
    delimiter : str
        A tab or a comma.
    num : int
        Columns of the table.
    base : int
        1 or 0, the number of the first base of a contig.
    chrom, position, id, ref, alt, gene, haplotype : int or None
    word : int or None
        Column of variants written as one word; used instead of chrom, position, ref and alt.
    look_up : bool
        Words may be rsIDs, because there is a table to look them up in.
    assembly : str
        Of the dataset; words that name another one are refused.
    """

    delimiter: str
    num: int
    base: int = 1
    chrom: int | None = None
    position: int | None = None
    id: int | None = None
    ref: int | None = None
    alt: int | None = None
    gene: int | None = None
    haplotype: int | None = None
    word: int | None = None
    look_up: bool = False
    assembly: str = ""

    @property
    def ids_only(self) -> bool:
        """Whether variants are named by their ids, which have to be looked up."""
        return self.chrom is None and self.word is None

    def cells(self, line: bytes) -> list[str]:
        """Return the cells of a line."""
        text = line.decode("utf-8", "replace")
        if '"' in text:
            return next(csv.reader([text], delimiter=self.delimiter))
        return text.split(self.delimiter)

    def row(self, line: bytes) -> Row:
        """Return the row of a line.

        Raises
        ------
        RowError
            The line is no row of this table.
        """
        cells = self.cells(line)
        if len(cells) != self.num:
            raise RowError(f"{len(cells)} columns instead of {self.num}")
        label = _cell(cells, self.id) or "."
        gene, haplotype = _cell(cells, self.gene), _cell(cells, self.haplotype)
        if self.word is not None:
            row = _word_row(_cell(cells, self.word), label, self)
            return row._replace(gene=gene, haplotype=haplotype)
        if self.ids_only:
            return Row(".", -1, label, ".", ".", gene, haplotype)
        return Row(
            _cell(cells, self.chrom) or ".",
            _position(_cell(cells, self.position), self.base),
            label,
            _cell(cells, self.ref) or ".",
            _cell(cells, self.alt) or ".",
            gene,
            haplotype,
        )


def _cell(cells: list[str], number: int | None) -> str:
    return "" if number is None else cells[number].strip()


def _position(text: str, base: int) -> int:
    if text.lower() in _NOTHING:
        return -1
    if not _WHOLE.fullmatch(text):
        raise RowError(f"position {text[:20]!r}")
    return int(text.partition(".")[0]) - base


def _word_row(word: str, label: str, columns: Columns) -> Row:
    label = word if label == "." and word else label
    if is_rsid(word) and not columns.look_up:
        raise RowError(f"{word}, an rsID, without a table to look it up in (--lookup)")
    if word.lower() in _NOTHING or is_rsid(word):
        return Row(".", -1, label, ".", ".")
    found = parse_word(word)
    if found is None:
        raise RowError(f"{word[:40]!r}, which is no variant such as chr1:100:A>G")
    theirs, ours = assembly_named(found.assembly), assembly_named(columns.assembly)
    if theirs and ours and theirs != ours:
        raise RowError(f"{word[:40]!r}, of {theirs}, while the dataset is of {ours}")
    return Row(found.chrom, found.position, label, found.ref, found.alts)


def table_columns(
    names: Sequence[str],
    delimiter: str,
    *,
    what: str,
    zero_based: bool | None,
    gene_column: str | None = None,
) -> Columns:
    """Find the columns of a table by their names.

    Parameters
    ----------
    names : sequence of str
        Cells of the header.
    delimiter : str
    what : str
        The file, for messages.
    zero_based : bool or None
        Whether positions count from 0; None where the name of the column says so.
    gene_column : str, optional
        Column of the genes to which a variant is restricted; by default ``gene`` or ``gene_id``.

    Raises
    ------
    InputError
        Columns are missing, or named twice.
    ConfigError
        The base of the positions is not stated, or stated in two ways.
    """
    lowered = [name.strip().lstrip("#").lower() for name in names]
    found = {role: _find(lowered, known, what) for role, known in _NAMES.items()}
    genes = _GENES if gene_column is None else (gene_column.strip().lower(),)
    found["gene"] = next((lowered.index(name) for name in genes if name in lowered), None)
    if gene_column is not None and found["gene"] is None:
        raise _lacking(what, names, f"a column {gene_column}", "check the name of the gene column")
    found["position"] = _find(lowered, (*_STATED, *_UNSTATED), what)
    given = [role for role in ("chrom", "position", "ref", "alt") if found[role] is not None]
    if given and len(given) < 4 and found["word"] is None:
        raise _lacking(
            what, names, "columns chrom, pos1 (or pos0), ref and alt", "name the columns so"
        )
    if len(given) == 4:
        found["word"] = None
        position = found["position"]
        base = _base(lowered[position or 0], zero_based, what)
        return _columns(delimiter, len(lowered), base, found)
    found |= dict.fromkeys(("chrom", "position", "ref", "alt"))
    if found["word"] is None and found["id"] is None:
        raise _lacking(
            what,
            names,
            "columns chrom, pos1 (or pos0), ref and alt; or variant; or id",
            "name the columns so, in the first line",
        )
    return _columns(delimiter, len(lowered), 1, found)


def _columns(delimiter: str, num: int, base: int, at: dict[str, int | None]) -> Columns:
    return Columns(
        delimiter,
        num,
        base,
        chrom=at["chrom"],
        position=at["position"],
        id=at["id"],
        ref=at["ref"],
        alt=at["alt"],
        gene=at["gene"],
        haplotype=at["haplotype"],
        word=at["word"],
    )


def _find(names: list[str], known: Sequence[str], what: str) -> int | None:
    present = [name for name in names if name in known]
    if len(present) > 1 and len(set(present)) < len(present):
        raise InputError(
            facts(
                what,
                found=f"column {present[0]} twice",
                expected="each column once",
                fix="remove or rename the copies",
            )
        )
    return next((names.index(name) for name in known if name in names), None)


def _base(name: str, zero_based: bool | None, what: str) -> int:  # noqa: FBT001
    stated = _STATED.get(name)
    if stated is None and zero_based is None:
        raise ConfigError(
            facts(
                what,
                found=f"a column {name!r}, which does not say whether positions count from 0 or 1",
                expected="a column pos1, pos0 or start, or the base as an option",
                fix="rename the column, or give --coordinates 1 (as in a VCF) or --coordinates 0 "
                "(as in BED)",
            )
        )
    if stated is None:
        return 0 if zero_based else 1
    if zero_based is not None and stated != (0 if zero_based else 1):
        raise ConfigError(
            facts(
                what,
                found=f"a column {name!r} and --coordinates {0 if zero_based else 1}",
                expected="the same base in both",
                fix="leave out --coordinates, or rename the column to pos",
            )
        )
    return stated


def _lacking(what: str, names: Sequence[str], expected: str, fix: str) -> InputError:
    shown = ", ".join(name[:30] for name in names[:8])
    return InputError(
        facts(what, found=f"a table with columns {shown}", expected=expected, fix=fix)
    )
