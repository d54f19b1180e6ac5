"""A tiny set of raw inputs, small enough that every expected number can be worked out by hand.

chr1 (2,000 bases) and chr2 (1,003 bases, no multiple of any bin) hold genes; chr3 (500) has none.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyBigWig

from data_prep.config import (
    AnnotationConfig,
    ContactConfig,
    DataConfig,
    ExpressionConfig,
    SplitConfig,
    TrackConfig,
)

SIZES = {"chr1": 2000, "chr2": 1003, "chr3": 500}
BIN = 16

# gene_id, contig, start and end as in a GTF (from 1, end included), strand
GENES = (
    ("gA", "chr1", 101, 400, "+"),
    ("gB", "chr1", 601, 900, "-"),
    ("gC", "chr1", 1501, 1800, "+"),
    ("gD", "chr2", 1, 200, "+"),
    ("gE", "chr2", 501, 1003, "-"),
)
# TSS, 0-based: start - 1 on plus, end - 1 on minus
TSS = {"gA": 100, "gB": 899, "gC": 1500, "gD": 0, "gE": 1002}

# contig -> (start, end, value): the only bases with an entry
SIGNAL = {
    "chr1": [(96, 104, 2.0), (104, 112, 4.0), (896, 900, 8.0), (1500, 1501, 16.0)],
    "chr2": [(0, 4, 1.0), (1000, 1003, 5.0)],
}


def sequences(seed: int = 0) -> dict[str, str]:
    """Return random sequences with a soft-masked stretch and two IUPAC letters on chr1."""
    random = np.random.default_rng(seed)
    text = {name: "".join(random.choice(list("ACGT"), size)) for name, size in SIZES.items()}
    first = text["chr1"]
    text["chr1"] = first[:10] + "RY" + first[12:50].lower() + first[50:]
    return text


def write_fasta(path: Path, records: dict[str, str], *, width: int = 60, end: str = "\n") -> Path:
    lines = []
    for name, sequence in records.items():
        lines.append(f">{name} described")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    path.write_bytes((end.join(lines) + end).encode())
    return path


def gtf_line(
    contig: str,
    feature: str,
    start: int,
    end: int,
    strand: str,
    *,
    source: str = "test",
    **more: str,
) -> str:
    attributes = " ".join(f'{key} "{value}";' for key, value in more.items())
    return f"{contig}\t{source}\t{feature}\t{start}\t{end}\t.\t{strand}\t.\t{attributes}"


def gene_lines() -> list[str]:
    return [
        gtf_line(
            contig,
            "gene",
            start,
            end,
            strand,
            gene_id=gene_id,
            gene_name=gene_id.upper(),
            gene_biotype="protein_coding",
        )
        for gene_id, contig, start, end, strand in GENES
    ]


def write_gtf(path: Path, lines: list[str]) -> Path:
    text = "#!genome-build toy\n" + "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        with gzip.GzipFile(path, "wb", mtime=0) as handle:
            handle.write(text.encode())
    else:
        path.write_text(text, encoding="utf-8")
    return path


def write_bigwig(
    path: Path,
    signal: dict[str, list[tuple[int, int, float]]],
    sizes: dict[str, int] | None = None,
) -> Path:
    handle = pyBigWig.open(str(path), "w")
    handle.addHeader(list((sizes or SIZES).items()))
    for contig, entries in signal.items():
        starts, ends, values = (list(column) for column in zip(*entries, strict=True))
        handle.addEntries([contig] * len(starts), starts, ends=ends, values=values)
    handle.close()
    return path


def dense(signal: list[tuple[int, int, float]], length: int) -> np.ndarray:
    """Return one value per base, NaN without an entry: what every binning is compared with."""
    values = np.full(length, np.nan)
    for start, end, value in signal:
        values[start:end] = value
    return values


def reference_bins(
    values: np.ndarray,
    bin_size: int,
    *,
    statistic: str = "mean",
    nan: str = "zero",
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Bin per-base values one bin at a time, in plain Python: slow and obvious."""
    known = np.ones(len(values), dtype=bool) if known is None else known
    out = []
    for start in range(0, len(values), bin_size):
        chosen = values[start : start + bin_size][known[start : start + bin_size]]
        chosen = np.nan_to_num(chosen) if nan == "zero" else chosen[~np.isnan(chosen)]
        reduce = np.mean if statistic == "mean" else np.max
        out.append(reduce(chosen) if len(chosen) else np.nan)
    return np.array(out)


@dataclass
class Raw:
    """A folder of inputs and the configuration that reads them."""

    folder: Path
    config: DataConfig
    labels: dict[str, float] = field(default_factory=dict)


def write_raw(folder: Path) -> Raw:
    """Write genome.fa, genes.gtf.gz, signal.bw and labels.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    write_fasta(folder / "genome.fa", sequences())
    write_gtf(folder / "genes.gtf.gz", gene_lines())
    write_bigwig(folder / "signal.bw", SIGNAL)
    labels = {"gA": 0.0, "gB": 9.0, "gC": 99.0, "gD": 999.0}
    rows = "".join(
        f"{gene}\t{gene.upper()}\t{value}\t{value / 2}\n" for gene, value in labels.items()
    )
    (folder / "labels.tsv").write_text("gene_id\tsymbol\tcell_a\tcell_b\n" + rows)
    return Raw(folder, toy_config(), labels)


def toy_config() -> DataConfig:
    """Return the configuration of the toy inputs."""
    return DataConfig(
        assembly="toy",
        fasta="genome.fa",
        annotation=AnnotationConfig(gtf="genes.gtf.gz"),
        tracks=[TrackConfig(name="DNase", path="signal.bw", unit="cuts")],
        expression=ExpressionConfig(path="labels.tsv", unit="TPM", transform="log10p1"),
        contacts=ContactConfig(bin_size=100, num_bins=4),
        splits=SplitConfig(test=["chr2"]),
        bin_size=BIN,
    )
