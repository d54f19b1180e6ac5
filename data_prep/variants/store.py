"""From the shards of genotypes to the files of the dataset."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from data_prep.donor_config import GenotypeConfig
from data_prep.shards import run_tasks
from data_prep.variants.judge import Found, judge, judge_copies, sum_up
from data_prep.variants.merge import COPIES, ContigTask, ShardSource, reject_row
from data_prep.variants.plan import GenotypePlan, vcf_tasks
from data_prep.variants.tasks import VcfTask
from seq2exp.core.errors import Seq2ExpError
from seq2exp.core.files import safe_name
from seq2exp.core.shards import shard_info
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.format_genotypes import GenotypeInfo

__all__ = ["Genotyped", "read_genotypes", "write_genotypes"]

_REJECT_HEADER = "contig\tpos\tid\tref\talt\treason\n"


@dataclass(frozen=True)
class Genotyped:
    """Finished shards of genotypes."""

    parts: list[list[VcfTask]]
    """Parts of each file, in order."""
    contigs: list[ContigTask]
    """Contigs with variants, in the order of the dataset."""
    found: Found
    copies: Counter[str] = field(default_factory=Counter)


def read_genotypes(
    plan: GenotypePlan,
    config: GenotypeConfig,
    *,
    sequences: Mapping[str, Path],
    shards: Path,
    workers: int,
    progress: bool,
) -> Genotyped:
    """Read the files in parts, judge what they hold, then put each contig together.

    Parameters
    ----------
    plan : GenotypePlan
    config : GenotypeConfig
    sequences : mapping of str to Path
        Base codes of every stored contig.
    shards : Path
    workers : int
    progress : bool

    Raises
    ------
    Seq2ExpError
        What is found may not be stored.
    """
    parts = vcf_tasks(plan, config, sequences, shards)
    every = [task for file in parts for task in file]
    run_tasks(every, workers=workers, progress=progress, label="genotypes")
    found = sum_up([[shard_info(task.target) for task in file] for file in parts], plan.names)
    problems = judge(found, config, plan.files, plan.names)
    _raise_together(problems)
    contigs = [
        ContigTask(
            contig=contig,
            shards=_shards_of(contig, parts),
            num_donors=len(plan.donors),
            ploidy=found.ploidy,
            num_alleles=found.alleles[contig],
            target=shards / f"genotypes.{safe_name(contig)}",
        )
        for contig in sequences
        if found.alleles[contig]
    ]
    run_tasks(contigs, workers=workers, progress=progress, label="variants by contig")
    copies = [shard_info(task.target)["copies"] for task in contigs]
    return Genotyped(parts, contigs, found, judge_copies(copies, config, plan.files))


def _shards_of(contig: str, parts: Sequence[Sequence[VcfTask]]) -> tuple[ShardSource, ...]:
    sources = []
    for file in parts:
        first = 0
        for task in file:
            info = shard_info(task.target)
            if any(batch["contig"] == contig for batch in info["batches"]):
                sources.append(ShardSource(task.target, task.number, first))
            first += info["num_records"]
    return tuple(sources)


def write_genotypes(
    plan: GenotypePlan,
    genotyped: Genotyped,
    root: Path,
    *,
    expression_unit: str = "",
    expression_counts: Mapping[str, int] | None = None,
) -> GenotypeInfo:
    """Put the arrays of the contigs and the tables of the donors into the dataset.

    Parameters
    ----------
    plan : GenotypePlan
    genotyped : Genotyped
    root : Path
        Folder of the dataset.
    expression_unit : str
        Unit of the donors' expression, where there is any.
    expression_counts : mapping of str to int, optional
        What was counted when the expression was joined to the genes.
    """
    (root / "genotypes").mkdir()
    sizes: dict[str, int] = {}
    for task in genotyped.contigs:
        info = shard_info(task.target)
        if not info["variants"]:
            continue
        sizes[task.contig] = info["variants"]
        folder = places.variants_path(root, task.contig).parent
        folder.mkdir()
        for file in sorted(task.target.iterdir()):
            if file.name != COPIES:
                _link(file, folder / file.name)
    left_out = sum(genotyped.found.reasons.values()) + sum(genotyped.copies.values())
    if left_out:
        with places.rejects_path(root).open("w", encoding="utf-8", newline="\n") as handle:
            _write_rejects(genotyped, handle)
    if plan.left_out:
        rows = [f"{name}\t{reason}\n" for name, reason in plan.left_out]
        places.left_out_path(root).write_text(
            "donor\treason\n" + "".join(rows), encoding="utf-8", newline="\n"
        )
    layout.write_table(plan.table.astype(str), places.donors_path(root))
    counts = {
        "variants": sum(sizes.values()),
        **_plain(genotyped.found.counts),
        **{f"left_out {name}": n for name, n in sorted(genotyped.found.reasons.items())},
        **{f"left_out {name}": n for name, n in sorted(genotyped.copies.items())},
        "records_on_contigs_not_stored": sum(genotyped.found.elsewhere.values()),
        "records_out_of_order": genotyped.found.unsorted,
        **plan.counts,
        **(expression_counts or {}),
    }
    return GenotypeInfo(genotyped.found.ploidy, plan.donors, sizes, counts, expression_unit)


def _plain(counts: Counter[str]) -> dict[str, int]:
    """Return counts in a fixed order, which shards would not give."""
    return {name: counts[name] for name in sorted(counts)}


def _link(file: Path, target: Path) -> None:
    try:
        # A link costs nothing and leaves the shard where a continued run looks for it.
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _write_rejects(genotyped: Genotyped, handle: TextIO) -> None:
    """List what was left out: as the files have it, then copies by contig."""
    handle.write(_REJECT_HEADER)
    columns = ("position", "id", "ref", "alt", "reason")
    for task in (task for file in genotyped.parts for task in file):
        info = shard_info(task.target)
        reader = pa.ipc.open_file(pa.memory_map(str(task.target)))
        for number, batch in enumerate(info["batches"]):
            if batch["kept"] == batch["alleles"]:
                continue
            here = reader.get_batch(number).select(list(columns))
            here = here.filter(pa.compute.not_equal(here.column("reason"), ""))
            for position, name, ref, alt, reason in zip(
                *(here.column(column).to_pylist() for column in columns), strict=True
            ):
                handle.write(reject_row(batch["contig"], position, name, ref, alt, reason))
    for contig in genotyped.contigs:
        handle.write((contig.target / COPIES).read_text(encoding="utf-8"))


def _raise_together(problems: Sequence[Seq2ExpError]) -> None:
    """Raise the only problem, or all of them in one message."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
