"""Progress of long work: a bar on a terminal, plain lines elsewhere.

There is a line per ten percent, but none within two seconds of the one before.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["clock", "track", "track_amounts"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
_PAUSE_S = 2.0
_LONG_PAUSE_S = 60.0


def track(items: Iterable[T], *, total: int, label: str, enabled: bool = True) -> Iterator[T]:
    """Yield ``items`` and show how far the loop is.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    label : str
        What is being done.
    enabled : bool
        Show nothing when False.
    """
    if not enabled or total == 0:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total=total, label=label)
    else:
        yield from _lines(items, total=total, label=label)


def _bar(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(
        items, description=label, total=total, console=Console(stderr=True), transient=True
    )


def _lines(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    start = last = time.monotonic()
    shown = 0
    for done, item in enumerate(items, start=1):
        yield item
        decile, now = done * 10 // total, time.monotonic()
        if decile > shown and (now - last >= _PAUSE_S or done == total):
            shown, last = decile, now
            seconds = now - start
            logger.info("%s: %d%% (%d of %d, %.0f s)", label, decile * 10, done, total, seconds)


def track_amounts(
    items: Iterable[T],
    *,
    amount: Callable[[T], int],
    total: int,
    done: int = 0,
    label: str,
    unit: str,
    enabled: bool = True,
) -> Iterator[T]:
    """Yield ``items`` of different size and show how far, how fast, and how long still.

    Parameters
    ----------
    items : iterable
    amount : callable
        How much an item is.
    total, done : int
        All there is, and how much of it an earlier run did; speed is that of this run.
    label, unit : str
        What is being done, and what is counted.
    enabled : bool
        Show nothing when False.
    """
    if not enabled or total == 0:
        yield from items
        return
    terminal = sys.stderr.isatty()
    start = last = time.monotonic()
    shown, first = done * 10 // total, done
    for item in items:
        done += amount(item)
        decile, now = done * 10 // total, time.monotonic()
        due = now - last >= _PAUSE_S or done >= total
        if due and (terminal or decile > shown or now - last >= _LONG_PAUSE_S):
            shown, last = decile, now
            speed = (done - first) / max(now - start, 1e-9)
            logger.info(
                "%s: %d%% (%s of %s %s, %s/s, %s left)",
                label, 100 * done // total, f"{done:,}", f"{total:,}", unit,
                f"{speed:,.3g}" if speed < 100 else f"{speed:,.0f}", clock((total - done) / speed),
            )  # fmt: skip
        yield item


def clock(seconds: float) -> str:
    """Return a duration for people: ``42 s``, ``3 min``, ``5 h 20 min``.

    Parameters
    ----------
    seconds : float
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
