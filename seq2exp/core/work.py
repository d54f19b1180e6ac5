"""Work that may be killed: its hidden folder beside the output, and how it ends.

The folder is named by what the work depends on. The same work continues in it.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from seq2exp.core.errors import InputError, facts

__all__ = [
    "fingerprint",
    "sweep",
    "system_errors",
    "terminate_as_interrupt",
    "work_folder",
    "work_folders",
]

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_HEX = "[0-9a-f]"


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any of these plain values."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def work_folder(out: Path, mark: str) -> Path:
    """Return where the work of an output lies.

    Parameters
    ----------
    out : Path
        Absolute path of the output.
    mark : str
        The `fingerprint` of what it depends on.
    """
    return out.with_name(f".{out.name}.{mark}.work")


def work_folders(out: Path) -> list[Path]:
    """Return the work folders of an output that are there, sorted by name."""
    # The whole mark: what lies beside x.vcf must not take the folders of x.vcf.gz.
    found = out.parent.glob(f".{glob.escape(out.name)}.{_HEX * 16}.work")
    return sorted(path for path in found if path.is_dir())


def sweep(out: Path, *, keep: Path | None) -> None:
    """Remove what dead processes left beside the output; the caller holds its lock."""
    for path in work_folders(out):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)
    if keep is None:
        for path in out.parent.glob(f".{_HEX * 12}.old.{glob.escape(out.name)}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def system_errors(out: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do.

    Raises
    ------
    InputError
        The disk is full, or the place cannot be used.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL_DISK
        raise InputError(
            facts(
                str(error.filename or out),
                found="a full disk"
                if full
                else f"that it cannot be used ({error.strerror or error})",
                expected="a folder with room" if full else "a folder that can be written",
                fix="free disk space, or choose another output"
                if full
                else "check the path and its permissions, or choose another output",
            )
        ) from error


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the work like Ctrl-C: workers are stopped, finished shards stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
