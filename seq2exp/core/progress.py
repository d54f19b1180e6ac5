"""Progress of long work: a bar on a terminal, plain lines elsewhere.

There is a line per ten percent, but none within two seconds of the one before.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
_PAUSE_S = 2.0


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
