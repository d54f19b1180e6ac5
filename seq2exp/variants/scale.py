"""Variants scored at any size: parts, several processes, resume, and outputs that appear whole.

The work folder lies beside the first output and is named by what the scores depend on. A killed
run continues from its whole parts and ends with the same bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError, facts
from seq2exp.core.files import LockedError
from seq2exp.core.work import system_errors, terminate_as_interrupt
from seq2exp.variants.claim import Identity, Job, claimed, remove_work, store_of
from seq2exp.variants.execute import MakeScorer, Share, execute
from seq2exp.variants.merge import (
    Write,
    discard_partial,
    merge,
    publish,
    publishable,
    require_all,
    summarise,
)
from seq2exp.variants.parts import Counts, PartInfo, PartStore, Shard, Source
from seq2exp.variants.ranks import LostRankError, Ranks, open_ranks

__all__ = ["MADE", "Identity", "Job", "Outcome", "idle_share", "score_in_parts"]

logger = logging.getLogger(__name__)

# How long a file that another machine wrote may stay unseen on a shared disk.
_UNSEEN_S = 90.0
_TRIES = 3
MADE = "the outputs are there, made of the same work (delete them to have them made again)"
"""Why a share of a job array that starts late has nothing to do."""


@dataclass(frozen=True)
class Outcome:
    """What was done.

    Attributes
    ----------
    merged : bool
        This process made the outputs.
    num_shards : int
    num_records, num_alleles, num_rows : int
        Of the parts that this process is to answer for: all when merged, else its share.
    counts : dict
        Of the same parts, `seq2exp.variants.parts.count_statuses` added up.
    left : list of int
        Shards without a part, which others have to do. Where there are none and this process did
        not merge, another does.
    rank : int
        Of this process; others than 0 have nothing to say.
    idle : str
        Why a share had nothing to do; nothing where it had.
    """

    merged: bool
    num_shards: int
    num_records: int = 0
    num_alleles: int = 0
    num_rows: int = 0
    counts: Counts = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    rank: int = 0
    idle: str = ""


def idle_share(share: Share, num_shards: int, made: Callable[[], bool]) -> Outcome | None:
    """Return the outcome of a share that has nothing to do before any work; None for others.

    Parameters
    ----------
    share : Share
    num_shards : int
    made : callable
        As in `Job`.
    """
    idle = share.idle(num_shards) or (MADE if made() else "")
    return Outcome(merged=False, num_shards=num_shards, idle=idle) if idle else None


def score_in_parts(
    source: Source, make_scorer: MakeScorer, write: Write, job: Job, *, progress: bool = True
) -> Outcome:
    """Score all shards of a source that have no part yet, then write the outputs from all parts.

    Under torchrun or srun every rank calls this with the same arguments; rank r takes the shards
    r, r + size, r + 2 size, ..., and rank 0 merges.

    Parameters
    ----------
    source : Source
    make_scorer : callable
        Makes a scorer in each process that needs one, from the number of the process on its
        machine. With several workers it is pickled, as the source is.
    write : callable
        See `seq2exp.variants.merge.Write`.
    job : Job
    progress : bool

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        An output exists or is being written, the work folder is of other inputs or settings, the
        disk is full or refuses, a worker or a rank was lost, parts are missing. What is whole
        stays, and the same command continues.
    ConfigError
        Options that exclude each other.
    """
    with (
        open_ranks() as ranks,
        system_errors(Path(job.outputs[0]).absolute()),
        terminate_as_interrupt(),
    ):
        _require_sense(job, ranks)
        if ranks.rank == 0:
            _announce(source, job)
        work = _Work(source, make_scorer, write, job, ranks, progress and ranks.rank == 0)
        if ranks.size > 1:
            return work.as_leader() if ranks.rank == 0 else work.as_follower()
        if job.share is not None:
            return work.one_share(job.share)
        return work.alone()


def _announce(source: Source, job: Job) -> None:
    """Say what there is to do, and what it takes, before it is begun."""
    sizes = [shard.num_records for shard in source.shards]
    share = max(sizes, default=0) / max(sum(sizes), 1)
    logger.info(
        "variants: %s in %s shard%s; parts and outputs take about %s of disk, the scores of a "
        "shard about %s of memory in each process",
        f"{sum(sizes):,}",
        f"{len(sizes):,}",
        "" if len(sizes) == 1 else "s",
        _size(job.num_bytes),
        # A table with words as objects, and its copy for the file.
        _size(4 * job.num_bytes / (1 + len(job.outputs)) * share),
    )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2g} MB"


def _require_sense(job: Job, ranks: Ranks) -> None:
    outputs = [Path(path).absolute() for path in job.outputs]
    if len(set(outputs)) < len(outputs):
        raise ConfigError(
            facts("--out", found="one output twice", expected="several", fix="name each once")
        )
    if job.share is not None and job.restart:
        raise ConfigError(
            facts(
                "--shard",
                found="it beside --restart",
                expected="one of them, as jobs of an array share their parts",
                fix=f"delete {store_of(job).folder.with_suffix('').with_suffix('')}.*.work, "
                "then start the array",
            )
        )
    if job.share is not None and ranks.size > 1:
        raise ConfigError(
            facts(
                "--shard",
                found=f"it beside {ranks.size} ranks",
                expected="one of them",
                fix="leave --shard out, ranks have their shares",
            )
        )


@dataclass(frozen=True)
class _Work:
    source: Source
    make_scorer: MakeScorer
    write: Write
    job: Job
    ranks: Ranks
    progress: bool

    def alone(self, *, after: Outcome | None = None) -> Outcome:
        """Everything that is missing, and the merge; ``after`` a share others may have merged."""
        with claimed(self.job, self.num_shards, joining=after is not None) as store:
            if store is None:
                return after or Outcome(merged=False, num_shards=self.num_shards)
            if publishable(store, self.outputs) is None:
                merge(store, self.shards, self.score(store), self.outputs, self.write)
            return self.finish(store)

    def one_share(self, share: Share) -> Outcome:
        """One job of an array: its share, and the merge where no other part is missing."""
        idle = idle_share(share, self.num_shards, self.job.made)
        if idle is not None:
            return idle
        try:
            with claimed(self.job, self.num_shards, shared=True) as store:
                if store is None:
                    return self.nothing(MADE)
                infos = self.score(store, share)
                left = store.missing(self.shards)
        except LockedError:
            # Whoever holds it alone has all parts, and makes the outputs or has just done so.
            if self.store.folder.is_dir() and not self.store.missing(self.shards):
                return self.nothing("all parts are there, and another job makes the outputs")
            if self.job.made():
                return self.nothing(MADE)
            raise
        outcome = Outcome(merged=False, num_shards=self.num_shards, **summarise(infos), left=left)
        for attempt in range(_TRIES):
            if left:
                break
            try:
                return self.alone(after=outcome)
            except LockedError:
                # Another share is still at work, or merges: whoever ends last does it. Two that
                # end at once may stand in each other's way.
                time.sleep(0.1 * (attempt + 1) * (1 + (os.getpid() % 7)))
        return outcome

    def nothing(self, idle: str) -> Outcome:
        """Return what a share says that has nothing to do."""
        return Outcome(merged=False, num_shards=self.num_shards, idle=idle)

    def as_leader(self) -> Outcome:
        """Rank 0: claims the work folder for all, does its share, merges."""
        with ExitStack() as stack:
            try:
                store = stack.enter_context(claimed(self.job, self.num_shards))
            except (Seq2ExpError, OSError) as error:
                self.ranks.gather(_Said(problem=str(error)))
                raise
            if store is None or publishable(store, self.outputs) is not None:
                self.ranks.gather(_Said(finished=True))
                return self.finish(self.store)
            self.ranks.gather(_Said())
            problems = self.share_of_leader(store)
            infos = require_all(store, self.shards, problems=problems)
            for problem in problems:
                logger.warning("%s; all parts are there all the same", problem)
            merge(store, self.shards, infos, self.outputs, self.write)
            return self.finish(store)

    def share_of_leader(self, store: PartStore) -> list[str]:
        """Score the share of rank 0, wait for the others, and return what went wrong there."""
        try:
            self.score(store, Share(0, self.ranks.size))
        except (Seq2ExpError, OSError, RuntimeError) as error:
            with suppress(LostRankError):
                self.ranks.gather(_Said(problem=str(error)))
            raise
        try:
            said: list[_Said] = self.ranks.gather(_Said())
        except LostRankError:
            return ["a rank was lost: killed, or out of memory"]
        end = time.monotonic() + _UNSEEN_S
        problems = [
            f"rank {rank}: {each.problem}" for rank, each in enumerate(said) if each.problem
        ]
        while not problems and store.missing(self.shards) and time.monotonic() < end:
            time.sleep(1)
        return problems

    def as_follower(self) -> Outcome:
        """Another rank: does its share once rank 0 has the work folder, and says how it went."""
        said: _Said = self.ranks.gather(_Said())[0]
        if said.problem:
            raise InputError(f"rank 0: {said.problem}")
        if said.finished:
            return Outcome(merged=False, num_shards=self.num_shards, rank=self.ranks.rank)
        try:
            infos = self.score(self.store, Share(self.ranks.rank, self.ranks.size))
        except (Seq2ExpError, OSError, RuntimeError) as error:
            self.ranks.gather(_Said(problem=str(error)))
            raise
        self.ranks.gather(_Said())
        rank = self.ranks.rank
        return Outcome(merged=False, num_shards=self.num_shards, rank=rank, **summarise(infos))

    def score(self, store: PartStore, share: Share | None = None) -> list[PartInfo]:
        return execute(
            self.source,
            self.make_scorer,
            store,
            share=share,
            workers=self.job.workers,
            first_worker=self.ranks.local * max(self.job.workers, 1),
            num_outputs=len(self.outputs),
            progress=self.progress,
        )

    def finish(self, store: PartStore) -> Outcome:
        """Give the outputs their names and remove what is not needed any more."""
        summary = publishable(store, self.outputs)
        if summary is None:
            raise FileNotFoundError(errno.ENOENT, "an output vanished", str(self.outputs[0]))
        publish(store, overwrite=self.job.overwrite)
        if self.job.keep_parts:
            discard_partial(store.folder)
        else:
            remove_work(store.folder, finished=True)
        return Outcome(merged=True, num_shards=self.num_shards, **summary)

    @property
    def store(self) -> PartStore:
        return store_of(self.job)

    @property
    def shards(self) -> Sequence[Shard]:
        return self.source.shards

    @property
    def num_shards(self) -> int:
        return len(self.source.shards)

    @property
    def outputs(self) -> list[Path]:
        return [Path(path).absolute() for path in self.job.outputs]


@dataclass(frozen=True)
class _Said:
    """What a rank tells the others."""

    problem: str = ""
    finished: bool = False
