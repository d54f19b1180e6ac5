"""Raw files to one dataset on disk: check everything, build in shards, assemble, rename.

The work folder lies beside the output and is named by the configuration and the content of the
inputs. A killed run therefore continues from its finished shards and ends with the same bytes;
changed inputs start anew. Nothing is at the final path before the dataset is whole.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import warnings
from pathlib import Path

from data_prep.assemble import assemble
from data_prep.config import DataConfig
from data_prep.preflight import Plan, check_inputs, input_files
from data_prep.shards import (
    SequenceTask,
    ShardTask,
    TrackTask,
    run_tasks,
    sensible_workers,
)
from data_prep.tracks import known_intervals
from data_prep.variants.store import Genotyped, read_genotypes
from data_prep.windows import region_intervals
from seq2exp import __version__
from seq2exp.core.config import to_dict
from seq2exp.core.errors import (
    FormatError,
    InputError,
    Seq2ExpError,
    Seq2ExpWarning,
    facts,
)
from seq2exp.core.files import (
    file_lock,
    refuse_existing,
    replace_directory,
    require_space,
    safe_name,
    sha256,
)
from seq2exp.core.shards import remove_partial, shard_info
from seq2exp.core.work import (
    fingerprint,
    sweep,
    system_errors,
    terminate_as_interrupt,
    work_folder,
)
from seq2exp.dataset import format as layout
from seq2exp.dataset.format import Manifest, SourceFile

__all__ = ["DataConfig", "estimated_bytes", "prepare"]

logger = logging.getLogger(__name__)


def prepare(
    config: DataConfig,
    *,
    source: Path,
    out: Path,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Write the dataset that a configuration describes and return its manifest.

    Parameters
    ----------
    config : DataConfig
    source : Path
        Folder that the configuration's relative paths start from.
    out : Path
        Dataset folder to write (docs/dataset_format.md).
    workers : int
        Worker processes; 0 chooses: one per core for large genomes, this process for small ones.
    overwrite : bool
        Replace an existing folder, once the new one is whole.
    progress : bool
        Show how far the work is.

    Raises
    ------
    Seq2ExpError
        An input is wrong; all problems that can be seen in advance are reported together.
    InputError
        The output exists or is being written by another process, the disk is full or the folder
        cannot be written, or a worker died (the next run continues).
    """
    source, out = Path(source).absolute(), Path(out).absolute()
    refuse_existing(out, overwrite=overwrite)
    with (
        system_errors(out),
        terminate_as_interrupt(),
        file_lock(out.with_name(f".{out.name}.lock"), what=str(out)),
    ):
        refuse_existing(out, overwrite=overwrite)
        sources = _sources(config, source)
        work = work_folder(out, _fingerprint(config, sources))
        # We hold the lock, so every other work folder of this output is left from a dead process.
        sweep(out, keep=work)
        try:
            manifest = _build(config, source, work, sources, workers=workers, progress=progress)
        except (Seq2ExpError, OSError) as error:
            if not _can_continue(error):
                shutil.rmtree(work, ignore_errors=True)
            raise
        replace_directory(work / "build", out, overwrite=overwrite)
        sweep(out, keep=None)
    return manifest


def _build(
    config: DataConfig,
    source: Path,
    work: Path,
    sources: list[SourceFile],
    *,
    workers: int,
    progress: bool,
) -> Manifest:
    work.mkdir(parents=True, exist_ok=True)
    plan = check_inputs(config, source, cache=work / "cache")
    require_space(work, estimated_bytes(config, plan))
    shards = work / "shards"
    shards.mkdir(exist_ok=True)
    remove_partial(shards)
    tasks = _tasks(config, plan, shards)
    text = 0 if plan.genotypes is None else sum(file.size for file in plan.genotypes.files)
    workers = workers or sensible_workers(tasks, bytes_of_text=text)
    num_done = len(tasks) - run_tasks(tasks, workers=workers, progress=progress)
    if num_done:
        logger.info("continued from %d of %d finished shards", num_done, len(tasks))
    plan, tasks = _without_bad_tracks(config, plan, tasks)
    genotyped = _genotypes(config, plan, tasks, shards, workers=workers, progress=progress)
    build = work / "build"
    shutil.rmtree(build, ignore_errors=True)
    manifest = assemble(config, plan, tasks, sources, build, genotyped=genotyped)
    layout.verify(build, layout.read_manifest(build))
    _sync(build)
    return manifest


def _genotypes(
    config: DataConfig,
    plan: Plan,
    tasks: list[ShardTask],
    shards: Path,
    *,
    workers: int,
    progress: bool,
) -> Genotyped | None:
    """Read the genotypes, now that the sequences to compare them with are there."""
    if plan.genotypes is None or config.genotypes is None:
        return None
    sequences = {task.contig: task.target for task in tasks if isinstance(task, SequenceTask)}
    return read_genotypes(
        plan.genotypes,
        config.genotypes,
        sequences=sequences,
        shards=shards,
        workers=workers,
        progress=progress,
    )


def _tasks(config: DataConfig, plan: Plan, shards: Path) -> list[ShardTask]:
    tasks: list[ShardTask] = [
        SequenceTask(plan.genome, contig, shards / f"sequence.{safe_name(contig)}.npy")
        for contig in plan.contigs
    ]
    for number, track in enumerate(plan.tracks):
        for contig, length in plan.contigs.items():
            masked = region_intervals(plan.regions, contig)
            here = None if track.covered is None else track.covered.get(contig, ((), ()))
            known = known_intervals(length, masked, here)  # type: ignore[arg-type]
            target = shards / f"track{number}.{safe_name(contig)}.npy"
            tasks.append(
                TrackTask(
                    track.file,
                    track.config,
                    contig,
                    length,
                    config.bin_size,
                    known,
                    config.track_dtype,
                    target,
                    may_fail=config.bad_tracks == "skip",
                )
            )
    return tasks


def _without_bad_tracks(
    config: DataConfig, plan: Plan, tasks: list[ShardTask]
) -> tuple[Plan, list[ShardTask]]:
    """Drop the tracks of which a shard failed, and name all that are left out.

    Raises
    ------
    FormatError
        None is left.
    """
    skipped = dict(plan.skipped)
    for task in tasks:
        if isinstance(task, TrackTask) and (problem := shard_info(task.target).get("problem")):
            path = str(task.track.path)
            skipped.setdefault(task.config.name, problem.replace(path, task.config.path))
    if not skipped:
        return plan, tasks
    if len(skipped) == len(config.tracks):
        raise FormatError("\n".join(skipped.values()))
    warnings.warn(
        facts(
            "tracks",
            found="files that cannot be used, left out",
            expected="usable files",
            fix="read skipped_tracks.json in the dataset",
            count=len(skipped),
            examples=[*skipped],
        ),
        Seq2ExpWarning,
        stacklevel=2,
    )
    tracks = [track for track in plan.tracks if track.config.name not in skipped]
    kept = [t for t in tasks if not isinstance(t, TrackTask) or t.config.name not in skipped]
    return dataclasses.replace(plan, tracks=tracks, skipped=skipped), kept


def estimated_bytes(config: DataConfig, plan: Plan) -> int:
    """Return the disk space that the build needs, shards included (docs/dataset_format.md)."""
    bases = sum(plan.contigs.values())
    num_bins = sum(-(-length // config.bin_size) for length in plan.contigs.values())
    stored = 2 if config.track_dtype == "float16" else 4
    shards_and_tracks = num_bins * len(config.tracks) * (4 + stored)
    num_labels = 0 if plan.expression is None else plan.expression.shape[1]
    per_gene = 4 * (num_labels + config.contacts.num_bins) + 400
    num_elements = sum(len(table) for table in plan.elements.values())
    # A run of a track is at least one bin long and most are far apart.
    num_elements += sum(bool(item.track) for item in config.elements) * (num_bins // 8)
    per_table = 40 * num_elements + 1_000_000
    if plan.genotypes is not None:
        # A call takes four bytes of text or more, and two bits in a shard and again in the dataset.
        per_table += sum(file.size for file in plan.genotypes.files) // 4
    return bases + shards_and_tracks + len(plan.genes) * per_gene + per_table


def _sources(config: DataConfig, source: Path) -> list[SourceFile]:
    """Describe the inputs that exist; what is missing is for the preflight to report."""
    return [
        SourceFile(role, path.name, path.stat().st_size, sha256(path))
        for role, path in input_files(config, source)
        if path.is_file()
    ]


def _fingerprint(config: DataConfig, sources: list[SourceFile]) -> str:
    return fingerprint(
        {
            "config": to_dict(config),
            "sources": [(file.role, file.size, file.sha256) for file in sources],
            "version": __version__,
            "format": layout.FORMAT_VERSION,
        }
    )


def _sync(root: Path) -> None:
    """Have everything on the disk before the rename says that it is there."""
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _can_continue(error: Exception) -> bool:
    """Return whether finished shards stay useful: only when a worker was killed."""
    return isinstance(error, InputError) and str(error).startswith("a worker process")
