"""Write a simulated world as the ordinary files that users have. Byte-identical for one seed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pysam
from numpy.typing import NDArray

from data_prep.simulate.build import Draft
from data_prep.simulate.contacts import ContactTable
from data_prep.simulate.world import World

__all__ = [
    "write_annotation",
    "write_bed",
    "write_contacts",
    "write_genome",
    "write_sparse_bigwig",
    "write_table",
    "write_track",
]

_LETTERS = np.frombuffer(b"ACGTN", dtype=np.uint8)
_LINE = 80


def write_genome(genome: dict[str, NDArray[np.uint8]], folder: Path) -> None:
    """Write genome.fa, genome.fa.fai and chrom.sizes."""
    path = folder / "genome.fa"
    with path.open("wb") as handle:
        for chrom, codes in genome.items():
            handle.write(f">{chrom}\n".encode())
            handle.write(_fasta_lines(_LETTERS[codes]))
    pysam.faidx(str(path))
    sizes = "".join(f"{chrom}\t{len(codes)}\n" for chrom, codes in genome.items())
    (folder / "chrom.sizes").write_text(sizes)


def _fasta_lines(letters: NDArray[np.uint8]) -> bytes:
    full = len(letters) // _LINE
    block = np.full((full, _LINE + 1), ord("\n"), dtype=np.uint8)
    block[:, :_LINE] = letters[: full * _LINE].reshape(full, _LINE)
    rest = letters[full * _LINE :].tobytes()
    return block.tobytes() + (rest + b"\n" if rest else b"")


def write_annotation(draft: Draft, path: Path) -> None:
    """Write genes, transcripts and exons as a sorted, bgzipped and indexed GTF (1-based)."""
    lines: list[tuple[int, int, int, str]] = []
    rank = {chrom: number for number, chrom in enumerate(draft.world.genome)}
    columns = ["gene_id", "symbol", "chrom", "strand", "start", "end"]
    rows = draft.world.genes[columns].itertuples(index=False)
    for (gene_id, symbol, chrom, strand, start, end), exons in zip(rows, draft.exons, strict=True):
        gene = f'gene_id "{gene_id}"; gene_type "protein_coding"; gene_name "{symbol}";'
        transcript = f'{gene} transcript_id "{gene_id}.T1"; transcript_type "protein_coding";'
        features = [("gene", start, end, gene), ("transcript", start, end, transcript)]
        ordered = exons if strand == "+" else exons[::-1]
        features += [
            ("exon", first, last, f"{transcript} exon_number {number};")
            for number, (first, last) in enumerate(ordered, start=1)
        ]
        for order, (feature, first, last, text) in enumerate(features):
            line = f"{chrom}\tsimulation\t{feature}\t{first + 1}\t{last}\t.\t{strand}\t.\t{text}\n"
            lines.append((rank[chrom], first, min(order, 2), line))
    lines.sort(key=lambda line: line[:3])
    with pysam.BGZFile(str(path), "wb", None) as handle:
        handle.write("".join(line[3] for line in lines).encode())
    pysam.tabix_index(str(path), preset="gff", force=True)


def write_track(
    signal: dict[str, NDArray[np.float32]], world: World, path: Path, *, bin_size: int
) -> None:
    """Write one binned track as bigWig; bins inside runs of N stay empty."""
    with _bigwig(world, path) as handle:
        for chrom, values in signal.items():
            for first, last in _known_runs(values):
                # The last bin of a contig may be shorter, so it is written on its own.
                whole = min(last, len(world.genome[chrom]) // bin_size)
                if whole > first:
                    handle.addEntries(
                        chrom,
                        int(first * bin_size),
                        values=values[first:whole].tolist(),
                        span=bin_size,
                        step=bin_size,
                    )
                if last > whole:
                    handle.addEntries(
                        [chrom],
                        [int(whole * bin_size)],
                        ends=[len(world.genome[chrom])],
                        values=[float(values[whole])],
                    )


def _known_runs(values: NDArray[np.float32]) -> Iterable[tuple[int, int]]:
    known = np.concatenate([[0], np.isfinite(values).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(known))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _bigwig(world: World, path: Path) -> pyBigWig.bigWigFile:
    handle = pyBigWig.open(str(path), "w")
    handle.addHeader([(chrom, len(codes)) for chrom, codes in world.genome.items()])
    return handle


def write_sparse_bigwig(
    values: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]], world: World, path: Path
) -> None:
    """Write single bases (positions, values) per contig as bigWig; other bases stay empty."""
    with _bigwig(world, path) as handle:
        for chrom, (position, value) in values.items():
            if len(position):
                handle.addEntries(chrom, position.tolist(), values=value.tolist(), span=1)


def write_contacts(contacts: ContactTable, world: World, path: Path) -> None:
    """Write gene_id, chrom, start, end, contact: observed contact per gene and bin, gzipped."""
    genes = world.genes
    num_bins = contacts.true.shape[1]
    row = np.repeat(np.arange(len(genes)), num_bins)
    start = ((contacts.first_bin[:, None] + np.arange(num_bins)) * contacts.bin_size).ravel()
    length = genes["chrom"].map({c: len(codes) for c, codes in world.genome.items()}).to_numpy()
    inside = (start >= 0) & (start < length[row])
    row, start = row[inside], start[inside]
    frame = pd.DataFrame(
        {
            "gene_id": genes["gene_id"].to_numpy()[row],
            "chrom": genes["chrom"].to_numpy()[row],
            "start": start,
            "end": np.minimum(start + contacts.bin_size, length[row]),
            "contact": np.round(contacts.observed.ravel()[inside], 5),
        }
    )
    write_table(frame, path)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a tab-separated table; a path in .gz is compressed without a time stamp."""
    text = frame.to_csv(sep="\t", index=False)
    write_text(text, path)


def write_bed(frame: pd.DataFrame, path: Path) -> None:
    """Write a BED file: the first columns are chrom, start, end, name, score, strand; no header."""
    write_text(frame.to_csv(sep="\t", index=False, header=False), path)


def write_text(text: str, path: Path) -> None:
    """Write text, gzipped without name and time stamp where the path ends in .gz."""
    data = text.encode()
    path.write_bytes(
        gzip.compress(data, compresslevel=5, mtime=0) if path.suffix == ".gz" else data
    )
