"""What a piece of work took: seconds, and the most memory the process held meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "measured"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Time and memory.

    Attributes
    ----------
    seconds : float
        Wall-clock time.
    peak_bytes : int or None
        Largest resident memory of the whole process, libraries included; None where the system
        does not tell (it is asked through /proc of Linux).
    """

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def measured() -> Iterator[Cost]:
    """Yield a cost that is filled in when the block ends, also by an error."""
    cost = Cost()
    known = _start_peak()
    started = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        cost.peak_bytes = _peak() if known else None


def _start_peak() -> bool:
    """Set the recorded peak back to what is held now; return whether that was possible."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _peak() is not None


def _peak() -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(found[0]) if found else None
