"""Random access to the text of a plain or bgzip file, and what kind of file it is.

A bgzip file is a chain of gzip members; each says how long it is, compressed and not, so walking
the chain gives an exact table of blocks. A chain that breaks off, or lacks the empty last member,
is truncated.
"""

from __future__ import annotations

import gzip
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts

__all__ = [
    "INTERVALS",
    "SeekableText",
    "copy_gzip",
    "file_kind",
    "is_bed",
    "open_fasta",
    "text_lines",
]

INTERVALS = "BED or bedGraph text"

_GZIP = b"\x1f\x8b"
_BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_SCAN = 1 << 24
_PIECE = 1 << 22
_SHORT = 1 << 16
_KINDS = {
    b"\x26\xfc\x8f\x88": "a bigWig",
    b"\x88\x8f\xfc\x26": "a bigWig",
    b"\xeb\xf2\x89\x87": "a bigBed",
    b"\x87\x89\xf2\xeb": "a bigBed",
    b"HIC\0": "a .hic file",
    b"BAM\1": "a BAM file",
    b"PK\3\4": "a ZIP archive",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}


def file_kind(path: Path) -> str:
    """Return in words what a file is, judged by its first bytes."""
    with path.open("rb") as handle:
        head = handle.read(512)
    if not head:
        return "an empty file"
    if head[:4] in _KINDS:
        return _KINDS[head[:4]]
    if head[:2] == _GZIP:
        return "a bgzip file" if _block_size(head) else "a gzip file"
    lowered = head.lstrip().lower()
    if lowered.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "an HTML page"
    if lowered.startswith((b"version https://git-lfs", b"version https://hawser")):
        return "a Git LFS pointer"
    if b"\0" in head:
        return "binary data"
    if lowered.startswith(b">"):
        return "FASTA text"
    first = lowered.splitlines()[0] if lowered else b""
    if lowered.startswith((b"track", b"browser", b"fixedstep", b"variablestep")):
        return "wiggle or bedGraph text"
    fields = first.split()
    if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
        return "bedGraph text"
    return f"text that begins {first[:30].decode('ascii', 'replace')!r}"


def is_bed(head: bytes) -> bool:
    """Tell whether text begins with intervals, as BED and bedGraph do: name, start, end.

    Parameters
    ----------
    head : bytes
        The beginning, perhaps with lines of ``track``, ``browser`` or ``#`` before the intervals.
    """
    skipped = (b"track", b"browser", b"#")
    lines = (line.split() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines())
    fields = next((words for words in lines if words and not words[0].startswith(skipped)), [])
    if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
        return False
    return int(fields[1]) <= int(fields[2])


def open_fasta(path: Path) -> SeekableText:
    """Open a FASTA for random access to its text.

    Raises
    ------
    InputError
        The file is missing, empty, plain gzip, or no FASTA.
    FormatError
        A bgzip file is truncated or damaged.
    """
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a FASTA", fix="check the path")
        )
    kind = file_kind(path)
    if kind == "a gzip file":
        plain = path.name.removesuffix(".gz")
        raise InputError(
            facts(
                str(path),
                found="a plain gzip file, which cannot be read at random",
                expected="plain text or bgzip",
                fix=f"bgzip it: gunzip -c {path.name} | bgzip > {plain}.bgz",
            )
        )
    text = SeekableText(path, blocked=kind == "a bgzip file")
    try:
        if not text.read(0, 4096).lstrip().startswith(b">"):
            raise InputError(
                facts(
                    str(path),
                    found="bgzip text without a '>' at its start" if text.blocked else kind,
                    expected="FASTA text that begins with '>'",
                    fix="give the genome as FASTA",
                )
            )
    except BaseException:
        text.close()
        raise
    return text


def copy_gzip(path: Path, target: Path) -> None:
    """Compress the text of a gzip file anew, in blocks that can be read at random.

    Raises
    ------
    FormatError
        The file is truncated or damaged.
    """
    import pysam

    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial.{target.name}")
    try:
        with gzip.open(path, "rb") as text, pysam.BGZFile(str(partial), "wb", None) as copy:
            while piece := text.read(_PIECE):
                copy.write(piece)
        partial.replace(target)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"a gzip stream that breaks off or fails ({error})",
                expected="a whole gzip file",
                fix="copy or download it again",
            )
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def text_lines(
    text: SeekableText, start: int, end: int, *, name: str
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines that begin at ``start`` to ``end - 1``, some megabytes at a time.

    Parameters
    ----------
    text : SeekableText
    start, end : int
        Offsets; need not be the beginnings of lines.
    name : str
        The file, for messages.

    Yields
    ------
    int, list of bytes
        Offset of the first of these lines; the lines, without the line feed that ends each.

    Raises
    ------
    FormatError
        The last line does not end.
    """
    at = start
    carried = b""
    if start:
        # A line that begins at `start` follows a line end there.
        at = start - 1
        piece = b""
        while b"\n" not in piece:
            more = text.read(at + len(piece), min(_PIECE, _SHORT))
            if not more:
                return
            piece += more
        at += piece.index(b"\n") + 1
    while at < end:
        # No more than is asked for, and some more for a last line that ends behind it.
        wanted = max(end - at - len(carried), _SHORT)
        piece = text.read(at + len(carried), min(wanted, _PIECE))
        carried += piece
        cut = carried.rfind(b"\n") + 1
        if not piece and not cut:
            raise FormatError(
                facts(
                    f"{name} at {carried[:40].decode('ascii', 'replace')!r}",
                    found="a line that does not end",
                    expected="a line feed after every line",
                    fix="the file is damaged or was cut: restore it",
                )
            )
        lines = carried[:cut].split(b"\n")[:-1]
        first, inside = at, cut
        if at + cut > end:
            inside = 0
            for number, line in enumerate(lines):
                if at + inside >= end:
                    del lines[number:]
                    break
                inside += len(line) + 1
        carried = carried[inside:]
        at += inside
        if lines:
            yield first, lines


class SeekableText:
    """The uncompressed text of a file, read by offset.

    Parameters
    ----------
    path : Path
    blocked : bool
        The file is bgzip.
    """

    def __init__(self, path: Path, *, blocked: bool) -> None:
        self.path = path
        self.blocked = blocked
        self._handle: BinaryIO = path.open("rb")
        try:
            if blocked:
                self._packed, self._plain = _walk_blocks(self._handle, path)
                self.size = int(self._plain[-1])
            else:
                self.size = path.stat().st_size
        except BaseException:
            self._handle.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes of text from ``offset``; fewer only at the end."""
        length = max(min(length, self.size - offset), 0)
        if length == 0:
            return b""
        if not self.blocked:
            self._handle.seek(offset)
            return self._handle.read(length)
        first = int(np.searchsorted(self._plain, offset, side="right")) - 1
        last = int(np.searchsorted(self._plain, offset + length, side="left"))
        text = b"".join(self._block(index) for index in range(first, last))
        begin = offset - int(self._plain[first])
        return text[begin : begin + length]

    def _block(self, index: int) -> bytes:
        begin, end = int(self._packed[index]), int(self._packed[index + 1])
        self._handle.seek(begin)
        try:
            return zlib.decompress(self._handle.read(end - begin), wbits=31)
        except zlib.error as error:
            raise _damaged(self.path, f"block at byte {begin} that fails: {error}") from None

    def block_index_fits(self, path: Path) -> bool:
        """Return whether a ``.gzi`` lists the blocks of this file."""
        raw = path.read_bytes()
        if len(raw) < 8 or (len(raw) - 8) % 16:
            return False
        pairs = np.frombuffer(raw, dtype="<u8", offset=8).reshape(-1, 2)
        if len(pairs) != int.from_bytes(raw[:8], "little"):
            return False
        known = dict(zip(self._packed.tolist(), self._plain.tolist(), strict=True))
        return all(known.get(packed) == plain for packed, plain in pairs.tolist())

    def record_names(self) -> list[str]:
        """Return the name of every record, in order; reads the whole text."""
        names: list[str] = []
        carried = b"\n"
        for offset in range(0, self.size, _SCAN):
            piece = carried + self.read(offset, _SCAN)
            last = offset + _SCAN >= self.size
            cut = len(piece) if last else piece.rfind(b"\n")
            names += [_name(line) for line in piece[:cut].split(b"\n>")[1:]]
            carried = piece[cut:]
        return names


def _name(line: bytes) -> str:
    head = line.split(b"\n", 1)[0].split()
    return head[0].decode("utf-8", "replace") if head else ""


def _walk_blocks(handle: BinaryIO, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the compressed and uncompressed offset of every block, and of the end."""
    size = path.stat().st_size
    handle.seek(max(size - len(_BGZF_EOF), 0))
    if handle.read() != _BGZF_EOF:
        raise _damaged(path, "no end-of-file block: the file is truncated")
    packed, plain = [0], [0]
    while packed[-1] < size:
        handle.seek(packed[-1])
        length = _block_size(handle.read(64))
        if not length or packed[-1] + length > size:
            raise _damaged(path, f"no bgzip block at byte {packed[-1]:,}")
        handle.seek(packed[-1] + length - 4)
        plain.append(plain[-1] + struct.unpack("<I", handle.read(4))[0])
        packed.append(packed[-1] + length)
    return np.array(packed, dtype=np.int64), np.array(plain, dtype=np.int64)


def _block_size(head: bytes) -> int:
    """Return the length of a bgzip block from its header, or 0 when it is none.

    No block is shorter than the empty one that ends the file.
    """
    if len(head) < 18 or head[:4] != b"\x1f\x8b\x08\x04":
        return 0
    extra = head[12 : 12 + struct.unpack("<H", head[10:12])[0]]
    while len(extra) >= 4:
        length = struct.unpack("<H", extra[2:4])[0]
        if extra[:2] == b"BC" and length == 2 and len(extra) >= 6:
            size = int(struct.unpack("<H", extra[4:6])[0]) + 1
            return size if size >= len(_BGZF_EOF) else 0
        extra = extra[4 + length :]
    return 0


def _damaged(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path), found=found, expected="a whole bgzip file", fix="copy or download it again"
        )
    )
