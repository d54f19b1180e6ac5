"""A process that kills itself at a chosen call, for tests of resume."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any


def killing(owner: Any, name: str, call: int, *, half: bool = False, number: int = signal.SIGKILL):
    """Make the ``call``-th call of a function the last thing this process does.

    With ``half`` the file that the call would write is written in part first.
    """
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            if half:
                _half_written(args)
            # To this thread: another one might be handed the signal, and be late with it.
            signal.raise_signal(number)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def _half_written(args: tuple[Any, ...]) -> None:
    next(Path(arg) for arg in args if isinstance(arg, str | Path)).write_bytes(b"half a file")
