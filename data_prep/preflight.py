"""Check every input before any work, and report all problems together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.annotation import Annotation, read_annotation
from data_prep.bigwig import check_bigwig
from data_prep.config import DataConfig, TrackConfig
from data_prep.contacts import check_contacts
from data_prep.donor_expression import align_donor_expression
from data_prep.elements import read_elements
from data_prep.expression import align_expression, read_expression, transform_expression
from data_prep.genome import Genome, check_letters, open_genome
from data_prep.tracks import TrackFile, check_track
from data_prep.variants.plan import GenotypePlan, check_genotypes, donor_files
from data_prep.windows import (
    assign_splits,
    bed_intervals,
    excluded_regions,
    leaking_pairs,
    mark_excluded,
)
from seq2exp.core.contigs import compare_sizes, match_contigs
from seq2exp.core.errors import InputError, Seq2ExpError, facts
from seq2exp.core.files import safe_name

__all__ = ["CheckedTrack", "Plan", "PreflightError", "check_inputs", "input_files"]

T = TypeVar("T")
Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]


class PreflightError(InputError):
    """Several inputs are wrong; one line per problem, and each problem in ``problems``."""

    def __init__(self, problems: list[Seq2ExpError]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class CheckedTrack:
    """A track that can be used."""

    config: TrackConfig
    file: TrackFile
    covered: dict[str, Intervals] | None
    """Covered intervals by contig, where the configuration gives them."""


@dataclass(frozen=True)
class Plan:
    """Checked inputs: everything that the build needs to know."""

    genome: Genome
    contigs: dict[str, int]
    """Contigs to store and their lengths."""
    genes: pd.DataFrame
    """Gene table with split and status."""
    cds: pd.DataFrame
    regions: pd.DataFrame
    tracks: list[CheckedTrack]
    expression: pd.DataFrame | None
    """Transformed labels, one row per gene."""
    contact_file: Path | None
    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Tracks that are left out, and why."""
    elements: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Candidate elements of the sets that come from files."""
    genotypes: GenotypePlan | None = None
    """Genotypes and donors, where the configuration names them."""
    donor_expression: pd.DataFrame | None = None
    """Expression of the donors, measured genes in the order of the gene table."""
    donor_counts: dict[str, int] = field(default_factory=dict)


@dataclass
class _Collector:
    problems: list[Seq2ExpError] = field(default_factory=list)

    @contextmanager
    def step(self) -> Iterator[None]:
        try:
            yield
        except Seq2ExpError as error:
            self.problems.append(error)

    def run(self, function: Callable[[], T]) -> T | None:
        with self.step():
            return function()
        return None

    def stop_on_problems(self) -> None:
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise PreflightError(self.problems)


def input_files(config: DataConfig, source: Path) -> list[tuple[str, Path]]:
    """Return the role and path of every input file, existing or not, in a fixed order."""
    files = [("fasta", config.fasta), ("gtf", config.annotation.gtf)]
    files += [(f"track:{track.name}", track.path) for track in config.tracks]
    files += [(f"covered:{track.name}", track.covered) for track in config.tracks if track.covered]
    if config.expression is not None:
        files.append(("expression", config.expression.path))
    if config.contacts.path:
        files.append(("contacts", config.contacts.path))
    files += [
        ("exclude", entry)
        for entry in config.regions.exclude
        if config.resolve(entry, source).is_file()
    ]
    if config.regions.include:
        files.append(("include", config.regions.include))
    files += [(f"elements:{item.name}", item.bed) for item in config.elements if item.bed]
    found = [(role, config.resolve(path, source)) for role, path in files]
    return found + donor_files(config, source)


def check_inputs(config: DataConfig, source: Path, *, cache: Path) -> Plan:
    """Open and check every input, join them, and return the plan of the build.

    Parameters
    ----------
    config : DataConfig
    source : Path
        Folder that relative paths start from.
    cache : Path
        Folder for a rebuilt FASTA index.

    Raises
    ------
    Seq2ExpError
        The only problem, or a :class:`PreflightError` with all of them.
    """
    found = _Collector()
    genome = found.run(lambda: open_genome(config.resolve(config.fasta, source), cache=cache))
    gtf = config.resolve(config.annotation.gtf, source)
    annotation = found.run(lambda: read_annotation(gtf, config.annotation))
    labels = found.run(lambda: _labels(config, source))
    contact_file = config.resolve(config.contacts.path, source) if config.contacts.path else None
    found.run(lambda: check_contacts(config.contacts, contact_file))
    if genome is None:
        # Without the genome, contig names and lengths cannot be compared; the rest still can.
        for track in config.tracks:
            found.run(lambda path=track.path: check_bigwig(config.resolve(path, source)))  # type: ignore[misc]
        found.stop_on_problems()
        raise AssertionError
    contigs = found.run(lambda: _contigs(config, genome, annotation, gtf)) or genome.sizes
    found.run(lambda: check_letters(genome, list(contigs)))
    tracks, skipped = _tracks(config, source, genome, contigs, found)
    regions = found.run(lambda: excluded_regions(config.regions, source, genome.sizes))
    elements = _elements(config, source, genome, contigs, found)
    genotypes = None
    if config.genotypes is not None:
        with found.step():
            genotypes = check_genotypes(
                config, config.genotypes, source, genome=genome, contigs=contigs, cache=cache
            )
    found.stop_on_problems()
    if annotation is None or regions is None:
        raise AssertionError
    genes, counts = _place_genes(annotation, genome, contigs)
    genes = assign_splits(mark_excluded(genes, regions), config.splits, genome.sizes)
    _refuse_leaks(genes, config)
    expression = None
    if labels is not None and config.expression is not None:
        what = str(config.resolve(config.expression.path, source))
        expression, joined = align_expression(labels, genes, what=what)
        counts |= joined
    donor_expression: pd.DataFrame | None = None
    donor_counts: dict[str, int] = {}
    if genotypes is not None and genotypes.expression is not None:
        table = str(dict(donor_files(config, source))["donor expression"])
        donor_expression, donor_counts = align_donor_expression(
            genotypes.expression, genes, what=table
        )
    return Plan(
        genome=genome,
        contigs=contigs,
        genes=genes,
        cds=annotation.cds,
        regions=regions[regions["contig"].isin(contigs)].reset_index(drop=True),
        tracks=tracks,
        expression=expression,
        contact_file=contact_file,
        counts={**annotation.counts, **counts, **_by_split(genes)},
        skipped=skipped,
        elements=elements,
        genotypes=genotypes,
        donor_expression=donor_expression,
        donor_counts=donor_counts,
    )


def _elements(
    config: DataConfig, source: Path, genome: Genome, contigs: dict[str, int], found: _Collector
) -> dict[str, pd.DataFrame]:
    """Read the sets that come from files; those of tracks need the binned tracks."""
    sets: dict[str, pd.DataFrame] = {}
    for item in config.elements:
        if item.bed:
            with found.step():
                path = config.resolve(item.bed, source)
                sets[item.name] = read_elements(
                    item, path, sizes=genome.sizes, contigs=list(contigs)
                )
    return sets


def _labels(config: DataConfig, source: Path) -> pd.DataFrame | None:
    if config.expression is None:
        return None
    path = config.resolve(config.expression.path, source)
    table = read_expression(path, config.expression)
    return transform_expression(table, config.expression.transform)


def _contigs(
    config: DataConfig, genome: Genome, annotation: Annotation | None, gtf: Path
) -> dict[str, int]:
    """Return the contigs to store, in the order of the FASTA."""
    if config.contigs:
        named = match_contigs(config.contigs, genome.sizes, what=str(genome.path))
        missing = [name for name in config.contigs if name not in named]
        if missing:
            raise InputError(
                facts(
                    str(genome.path),
                    found=f"no contig {', '.join(missing[:3])}",
                    expected="every contig that the key contigs names",
                    fix="correct the key contigs",
                    count=len(missing),
                )
            )
        wanted = set(named.values())
    elif annotation is not None:
        names = list(dict.fromkeys(annotation.genes["contig"]))
        wanted = set(match_contigs(names, genome.sizes, what=str(genome.path)).values())
    else:
        wanted = set(genome.sizes)
    if annotation is not None:
        compare_sizes(genome.sizes, annotation.max_end, what=str(gtf), exact=False)
    stored = {name: size for name, size in genome.sizes.items() if name in wanted}
    _refuse_equal_file_names(stored)
    return stored


def _refuse_equal_file_names(contigs: dict[str, int]) -> None:
    names: dict[str, str] = {}
    for contig in contigs:
        # Some file systems do not tell upper from lower case.
        other = names.setdefault(safe_name(contig).lower(), contig)
        if other != contig:
            raise InputError(
                facts(
                    "contigs",
                    found=f"{other!r} and {contig!r}, which would share a file name",
                    expected="names that differ in letters, digits and . _ -",
                    fix="rename one of them in all inputs",
                )
            )


def _tracks(
    config: DataConfig, source: Path, genome: Genome, contigs: dict[str, int], found: _Collector
) -> tuple[list[CheckedTrack], dict[str, str]]:
    """Check every track; return the good ones, and why others are skipped where they may be."""
    good: list[CheckedTrack] = []
    bad: dict[str, str] = {}
    problems: list[Seq2ExpError] = []
    for track in config.tracks:
        try:
            good.append(_track(config, source, track, genome, contigs))
        except Seq2ExpError as error:
            problems.append(error)
            # The dataset names files as the configuration does, wherever they lie.
            bad[track.name] = str(error).replace(f"{source}/", "")
    if config.bad_tracks == "error" or not good:
        found.problems += problems
    return good, bad


def _track(
    config: DataConfig, source: Path, track: TrackConfig, genome: Genome, contigs: dict[str, int]
) -> CheckedTrack:
    path = config.resolve(track.path, source)
    file = check_track(track, path, sizes=genome.sizes, contigs=list(contigs))
    bed = config.resolve(track.covered, source) if track.covered else None
    return CheckedTrack(track, file, None if bed is None else bed_intervals(bed, genome.sizes))


def _place_genes(
    annotation: Annotation, genome: Genome, contigs: dict[str, int]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Give genes the contig names of the FASTA; those on contigs not stored are counted."""
    genes = annotation.genes
    named = match_contigs(
        genes["contig"].unique(), contigs, what=str(genome.path), partial="ignore"
    )
    rank = {name: number for number, name in enumerate(contigs)}
    placed = genes.assign(contig=genes["contig"].map(named))
    placed = placed[placed["contig"].notna()]
    order = np.lexsort((placed["gene_id"], placed["tss"], placed["contig"].map(rank)))
    placed = placed.iloc[order].reset_index(drop=True)
    return placed, {"genes_on_contigs_not_stored": len(genes) - len(placed)}


def _refuse_leaks(genes: pd.DataFrame, config: DataConfig) -> None:
    leaks = leaking_pairs(genes, window_bp=max(2 * config.splits.buffer_bp, 1))
    if len(leaks):
        first = leaks.iloc[0]
        raise InputError(
            facts(
                "splits",
                found="genes of different splits with overlapping windows",
                expected=f"windows of {2 * config.splits.buffer_bp} bases that share nothing",
                fix="raise splits.buffer_bp",
                count=len(leaks),
                examples=[f"{first['gene_id']} and {first['other_id']}"],
            )
        )


def _by_split(genes: pd.DataFrame) -> dict[str, int]:
    counts = {"genes": len(genes)}
    counts |= {f"genes_{name}": int(n) for name, n in genes["split"].value_counts().items()}
    status = genes.loc[genes["status"] != "ok", "status"].value_counts()
    return counts | {f"status: {name}": int(n) for name, n in status.items()}
