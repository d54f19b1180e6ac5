"""Scores of all shards of variants as parts: continued, in one process or several."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch

from seq2exp.core import pool
from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.files import require_space
from seq2exp.core.progress import track_amounts
from seq2exp.variants.parts import PartInfo, PartStore, Shard, Source

__all__ = ["MakeScorer", "Scorer", "Share", "estimated_bytes", "execute", "parse_share"]

logger = logging.getLogger(__name__)

_SPACE = "free disk space, or choose another --out"

Scorer = Callable[[pd.DataFrame], pd.DataFrame]
"""Alleles of a shard to their scores."""

MakeScorer = Callable[[int], Scorer]
"""Number of a worker on its machine, from 0, to what scores there; called when it is needed."""


@dataclass(frozen=True)
class Share:
    """Every ``count``-th shard from number ``index``, both from 0."""

    index: int = 0
    count: int = 1

    def numbers(self, num_shards: int) -> range:
        """Return which of so many shards belong to it."""
        return range(self.index, num_shards, self.count)

    def idle(self, num_shards: int) -> str:
        """Return why a share has nothing to do; nothing where it has. Without shards one merges."""
        if self.index < max(num_shards, 1):
            return ""
        return f"{self.count} shares for {num_shards} shard{'' if num_shards == 1 else 's'}"


def parse_share(text: str) -> Share:
    """Read ``I/N``, the I-th of N shares, I from 1.

    Raises
    ------
    ConfigError
        It is none.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    index, count = (int(word) for word in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            facts(
                "--shard",
                found=repr(text),
                expected="I/N with I from 1 to N",
                fix="for an array of 20 jobs numbered from 1: --shard $SLURM_ARRAY_TASK_ID/20",
            )
        )
    return Share(index - 1, count)


def estimated_bytes(num_rows: int, num_columns: int, *, num_outputs: int = 1) -> int:
    """Return about how many bytes of disk the parts and the outputs of so many rows take.

    Parameters
    ----------
    num_rows : int
        Alleles times genes whose window holds them.
    num_columns : int
        Of scores.
    num_outputs : int
        Files that are made of the parts.
    """
    # In text a number takes twice as much as in a part, and words are written out.
    as_part, as_text = 120 + 4 * num_columns, 200 + 10 * num_columns
    return num_rows * (as_part + num_outputs * as_text)


def execute(
    source: Source,
    make_scorer: MakeScorer,
    store: PartStore,
    *,
    share: Share | None = None,
    workers: int = 1,
    first_worker: int = 0,
    num_outputs: int = 1,
    progress: bool = True,
) -> list[PartInfo]:
    """Score every shard of a share that has no whole part yet.

    Parameters
    ----------
    source : Source
    make_scorer : callable
        Called in every process that has something to score. With several workers it is pickled.
    store : PartStore
    share : Share, optional
        All shards when not given.
    workers : int
        Processes; 1 or fewer is this one. They take shards as they get free.
    first_worker : int
        Number of the first worker on this machine, where other processes have lower ones.
    num_outputs : int
        Files that will be made of the parts, for the estimate of space.
    progress : bool
        Show how far the work is, how fast, and how long it still takes.

    Returns
    -------
    list of PartInfo
        Of every shard of the share, in order.

    Raises
    ------
    InputError
        A worker died (its shard is named) or the disk has too little room; whole parts stay.
    RuntimeError
        Scores that are not those of the shard (`seq2exp.variants.parts.check_part`).
    """
    shards = source.shards
    numbers = (share or Share()).numbers(len(shards))
    found = {number: store.find(number, shards[number]) for number in numbers}
    todo = [number for number, info in found.items() if info is None]
    total = sum(shards[number].num_records for number in numbers)
    left = sum(shards[number].num_records for number in todo)
    if todo and len(todo) < len(found):
        logger.info("continued from %d of %d finished parts", len(found) - len(todo), len(found))
    workers = min(workers, len(todo))
    setup = _Setup(source, make_scorer, store, first_worker, workers)
    tasks = [_Task(setup.token, number, shards[number]) for number in todo]
    done = track_amounts(
        pool.run_tasks(tasks, workers, start=setup),
        amount=lambda task: task.shard.num_records,
        total=total,
        done=total - left,
        label="variants",
        unit="variants",
        enabled=progress,
    )
    try:
        for place, task in enumerate(done):
            if place == 0:
                _require_room(store, task, left, total, num_outputs)
    finally:
        _HERE.pop(setup.token, None)
    return [found[n] or _found(store, n, shards[n]) for n in numbers]


def _found(store: PartStore, number: int, shard: Shard) -> PartInfo:
    return store.read(number, shard)[0]


def _require_room(store: PartStore, task: _Task, left: int, total: int, num_outputs: int) -> None:
    """Raise where the disk cannot hold what the first part says that all parts take."""
    size = store.path(task.number).stat().st_size / max(task.shard.num_records, 1)
    more = left - task.shard.num_records + num_outputs * total
    require_space(store.folder, int(size * more), fix=_SPACE + "; finished parts stay")


@dataclass(frozen=True)
class _Setup:
    """What every task of a process needs; keeps it there under a token of this work."""

    source: Source
    make_scorer: MakeScorer
    store: PartStore
    first_worker: int
    workers: int
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, worker: int) -> None:
        _HERE[self.token] = _Process(self, self.first_worker + worker)
        if self.workers > 1:
            # Several processes that each take all cores are slower than one.
            torch.set_num_threads(max(1, _num_cores() // self.workers))


@dataclass
class _Process:
    setup: _Setup
    worker: int
    scorer: Scorer | None = None

    def score(self, number: int, shard: Shard) -> None:
        if self.scorer is None:
            self.scorer = self.setup.make_scorer(self.worker)
        alleles = self.setup.source.read(shard)
        self.setup.store.write(number, alleles, self.scorer(alleles), shard=shard)


_HERE: dict[str, _Process] = {}


@dataclass(frozen=True)
class _Task:
    token: str
    number: int
    shard: Shard

    @property
    def label(self) -> str:
        first = self.shard.first_record
        return f"shard {self.number} (records {first + 1} to {first + self.shard.num_records})"

    def run(self) -> None:
        _HERE[self.token].score(self.number, self.shard)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
