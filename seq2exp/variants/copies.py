"""Copies of an input that cannot be read at any offset: beside the output, and never for long."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["input_copies"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def input_copies(out: Path) -> Iterator[Path]:
    """Yield a folder for the copies of an input; who leaves it last removes it.

    Copies lie there by the checksum of what they are of, so that jobs of an array share them. What
    a killed process left is used by the next command with this output, and removed with the rest.

    Parameters
    ----------
    out : Path
        The first output, beside which the folder lies.
    """
    out = Path(out).absolute()
    folder = out.with_name(f".{out.name}.input")
    made = [parent for parent in folder.parents if not parent.exists()]
    place = _hold(folder)
    try:
        yield folder
    finally:
        try:
            _lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process still reads there, and will remove it.
            pass
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(place)
        # Where nothing was written after all, no folder stays either.
        with suppress(OSError):
            for parent in made:
                parent.rmdir()


def _hold(folder: Path) -> int:
    """Make a folder and lock it against removal; again where it was removed meanwhile."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            place = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        _lock(place, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(place), folder.stat()):
                return place
        os.close(place)


def _lock(place: int, kind: int) -> None:
    """Lock an open folder; a disk that knows no locks is used without."""
    try:
        fcntl.flock(place, kind)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
