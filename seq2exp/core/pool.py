"""Independent tasks, one after another or in worker processes that end with their parent."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from seq2exp.core.errors import InputError, facts

__all__ = ["Task", "run_tasks"]

_LOGGERS = ("seq2exp", "data_prep")


class Task(Protocol):
    """Work that can be pickled; what it makes it leaves on disk."""

    @property
    def label(self) -> str:
        """What is done, for people."""

    def run(self) -> None:
        """Do it."""


T = TypeVar("T", bound=Task)


def run_tasks(
    tasks: Sequence[T], workers: int, *, start: Callable[[int], None] | None = None
) -> Iterator[T]:
    """Run tasks and yield each when it is finished.

    Parameters
    ----------
    tasks : sequence of Task
        With several workers they finish in any order.
    workers : int
        Processes; 1 or fewer runs the tasks in this one.
    start : callable, optional
        Called once with the number of the worker, from 0, in each process before its first task,
        to keep there what all its tasks need. What it is and does can be pickled.

    Raises
    ------
    InputError
        A worker process died; its task is named.
    Exception
        What the first failing task raised.
    """
    if workers > 1 and len(tasks) > 1:
        yield from _in_pool(tasks, workers, start)
        return
    if tasks and start is not None:
        start(0)
    for task in tasks:
        task.run()
        yield task


def _in_pool(tasks: Sequence[T], workers: int, start: Callable[[int], None] | None) -> Iterator[T]:
    # spawn: handles of htslib and Rust, and torch's threads, do not survive a fork.
    context = multiprocessing.get_context("spawn")
    records = context.Queue()
    listener = logging.handlers.QueueListener(records, _Relay())
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    # One process per pool: when a pool breaks, it is known which task was at work.
    pools = [
        ProcessPoolExecutor(
            max_workers=1,
            mp_context=context,
            initializer=_start_worker,
            initargs=(records, levels, start, number),
        )
        for number in range(min(workers, len(tasks)))
    ]
    waiting, free = list(reversed(tasks)), list(reversed(pools))
    running: dict[Future[None], tuple[T, ProcessPoolExecutor]] = {}
    listener.start()
    try:
        while waiting or running:
            while waiting and free:
                task, pool = waiting.pop(), free.pop()
                running[_submit(pool, task)] = task, pool
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                task, pool = running.pop(future)
                try:
                    future.result()
                except BrokenProcessPool:
                    raise _dead_worker(task.label) from None
                free.append(pool)
                yield task
        # Workers that end by themselves send their last records first.
        for pool in pools:
            pool.shutdown()
    finally:
        _stop(pools)
        listener.stop()


def _submit(pool: ProcessPoolExecutor, task: T) -> Future[None]:
    try:
        return pool.submit(task.run)
    except BrokenProcessPool:
        # Killed between two tasks.
        raise _dead_worker(task.label) from None


def _stop(pools: Sequence[ProcessPoolExecutor]) -> None:
    """End the workers now: tasks leave finished files or temporary ones."""
    processes = [process for pool in pools for process in (pool._processes or {}).values()]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=10)


def _dead_worker(label: str) -> InputError:
    return InputError(
        facts(
            "a worker process",
            found=f"that it died (killed, or out of memory) at work on {label}",
            expected="that it finishes",
            fix="run the command again, it continues; use fewer workers if memory is short",
        )
    )


class _Relay(logging.Handler):
    """Hands the records of workers to the loggers of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _start_worker(
    records: Any,  # noqa: ANN401
    levels: dict[str, int],
    start: Callable[[int], None] | None,
    number: int,
) -> None:
    """Leave Ctrl-C to the parent, log through it, and end when it is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name, level in levels.items():
        target = logging.getLogger(name)
        target.handlers = [logging.handlers.QueueHandler(records)]
        target.propagate = False
        target.setLevel(level)
    threading.Thread(target=_follow_parent, daemon=True).start()
    if start is not None:
        start(number)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
