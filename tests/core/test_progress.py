from __future__ import annotations

import logging

import pytest

from seq2exp.core import progress
from seq2exp.core.progress import clock, track_amounts


@pytest.fixture
def lines(monkeypatch):
    """What is logged, with a clock that moves three seconds per look."""
    now = iter(range(0, 3000, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger("seq2exp.core.progress")
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "handlers", [handler])
    logger.manager._clear_cache()
    return seen


def run(sizes, **options):
    settings = {"amount": int, "total": 100, "label": "variants", "unit": "alleles"}
    return list(track_amounts(sizes, **(settings | options)))


def test_speed_and_time_left_count_amounts_not_items(lines):
    assert run([30, 50, 20]) == [30, 50, 20]
    # 30 alleles in 3 s; 80 in 6 s; 100 in 9 s.
    assert lines == [
        "variants: 30% (30 of 100 alleles, 10/s, 7 s left)",
        "variants: 80% (80 of 100 alleles, 13.3/s, 2 s left)",
        "variants: 100% (100 of 100 alleles, 11.1/s, 0 s left)",
    ]


def test_what_an_earlier_run_did_is_done_but_gives_no_speed(lines):
    run([10], done=90)
    assert lines == ["variants: 100% (100 of 100 alleles, 3.33/s, 0 s left)"]


@pytest.mark.parametrize("options", [{"enabled": False}, {"total": 0}])
def test_nothing_is_shown_where_nothing_is_to_be_shown(lines, options):
    assert run([5], **options) == [5]
    assert lines == []


def test_durations_for_people():
    shown = [clock(seconds) for seconds in (0.4, 99, 100, 5900, 6000, 90_000)]
    assert shown == ["0 s", "99 s", "2 min", "98 min", "1 h 40 min", "25 h 0 min"]
