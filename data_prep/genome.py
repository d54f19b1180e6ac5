"""FASTA, plain or bgzip: checked before any base is used, then read as base codes.

A wrong or missing index is rebuilt in a cache folder, never beside the user's file. A truncated
FASTA with a full index would give short or empty sequences in silence; here it is an error.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.core.sequence import encode, invalid_letters, num_ambiguous
from seq2exp.core.textfile import SeekableText, open_fasta

__all__ = ["Genome", "check_letters", "index_problem", "open_genome", "read_bases", "read_contig"]

_PIECE = 1 << 23
_SAMPLE = 10_000
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Genome:
    """A checked FASTA; holds paths only, so that it can be sent to worker processes."""

    path: Path
    """The user's file."""
    index: Path
    """A ``.fai`` that was found to fit."""
    block_index: Path | None
    """A ``.gzi`` that fits, for bgzip files."""
    sizes: dict[str, int]
    """Length in bases of every contig, in file order."""
    rebuilt: str = ""
    """Why the user's index was not used; empty when it was."""


@dataclass(frozen=True)
class _Row:
    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int

    @property
    def end(self) -> int:
        """Offset one past the last base."""
        full, rest = divmod(self.length, self.line_bases) if self.length else (0, 0)
        newline = self.line_width - self.line_bases
        return self.offset + full * self.line_width + rest - (newline if full and not rest else 0)


class _TruncatedError(Exception):
    """The index reaches beyond the end of the text."""


def open_genome(path: Path, *, cache: Path) -> Genome:
    """Check a FASTA and its index; return what is needed to read it.

    Parameters
    ----------
    path : Path
        Plain or bgzip FASTA. Soft-masked bases and CRLF line ends are fine.
    cache : Path
        Folder for an index, where the user's is missing, older than the FASTA, or wrong.

    Raises
    ------
    InputError
        Missing or empty file, plain gzip, duplicate contig names, or no FASTA at all.
    FormatError
        The file is truncated or cannot be indexed.
    """
    path = Path(path)
    text = open_fasta(path)
    with text:
        own, block = _beside(path, ".fai"), _beside(path, ".gzi")
        reason = _why_not(path, own, block, text)
        if reason == "":
            rows = _read_index(own)
            return Genome(path, own, block if text.blocked else None, _sizes(rows))
        return _rebuild(path, text, cache, reason)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sizes(rows: list[_Row]) -> dict[str, int]:
    return {row.name: row.length for row in rows}


def _why_not(path: Path, index: Path, block: Path, text: SeekableText) -> str:
    """Return why the user's index cannot be used, or an empty text."""
    if not index.is_file() or (text.blocked and not block.is_file()):
        return "no index"
    if index.stat().st_mtime_ns < path.stat().st_mtime_ns:
        reason = "index older than the FASTA"
    else:
        reason = ""
    try:
        rows = _read_index(index)
        problem = index_problem(rows, text)
        if not problem and text.blocked and not text.block_index_fits(block):
            problem = ".gzi that does not fit the blocks of the file"
    except _TruncatedError as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected=f"the sequence that {index.name} describes",
                fix="the FASTA is truncated: restore it; if it is whole, delete the old index",
            )
        ) from None
    except (ValueError, OSError) as error:
        problem = f"unreadable index ({error})"
    return problem or reason


def _read_index(path: Path) -> list[_Row]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *numbers = line.split("\t")
        length, offset, bases, width = map(int, numbers[:4])
        if min(length, offset, bases) < 0 or width < bases or (length and bases < 1):
            message = f"impossible line {line[:60]!r}"
            raise ValueError(message)
        rows.append(_Row(name, length, offset, bases, width))
    return rows


def index_problem(rows: list[_Row], text: SeekableText) -> str:
    """Return what is wrong with an index, or an empty text.

    The records of a good index tile the file: each begins behind a header line of its own name,
    which begins where the record before ends, and the last one ends with the file.

    Raises
    ------
    _TruncatedError
        All records fit up to a point, and then the text ends.
    """
    position = 0
    for row in sorted(rows, key=lambda row: row.offset):
        if row.offset > text.size or row.end > text.size:
            inside = row.offset <= text.size
            # A wrong index is told from a cut file by what still stands before the cut.
            problem = _header_problem(row, position, text) or _line_problem(row, text)
            if inside and problem:
                return problem
            message = f"{text.size:,} bytes of text where {row.name} ends at byte {row.end:,}"
            raise _TruncatedError(message)
        problem = _header_problem(row, position, text) or _line_problem(row, text)
        if problem:
            return problem
        position = row.end
    rest = text.read(position, min(text.size - position, _LONGEST_HEADER))
    return "sequence that the index leaves out" if rest.strip() or not rows else ""


def _header_problem(row: _Row, position: int, text: SeekableText) -> str:
    gap = row.offset - position
    if not 0 < gap <= _LONGEST_HEADER:
        return f"wrong offset of {row.name}"
    lines = text.read(position, gap).strip().splitlines()
    names = [line[1:].split()[0].decode("utf-8", "replace") for line in lines if line[1:].split()]
    if len(lines) != 1 or not lines[0].startswith(b">") or names != [row.name]:
        return f"other text than the header of {row.name} before its sequence"
    return ""


def _line_problem(row: _Row, text: SeekableText) -> str:
    """Look at the line ends in the middle of a record, where a wrong line width would show."""
    full = (row.end - row.offset) // row.line_width if row.line_width else 0
    for line in {0, full // 2, full - 1} if full > 0 else ():
        at = row.offset + line * row.line_width
        ends = text.read(at + row.line_bases, row.line_width - row.line_bases)
        if ends.strip(b"\r\n"):
            return f"wrong line width of {row.name}"
    return ""


def _rebuild(path: Path, text: SeekableText, cache: Path, reason: str) -> Genome:
    import pysam

    cache.mkdir(parents=True, exist_ok=True)
    index = cache / (path.name + ".fai")
    block = cache / (path.name + ".gzi") if text.blocked else None
    extra = ["--gzi-idx", str(block)] if block else []
    try:
        pysam.faidx(str(path), "--fai-idx", str(index), *extra)
    except pysam.utils.SamtoolsError:
        raise FormatError(
            facts(
                str(path),
                found="lines of different length within a record, or blank lines",
                expected="lines of one length within each record",
                fix="rewrap it, for example with `seqkit seq -w 60`",
            )
        ) from None
    try:
        rows = _read_index(index)
    except ValueError as error:
        raise FormatError(
            facts(
                str(path),
                found=f"contig names that are no text ({error})",
                expected="names in ASCII or UTF-8, without control characters",
                fix="rename the records, or restore the file",
            )
        ) from None
    _refuse_odd_records(path, rows, text)
    if reason != "no index":
        warnings.warn(
            facts(
                str(path),
                found=f"an index that does not fit: {reason}",
                expected="an index made from this file",
                fix=f"nothing: a new one was made in {cache.name}; run `samtools faidx` to keep it",
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    return Genome(path, index, block, _sizes(rows), "" if reason == "no index" else reason)


def _refuse_odd_records(path: Path, rows: list[_Row], text: SeekableText) -> None:
    names = text.record_names()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            facts(
                str(path),
                found="contig names used twice",
                expected="one record per name",
                fix="remove or rename the copies",
                count=len(twice),
                examples=twice,
            )
        )
    empty = [name for name in names if name not in {row.name for row in rows if row.length}]
    if empty or not rows:
        raise InputError(
            facts(
                str(path),
                found="records without sequence",
                expected="at least one base in each record",
                fix="remove them or restore the file",
                count=len(empty),
                examples=empty,
            )
        )


def check_letters(genome: Genome, contigs: list[str]) -> None:
    """Look at the first bases of some contigs: cheap, and enough to see a protein FASTA.

    Raises
    ------
    InputError
        Letters that no nucleotide code knows.
    FormatError
        The sequence cannot be read.
    """
    for contig in contigs[:50]:
        text = _fetch(genome, contig, 0, min(_SAMPLE, genome.sizes[contig]))
        _refuse_letters(genome, contig, text)


def read_contig(genome: Genome, contig: str) -> tuple[NDArray[np.uint8], int]:
    """Return a whole contig as base codes and the number of IUPAC letters that became N.

    Returns
    -------
    uint8 array, shape (contig_length,)
        Codes A0 C1 G2 T3 N4.
    int
        Ambiguous letters other than N.

    Raises
    ------
    FormatError
        Fewer bases than the index says, or a damaged block.
    InputError
        Letters that no nucleotide code knows (protein, gaps).
    """
    length = genome.sizes[contig]
    codes = np.empty(length, dtype=np.uint8)
    ambiguous = 0
    for start in range(0, length, _PIECE):
        text = _fetch(genome, contig, start, min(start + _PIECE, length))
        _refuse_letters(genome, contig, text)
        codes[start : start + len(text)] = encode(text)
        ambiguous += num_ambiguous(text)
    return codes, ambiguous


def read_bases(genome: Genome, contig: str, start: int, end: int) -> NDArray[np.uint8]:
    """Return the base codes of an interval inside a contig.

    Raises
    ------
    FormatError
        Fewer bases than the index says, or a damaged block.
    """
    return encode(_fetch(genome, contig, start, end))


def _fetch(genome: Genome, contig: str, start: int, end: int) -> bytes:
    import pysam

    try:
        with pysam.FastaFile(
            str(genome.path),
            filepath_index=str(genome.index),
            filepath_index_compressed=str(genome.block_index) if genome.block_index else None,
        ) as handle:
            sequence: bytes = handle.fetch(contig, start, end).encode("ascii", "replace")
    except (ValueError, OSError, KeyError) as error:
        raise _short(genome, contig, f"{error} at {start}-{end}") from error
    if len(sequence) != end - start:
        raise _short(genome, contig, f"{len(sequence)} bases at {start}-{end}")
    return sequence


def _short(genome: Genome, contig: str, found: str) -> FormatError:
    return FormatError(
        facts(
            f"{genome.path} contig {contig}",
            found=found,
            expected=f"the {genome.sizes[contig]} bases that the index states",
            fix="the FASTA is damaged or truncated: restore it",
        )
    )


def _refuse_letters(genome: Genome, contig: str, text: bytes) -> None:
    letters = invalid_letters(text)
    if letters:
        raise InputError(
            facts(
                f"{genome.path} contig {contig}",
                found=f"letters {letters!r} that are no nucleotide code",
                expected="DNA: A, C, G, T, N and IUPAC codes",
                fix="give a genome, not a protein or an alignment",
            )
        )
