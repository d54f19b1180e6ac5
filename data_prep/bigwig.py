"""bigWig preflight: what the libraries under us accept in silence is refused here.

A file cut at 90 to 99 percent still opens and reads. So the header, the total summary, the index,
the mark at the end, and the first and last block of every contig are looked at before any work.
Layout: Kent et al., Bioinformatics 2010, supplementary tables 5 to 15.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.textfile import file_kind

__all__ = ["BigWigHeader", "check_bigwig"]

_MAGIC = 0x888FFC26
_CHROM_MAGIC = 0x78CA8C91
_INDEX_MAGIC = 0x2468ACE0
_MAX_DEPTH = 20

Blocks = NDArray[np.uint64]


@dataclass(frozen=True)
class BigWigHeader:
    """What the preflight learnt of a bigWig."""

    path: Path
    sizes: dict[str, int]
    """Contig lengths of the header."""
    covered_bases: int
    """Bases with an entry, by the total summary."""
    minimum: float
    maximum: float
    """Extremes over the covered bases, by the total summary."""
    num_blocks: dict[str, int]
    """Data blocks of every contig; 0 for a contig without data."""
    covered: dict[str, int]
    """Bases with an entry of every contig, by the coarsest zoom level; empty where the levels are
    missing or contradict the total summary."""


class _BrokenError(Exception):
    """The file does not have the structure of a bigWig."""


def check_bigwig(path: Path) -> BigWigHeader:
    """Check a bigWig without reading all of it.

    Raises
    ------
    InputError
        The file is missing, or is something else (HTML page, bigBed, bedGraph, gzip ...).
    FormatError
        The file is truncated, its index points outside it, or a block cannot be unpacked.
    """
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a bigWig", fix="check the path")
        )
    kind = file_kind(path)
    if kind != "a bigWig":
        article = "" if kind.startswith(("a ", "an ")) else "it is "
        raise InputError(
            facts(
                str(path),
                found=f"something else: {article or 'this is '}{kind}",
                expected="a bigWig",
                fix="download the file again, or convert it with bedGraphToBigWig",
            )
        )
    try:
        with path.open("rb") as handle:
            return _Reader(handle, path).check()
    except (_BrokenError, struct.error, zlib.error, ValueError, IndexError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"a truncated or damaged file of {path.stat().st_size:,} bytes ({error})",
                expected="a whole bigWig",
                fix="copy or download it again",
            )
        ) from None


class _Reader:
    def __init__(self, handle: BinaryIO, path: Path) -> None:
        self.handle = handle
        self.path = path
        self.size = path.stat().st_size
        self.order = "<" if self._bytes(0, 4) == struct.pack("<I", _MAGIC) else ">"

    def check(self) -> BigWigHeader:
        (_, _, zooms, chroms, data, index, _, _, _, summary, unpacked, _) = self._unpack(
            "IHHQQQHHQQIQ", 0
        )
        for at in (chroms, data, index, summary):
            if not 64 <= at < self.size:
                message = f"an offset of the header lies at byte {at:,}, outside the file"
                raise _BrokenError(message)
        if self._unpack("I", self.size - 4) != (_MAGIC,):
            message = "no bigWig mark at the end"
            raise _BrokenError(message)
        levels = [self._unpack("IIQQ", 64 + 24 * level) for level in range(zooms)]
        for number, (_, _, _, at) in enumerate(levels):
            if self._unpack("I", at) != (_INDEX_MAGIC,):
                message = f"no index of zoom level {number}"
                raise _BrokenError(message)
        covered, low, high, _, _ = self._unpack("Qdddd", summary)
        names = self._contigs(chroms)
        blocks = self._blocks(index)
        self._unpack_edges(blocks, compressed=unpacked > 0)
        counts = np.bincount(blocks[:, 0].astype(np.int64), minlength=len(names))
        return BigWigHeader(
            path=self.path,
            sizes=dict(names.values()),
            covered_bases=covered,
            minimum=low,
            maximum=high,
            num_blocks={name: int(counts[number]) for number, (name, _) in names.items()},
            covered=self._covered(levels, names, total=covered, compressed=unpacked > 0),
        )

    def _covered(
        self,
        levels: list[tuple[int, ...]],
        names: dict[int, tuple[str, int]],
        *,
        total: int,
        compressed: bool,
    ) -> dict[str, int]:
        if not levels:
            return {}
        layout = np.dtype([("place", self.order + "u4", 4), ("values", self.order + "f4", 4)])
        covered = np.zeros(max(names) + 1, dtype=np.int64)
        for _, _, offset, size in self._blocks(max(levels)[3]).tolist():
            raw = self._bytes(offset, size)
            records = np.frombuffer(zlib.decompress(raw) if compressed else raw, dtype=layout)
            np.add.at(covered, records["place"][:, 0], records["place"][:, 3])
        if int(covered.sum()) != total:
            return {}
        return {name: int(covered[number]) for number, (name, _) in names.items()}

    def _contigs(self, at: int) -> dict[int, tuple[str, int]]:
        magic, _, key_size, _, count, _ = self._unpack("IIIIQQ", at)
        if magic != _CHROM_MAGIC:
            message = "no contig list"
            raise _BrokenError(message)
        found: dict[int, tuple[str, int]] = {}
        self._contig_node(at + 32, key_size, found, depth=0)
        if len(found) != count:
            message = f"{len(found)} of {count} contigs"
            raise _BrokenError(message)
        return dict(sorted(found.items()))

    def _contig_node(
        self, at: int, key_size: int, found: dict[int, tuple[str, int]], *, depth: int
    ) -> None:
        self._refuse_depth(depth)
        leaf, _, count = self._unpack("BBH", at)
        width = key_size + 8
        raw = self._bytes(at + 4, count * width)
        for item in (raw[i : i + width] for i in range(0, len(raw), width)):
            if leaf:
                number, length = struct.unpack(self.order + "II", item[key_size:])
                found[number] = (item[:key_size].rstrip(b"\0").decode("utf-8"), length)
            else:
                child = struct.unpack(self.order + "Q", item[key_size:])[0]
                self._contig_node(child, key_size, found, depth=depth + 1)

    def _blocks(self, at: int) -> Blocks:
        """Return contig number, first base, offset and size of every data block, in order."""
        if self._unpack("I", at) != (_INDEX_MAGIC,):
            message = "no index"
            raise _BrokenError(message)
        parts: list[Blocks] = []
        self._block_node(at + 48, parts, depth=0)
        blocks = np.concatenate(parts) if parts else np.empty((0, 4), dtype=np.uint64)
        if len(blocks) and int((blocks[:, 2] + blocks[:, 3]).max()) > self.size:
            message = "the index names a block beyond the end"
            raise _BrokenError(message)
        return blocks[np.lexsort((blocks[:, 1], blocks[:, 0]))]

    def _block_node(self, at: int, parts: list[Blocks], *, depth: int) -> None:
        self._refuse_depth(depth)
        leaf, _, count = self._unpack("BBH", at)
        if leaf:
            layout = np.dtype([("place", self.order + "u4", 4), ("offset", self.order + "u8", 2)])
            raw = np.frombuffer(self._bytes(at + 4, count * 32), dtype=layout)
            parts.append(np.column_stack((raw["place"][:, :2].astype(np.uint64), raw["offset"])))
            return
        layout = np.dtype([("place", self.order + "u4", 4), ("child", self.order + "u8")])
        for child in np.frombuffer(self._bytes(at + 4, count * 24), dtype=layout)["child"]:
            self._block_node(int(child), parts, depth=depth + 1)

    def _unpack_edges(self, blocks: Blocks, *, compressed: bool) -> None:
        if not len(blocks):
            return
        contig = blocks[:, 0]
        first = np.flatnonzero(np.concatenate(([True], contig[1:] != contig[:-1])))
        last = np.concatenate((first[1:], [len(contig)])) - 1
        for row in sorted({*first.tolist(), *last.tolist()}):
            raw = self._bytes(int(blocks[row, 2]), int(blocks[row, 3]))
            plain = zlib.decompress(raw) if compressed else raw
            owner = struct.unpack(self.order + "I", plain[:4])[0]
            if owner != int(contig[row]):
                message = f"a block of another contig at byte {int(blocks[row, 2]):,}"
                raise _BrokenError(message)

    def _refuse_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            message = "an index that runs in circles"
            raise _BrokenError(message)

    def _unpack(self, layout: str, at: int) -> tuple[int, ...]:
        full = self.order + layout
        return struct.unpack(full, self._bytes(at, struct.calcsize(full)))

    def _bytes(self, at: int, length: int) -> bytes:
        if at < 0 or at + length > self.size:
            message = f"the file ends before byte {at + length:,}"
            raise _BrokenError(message)
        self.handle.seek(at)
        return self.handle.read(length)
