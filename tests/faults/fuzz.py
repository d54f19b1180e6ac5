"""Damages an input at random bytes and reads it in a child process (F44)."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seq2exp.core.errors import Seq2ExpError

SECONDS = 10
_FINE, _FOREIGN = 0, 3


@dataclass(frozen=True)
class Outcome:
    """What one damaged input led to; `trouble` is empty for success or one of our errors."""

    seed: int
    refused: bool
    trouble: str = ""


def mutate(content: bytes, seed: int) -> bytes:
    """Change, insert, delete or cut: one to eight random edits, most of them single bytes."""
    random = np.random.default_rng(seed)
    out = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        at = int(random.integers(0, max(len(out), 1)))
        kind = random.random()
        if kind < 0.7 and out:
            out[at] = int(random.integers(0, 256))
        elif kind < 0.8:
            out[at:at] = random.bytes(int(random.integers(1, 9)))
        elif kind < 0.9:
            del out[at : at + int(random.integers(1, 9))]
        elif kind < 0.95:
            del out[at:]
        else:
            out += random.bytes(int(random.integers(1, 65)))
    return bytes(out)


def read_damaged(path: Path, content: bytes, seed: int, read: Callable[[], object]) -> Outcome:
    """Write a damaged copy of `content` to `path` and call `read` in a child process."""
    path.write_bytes(mutate(content, seed))
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _work(read, send)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        message = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = "a hang" if number == signal.SIGALRM else signal.Signals(number).name
        return Outcome(seed, refused=False, trouble=name)
    if os.WEXITSTATUS(status) == _FINE:
        return Outcome(seed, refused=message == "refused")
    return Outcome(seed, refused=False, trouble=message or f"exit {os.WEXITSTATUS(status)}")


def _work(read: Callable[[], object], send: int) -> None:
    """Run in the child; never returns."""
    code, message = _FINE, ""
    # What the libraries print of their panics is not ours to show.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except Seq2ExpError:
        message = "refused"
    except BaseException as error:  # noqa: BLE001
        code, message = _FOREIGN, f"{type(error).__name__}: {str(error)[:200]}"
    with contextlib.suppress(OSError):
        os.write(send, message.encode())
    os._exit(code)
