"""Files of variants of every kind as text of which each line is a row.

VCF, TSV and CSV are read as they are, plain or bgzip, at any offset; gzip, BCF, Parquet and words
through a copy in a folder for working files. An index is never used.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import sha256
from seq2exp.core.textfile import INTERVALS, SeekableText, copy_gzip, file_kind, is_bed, text_lines
from seq2exp.variants.rows import Columns, Row, table_columns, vcf_row
from seq2exp.variants.strings import is_rsid, parse_word
from seq2exp.variation.vcf_file import open_vcf

__all__ = ["VariantText", "open_variant_text", "words_text"]

_HEAD = 1 << 16
_ROWS = 1 << 16
_VCF_NAMES = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
_BOM = "\ufeff"


@dataclass(frozen=True)
class VariantText:
    """Text of variants, checked to be whole; holds paths only, so that it can be sent on."""

    path: Path
    """The user's file, for messages."""
    text: Path
    """The text to read: the same file, or a copy of it."""
    blocked: bool
    """The text is bgzip."""
    start: int
    """Offset of the first row."""
    size: int
    """Bytes of text."""
    columns: Columns | None
    """Columns of a table; None for a VCF."""
    sha256: str
    """Checksum of the user's file."""
    lengths: dict[str, int]
    """Contig lengths that a VCF states."""

    def open(self) -> SeekableText:
        """Return the text, to be read by offset and closed."""
        return SeekableText(self.text, blocked=self.blocked)

    def row(self, line: bytes) -> Row:
        """Return the row of a line; see `vcf_row` and `Columns.row`."""
        return vcf_row(line) if self.columns is None else self.columns.row(line)

    def lines(self, handle: SeekableText, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset and text of every line that is not empty, without its end."""
        for first, lines in text_lines(handle, start, end, name=str(self.path)):
            at = first
            for line in lines:
                text = line.rstrip(b"\r")
                if text:
                    yield at, text
                at += len(line) + 1


def open_variant_text(
    path: Path,
    *,
    cache: Path,
    zero_based: bool | None = None,
    gene_column: str | None = None,
    look_up: bool = False,
    assembly: str = "",
) -> VariantText:
    """Open a file of variants, whatever its format, and check that it is whole.

    Parameters
    ----------
    path : Path
        VCF or BCF; TSV or CSV with a header; a list of words or of rsIDs without one; Parquet.
        Texts may be gzip or bgzip.
    cache : Path
        Folder for copies.
    zero_based : bool or None
        Base of the positions of a table whose column of positions does not name it.
    gene_column : str, optional
        Column of a table with the genes to which variants are restricted.
    look_up : bool
        Words may be rsIDs.
    assembly : str
        Of the dataset, as far as known.

    Raises
    ------
    InputError
        Missing or empty file, another kind of file, or a table without the columns that it needs.
    FormatError
        Truncated or damaged file.
    ConfigError
        The base of positions is not stated.
    """
    path = Path(path)
    kind = _kind(path)
    checksum = sha256(path)
    folder = cache / checksum[:16]
    if kind == "vcf":
        if zero_based or gene_column is not None:
            option = "--coordinates 0" if zero_based else f"gene column {gene_column}"
            raise InputError(
                facts(
                    f"{path} and {option}",
                    found="a VCF",
                    expected="a table",
                    fix=f"leave out {option}: a VCF counts from 1 and has no column of genes",
                )
            )
        file = open_vcf(path, cache=folder, genotypes=False)
        return VariantText(
            path, file.text, file.blocked, file.start, file.size, None, checksum, file.lengths
        )
    text, blocked = path, kind == "a bgzip file"
    if kind in ("a gzip file", "a Parquet file"):
        text = folder / ("rows.tsv" if kind == "a Parquet file" else "text.bgz")
        blocked = kind == "a gzip file"
        if not text.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            (copy_gzip if blocked else _copy_parquet)(path, text)
    with SeekableText(text, blocked=blocked) as handle:
        start, columns = _header(handle, path, zero_based, gene_column)
        if columns is not None:
            columns = dataclasses.replace(columns, look_up=look_up, assembly=assembly)
        if columns is None:
            raise InputError(
                facts(
                    str(path),
                    found="neither a row nor a line of names",
                    expected="variants, or the names of the columns alone",
                    fix="check the file",
                )
            )
        if handle.read(handle.size - 1, 1) != b"\n":
            raise FormatError(
                facts(
                    str(path),
                    found="a last line that does not end, as in a file that was cut",
                    expected="a line feed after every row",
                    fix="restore the file, or end its last line if it is whole",
                )
            )
        return VariantText(path, text, blocked, start, handle.size, columns, checksum, {})


def words_text(words: Sequence[str], *, cache: Path, look_up: bool, assembly: str) -> VariantText:
    """Write words, such as ``chr1:100:A>G`` or rsIDs, to a text of one word per line."""
    content = "".join(f"{word.strip()}\n" for word in words)
    if not content.strip():
        raise InputError(
            facts("--variant", found="nothing", expected="chr1:100:A>G", fix="name a variant")
        )
    checksum = hashlib.sha256(content.encode()).hexdigest()
    text = cache / checksum[:16] / "words.txt"
    if not text.is_file():
        _write(text, content.encode())
    return VariantText(
        path=Path("--variant"),
        text=text,
        blocked=False,
        start=0,
        size=text.stat().st_size,
        columns=Columns("\t", 1, word=0, look_up=look_up, assembly=assembly),
        sha256=checksum,
        lengths={},
    )


def _kind(path: Path) -> str:
    """Return vcf, or the kind of a table in words."""
    if not path.is_file():
        raise InputError(
            facts(
                str(path),
                found="no such file" if not path.exists() else "no file",
                expected="variants as VCF, BCF, TSV, CSV or Parquet",
                fix="check the path",
            )
        )
    kind = file_kind(path)
    if path.name.lower().endswith(_VCF_NAMES) and kind != "a Parquet file":
        return "vcf"
    if kind == "a Parquet file":
        return kind
    head = _head(path, kind)
    if head.startswith(b"BCF\2"):
        return "vcf"
    if not kind.startswith(("text", "wiggle", "bedGraph", "a gzip", "a bgzip")):
        raise InputError(
            facts(
                str(path),
                found=kind,
                expected="variants as VCF, BCF, TSV, CSV or Parquet",
                fix="give the file of variants",
            )
        )
    if is_bed(head):
        raise InputError(
            facts(
                str(path),
                found=f"{INTERVALS} (intervals without alleles)",
                expected="variants as VCF or BCF, or as TSV, CSV or Parquet with columns chrom, "
                "pos1, ref, alt",
                fix="give the file of variants; every substitution of the regions of a BED is "
                "scored by `seq2exp variants saturate --bed`",
            )
        )
    first = head.removeprefix(_BOM.encode()).lstrip()
    if first.startswith(b"##fileformat=VCF") or b"#CHROM\tPOS\tID\tREF\tALT\tQUAL" in head:
        return "vcf"
    return kind


def _head(path: Path, kind: str) -> bytes:
    """Return the beginning of the text of a file."""
    if kind == "a bgzip file":
        with SeekableText(path, blocked=True) as handle:
            return handle.read(0, _HEAD)
    try:
        with gzip.open(path, "rb") if kind == "a gzip file" else path.open("rb") as text:
            return text.read(_HEAD)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        # The copy will say how it is damaged.
        return b""


def _header(
    handle: SeekableText,
    path: Path,
    zero_based: bool | None,  # noqa: FBT001
    gene_column: str | None,
) -> tuple[int, Columns | None]:
    """Return the offset of the first row and the columns; None for an empty text."""
    for at, line in _first_lines(handle):
        text = line.decode("utf-8", "replace").removeprefix(_BOM).rstrip("\r")
        if not text.strip() or text.startswith("##"):
            continue
        if parse_word(text.strip()) is not None or is_rsid(text.strip()):
            return at, Columns("\t", 1, word=0)
        delimiter = "\t" if "\t" in text or "," not in text else ","
        names = Columns(delimiter, 0).cells(text.encode())
        columns = table_columns(
            names, delimiter, what=str(path), zero_based=zero_based, gene_column=gene_column
        )
        return at + len(line) + 1, columns
    return 0, None


def _first_lines(handle: SeekableText) -> Iterator[tuple[int, bytes]]:
    head, at = b"", 0
    while at < handle.size:
        head = handle.read(at, _HEAD)
        end = head.find(b"\n")
        while end < 0 and at + len(head) < handle.size:
            head += handle.read(at + len(head), _HEAD)
            end = head.find(b"\n")
        line = head if end < 0 else head[:end]
        yield at, line
        at += len(line) + 1


def _write(target: Path, *pieces: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial.{target.name}")
    with partial.open("wb") as out:
        out.writelines(pieces)
        os.fsync(out.fileno())
    partial.replace(target)


def _copy_parquet(path: Path, target: Path) -> None:
    """Write the rows of a Parquet file as TSV, some thousands at a time."""
    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial.{target.name}")
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        names = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
        with partial.open("wb") as out:
            out.write(("\t".join(names) + "\n").encode())
            for batch in file.iter_batches(_ROWS, columns=names):
                cells = [_cells(column) for column in batch.columns]
                rows = pc.binary_join_element_wise(
                    *cells, "\t", null_handling="replace", null_replacement=""
                )
                out.writelines(f"{row}\n".encode() for row in rows.to_pylist())
        partial.replace(target)
    except (OSError, pa.ArrowException, ValueError, LookupError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"a Parquet file that cannot be read ({error})",
                expected="a whole one",
                fix="copy or write it again",
            )
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _cells(column: pa.Array) -> pa.Array:
    """Return the cells of a column as text without tabs and line ends."""
    if pa.types.is_floating(column.type):
        # NaN is how pandas keeps what is missing.
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.replace_substring_regex(pc.cast(column, pa.string()), r"[\t\r\n]", " ")
