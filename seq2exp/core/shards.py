"""Shards of long work: each is written aside, moved into place, and proved whole by a JSON file.

A shard is a file or a folder; the JSON beside it, written after it, holds its checksum. Whoever
finds both need not do the work again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2exp.core.files import sha256

__all__ = [
    "finish_shard",
    "is_finished",
    "partial_path",
    "read_shard",
    "remove_partial",
    "shard_info",
]


def partial_path(target: Path, *, unique: bool = False) -> Path:
    """Return where a shard, a file or a folder, is written before it is whole.

    Parameters
    ----------
    target : Path
    unique : bool
        A name of its own for every call, for work that two processes may do at once.
    """
    mark = f"{uuid.uuid4().hex[:12]}." if unique else ""
    return target.with_name(f".partial.{mark}{target.name}")


def remove_partial(folder: Path) -> None:
    """Delete what killed processes left half written; the caller is the only writer."""
    for path in folder.glob(".partial.*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def finish_shard(
    partial: Path, target: Path, info: Mapping[str, Any], *, sync: bool = False
) -> None:
    """Move a written file or folder to its place, then write what proves it whole.

    Parameters
    ----------
    partial, target : Path
    info : mapping
        What the shard says about itself, plain values.
    sync : bool
        Have a file on the disk before it gets its name. Without, a power cut that loses blocks
        shows in the checksum, and the shard is made again.
    """
    checksum = _checksum(partial)
    if sync:
        _sync(partial)
    if target.is_dir():
        shutil.rmtree(target)
    partial.replace(target)
    partial = _info_path(partial)
    partial.write_text(json.dumps({**info, "sha256": checksum}), encoding="ascii")
    if sync:
        _sync(partial)
    partial.replace(_info_path(target))


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _checksum(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)
    lines = (f"{file.name} {_checksum(file)}\n" for file in sorted(path.iterdir()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _info_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def shard_info(target: Path) -> dict[str, Any]:
    """Return what a finished shard says about itself.

    Raises
    ------
    FileNotFoundError
        The shard is not finished.
    """
    info: dict[str, Any] = json.loads(_info_path(target).read_text(encoding="ascii"))
    return info


def is_finished(target: Path) -> bool:
    """Return whether a shard is there and whole; reads all of it."""
    try:
        return bool(shard_info(target)["sha256"] == _checksum(target))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_shard(target: Path) -> bytes | None:
    """Return the content of a finished file; None where it is missing or not as it was written."""
    try:
        content = target.read_bytes()
        whole = shard_info(target)["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if whole else None
