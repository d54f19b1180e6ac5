"""Independent tasks of the build: one (track, contig) or one contig's sequence, one shard each."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.config import TrackConfig
from data_prep.genome import Genome, read_contig
from data_prep.tracks import TrackFile, bin_contig, to_storage
from seq2exp.core import pool
from seq2exp.core.errors import Seq2ExpError
from seq2exp.core.progress import track as show_progress
from seq2exp.core.shards import finish_shard, is_finished, partial_path

__all__ = [
    "SequenceTask",
    "ShardTask",
    "TrackTask",
    "Unit",
    "run_tasks",
    "sensible_workers",
    "write_array",
]

logger = logging.getLogger(__name__)

_WORTH_A_POOL = 500_000_000

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class SequenceTask:
    """Encode one contig."""

    genome: Genome
    contig: str
    target: Path

    @property
    def label(self) -> str:
        """What the task does, for messages."""
        return f"sequence of contig {self.contig}"

    @property
    def cost(self) -> int:
        """Bases to read."""
        return self.genome.sizes[self.contig]

    def run(self) -> None:
        """Write the shard: uint8 codes, and how many letters became N."""
        codes, ambiguous = read_contig(self.genome, self.contig)
        _write_shard(self.target, codes, {"ambiguous": ambiguous})


@dataclass(frozen=True)
class TrackTask:
    """Bin one track on one contig."""

    track: TrackFile
    config: TrackConfig
    contig: str
    length: int
    bin_size: int
    known: Intervals
    dtype: str
    target: Path
    may_fail: bool = False

    @property
    def label(self) -> str:
        """What the task does, for messages."""
        return f"track {self.config.name} on contig {self.contig}"

    @property
    def cost(self) -> int:
        """Bases to read, in units of the time that a base of sequence takes."""
        return 4 * int((self.known[1] - self.known[0]).sum())

    def run(self) -> None:
        """Write the shard, or, where the task may fail, why there is none."""
        try:
            self._write()
        except Seq2ExpError as error:
            if not self.may_fail:
                raise
            _write_shard(self.target, np.empty(0, np.float32), {"problem": str(error)})

    def _write(self) -> None:
        """Write float32 bins in the file's unit, and the bases that are covered."""
        binned = bin_contig(
            self.track,
            self.contig,
            length=self.length,
            bin_size=self.bin_size,
            config=self.config,
            known=self.known,
        )
        # Values that cannot be stored must stop the build here, not after hours of other tasks.
        to_storage(binned.values, self.config, contig=self.contig, dtype=self.dtype)
        info = {"covered": binned.covered_bases, "known": binned.known_bases}
        _write_shard(self.target, binned.values.astype(np.float32), info)


ShardTask = SequenceTask | TrackTask


class Unit(Protocol):
    """Any work that leaves a shard."""

    @property
    def target(self) -> Path:
        """File or folder that it leaves."""

    @property
    def label(self) -> str:
        """What is done, for messages."""

    @property
    def cost(self) -> int:
        """How long it takes, in units of the time that a base of sequence takes."""

    def run(self) -> None:
        """Do it."""


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``; unlike ``np.save``, a full disk keeps its error number."""
    flat = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        header = np.lib.format.header_data_from_array_1_0(flat)
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(flat.reshape(-1).view(np.uint8).data)


def _write_shard(target: Path, array: NDArray[Any], info: dict[str, Any]) -> None:
    """Write the array, then what proves it whole."""
    partial = partial_path(target)
    write_array(partial, array)
    finish_shard(partial, target, info)


def sensible_workers(tasks: Sequence[Unit], *, bytes_of_text: int = 0) -> int:
    """Return how many processes pay for their start: none for a yeast, one per core for a human.

    Text of genotypes takes four times as long as bases.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cost = sum(task.cost for task in tasks) + 4 * bytes_of_text
    return (cores or 1) if cost > _WORTH_A_POOL else 0


def run_tasks(
    tasks: Sequence[Unit], *, workers: int, progress: bool, label: str = "prepare"
) -> int:
    """Run the tasks whose shard is missing; return how many that were.

    Parameters
    ----------
    tasks : sequence
    workers : int
        Processes; 1 or fewer runs in this one.
    progress : bool
        Show how far the work is.
    label : str
        Name of the work, shown with it.

    Raises
    ------
    Seq2ExpError
        What the first failing task raised.
    InputError
        A worker process died; its tasks are named, finished shards are kept.
    """
    todo = [task for task in tasks if not is_finished(task.target)]
    # Long tasks first, so that no worker is left with one at the end; ties keep their order.
    todo.sort(key=lambda task: -task.cost)
    done = pool.run_tasks(todo, workers)
    for task in show_progress(done, total=len(todo), label=label, enabled=progress):
        logger.debug("finished %s", task.label)
    return len(todo)
