"""Independent tasks, one after another or in worker processes that end with their parent."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
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


def run_tasks(tasks: Sequence[T], workers: int) -> Iterator[T]:
    """Run tasks and yield each when it is finished.

    Parameters
    ----------
    tasks : sequence of Task
        With several workers they finish in any order.
    workers : int
        Processes; 1 or fewer runs the tasks in this one.

    Raises
    ------
    InputError
        A worker process died; its tasks are named.
    Exception
        What the first failing task raised.
    """
    if workers > 1 and len(tasks) > 1:
        yield from _in_pool(tasks, workers)
        return
    for task in tasks:
        task.run()
        yield task


def _in_pool(tasks: Sequence[T], workers: int) -> Iterator[T]:
    # spawn: handles of htslib and Rust, and torch's threads, do not survive a fork.
    context = multiprocessing.get_context("spawn")
    records = context.Queue()
    listener = logging.handlers.QueueListener(records, _Relay())
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(tasks)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(records, {name: logging.getLogger(name).level for name in _LOGGERS}),
    )
    waiting = list(reversed(tasks))
    running: dict[Future[None], T] = {}
    listener.start()
    try:
        while waiting or running:
            # No more than one task per worker is handed out, so a dead worker's task is known.
            while waiting and len(running) < workers:
                task = waiting.pop()
                running[pool.submit(task.run)] = task
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                yield running.pop(future)
        # Workers that end by themselves send their last records first.
        pool.shutdown()
    except BrokenProcessPool:
        raise _dead_worker([task.label for task in running.values()]) from None
    finally:
        _stop(pool)
        listener.stop()


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: tasks leave finished files or temporary ones."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=10)


def _dead_worker(labels: list[str]) -> InputError:
    return InputError(
        facts(
            "a worker process",
            found=f"that it died (killed, or out of memory) at work on {'; '.join(labels)}",
            expected="that it finishes",
            fix="run the command again, it continues; use fewer workers if memory is short",
        )
    )


class _Relay(logging.Handler):
    """Hands the records of workers to the loggers of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _start_worker(records: Any, levels: dict[str, int]) -> None:  # noqa: ANN401
    """Leave Ctrl-C to the parent, log through it, and end when it is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name, level in levels.items():
        target = logging.getLogger(name)
        target.handlers = [logging.handlers.QueueHandler(records)]
        target.propagate = False
        target.setLevel(level)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
