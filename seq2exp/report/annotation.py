"""Exons of genes from an annotation: a dataset keeps gene bodies only."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from seq2exp.core.contigs import canonical
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.genes import strip_version
from seq2exp.core.intervals import merge
from seq2exp.dataset.store import Dataset

__all__ = ["read_exons"]

_KINDS = ("exon", "transcript", "gene")
"""Features that show where a gene is, the finest first."""
_ID = re.compile(r"gene_id[ =]\"?([^\";]+)")


def read_exons(
    path: Path, dataset: Dataset, genes: Collection[str]
) -> dict[str, list[tuple[int, int]]]:
    """Return, for each gene, the union of its exons over transcripts.

    An annotation without exons gives its transcripts, or its genes, as one block each.

    Parameters
    ----------
    path : Path
        Plain or gzip GTF; the gene id of each line is read.
    dataset : Dataset
        Exons that lie on another contig than their gene, or beyond it, are refused.
    genes : collection of str
        Gene ids of the dataset; Ensembl versions in the file are ignored.

    Returns
    -------
    dict of str to list of (start, end)
        0-based half-open, sorted and disjoint.

    Raises
    ------
    InputError
        The file is missing or has no exon of any of these genes.
    FormatError
        The file is damaged, or its positions are those of another assembly.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a GTF", fix="check the path")
        )
    wanted = set(genes)
    home = dict(
        zip(dataset.genes["gene_id"].astype(str), dataset.genes["contig"].astype(str), strict=True)
    )
    blocks: dict[str, dict[str, list[tuple[int, int]]]] = {kind: {} for kind in _KINDS}
    wrong: list[str] = []
    for number, kind, contig, start, end, gene in _block_lines(path):
        if gene not in wanted:
            continue
        own = home[gene]
        if canonical(contig) != canonical(own) or end > dataset.manifest.contigs[own]:
            wrong.append(f"line {number} {contig}:{start + 1:,}-{end:,} of {gene} on {own}")
            continue
        blocks[kind].setdefault(gene, []).append((start, end))
    if wrong:
        raise FormatError(
            facts(
                str(path),
                found="lines that do not lie on the contig of their gene",
                expected=f"an annotation of {dataset.manifest.assembly}",
                fix="give the GTF that the dataset was prepared from",
                count=len(wrong),
                examples=wrong,
            )
        )
    found = next((blocks[kind] for kind in _KINDS if blocks[kind]), None)
    if found is None:
        raise InputError(
            facts(
                str(path),
                found="no exon, transcript or gene line of the shown genes",
                expected=f"gene ids such as {min(wanted, default='')}",
                fix="give the GTF that the dataset was prepared from",
            )
        )
    return {gene: _union(exons) for gene, exons in found.items()}


def _block_lines(path: Path) -> Iterator[tuple[int, str, str, int, int, str]]:
    try:
        with path.open("rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if packed else path.open() as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.rstrip("\n").split("\t")
                if len(fields) != 9 or fields[2] not in _KINDS:
                    continue
                name = _ID.search(fields[8])
                if name is None or not (fields[3].isdigit() and fields[4].isdigit()):
                    continue
                gene = strip_version(name.group(1))
                yield number, fields[2], fields[0], int(fields[3]) - 1, int(fields[4]), gene
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="GTF text", fix="restore the file")
        ) from error


def _union(exons: list[tuple[int, int]]) -> list[tuple[int, int]]:
    starts, ends = merge(*zip(*exons, strict=True))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
