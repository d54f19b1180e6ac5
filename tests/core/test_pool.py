from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from seq2exp.core.errors import InputError, facts
from seq2exp.core.pool import run_tasks


@dataclass(frozen=True)
class Note:
    """Writes the number of its process; fails when told to."""

    folder: Path
    label: str
    fails: bool = False

    def run(self):
        if self.fails:
            raise InputError(facts(self.label, found="a failure", expected="none", fix="no"))
        logging.getLogger("seq2exp.test").info("wrote %s", self.label)
        (self.folder / self.label).write_text(str(os.getpid()))


@pytest.fixture
def three(tmp_path):
    return [Note(tmp_path, name) for name in "abc"]


def processes(tasks):
    return [int((task.folder / task.label).read_text()) for task in tasks]


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_is_this_process_in_order(three, workers):
    assert list(run_tasks(three, workers)) == three
    assert processes(three) == [os.getpid()] * 3


def test_several_workers_are_other_processes(three):
    assert {task.label for task in run_tasks(three, 2)} == {"a", "b", "c"}
    assert os.getpid() not in processes(three)


def test_one_task_needs_no_worker(three):
    list(run_tasks(three[:1], 4))
    assert processes(three[:1]) == [os.getpid()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_task_ends_the_work_with_its_own_error(tmp_path, workers):
    tasks = [Note(tmp_path, "a"), Note(tmp_path, "broken", fails=True)]
    with pytest.raises(InputError, match="broken: found a failure"):
        list(run_tasks(tasks, workers))


def test_what_workers_log_is_logged_here(three):
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    named, logger = logging.getLogger("seq2exp.test"), logging.getLogger("seq2exp")
    level = logger.level
    logger.setLevel(logging.INFO)
    named.addHandler(handler)
    try:
        list(run_tasks(three, 2))
    finally:
        logger.setLevel(level)
        named.removeHandler(handler)
    assert sorted(seen) == ["wrote a", "wrote b", "wrote c"]
