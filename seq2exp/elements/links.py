"""BEDPE files as links between an element and a gene.

A row of our own ``links.bedpe.gz`` names its gene in columns 11 and 12 (gene id, symbol). In any
other BEDPE the gene is the one whose TSS lies in, or within ``TSS_REACH_BP`` of, one of the two
ends; the other end is the element. A row may link several genes, and its ends may come in either
order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from seq2exp.core.contigs import canonical
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.genes import GeneNames
from seq2exp.dataset.store import Dataset
from seq2exp.elements.tables import check_assembly, read_text, stated_assembly

__all__ = ["TSS_REACH_BP", "bedpe_links"]

TSS_REACH_BP = 500
"""A TSS this far from an end of a link still belongs to it; half the promoter of the ABC model."""
_ENDS = ("chrom1", "start1", "end1", "chrom2", "start2", "end2")
_COLUMNS = ["chrom", "start", "end", "gene_id", "symbol", "causal"]


def bedpe_links(path: Path, dataset: Dataset, notes: dict[str, int]) -> pd.DataFrame:
    """Return the links of a BEDPE file.

    Parameters
    ----------
    path : Path
        Plain, gzip or bgzip.
    dataset : Dataset
        Whose genes may be linked.
    notes : dict
        Gets the counts of rows that link no gene, and of rows between contigs or without a place.

    Returns
    -------
    DataFrame
        chrom (as the file names it), start, end, gene_id, symbol, causal.

    Raises
    ------
    InputError
        No row, or none links a gene of the dataset.
    FormatError
        A row has fewer than six columns, or an end is no interval.
    """
    lines = read_text(path).split("\n")
    check_assembly(stated_assembly(lines[:100]), dataset.manifest.assembly, path)
    rows = [(n, line.split("\t")) for n, line in enumerate(lines, 1) if _is_data(line)]
    if rows and len(rows[0][1]) >= 6 and not _looks_numeric(rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise InputError(
            facts(str(path), found="no link", expected="at least one", fix="check the file")
        )
    genes, sites = GeneNames(dataset.genes), _Sites(dataset)
    found, placeless, unlinked = [], 0, 0
    for number, fields in rows:
        ends = _ends(path, number, fields)
        if ends is None or canonical(ends[0][0]) != canonical(ends[1][0]):
            placeless += 1
            continue
        named = fields[10:12] if len(fields) >= 12 else []
        if named and genes.find(*named) >= 0:
            found.append((*ends[0], *named, True))
            continue
        linked = [
            (*ends[1 - side], gene, None, True)
            for side in (1, 0)
            for gene in sites.near(*ends[side])
        ]
        unlinked += not linked
        found += linked
    notes["between contigs, or without a place"] = placeless
    notes["without the TSS of a gene at either end"] = unlinked
    if not found:
        raise InputError(
            facts(
                str(path),
                found=f"no link to a gene of the dataset in {len(rows)} rows",
                expected=f"a TSS within {TSS_REACH_BP} bp of an end",
                fix="use links of the same assembly",
                count=0,
            )
        )
    return pd.DataFrame(found, columns=_COLUMNS)


class _Sites:
    """TSS of a dataset, sorted by contig."""

    def __init__(self, dataset: Dataset) -> None:
        self._contigs = {}
        for contig, here in dataset.genes.groupby("contig"):
            order = here.sort_values("tss", kind="stable")
            sites = order["tss"].to_numpy(np.int64), order["gene_id"].to_numpy()
            self._contigs[canonical(str(contig))] = sites

    def near(self, contig: str, start: int, end: int) -> list[str]:
        """Return the genes whose TSS lies in an interval or within reach of it."""
        if canonical(contig) not in self._contigs:
            return []
        tss, names = self._contigs[canonical(contig)]
        first = np.searchsorted(tss, start - TSS_REACH_BP)
        last = np.searchsorted(tss, end + TSS_REACH_BP)
        return [str(name) for name in names[first:last]]


def _is_data(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", "track", "browser"))


def _looks_numeric(fields: list[str]) -> bool:
    return all(fields[place].lstrip("-").isdigit() for place in (1, 2))


def _ends(
    path: Path, number: int, fields: list[str]
) -> tuple[tuple[str, int, int], tuple[str, int, int]] | None:
    """Return both ends; None where one is unplaced, which BEDPE writes as ``.`` and -1."""
    if len(fields) < 6:
        raise _wrong(
            path, number, f"{len(fields)} columns", f"also {', '.join(_ENDS[len(fields) :])}"
        )
    if "." in (fields[0], fields[3]):
        return None
    ends = []
    for place in (0, 3):
        chrom, start, end = fields[place : place + 3]
        if not (start.isdigit() and end.isdigit() and int(start) < int(end)):
            raise _wrong(path, number, f"{chrom} {start} {end}", "0 <= start < end")
        ends.append((chrom, int(start), int(end)))
    return ends[0], ends[1]


def _wrong(path: Path, number: int, found: str, expected: str) -> FormatError:
    return FormatError(
        facts(f"{path} line {number}", found=found, expected=expected, fix="mend the line")
    )
