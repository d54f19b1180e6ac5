"""The files of a recipe in a folder: what is there is kept, the rest is brought, all is checked.

``fetch.lock.json`` in the folder holds size and SHA-256 of every file as it was first seen; where a
publisher gives no checksum, that is what later runs, and other people who take the lock with them,
are held to.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.sources.archives import make_bgzip, unpack
from data_prep.sources.download import (
    UnreachableError,
    checked_kind,
    digests,
    download,
)
from data_prep.sources.registry import SourceEntry
from data_prep.sources.web import Limits
from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, facts
from seq2exp.core.files import file_lock, read_json, sha256, write_json

__all__ = ["LOCK", "Fetched", "fetch"]

logger = logging.getLogger(__name__)

LOCK = "fetch.lock.json"
_FORMAT = {"format": "seq2exp fetch lock", "format_version": 1}


@dataclass
class Fetched:
    """What a run did."""

    new: list[str] = field(default_factory=list)
    """Files that were brought."""
    kept: list[str] = field(default_factory=list)
    """Files that were there and are right."""
    made: list[str] = field(default_factory=list)
    """What was made of files."""
    num_bytes: int = 0
    """Size of all files of the recipe."""


def fetch(
    entries: Sequence[SourceEntry],
    out: Path,
    *,
    limits: Limits | None = None,
    progress: bool = True,
) -> Fetched:
    """Bring files into a folder.

    Parameters
    ----------
    entries : sequence of SourceEntry
    out : Path
        Folder; made if need be.
    limits : Limits, optional
    progress : bool

    Raises
    ------
    InputError
        Files could not be had (all are tried, each has a line), a file in the folder is not the one
        that the lock or the publisher names, another process is at work, or there is no room.
    """
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".fetch.lock", what=str(out)):
        work = _Work(out, limits or Limits(), _read_lock(out / LOCK), progress=progress)
        missing = [entry for entry in entries if not (out / entry.name).exists()]
        work.require_room(missing)
        problems: list[str] = []
        for entry in entries:
            try:
                work.bring(entry)
            except UnreachableError as error:
                # What is already here is still checked: it works without a network.
                problems.append(_whole(error))
                work.offline = True
            except Seq2ExpError as error:
                problems.append(_whole(error))
        if work.skipped:
            problems.append(
                facts(
                    str(out), found="files that were not tried, because the network fails",
                    expected="all files", fix="run the same command again",
                    count=len(work.skipped), examples=work.skipped,
                )
            )  # fmt: skip
        if problems:
            raise InputError("\n".join(problems))
        return work.done


class _Work:
    """One folder, its lock, and what was done."""

    def __init__(self, out: Path, limits: Limits, lock: dict[str, Any], *, progress: bool) -> None:
        self.out, self.limits, self.lock, self.progress = out, limits, lock, progress
        self.offline = False
        self.skipped: list[str] = []
        self.done = Fetched()

    def require_room(self, missing: Sequence[SourceEntry]) -> None:
        """Refuse to start where the sizes that are known do not fit."""
        needed = sum(
            entry.size or int(self.lock.get(entry.name, {}).get("size", 0)) for entry in missing
        )
        free = shutil.disk_usage(self.out).free
        if needed + self.limits.spare_bytes > free:
            raise InputError(
                facts(
                    str(self.out),
                    found=f"{free / 1e9:.1f} GB free",
                    expected=f"{(needed + self.limits.spare_bytes) / 1e9:.1f} GB for "
                    f"{len(missing)} files, as far as their sizes are known",
                    fix="free disk space or choose another disk",
                )
            )

    def bring(self, entry: SourceEntry) -> None:
        """Keep or download one file, and make of it what its entry says."""
        target = self.out / entry.name
        known = self.lock.get(entry.name)
        if target.exists():
            self._check(target, entry, known)
            self.done.kept.append(entry.name)
        elif self.offline:
            self.skipped.append(entry.name)
            return
        else:
            self._download(target, entry, known)
            self.done.new.append(entry.name)
        self.done.num_bytes += target.stat().st_size
        if entry.unpack:
            self._make(target, entry)

    def _check(self, target: Path, entry: SourceEntry, known: dict[str, Any] | None) -> None:
        """Hold a file that is there to the lock, or to the publisher where the lock is silent."""
        if not target.is_file():
            raise _differs(target, "no plain file", "the file")
        size = target.stat().st_size
        wanted = {"size": entry.size, "sha256": entry.sha256, "md5": entry.md5}
        if known is not None:
            wanted |= {"size": known["size"], "sha256": known["sha256"]}
        if wanted["size"] and size != wanted["size"]:
            raise _differs(target, f"{size:,} bytes", f"{wanted['size']:,}")
        seen = digests(target, md5=bool(entry.md5))
        for key in seen:
            if wanted[key] and seen[key] != wanted[key]:
                raise _differs(target, f"{key} {seen[key]}", str(wanted[key]))
        if known is None:
            checked_kind(target, entry.name)
            logger.info("%s: was here already; its checksum is noted", entry.name)
            self._enter(entry, "here before the first run", size, seen["sha256"])

    def _download(self, target: Path, entry: SourceEntry, known: dict[str, Any] | None) -> None:
        logger.info("%s: from %s", entry.name, entry.urls[0])
        locked = {} if known is None else known
        try:
            found = download(
                entry.urls,
                target,
                size=entry.size or int(locked.get("size", 0)),
                sha256=entry.sha256 or str(locked.get("sha256", "")),
                md5=entry.md5,
                limits=self.limits,
                progress=self.progress,
            )
        except InputError as error:
            if entry.standing == "unverified":
                error.add_note("The registry marks this address as unverified.")
            raise
        self._enter(entry, found.url, found.size, found.sha256)

    def _enter(self, entry: SourceEntry, url: str, size: int, digest: str) -> None:
        known = self.lock.get(entry.name, {})
        basis = "published" if entry.sha256 or entry.md5 else "observed at the first download"
        self.lock[entry.name] = {
            "url": url,
            "size": size,
            "sha256": digest,
            "checksum": known.get("checksum", basis),
            "date": known.get("date", time.strftime("%Y-%m-%d")),
            **({"made": known["made"]} if "made" in known else {}),
        }
        self._write_lock()

    def _make(self, target: Path, entry: SourceEntry) -> None:
        """Make what the entry says, unless it is there, whole, and of this very file."""
        place, note = self.out / entry.unpack_to, self.lock[entry.name]
        made = note.get("made", {})
        ours = made.get("of") == note["sha256"]
        if place.exists():
            if ours and made["files"] and made["files"] == _contents(place):
                return
            if not ours or made["files"]:
                raise _differs(place, "other content", f"what `fetch` makes of {target.name}")
            # A run before this one was ended between making it and noting that.
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        note["made"] = {"of": note["sha256"], "files": {}}
        self._write_lock()
        logger.info("%s: making %s", entry.name, entry.unpack_to)
        if entry.unpack == "bgzip":
            make_bgzip(target, place)
        else:
            unpack(target, place, kind=entry.unpack)
        note["made"] = {"of": note["sha256"], "files": _contents(place)}
        self._write_lock()
        self.done.made.append(entry.unpack_to)

    def _write_lock(self) -> None:
        write_json({**_FORMAT, "files": self.lock}, self.out / LOCK)


def _whole(error: Seq2ExpError) -> str:
    return " ".join([str(error), *getattr(error, "__notes__", [])])


def _contents(place: Path) -> dict[str, str]:
    """Return SHA-256 by name of a file, or of the files of a folder."""
    if place.is_file():
        return {place.name: sha256(place)}
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): sha256(path) for path in files}


def _read_lock(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value = read_json(path)
    files = value.get("files") if isinstance(value, dict) else None
    fine = isinstance(files, dict) and all(
        isinstance(item, dict)
        and isinstance(item.get("size"), int)
        and isinstance(item.get("sha256"), str)
        for item in files.values()
    )
    if not fine or any(value.get(key) != item for key, item in _FORMAT.items()):
        raise FormatError(
            facts(
                str(path),
                found="another file, or a lock of another version",
                expected="what `seq2exp fetch` writes",
                fix="move it away; the files are then noted anew as they are",
            )
        )
    return dict(files or {})


def _differs(path: Path, found: str, expected: str) -> InputError:
    return InputError(
        facts(
            str(path),
            found=found,
            expected=expected,
            fix="delete it, and the same command brings it again; if the publisher has replaced "
            f"it, delete its entry in {LOCK} too",
        )
    )
