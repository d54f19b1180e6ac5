"""The genotypes of a VCF alone, in the form that a dataset holds them, for a genome that is there.

What scores variants on the haplotypes of carriers reads them from there, a window at a time.
"""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data_prep.donor_config import GenotypeConfig
from data_prep.variants.plan import GenotypePlan
from data_prep.variants.store import read_genotypes, write_genotypes
from seq2exp.core.contigs import compare_sizes
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.files import LockedError, atomic_directory, file_lock
from seq2exp.dataset import format as layout
from seq2exp.dataset.format_genotypes import DONOR_COLUMNS, GenotypeInfo
from seq2exp.variation.vcf_file import VcfFile, open_vcf
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["genotype_folder"]

logger = logging.getLogger(__name__)

_WAIT_S = 0.5


def genotype_folder(
    vcf: Path,
    folder: Path,
    *,
    dataset: Path,
    samples: Sequence[str] = (),
    max_indel: int = 1000,
    workers: int = 1,
    progress: bool = False,
) -> GenotypeInfo:
    """Write the genotypes of a VCF to a folder that `seq2exp.dataset.genotypes.Genotypes` reads.

    Memory does not grow with the file. Alleles that a haplotype cannot hold, and those whose REF is
    not what the genome says, are left out and counted. The folder appears whole; where it is there
    it is taken as it is, and where another process is writing it, waited for.

    Parameters
    ----------
    vcf : Path
        VCF or BCF, plain, gzip or bgzip.
    folder : Path
    dataset : Path
        Its genome is that of the VCF.
    samples : sequence of str
        Samples to keep; all when empty.
    max_indel : int
        Longer insertions and deletions are left out.
    workers : int
        Processes.
    progress : bool

    Raises
    ------
    InputError
        The file has no genotypes, a name is no sample of it, or nothing in it can be used.
    Seq2ExpError
        The file is damaged or of another assembly.
    """
    folder = Path(folder).absolute()
    lock = folder.with_name(folder.name + ".lock")
    while not layout.manifest_path(folder).is_file():
        try:
            with file_lock(lock, what=str(folder)):
                if not layout.manifest_path(folder).is_file():
                    _build(Path(vcf), folder, dataset, samples, max_indel, workers, progress)
        except LockedError:
            time.sleep(_WAIT_S)
    info = layout.read_manifest(folder).genotypes
    if info is None:
        raise InputError(
            facts(str(folder), found="no genotypes", expected="them", fix="delete the folder")
        )
    return info


def _build(
    vcf: Path,
    folder: Path,
    dataset: Path,
    samples: Sequence[str],
    max_indel: int,
    workers: int,
    progress: bool,  # noqa: FBT001
) -> None:
    manifest = layout.read_manifest(dataset)
    names = ContigNames(manifest.contigs, manifest.contigs)
    config = GenotypeConfig(
        [str(vcf)],
        include=list(samples),
        on_unsupported="skip",
        ref_mismatch="skip",
        max_mismatch=1.0,
        max_indel=max_indel,
    )
    with atomic_directory(folder) as partial:
        shards = partial / "shards"
        shards.mkdir()
        file = open_vcf(vcf, cache=shards)
        ours = {name: names.known(name) for name in file.lengths}
        stated = {known: file.lengths[name] for name, known in ours.items() if known is not None}
        compare_sizes(manifest.contigs, stated, what=str(vcf))
        plan = _plan(file, names, _chosen(file, samples))
        with warnings.catch_warnings():
            # What is left out has a status in the output of the command; here it is counted.
            warnings.simplefilter("ignore", Seq2ExpWarning)
            genotyped = read_genotypes(
                plan,
                config,
                sequences={name: layout.sequence_path(dataset, name) for name in manifest.contigs},
                shards=shards,
                workers=workers,
                progress=progress,
            )
        info = write_genotypes(plan, genotyped, partial)
        shutil.rmtree(shards)
        layout.finish_manifest(partial, replace(manifest, genotypes=info))
    left_out = {name: n for name, n in info.counts.items() if name.startswith("left_out ")}
    if left_out:
        logger.info(
            "haplotypes do without %s alleles of %s: %s",
            f"{sum(left_out.values()):,}",
            vcf,
            ", ".join(f"{n:,} {name.removeprefix('left_out ')}" for name, n in left_out.items()),
        )


def _plan(file: VcfFile, names: ContigNames, donors: list[str]) -> GenotypePlan:
    table = pd.DataFrame(dict.fromkeys(DONOR_COLUMNS, ""), index=range(len(donors)))
    table["donor"] = donors
    return GenotypePlan(
        files=[file],
        names=names,
        donors=donors,
        table=table,
        left_out=[],
        expression=None,
        counts={"donors": len(donors)},
    )


def _chosen(file: VcfFile, samples: Sequence[str]) -> list[str]:
    unknown = sorted(set(samples) - set(file.samples))
    if unknown:
        raise InputError(
            facts(
                str(file.path),
                found="no samples of these names",
                expected=f"some of its {len(file.samples)} samples, such as {file.samples[0]}",
                fix="correct the names; `bcftools query -l FILE` lists the samples",
                count=len(unknown),
                examples=unknown,
            )
        )
    wanted = set(samples) or set(file.samples)
    return [name for name in file.samples if name in wanted]
