"""Files that are either whole or absent: temporary sibling, verify, rename.

The rename gives correctness; the advisory lock only spares a second process the work.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seq2exp.core.errors import FormatError, InputError, facts

__all__ = [
    "LockedError",
    "atomic_directory",
    "atomic_file",
    "file_lock",
    "read_json",
    "refuse_existing",
    "replace_directory",
    "require_space",
    "safe_name",
    "sha256",
    "write_json",
]

_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class LockedError(InputError):
    """Another live process holds a lock."""


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise unless ``path`` is free, an empty folder, or may be overwritten.

    Raises
    ------
    InputError
        The path exists and ``overwrite`` is False.
    """
    occupied = path.is_symlink() or (path.exists() and not _is_empty_directory(path))
    if occupied and not overwrite:
        raise InputError(
            facts(
                str(path),
                found="an existing output",
                expected="a free path",
                fix="choose another path or pass --overwrite",
            )
        )


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; rename it onto ``path`` when the block succeeds.

    Parameters
    ----------
    path : Path
        Final path. Its folder is created.
    overwrite : bool
        Replace an existing file.

    Yields
    ------
    Path
        Where to write. It keeps the suffix of ``path``, because some writers look at it.
    """
    path = Path(path).absolute()
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.partial.{path.name}")
    try:
        yield partial
        _sync(partial)
        # A second look: another process may have finished while we wrote.
        refuse_existing(path, overwrite=overwrite)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling folder; rename it onto ``path`` when the block succeeds.

    Parameters
    ----------
    path : Path
        Final folder.
    overwrite : bool
        Move an existing folder aside, put the new one in place, then delete the old one.

    What a killed process left of the same folder is deleted first; a live one holds a lock on its
    part and is left alone.
    """
    path = Path(path).absolute()
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{'[0-9a-f]' * 12}.partial.{glob.escape(path.name)}"):
        with _held(left) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.partial.{path.name}")
    partial.mkdir()
    try:
        with _held(partial):
            yield partial
            replace_directory(partial, path, overwrite=overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder itself; yield whether that was possible (also not on disks without locks)."""
    try:
        place = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = folder.is_dir()
        except OSError:
            held = False
        yield held
    finally:
        os.close(place)


def replace_directory(source: Path, target: Path, *, overwrite: bool) -> None:
    """Rename ``source`` onto ``target``; an old target is moved aside first and then deleted."""
    refuse_existing(target, overwrite=overwrite)
    aside: Path | None = None
    if target.is_symlink() or target.exists():
        aside = target.with_name(f".{uuid.uuid4().hex[:12]}.old.{target.name}")
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        if aside is not None and not target.exists():
            aside.rename(target)
        raise
    if aside is not None:
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def file_lock(path: Path, *, what: str, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock; a second process is refused at once instead of waiting.

    A disk that knows no locks is used without: what is written there is whole all the same.

    Parameters
    ----------
    path : Path
        Lock file; it stays behind, empty, because removing it would race.
    what : str
        What is being locked, for the message.
    shared : bool
        Suffer others that share it, but no owner.

    Raises
    ------
    LockedError
        Another live process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                facts(
                    what,
                    found="another process that is writing it",
                    expected="one writer at a time",
                    fix="wait for that process or choose another output path",
                )
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        # Closing the file gives the lock back.
        yield


def require_space(
    folder: Path,
    num_bytes: int,
    *,
    fix: str = "free disk space, choose another disk, or raise bin_size",
) -> None:
    """Raise before any work starts when the disk has too little room.

    Parameters
    ----------
    folder : Path
        Where the files will lie; it need not be there yet.
    num_bytes : int
    fix : str
        What to do.

    Raises
    ------
    InputError
        Fewer than ``num_bytes`` are free where ``folder`` will lie.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise InputError(
            facts(
                str(folder),
                found=f"{free / 1e9:.2f} GB free",
                expected=f"at least {num_bytes / 1e9:.2f} GB",
                fix=fix,
            )
        )


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_json(value: Any, path: Path, *, overwrite: bool = True) -> None:  # noqa: ANN401
    """Write ``value`` as sorted, indented JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_file(Path(path), overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises
    ------
    FormatError
        The file is not JSON (damaged or truncated).
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"text that is not JSON ({error})",
                expected="a JSON document",
                fix="restore the file or build its folder again",
            )
        ) from error


def safe_name(text: str) -> str:
    """Return a file name that cannot leave its folder: only letters, digits, ``. _ -`` remain."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")
    return name or "_"
