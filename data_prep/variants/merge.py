"""The shards of a contig put together: variants in order of position, genotypes turned into blocks.

Shapes: M variants, D donors, H haplotypes (D x ploidy), W bytes of 2 D bits, B variants of a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_prep.shards import write_array
from data_prep.variants.tasks import CHANGED, EXAMPLES, HAPLOID, MULTI
from seq2exp.core.sequence import encode
from seq2exp.core.shards import finish_shard, partial_path, shard_info
from seq2exp.dataset.format_genotypes import BLOCK, BLOCK_BYTES, num_blocks

__all__ = ["COPIES", "ContigTask", "ShardSource", "reject_row"]

COPIES = "copies.tsv"
"""File of the folder that lists the copies of variants that were left out."""

_HAPLOTYPES_AT_ONCE = 4096
_ROWS_PER_GROUP = 8 * BLOCK
_FLAGS = {CHANGED: "normalised", MULTI: "multiallelic", HAPLOID: "haploid"}
_TABLE = pa.schema(
    [
        ("id", pa.string()),
        ("position", pa.int64()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("file", pa.int32()),
        ("record", pa.int64()),
        ("allele", pa.int32()),
        ("filter", pa.string()),
        ("ac", pa.int64()),
        ("an", pa.int64()),
        ("status", pa.string()),
    ]
)


@dataclass(frozen=True)
class ShardSource:
    """A shard of a VCF."""

    target: Path
    file: int
    """Number of the file."""
    first_record: int
    """Number in the file of the shard's first record."""


@dataclass(frozen=True)
class ContigTask:
    """Write the arrays and the table of one contig."""

    contig: str
    shards: tuple[ShardSource, ...]
    """Those that hold alleles of the contig, in the order of files and of their parts."""
    num_donors: int
    ploidy: int
    num_alleles: int
    """Alleles of the contig, for the estimate of time."""
    target: Path

    @property
    def label(self) -> str:
        """What the task does, for messages."""
        return f"genotypes of contig {self.contig}"

    @property
    def cost(self) -> int:
        """Haplotypes to turn, in units of the time that a base of sequence takes."""
        return self.num_alleles * (2 * self.num_donors // 4 + 100)

    def run(self) -> None:
        """Write the folder; its JSON says how many variants there are, and which were copies."""
        partial = partial_path(self.target)
        if partial.exists():
            for file in partial.iterdir():
                file.unlink()
        partial.mkdir(exist_ok=True)
        rows = _Rows(self)
        order, copies = _ordered(rows, partial / COPIES)
        _write_variants(rows, order, partial)
        planes = [
            name
            for name in ("alleles", "missing", "unphased", "phase_set")
            if name == "alleles" or rows.has[name]
        ]
        written = [name for name in planes if _write_plane(rows, order, name, partial)]
        info = {"variants": len(order), "planes": written, "copies": copies}
        finish_shard(partial, self.target, info)


class _Rows:
    """All alleles of a contig by number, in file order, over the batches of its shards."""

    def __init__(self, task: ContigTask) -> None:
        self.task = task
        self.batches: list[pa.RecordBatch] = []
        self.has: Counter[str] = Counter()
        files: list[NDArray[np.int64]] = []
        records: list[NDArray[np.int64]] = []
        for shard in task.shards:
            # Memory-mapped: columns are read when they are looked at.
            reader = pa.ipc.open_file(pa.memory_map(str(shard.target)))
            for number, batch in enumerate(shard_info(shard.target)["batches"]):
                if batch["contig"] != task.contig:
                    continue
                self.batches.append(reader.get_batch(number))
                self.has.update({name: int(batch[name]) for name in _OPTIONAL})
                files.append(np.full(batch["alleles"], shard.file, dtype=np.int64))
                found = _numbers(self.batches[-1], "record") + shard.first_record
                records.append(found)
        self.starts = np.concatenate(([0], np.cumsum([len(batch) for batch in self.batches])))
        self.file_A = np.concatenate([np.empty(0, np.int64), *files])
        self.record_A = np.concatenate([np.empty(0, np.int64), *records])
        self.table = pa.Table.from_batches(self.batches) if self.batches else None

    def numbers(self, name: str) -> NDArray[Any]:
        """Return one column of numbers of all alleles."""
        return np.concatenate([np.empty(0, np.int64), *(_numbers(b, name) for b in self.batches)])

    def kept(self) -> NDArray[np.int64]:
        """Return the numbers of the alleles that were not left out."""
        reasons = [batch.column("reason") for batch in self.batches]
        masks = [np.array(pa.compute.equal(column, "")) for column in reasons]
        return np.flatnonzero(np.concatenate([np.empty(0, np.bool_), *masks]))

    def texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        """Return one column of texts of some alleles."""
        if self.table is None or not len(rows):
            return []
        found: list[str] = self.table.column(name).take(pa.array(rows)).to_pylist()
        return found

    def bytes(self, name: str, rows: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """Return packed genotypes of some alleles, zeros where none is stored."""
        out = np.zeros((len(rows), width), dtype=np.uint8)
        home = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(home):
            _, offsets, data = self.batches[number].column(name).buffers()
            if offsets is None or data is None:
                continue
            begin = np.frombuffer(offsets, dtype=np.int32)
            wanted = np.flatnonzero(home == number)
            here = rows[wanted] - self.starts[number]
            some = begin[here + 1] > begin[here]
            stored = np.frombuffer(data, dtype=np.uint8)[: begin[-1]].reshape(-1, width)
            out[wanted[some]] = stored[begin[here[some]] // width]
        return out


_OPTIONAL = ("missing", "unphased", "phase_set")


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    values: NDArray[Any] = batch.column(name).to_numpy()
    return values


def _ordered(rows: _Rows, listing: Path) -> tuple[NDArray[np.int64], dict[str, list[Any]]]:
    """Return the kept alleles in order of position, without copies, and how many copies there are.

    Of alleles that are equal in their normal form, the first of the file stays; the others are
    listed. By reason: their number, then the first few.
    """
    kept = rows.kept()
    position = rows.numbers("position")[kept]
    by_position = np.argsort(position, kind="stable")
    order, position = kept[by_position], position[by_position]
    shared = np.zeros(len(order), dtype=np.bool_)
    if len(order) > 1:
        shared[1:] = position[1:] == position[:-1]
        shared[:-1] |= shared[1:]
    candidates = np.flatnonzero(shared)
    refs, alts = rows.texts("ref", order[candidates]), rows.texts("alt", order[candidates])
    first: dict[tuple[int, str, str], int] = {}
    keep = np.ones(len(order), dtype=np.bool_)
    copies: dict[str, list[Any]] = {}
    with listing.open("w", encoding="utf-8", newline="\n") as handle:
        for place, ref, alt in zip(candidates.tolist(), refs, alts, strict=True):
            at = int(position[place])
            original = first.setdefault((at, ref, alt), place)
            if original == place:
                continue
            keep[place] = False
            same = _same_genotypes(rows, order[[original, place]])
            reason = "duplicate" if same else "duplicate_conflict"
            shown = copies.setdefault(reason, [0])
            shown[0] += 1
            if len(shown) <= EXAMPLES:
                shown.append(f"{rows.task.contig}:{at + 1} {ref[:20]}>{alt[:20]}")
            name = rows.texts("id", order[[place]])[0]
            handle.write(reject_row(rows.task.contig, at, name, ref, alt, reason))
    return order[keep], copies


def reject_row(contig: str, position: int, name: str, ref: str, alt: str, reason: str) -> str:
    """Return the line of an allele in rejects.tsv; its position counts from 1, as in the VCF."""
    return f"{contig}\t{position + 1}\t{name}\t{ref}\t{alt}\t{reason}\n"


def _same_genotypes(rows: _Rows, pair: NDArray[np.int64]) -> bool:
    donors = rows.task.num_donors
    widths = {"alleles": -(-2 * donors // 8), "missing": -(-2 * donors // 8)}
    widths |= {"unphased": -(-donors // 8)}
    return all(
        bool(np.array_equal(*rows.bytes(name, pair, width))) for name, width in widths.items()
    )


def _write_variants(rows: _Rows, order: NDArray[np.int64], folder: Path) -> None:
    """Write the flat arrays and the table."""
    position = rows.numbers("position")[order].astype(np.int64)
    numbers = {name: rows.numbers(name) for name in ("allele", "ac", "an", "flags")}
    status = np.array([_status(flags) for flags in range(2 ** len(_FLAGS))], dtype=object)
    ref_length = np.zeros(len(order), dtype=np.int32)
    alt_length = np.zeros(len(order), dtype=np.int64)
    codes: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
    with pq.ParquetWriter(folder / "variants.parquet", _TABLE, write_page_checksum=True) as writer:
        for start in range(0, len(order), _ROWS_PER_GROUP):
            here = order[start : start + _ROWS_PER_GROUP]
            texts = {name: rows.texts(name, here) for name in ("id", "ref", "alt", "filter")}
            inside = slice(start, start + len(here))
            ref_length[inside] = [len(ref) for ref in texts["ref"]]
            alt_length[inside] = [len(alt) for alt in texts["alt"]]
            codes.append(encode("".join(texts["alt"])))
            columns = {
                **texts,
                "position": position[inside],
                "file": rows.file_A[here],
                "record": rows.record_A[here],
                "status": status[numbers["flags"][here]],
                **{name: numbers[name][here] for name in ("allele", "ac", "an")},
            }
            writer.write_table(pa.table({f.name: columns[f.name] for f in _TABLE}, schema=_TABLE))
    reach = np.maximum.accumulate(position + ref_length) if len(order) else position
    arrays: dict[str, NDArray[Any]] = {
        "position": position,
        "ref_length": ref_length,
        "alt_offset": np.concatenate(([0], np.cumsum(alt_length))).astype(np.int64),
        "alt_codes": np.concatenate(codes),
        "reach": reach,
    }
    site = rows.numbers("site")[order].astype(np.int64)
    if not np.array_equal(site, position):
        arrays["site"] = site
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)


def _status(flags: int) -> str:
    return ";".join(name for bit, name in _FLAGS.items() if flags & bit) or "ok"


def _write_plane(rows: _Rows, order: NDArray[np.int64], name: str, folder: Path) -> bool:
    """Write one plane block by block; return whether it holds anything, and only then keep it."""
    task = rows.task
    if name == "phase_set":
        shape: Sequence[int] = (num_blocks(len(order)), task.num_donors, BLOCK)
    else:
        per_donor = 1 if name == "unphased" else task.ploidy
        shape = (num_blocks(len(order)), per_donor * task.num_donors, BLOCK_BYTES)
    path = folder / f"{name}.npy"
    filled = False
    with path.open("wb") as handle:
        dtype = "<i4" if name == "phase_set" else "|u1"
        header = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(handle, header)
        for start in range(0, len(order), BLOCK):
            here = order[start : start + BLOCK]
            filled |= _write_block(rows, here, name, handle)
    if not filled:
        path.unlink()
    return filled


def _write_block(rows: _Rows, here: NDArray[np.int64], name: str, handle: BinaryIO) -> bool:
    donors = rows.task.num_donors
    if name == "phase_set":
        sets = rows.bytes(name, here, 4 * donors).view(np.int32)
        block = np.zeros((donors, BLOCK), dtype="<i4")
        block[:, : len(here)] = sets.T
        handle.write(block.tobytes())
        return bool(sets.any())
    num_bits = donors if name == "unphased" else 2 * donors
    packed_BW = rows.bytes(name, here, -(-num_bits // 8))
    step = 2 if name != "unphased" and rows.task.ploidy == 1 else 1
    # A slice of haplotypes at a time, so that memory does not grow with the number of donors.
    for first in range(0, num_bits, _HAPLOTYPES_AT_ONCE):
        last = min(first + _HAPLOTYPES_AT_ONCE, num_bits)
        bits = np.unpackbits(packed_BW[:, first // 8 : -(-last // 8)], axis=1)
        turned = np.ascontiguousarray(bits[:, : last - first : step].T)
        block = np.zeros((len(turned), BLOCK_BYTES), dtype=np.uint8)
        found = np.packbits(turned, axis=1)
        block[:, : found.shape[1]] = found
        handle.write(block.tobytes())
    return bool(packed_BW.any())
