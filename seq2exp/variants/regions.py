"""Stretches of the genome that a user names, as a browser writes them or as BED.

A region is written ``chr6:1000-1500``: 1-based, both ends included, as browsers and samtools write
it. Inside it is 0-based half-open.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seq2exp.core.bed import read_bed
from seq2exp.core.config import nearest
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.store import Dataset
from seq2exp.variants.genes import GeneIndex
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["Region", "find_regions", "parse_region", "usable_regions"]

logger = logging.getLogger(__name__)

_FORM = "CONTIG:FIRST-LAST with 1 <= FIRST <= LAST, such as chr6:1000-1500"
_WRITTEN = re.compile(r"(?P<contig>\S+):(?P<first>[\d,]{1,15})-(?P<last>[\d,]{1,15})")


@dataclass(frozen=True, order=True)
class Region:
    """A stretch of a contig, 0-based half-open."""

    contig: str
    start: int
    end: int

    def __str__(self) -> str:
        """Return it as a browser writes it: 1-based, both ends included."""
        return f"{self.contig}:{self.start + 1}-{self.end}"

    def __len__(self) -> int:
        """Return the number of bases."""
        return self.end - self.start

    @property
    def span(self) -> tuple[int, int]:
        """First base, and the one after the last."""
        return self.start, self.end


def parse_region(text: str) -> Region:
    """Read a region such as ``chr6:1000-1500`` or ``chr6:1,000-1,500``; the contig as written.

    Raises
    ------
    InputError
        It is none.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match:
        first, last = (int(match[name].replace(",", "") or 0) for name in ("first", "last"))
        if 1 <= first <= last:
            return Region(match["contig"], first - 1, last)
    raise InputError(
        facts(
            f"--region {text}",
            found="no region",
            expected=_FORM + " (1-based, both ends included)",
            fix="write it so; --bed takes 0-based half-open intervals from a file",
        )
    )


def find_regions(
    words: Sequence[str], bed: Path | None = None, *, dataset: Dataset
) -> list[Region]:
    """Return regions with the names of contigs of a dataset, sorted as its contigs; none overlap.

    Parameters
    ----------
    words : sequence of str
        As `parse_region` reads them.
    bed : Path, optional
        More of them.
    dataset : Dataset
        Its contigs are found under any alias.

    Raises
    ------
    InputError
        No region, one that is malformed, of no contig of the dataset or beyond the end of it.
    FormatError
        The BED file is damaged or holds an interval that is none.
    """
    written = [(parse_region(word), f"--region {word}") for word in words]
    if bed is not None:
        rows = read_bed(bed)
        columns = (rows[name].tolist() for name in ("chrom", "start", "end"))
        regions = [Region(*row) for row in zip(*columns, strict=True)]
        written += [(region, f"{bed}, {region}") for region in regions]
    if not written:
        raise InputError(
            facts(
                "--region" if bed is None else str(bed),
                found="no region",
                expected=_FORM,
                fix="give --region or --bed",
            )
        )
    lengths = dataset.manifest.contigs
    names = ContigNames(lengths, lengths)
    stored = [(region, names.stored(region.contig), place) for region, place in written]
    _require_contigs([(r.contig, place) for r, name, place in stored if name is None], lengths)
    found = [(Region(name, r.start, r.end), place) for r, name, place in stored if name is not None]
    _require_inside(found, lengths)
    order = {name: number for number, name in enumerate(lengths)}
    return _joined(sorted((r for r, _ in found), key=lambda r: (order[r.contig], r.start, r.end)))


def _require_contigs(unknown: Sequence[tuple[str, str]], lengths: Iterable[str]) -> None:
    if not unknown:
        return
    ours = list(lengths)
    more = f" and {len(ours) - 4} more" if len(ours) > 4 else ""
    raise InputError(
        facts(
            unknown[0][1],
            found=f"contig {unknown[0][0]}",
            expected=f"a contig of the dataset under any alias: {', '.join(ours[:4])}{more}",
            fix=nearest(unknown[0][0], ours),
            count=len(unknown),
            examples=[place for _, place in unknown],
        )
    )


def _require_inside(found: Sequence[tuple[Region, str]], lengths: dict[str, int]) -> None:
    beyond = [(r, place) for r, place in found if r.end > lengths[r.contig] or r.start < 0]
    if not beyond:
        return
    region, place = beyond[0]
    raise InputError(
        facts(
            place,
            found=f"a region to base {region.end:,} of {region.contig}",
            expected=f"regions within its {lengths[region.contig]:,} bases",
            fix="end the region there; is it of another assembly?",
            count=len(beyond),
            examples=[str(r) for r, _ in beyond],
        )
    )


def _joined(regions: Sequence[Region]) -> list[Region]:
    """Join regions that overlap, so that every base is in one of them at most."""
    joined: list[Region] = []
    for region in regions:
        last = joined[-1] if joined else None
        if last is not None and last.contig == region.contig and region.start < last.end:
            joined[-1] = Region(last.contig, last.start, max(last.end, region.end))
        else:
            joined.append(region)
    if len(joined) < len(regions):
        logger.info("%d regions, %d when those that overlap are joined", len(regions), len(joined))
    return joined


def usable_regions(
    regions: Sequence[Region], dataset: Dataset, index: GeneIndex
) -> list[tuple[Region, list[int]]]:
    """Return the regions with known bases and genes, and the genes whose window reaches into each.

    Parameters
    ----------
    regions : sequence of Region
    dataset : Dataset
    index : GeneIndex
        Windows of the genes that count.

    Raises
    ------
    InputError
        No region is left. Where some are, the others are named in a warning.
    """
    kept: list[tuple[Region, list[int]]] = []
    unknown: list[Region] = []
    alone: list[Region] = []
    for region in regions:
        codes = np.asarray(dataset.contig_codes(region.contig)[region.start : region.end])
        genes = index.holding(region.contig, region.span)
        if (codes >= N_CODE).all():
            unknown.append(region)
        elif not genes:
            alone.append(region)
        else:
            kept.append((region, genes))
    problems = []
    if unknown:
        problems.append(_unusable(unknown, "only N", "known bases", left=bool(kept)))
    if alone:
        problems.append(_without_genes(alone, dataset, index, left=bool(kept)))
    if problems and not kept:
        raise InputError("\n".join(problems))
    for problem in problems:
        warnings.warn(problem, Seq2ExpWarning, stacklevel=2)
    return kept


def _unusable(
    regions: Sequence[Region],
    found: str,
    expected: str,
    *,
    left: bool,
    fix: str = "",
) -> str:
    return facts(
        f"region {regions[0]}",
        found=found,
        expected=expected,
        fix=f"nothing, if {'it is' if len(regions) == 1 else 'they are'} not needed: left out"
        if left
        else fix or "choose other regions",
        count=len(regions) if len(regions) > 1 else None,
        examples=[str(region) for region in regions] if len(regions) > 1 else (),
    )


def _without_genes(
    regions: Sequence[Region], dataset: Dataset, index: GeneIndex, *, left: bool
) -> str:
    region = regions[0]
    near = [
        (max(region.start - dataset.sites[row][1], dataset.sites[row][1] - region.end + 1, 0), row)
        for row in index.windows
        if dataset.sites[row][0] == region.contig
    ]
    found = f"no gene on {region.contig}"
    if near:
        distance, row = min(near)
        gene = dataset.genes["gene_id"].iloc[row]
        found = f"no gene whose window holds it (the TSS of {gene} is {distance:,} bases away)"
    expected = f"a TSS within {index.length // 2:,} bases, half a window of the run"
    return _unusable(
        regions, found, expected, left=left, fix="choose other regions, or other --gene"
    )
