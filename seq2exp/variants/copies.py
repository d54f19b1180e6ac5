"""Copies of an input that cannot be read at any offset: beside the output, and never for long."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["input_copies"]

_LOCK = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def input_copies(out: Path) -> Iterator[Path]:
    """Yield a folder for the copies of an input; who leaves it last removes it.

    Copies lie there by the checksum of what they are of, so that jobs of an array share them. What
    a killed process left is used by the next command with this output, and removed with the rest.
    On a disk that knows no locks every process has copies of its own.

    Parameters
    ----------
    out : Path
        The first output, beside which the folder lies.
    """
    out = Path(out).absolute()
    folder = out.with_name(f".{out.name}.input")
    made = [parent for parent in folder.parents if not parent.exists()]
    place, locked = _hold(folder)
    own = folder if locked else folder / uuid.uuid4().hex[:12]
    try:
        yield own
    finally:
        if not locked:
            shutil.rmtree(own, ignore_errors=True)
            if {path.name for path in folder.iterdir()} == {_LOCK}:
                (folder / _LOCK).unlink(missing_ok=True)
        elif _locks(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _empty(folder)
        os.close(place)
        # Where nothing was written after all, no folder stays either.
        with suppress(OSError):
            for path in (folder, *made):
                path.rmdir()


def _empty(folder: Path) -> None:
    """Remove all copies; the lock, for which others may wait, goes last."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)


def _hold(folder: Path) -> tuple[int, bool]:
    """Lock a folder against removal, and make it; again where it was removed meanwhile."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Disks of a network lock only what is open for reading and writing.
            place = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
        locked = _locks(place, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(place), (folder / _LOCK).stat()):
                return place, locked
        os.close(place)


def _locks(place: int, kind: int) -> bool:
    """Lock an open file; tell whether that was possible."""
    try:
        fcntl.flock(place, kind)
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
            return False
        raise
    return True
