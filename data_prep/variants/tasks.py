"""Parts of a VCF as shards: every allele in its normal form with its genotypes as bits.

A shard is an Arrow file, so that one part can be larger than memory: batches of some thousand
alleles of one contig, in file order. Alleles that are left out stand in it with their reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.donor_config import GenotypeConfig
from data_prep.variants.calls import Calls, parse_calls
from data_prep.variants.records import (
    Alleles,
    Line,
    Planes,
    allele_planes,
    call_counts,
    read_lines,
    split_alleles,
)
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.shards import finish_shard, partial_path
from seq2exp.variation.vcf_file import VcfFile
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["CHANGED", "EXAMPLES", "HAPLOID", "MULTI", "SCHEMA", "VcfTask"]

CHANGED, MULTI, HAPLOID = 1, 2, 4
"""Flags of an allele: moved or cut by normalising, one of several ALTs, called in haploids."""
EXAMPLES = 3
SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("site", pa.int64()),
        ("record", pa.int64()),
        ("allele", pa.int32()),
        ("id", pa.string()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("filter", pa.string()),
        ("reason", pa.string()),
        ("flags", pa.int8()),
        ("ac", pa.int64()),
        ("an", pa.int64()),
        ("alleles", pa.binary()),
        ("missing", pa.binary()),
        ("unphased", pa.binary()),
        ("phase_set", pa.binary()),
    ]
)


@dataclass(frozen=True, eq=False)
class VcfTask:
    """Read a range of bytes of a VCF."""

    file: VcfFile
    number: int
    """Number of the file."""
    start: int
    end: int
    keep: NDArray[np.int64]
    """Columns of the donors that are kept, in their order."""
    names: ContigNames
    sequences: Mapping[str, Path]
    """Base codes of the stored contigs."""
    config: GenotypeConfig
    target: Path

    @property
    def label(self) -> str:
        """What the task does, for messages."""
        return f"bytes {self.start:,} to {self.end:,} of {self.file.path.name}"

    @property
    def cost(self) -> int:
        """Bytes of text, which take longer than bases."""
        return 4 * (self.end - self.start)

    def run(self) -> None:
        """Write the shard, and what was counted in it."""
        partial = partial_path(self.target)
        summary = _Summary()
        with (
            self.file.open() as handle,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            lines = read_lines(handle, self.start, self.end, name=str(self.file.path))
            for named, group in _by_contig(lines):
                summary.see(named, group)
                contig = self.names.stored(named)
                if contig is None:
                    continue
                batch = self._convert(contig, group, summary)
                writer.write_batch(batch)
        finish_shard(partial, self.target, summary.info())

    def _convert(self, contig: str, lines: list[Line], summary: _Summary) -> pa.RecordBatch:
        places = [f"{self.file.path} {line.contig}:{line.position + 1}" for line in lines]
        calls = parse_calls(
            [line.format for line in lines],
            [line.columns for line in lines],
            num_samples=len(self.file.samples),
            keep=self.keep,
            places=places,
        )
        _refuse_unknown_alleles(calls, lines, places)
        codes = np.load(self.sequences[contig], mmap_mode="r")
        alleles = split_alleles(lines, calls.problem_R, codes, self.config)
        planes = allele_planes(alleles, calls)
        batch = _batch(lines, alleles, planes)
        summary.count(contig, lines, alleles, planes, call_counts(calls))
        return batch


def _by_contig(pieces: Iterator[list[Line]]) -> Iterator[tuple[str, list[Line]]]:
    for piece in pieces:
        for contig, group in groupby(piece, key=lambda line: line.contig):
            yield contig, list(group)


def _refuse_unknown_alleles(calls: Calls, lines: list[Line], places: list[str]) -> None:
    highest = calls.alleles_RD2.max(axis=(1, 2), initial=0)
    for row, line in enumerate(lines):
        if highest[row] > len(line.alts):
            raise FormatError(
                facts(
                    places[row],
                    found=f"a genotype with allele {highest[row]}",
                    expected=f"at most {len(line.alts)}, the number of ALT alleles",
                    fix="the file is damaged: restore it",
                )
            )


def _batch(lines: list[Line], alleles: Alleles, planes: Planes) -> pa.RecordBatch:
    kept = np.array([not reason for reason in alleles.reason_A], dtype=np.bool_)
    rows = alleles.record_A.tolist()
    several = np.array([len(line.alts) > 1 for line in lines])[alleles.record_A]
    flags = CHANGED * alleles.changed_A + MULTI * several
    counts = {name: np.zeros(len(kept), dtype=np.int64) for name in ("ac", "an", "haploid")}
    for name, values in (("ac", planes.ac_K), ("an", planes.an_K), ("haploid", planes.haploid_K)):
        counts[name][kept] = values
    flags = (flags + HAPLOID * counts["haploid"]).astype(np.int8)
    columns = [
        pa.array(alleles.position_A),
        pa.array(np.array([line.position for line in lines])[alleles.record_A]),
        pa.array(np.array([line.number for line in lines])[alleles.record_A]),
        pa.array(alleles.allele_A.astype(np.int32)),
        pa.array([lines[row].id for row in rows], pa.string()),
        pa.array(alleles.refs, pa.string()),
        pa.array(alleles.alts, pa.string()),
        pa.array([lines[row].filter for row in rows], pa.string()),
        pa.array(alleles.reason_A, pa.string()),
        pa.array(flags),
        pa.array(counts["ac"]),
        pa.array(counts["an"]),
        _bytes_column(planes.alleles_KW, kept),
        _bytes_column(planes.missing_KW, kept, only_set=True),
        _bytes_column(planes.unphased_KV, kept, only_set=True),
        _bytes_column(planes.sets_KD, kept, only_set=True),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _bytes_column(
    rows: NDArray[Any] | None, kept: NDArray[np.bool_], *, only_set: bool = False
) -> pa.Array:
    """Return rows of numbers as bytes; null where an allele is left out, or has no bit set."""
    if rows is None:
        return pa.nulls(len(kept), pa.binary())
    present = kept.copy()
    if only_set:
        some = rows.any(axis=1)
        present[kept] = some
        rows = rows[some]
    width = rows.shape[1] * rows.itemsize
    offsets = np.concatenate(([0], np.cumsum(present))) * width
    if offsets[-1] > np.iinfo(np.int32).max:
        message = "a batch of genotypes beyond 2 GB"
        raise MemoryError(message)
    valid = np.packbits(present, bitorder="little")
    buffers = [
        pa.py_buffer(valid.tobytes()),
        pa.py_buffer(offsets.astype(np.int32).tobytes()),
        pa.py_buffer(np.ascontiguousarray(rows).tobytes()),
    ]
    return pa.Array.from_buffers(pa.binary(), len(kept), buffers)


class _Summary:
    """What was seen in a shard, for its JSON file."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.hints: Counter[str] = Counter()
        self.batches: list[dict[str, Any]] = []
        self.runs: list[list[Any]] = []
        self.num_records = 0

    def see(self, contig: str, lines: list[Line]) -> None:
        """Note the order of records, of contigs that are not stored too."""
        self.num_records += len(lines)
        position = np.array([line.position for line in lines])
        falls = int((np.diff(position) < 0).sum())
        if self.runs and self.runs[-1][0] == contig:
            run = self.runs[-1]
            falls += run[2] > position[0]
            run[2], run[3], run[4] = int(position[-1]), run[3] + int(falls), run[4] + len(lines)
        else:
            self.runs.append([contig, int(position[0]), int(position[-1]), falls, len(lines)])

    def count(
        self,
        contig: str,
        lines: list[Line],
        alleles: Alleles,
        planes: Planes,
        calls: Counter[str],
    ) -> None:
        """Note one batch."""
        self.counts.update(calls)
        self.counts["records"] += len(lines)
        self.counts["alleles"] += len(alleles.refs)
        self.counts["records_multiallelic"] += sum(len(line.alts) > 1 for line in lines)
        self.hints.update(alleles.hints)
        kept = 0
        for row, reason in enumerate(alleles.reason_A):
            if not reason:
                kept += 1
                continue
            self.reasons[reason] += 1
            shown = self.examples.setdefault(reason, [])
            if len(shown) < EXAMPLES:
                line = lines[alleles.record_A[row]]
                alt = line.alts[alleles.allele_A[row] - 1]
                shown.append(f"{line.contig}:{line.position + 1} {line.ref[:20]}>{alt[:20]}")
        self.batches.append(
            {
                "contig": contig,
                "alleles": len(alleles.refs),
                "kept": kept,
                "missing": bool(planes.missing_KW.any()),
                "unphased": bool(planes.unphased_KV.any()),
                "phase_set": planes.sets_KD is not None and bool(planes.sets_KD.any()),
            }
        )

    def info(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "num_records": self.num_records,
            "counts": dict(self.counts),
            "reasons": dict(self.reasons),
            "examples": self.examples,
            "hints": dict(self.hints),
            "batches": self.batches,
            "runs": self.runs,
        }
