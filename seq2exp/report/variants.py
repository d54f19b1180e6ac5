"""Variants near the shown loci, checked against the assembly before any is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2exp.core.contigs import compare_sizes, match_contigs
from seq2exp.core.errors import AssemblyError, FormatError, InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset

__all__ = ["MAX_VARIANTS", "Variant", "read_variants"]

Variant = tuple[int, str, str, str]
"""0-based position, id (empty without one), reference allele, alternative alleles with commas."""

MAX_VARIANTS = 2000
"""Variants of one locus; of more, this many are kept, evenly spread over their order."""
# Longer alleles are cut.
_LONGEST = 200
_FEWEST = 20


def read_variants(
    path: Path, dataset: Dataset, regions: Sequence[tuple[str, int, int]]
) -> tuple[list[list[Variant]], int]:
    """Return the variants of each region, and how many were left out because a region has many.

    Parameters
    ----------
    path : Path
        VCF, bgzipped VCF or BCF. With an index only the regions are read, else the whole file.
    dataset : Dataset
        Its contigs and bases are those the file must fit.
    regions : sequence of (contig, start, end)
        0-based half-open, contig names of the dataset.

    Raises
    ------
    InputError
        The file is missing, or shares no contig with the dataset.
    AssemblyError
        Contig lengths or reference alleles are those of another assembly.
    FormatError
        The file cannot be read as VCF.
    """
    import pysam

    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a VCF or BCF", fix="check the path")
        )
    try:
        with pysam.VariantFile(str(path)) as handle:
            header = {str(name): record.length for name, record in handle.header.contigs.items()}
            sizes = {name: int(length) for name, length in header.items() if length}
            compare_sizes(dataset.manifest.contigs, sizes, what=str(path))
            found = _collect(handle, path, dataset, regions, list(header))
    except (OSError, ValueError) as error:
        if isinstance(error, (InputError, FormatError)):
            raise
        raise FormatError(
            facts(str(path), found=str(error), expected="a VCF or BCF", fix="restore the file")
        ) from error
    _check_reference(path, dataset, regions, found)
    left_out = sum(max(0, len(variants) - MAX_VARIANTS) for variants in found)
    return [_thin(variants) for variants in found], left_out


def _collect(
    handle: Any,  # noqa: ANN401
    path: Path,
    dataset: Dataset,
    regions: Sequence[tuple[str, int, int]],
    header: Sequence[str],
) -> list[list[Variant]]:
    contigs = [contig for contig, _, _ in regions]
    if handle.index is not None:
        names = match_contigs(contigs, list(handle.index), what=str(path), partial="ignore")
        return [
            [_variant(r) for r in handle.fetch(names[contig], start, end)]
            if contig in names
            else []
            for contig, start, end in regions
        ]
    found: list[list[Variant]] = [[] for _ in regions]
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for number, (contig, start, end) in enumerate(regions):
        spans.setdefault(contig, []).append((start, end, number))
    seen: dict[str, str | None] = {}
    for record in handle:
        if record.chrom not in seen:
            seen[record.chrom] = _alias(record.chrom, dataset)
        for start, end, number in spans.get(seen[record.chrom] or "", ()):
            if record.start < end and record.stop > start:
                found[number].append(_variant(record))
    known = [name for name in seen.values() if name]
    if not known:
        match_contigs(dataset.manifest.contigs, seen or header, what=str(path))
    return found


def _alias(name: str, dataset: Dataset) -> str | None:
    try:
        return match_contigs([name], dataset.manifest.contigs, what="", partial="ignore")[name]
    except InputError:
        return None


def _variant(record: Any) -> Variant:  # noqa: ANN401
    alternatives = ",".join(str(allele)[:_LONGEST] for allele in record.alts or ())
    return record.start, str(record.id or ""), str(record.ref)[:_LONGEST], alternatives


def _thin(variants: list[Variant]) -> list[Variant]:
    ordered = sorted(variants)
    if len(ordered) <= MAX_VARIANTS:
        return ordered
    keep = np.linspace(0, len(ordered) - 1, MAX_VARIANTS).round().astype(int)
    return [ordered[number] for number in keep]


def _check_reference(
    path: Path,
    dataset: Dataset,
    regions: Sequence[tuple[str, int, int]],
    found: Sequence[Sequence[Variant]],
) -> None:
    """Compare reference alleles with the dataset: another assembly may have the same names."""
    wrong: list[str] = []
    total = 0
    for (contig, _, _), variants in zip(regions, found, strict=True):
        for position, _, reference, _ in _sample(variants):
            total += 1
            own = _bases(dataset, contig, position, len(reference))
            if _differ(own, reference.upper()):
                wrong.append(f"{contig}:{position + 1:,} {reference[:10]} against {own[:10]}")
    # A few wrong records do not make another assembly, but one of one does.
    if len(wrong) > max(0.02 * total, 0 if total < _FEWEST else 1):
        raise AssemblyError(
            facts(
                str(path),
                found="reference alleles that the genome does not have",
                expected=f"those of {dataset.manifest.assembly}",
                fix="use variants called on this assembly, or lift them over",
                count=len(wrong),
                examples=wrong,
            )
        )


def _differ(own: str, reference: str) -> bool:
    """Compare known bases only."""
    pairs = zip(own, reference, strict=False)
    return any(a != b and a in "ACGT" and b in "ACGT" for a, b in pairs)


def _sample(variants: Sequence[Variant]) -> Iterator[Variant]:
    """Yield about fifty variants of a region: they tell an assembly as well as all."""
    yield from variants[:: max(1, len(variants) // 50)]


def _bases(dataset: Dataset, contig: str, start: int, length: int) -> str:
    window = Window(contig, start, start + max(length, 1), "+", dataset.manifest.contigs[contig])
    return decode(dataset.codes(window))
