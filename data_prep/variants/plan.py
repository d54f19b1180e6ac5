"""The genotypes of a configuration: files found and checked, donors chosen, work divided."""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.config import DataConfig
from data_prep.donor_config import DonorExpressionConfig, GenotypeConfig
from data_prep.donor_expression import AssayColumns, find_assays, read_donor_expression
from data_prep.donors import choose_donors, choose_samples, read_donors
from data_prep.genome import Genome
from data_prep.variants.first_look import first_look
from data_prep.variants.tasks import VcfTask
from seq2exp.core.contigs import compare_sizes
from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.format_genotypes import DONOR_COLUMNS
from seq2exp.variation.vcf_file import VcfFile, open_vcf
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["GenotypePlan", "check_genotypes", "donor_files", "vcf_tasks"]

logger = logging.getLogger(__name__)

PART_BYTES = 1 << 26
"""Text per task; more in very large files."""
_MOST_PARTS = 256
_HOLDER = "{contig}"


@dataclass(frozen=True)
class GenotypePlan:
    """Checked genotypes and donors."""

    files: list[VcfFile]
    names: ContigNames
    donors: list[str]
    table: pd.DataFrame
    """One row per donor: the columns ``DONOR_COLUMNS``."""
    left_out: list[tuple[str, str]]
    """Donors that are not stored, and why."""
    expression: pd.DataFrame | None
    """Expression as the file gives it, before it is joined to the genes."""
    counts: dict[str, int]


def donor_files(config: DataConfig, source: Path) -> list[tuple[str, Path]]:
    """Return the role and path of every file of genotypes and donors, existing or not."""
    if config.genotypes is None:
        return []
    found = [(f"genotypes:{path.name}", path) for path in _vcf_paths(config, source)]
    named = (*config.genotypes.include, *config.genotypes.exclude)
    lists = [config.resolve(entry, source) for entry in named]
    found += [("donor list", path) for path in lists if path.is_file()]
    donors = config.donors
    if donors is not None and donors.path:
        found.append(("donors", config.resolve(donors.path, source)))
    if donors is not None and donors.expression is not None:
        found.append(("donor expression", config.resolve(donors.expression.path, source)))
        if donors.expression.map:
            found.append(("donor map", config.resolve(donors.expression.map, source)))
    return found


def _vcf_paths(config: DataConfig, source: Path) -> list[Path]:
    """Return the files, those of a pattern in order of their names."""
    if config.genotypes is None:
        return []
    return [path for entry in config.genotypes.vcf for path in _matching(config, entry, source)]


def _matching(config: DataConfig, entry: str, source: Path) -> list[Path]:
    path = config.resolve(entry, source)
    if _HOLDER not in entry:
        return [path]
    pattern = "*".join(glob.escape(part) for part in str(path).split(_HOLDER))
    return [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207 - whole paths


def check_genotypes(
    config: DataConfig,
    genotypes: GenotypeConfig,
    source: Path,
    *,
    genome: Genome,
    contigs: Mapping[str, int],
    cache: Path,
) -> GenotypePlan:
    """Open every file of genotypes and donors, and choose the donors that all of them have.

    Parameters
    ----------
    config : DataConfig
    genotypes : GenotypeConfig
        Its section.
    source : Path
        Folder that relative paths start from.
    genome : Genome
    contigs : mapping of str to int
        Contigs that the dataset stores.
    cache : Path
        Folder for copies of files that cannot be read at random.

    Raises
    ------
    Seq2ExpError
        A file is missing or damaged, is of another assembly, or no donor is shared.
    """
    names = ContigNames(list(genome.sizes), dict.fromkeys(contigs))
    paths = _used_paths(config, genotypes, source, names)
    files = [open_vcf(path, cache=cache, number=number) for number, path in enumerate(paths)]
    for file in files:
        compare_sizes(genome.sizes, _under_our_names(file.lengths, names), what=str(file.path))
        _tell_names(file, names)
        for problem in first_look(file, genome, names, genotypes):
            raise problem
    include = _listed(config, genotypes.include, source)
    exclude = _listed(config, genotypes.exclude, source)
    samples, excluded = choose_samples([(f.path.name, f.samples) for f in files], include, exclude)
    table, expression = None, None
    tables: list[tuple[str, list[str]]] = []
    assays: AssayColumns | None = None
    if config.donors is not None and config.donors.path:
        path = config.resolve(config.donors.path, source)
        table = read_donors(path, config.donors)
        tables.append((str(path), list(table["donor"])))
    wanted = None if config.donors is None else config.donors.expression
    if wanted is not None:
        assays = _assays(config, wanted, source)
        tables.append((str(config.resolve(wanted.path, source)), list(assays.columns)))
    donors, without = choose_donors(samples, tables)
    if wanted is not None and assays is not None:
        path = config.resolve(wanted.path, source)
        expression = read_donor_expression(path, wanted, assays, donors)
    if table is None:
        table = pd.DataFrame(dict.fromkeys(DONOR_COLUMNS, ""), index=range(len(donors)))
        table["donor"] = donors
    left_out = {**dict(without), **dict(excluded)}
    counts = Counter({"donors": len(donors), "donors_left_out": len(left_out)})
    if assays is not None and assays.unmapped:
        counts["columns_not_in_map"] = assays.unmapped
    return GenotypePlan(
        files=files,
        names=names,
        donors=donors,
        table=table.set_index("donor").loc[donors].reset_index(),
        left_out=sorted(left_out.items()),
        expression=expression,
        counts=dict(counts),
    )


def _assays(config: DataConfig, wanted: DonorExpressionConfig, source: Path) -> AssayColumns:
    mapping = config.resolve(wanted.map, source) if wanted.map else None
    return find_assays(config.resolve(wanted.path, source), wanted, mapping=mapping)


def _used_paths(
    config: DataConfig, genotypes: GenotypeConfig, source: Path, names: ContigNames
) -> list[Path]:
    """Leave out files of a pattern that are of contigs that are not stored."""
    used: list[Path] = []
    for entry in genotypes.vcf:
        path = config.resolve(entry, source)
        if _HOLDER not in entry:
            used.append(path)
            continue
        head, tail = str(path).split(_HOLDER, 1)
        tail = tail.split(_HOLDER, 1)[0]
        here = []
        for found in _matching(config, entry, source):
            inside = str(found)[len(head) :]
            contig = inside[: inside.find(tail)] if tail else inside
            if names.stored(contig) is not None:
                here.append(found)
        if not here:
            raise InputError(
                facts(
                    f"genotypes.vcf {entry}",
                    found="no such file for any stored contig",
                    expected=f"files of {', '.join([*names.kept][:3])} under any alias",
                    fix="check the pattern and the folder",
                    count=0,
                )
            )
        used += here
    return used


def _under_our_names(lengths: Mapping[str, int], names: ContigNames) -> dict[str, int]:
    known = {name: names.known(name) for name in lengths}
    return {ours: lengths[name] for name, ours in known.items() if ours is not None}


def _tell_names(file: VcfFile, names: ContigNames) -> None:
    other = {name: names.known(name) for name in file.lengths}
    pairs = [f"{name} is {ours}" for name, ours in other.items() if ours not in (None, name)]
    if pairs:
        shown = ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
        logger.info("%s: contig %s of the genome", file.path.name, shown)


def _listed(config: DataConfig, entries: list[str], source: Path) -> list[str]:
    """Return names given one by one or in files, one per line."""
    names: list[str] = []
    for entry in entries:
        path = config.resolve(entry, source)
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            names += [line.strip() for line in lines if line.strip()]
        else:
            names.append(entry)
    return list(dict.fromkeys(names))


def vcf_tasks(
    plan: GenotypePlan, config: GenotypeConfig, sequences: Mapping[str, Path], shards: Path
) -> list[list[VcfTask]]:
    """Divide every file into parts; what comes out does not depend on where it is divided.

    Parameters
    ----------
    plan : GenotypePlan
    config : GenotypeConfig
    sequences : mapping of str to Path
        Base codes of every stored contig.
    shards : Path
        Folder of the shards.

    Returns
    -------
    list of lists of VcfTask
        For each file, its parts in order.
    """
    tasks = []
    for number, file in enumerate(plan.files):
        column = {name: place for place, name in enumerate(file.samples)}
        keep = np.array([column[name] for name in plan.donors], dtype=np.int64)
        part = max(PART_BYTES, -(-(file.size - file.start) // _MOST_PARTS))
        starts = range(file.start, file.size, part)
        tasks.append(
            [
                VcfTask(
                    file=file,
                    number=number,
                    start=start,
                    end=min(start + part, file.size),
                    keep=keep,
                    names=plan.names,
                    sequences=sequences,
                    config=config,
                    target=shards / f"genotypes{number}.{index}.arrow",
                )
                for index, start in enumerate(starts)
            ]
        )
    return tasks
