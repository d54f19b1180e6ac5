"""VCF and BCF files: what they are, whether they are whole, and their header.

Everything is read as text by offset: plain text and bgzip as they are, gzip and BCF through a bgzip
copy in the cache of the build. An index is never used, so that an old one cannot hide records.
"""

from __future__ import annotations

import re
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.textfile import INTERVALS, SeekableText, copy_gzip, file_kind, is_bed

__all__ = ["VcfFile", "open_vcf"]

_PIECE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_LONGEST_HEADER = 1 << 28
_CONTIG = re.compile(r"^##contig=<(.*)>\s*$", re.IGNORECASE)
_ID = re.compile(r"(?:^|,)ID=([^,>]+)")
_LENGTH = re.compile(r"(?:^|,)length=(\d+)")
_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")


@dataclass(frozen=True)
class VcfFile:
    """A checked VCF; holds paths only, so that it can be sent to worker processes."""

    path: Path
    """The user's file, for messages."""
    text: Path
    """The text to read: the same file, or a bgzip copy of it."""
    blocked: bool
    """The text is bgzip."""
    start: int
    """Offset of the first record in the text."""
    size: int
    """Bytes of text."""
    samples: list[str]
    """Names of the columns of genotypes."""
    lengths: dict[str, int]
    """Contig lengths of the header, where it states them."""

    def open(self) -> SeekableText:
        """Return the text, to be read by offset and closed."""
        return SeekableText(self.text, blocked=self.blocked)


def open_vcf(path: Path, *, cache: Path, number: int = 0, genotypes: bool = True) -> VcfFile:
    """Check a VCF or BCF and read its header.

    Headers may lack definitions, define FORMAT fields in odd ways, or repeat lines; only the names
    of samples and the lengths of contigs are taken from them.

    Parameters
    ----------
    path : Path
        Plain text, gzip, bgzip or BCF.
    cache : Path
        Folder for the copy of a gzip file or a BCF.
    number : int
        Number of the file, for the name of the copy.
    genotypes : bool
        Genotypes are needed: each sample once, and at least one.

    Raises
    ------
    InputError
        Missing or empty file, another kind of file; where genotypes are needed no record, no
        sample, or a sample twice.
    FormatError
        Truncated or damaged file, or no line of column names.
    """
    path = Path(path)
    kind = _kind(path)
    text = path
    if kind in ("gzip", "bcf"):
        cache.mkdir(parents=True, exist_ok=True)
        text = cache / f"{number}.{path.name}.bgz"
        if not text.is_file():
            (_copy_bcf if kind == "bcf" else copy_gzip)(path, text)
    blocked = text != path or kind == "bgzip"
    with _reworded(path, text), SeekableText(text, blocked=blocked) as handle:
        start, samples, lengths = _header(handle, path)
        if genotypes:
            _check_samples(samples, path)
        if genotypes and handle.size == start:
            raise InputError(
                facts(str(path), found="no record", expected="variants", fix="check the file")
            )
        if handle.read(handle.size - 1, 1) != b"\n":
            raise _damaged(path, "a last line that does not end: the file is cut in the middle")
        return VcfFile(path, text, blocked, start, handle.size, samples, lengths)


def _kind(path: Path) -> str:
    """Return plain, gzip, bgzip or bcf."""
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a VCF or BCF", fix="check the path")
        )
    kind = file_kind(path)
    with path.open("rb") as handle:
        head = handle.read(_PIECE)
    name = {"a gzip file": "gzip", "a bgzip file": "bgzip"}.get(kind, "plain")
    if name != "plain":
        head = _inflated_start(head, path)
    if head.startswith(b"BCF\2"):
        return "bcf"
    if not head.removeprefix(_BOM).lstrip(b" \r\n").startswith(b"#"):
        found = kind if name == "plain" else f"{kind} without VCF text"
        raise InputError(
            facts(
                str(path),
                found=f"{INTERVALS} (intervals without alleles)" if is_bed(head) else found,
                expected="a VCF, which begins with ##fileformat, or a BCF",
                fix="give a VCF or BCF, or make one",
            )
        )
    return name


def _inflated_start(head: bytes, path: Path) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 4096)
    except zlib.error as error:
        raise _damaged(path, f"compressed data that fail: {error}") from None


@contextmanager
def _reworded(path: Path, text: Path) -> Iterator[None]:
    """Let errors about the copy name the user's file."""
    try:
        yield
    except FormatError as error:
        if text == path:
            raise
        raise FormatError(str(error).replace(str(text), str(path))) from None


def _copy_bcf(path: Path, target: Path) -> None:
    """Write a BCF as text; htslib reads the records."""
    import pysam

    with path.open("rb") as handle:
        compressed = handle.read(2) == b"\x1f\x8b"
    if compressed:
        # htslib notices the missing end only after it has handed out the records before it.
        SeekableText(path, blocked=True).close()
    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial.{target.name}")
    level = pysam.set_verbosity(0)
    try:
        with (
            pysam.VariantFile(str(path)) as records,
            pysam.BGZFile(str(partial), "wb", None) as copy,
        ):
            copy.write(str(records.header).encode())
            for record in records:
                copy.write(str(record).encode())
    except (OSError, ValueError, UnicodeDecodeError) as error:
        partial.unlink(missing_ok=True)
        raise _damaged(path, f"records that cannot be read ({error})") from error
    finally:
        pysam.set_verbosity(level)
    partial.replace(target)


def _header(handle: SeekableText, path: Path) -> tuple[int, list[str], dict[str, int]]:
    """Return the offset of the first record, the samples, and the lengths of contigs."""
    text = b""
    while True:
        piece = handle.read(len(text), _PIECE)
        text += piece
        start = position = len(_BOM) if text.startswith(_BOM) else 0
        while position < len(text) and text[position : position + 1] in (b"#", b"\r"):
            end = text.find(b"\n", position)
            if end < 0:
                break
            if text.startswith(b"#CHROM", position):
                lines = text[start:end].decode("utf-8", "replace").splitlines()
                return end + 1, _samples(lines[-1], path), _lengths(lines[:-1])
            position = end + 1
        else:
            if position < len(text):
                break
        if not piece or len(text) > _LONGEST_HEADER:
            break
    raise _damaged(path, "no line of column names (#CHROM ...) after the header")


def _samples(line: str, path: Path) -> list[str]:
    columns = line.rstrip("\r\n").split("\t")
    if tuple(columns[:8]) != _COLUMNS[:8]:
        found = f"column names that begin {' '.join(columns)[:60]!r}"
        if tuple(line.split()[:8]) == _COLUMNS[:8]:
            raise FormatError(
                facts(
                    str(path),
                    found="columns parted by spaces",
                    expected="tabs between the columns",
                    fix="put a tab between all columns, in every line",
                )
            )
        raise _damaged(path, found)
    return columns[9:]


def _check_samples(samples: list[str], path: Path) -> None:
    if not samples:
        raise InputError(
            facts(
                str(path),
                found="no genotypes: the file names no sample",
                expected="a column of genotypes per donor",
                fix="give the file with genotypes, not the one with sites only",
            )
        )
    twice = sorted(name for name, copies in Counter(samples).items() if copies > 1)
    if twice or "" in samples:
        raise InputError(
            facts(
                str(path),
                found="samples used twice" if twice else "a sample without a name",
                expected="each donor once",
                fix="rename or remove the copies, for example with `bcftools reheader -s`",
                count=len(twice) or 1,
                examples=twice,
            )
        )


def _lengths(lines: list[str]) -> dict[str, int]:
    """Return the first stated length of every contig; later copies of a line are ignored."""
    lengths: dict[str, int] = {}
    for line in lines:
        inside = _CONTIG.match(line)
        if inside:
            name, length = _ID.search(inside[1]), _LENGTH.search(inside[1])
            if name and length:
                lengths.setdefault(name[1], int(length[1]))
    return lengths


def _damaged(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path), found=found, expected="a whole VCF or BCF", fix="copy or download it again"
        )
    )
