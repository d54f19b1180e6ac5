"""The work folder of outputs that are made in parts: whose it is, and who works in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2exp import __version__
from seq2exp.core.config import differences
from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, facts
from seq2exp.core.files import file_lock, read_json, refuse_existing, require_space, write_json
from seq2exp.core.shards import remove_partial
from seq2exp.core.work import fingerprint, work_folder, work_folders
from seq2exp.variants.execute import Share
from seq2exp.variants.merge import INDEX_SUFFIXES, discard_partial, publishable
from seq2exp.variants.parts import PartStore

__all__ = [
    "Identity",
    "Job",
    "claimed",
    "names_pending",
    "remove_work",
    "require_same",
    "store_of",
]


@dataclass(frozen=True)
class Identity:
    """All that the scores and the outputs depend on.

    Attributes
    ----------
    input_sha256 : str
        Of the file of variants.
    model_sha256 : str
    dataset_checksum : str
    config : mapping
        Plain values: every setting that changes a score, a row, a shard or an output.
    version : str
        Of this package.
    """

    input_sha256: str
    model_sha256: str
    dataset_checksum: str
    config: Mapping[str, Any]
    version: str = __version__

    def values(self) -> dict[str, Any]:
        """Return plain values, as the manifest holds them."""
        return {**vars(self), "config": json.loads(json.dumps(dict(self.config)))}


@dataclass(frozen=True)
class Job:
    """What to make, and how.

    Attributes
    ----------
    outputs : sequence of Path
        The work folder lies beside the first.
    identity : Identity
    workers : int
        Processes on this machine; 1 or fewer is this one.
    share : Share or None
        Score only this share of the shards; whoever does the last one merges.
    overwrite : bool
        Replace outputs.
    restart : bool
        Delete the parts of an earlier run, whatever it was.
    keep_parts : bool
        Leave the work folder.
    made : callable
        Tells whether the outputs are there, made of this very work.
    num_bytes : int
        Disk that parts and outputs are expected to take (`execute.estimated_bytes`).
    """

    outputs: Sequence[Path]
    identity: Identity
    workers: int = 1
    share: Share | None = None
    overwrite: bool = False
    restart: bool = False
    keep_parts: bool = False
    made: Callable[[], bool] = lambda: False
    num_bytes: int = 0


def store_of(job: Job) -> PartStore:
    """Return where the parts of a job lie, whether or not they are there."""
    mark = fingerprint(job.identity.values())
    return PartStore(work_folder(Path(job.outputs[0]).absolute(), mark), mark)


def names_pending(outputs: Sequence[Path]) -> bool:
    """Return whether a killed run left these outputs whole, some perhaps with their names.

    Parameters
    ----------
    outputs : sequence of Path
    """
    paths = [Path(path).absolute() for path in outputs]
    return any(
        publishable(PartStore(folder, ""), paths) is not None for folder in work_folders(paths[0])
    )


@contextmanager
def claimed(
    job: Job, num_shards: int, *, shared: bool = False, joining: bool = False
) -> Iterator[PartStore | None]:
    """Lock the outputs of a job and yield its parts.

    Parameters
    ----------
    job : Job
    num_shards : int
    shared : bool
        Beside other jobs that claim a share, instead of alone: yields None where the outputs of
        this work are there.
    joining : bool
        After a share: yields None where another job has made the outputs meanwhile.

    Raises
    ------
    LockedError
        Another process holds the outputs.
    InputError
        An output exists, the work folder is of other inputs or settings, or the disk is full.
    """
    outputs = [Path(path).absolute() for path in job.outputs]
    store = store_of(job)
    with ExitStack() as stack:
        for path in sorted(outputs):
            lock = path.with_name(f".{path.name}.lock")
            stack.enter_context(file_lock(lock, what=str(path), shared=shared))
        if shared and job.made():
            yield None
            return
        if joining and _made_by_others(store, outputs, overwrite=job.overwrite):
            yield None
            return
        if job.restart:
            for folder in work_folders(outputs[0]):
                remove_work(folder)
        if publishable(store, outputs) is None:
            _require_free(outputs, overwrite=job.overwrite)
        require_same(job, outputs[0], store)
        (store.folder / "parts").mkdir(parents=True, exist_ok=True)
        manifest = {**job.identity.values(), "num_shards": num_shards}
        write_json(manifest, store.folder / "manifest.json")
        if not shared:
            remove_partial(store.folder / "parts")
        done = sum(map(store.exists, range(num_shards))) / max(num_shards, 1)
        require_space(
            store.folder,
            int(job.num_bytes * (1 - done)),
            fix="free disk space, or choose another --out",
        )
        try:
            yield store
        except Seq2ExpError:
            # Refused before there was anything to continue.
            if not shared and not any((store.folder / "parts").glob("*")):
                remove_work(store.folder)
            raise


def _made_by_others(store: PartStore, outputs: Sequence[Path], *, overwrite: bool) -> bool:
    if not store.folder.is_dir():
        return True
    there = all(path.exists() for path in outputs)
    return there and not overwrite and publishable(store, outputs) is None


def _require_free(outputs: Sequence[Path], *, overwrite: bool) -> None:
    for path in outputs:
        if path.is_dir():
            raise InputError(
                facts(str(path), found="a folder", expected="a file", fix="choose another --out")
            )
        for suffix in ("", *INDEX_SUFFIXES):
            refuse_existing(path.with_name(path.name + suffix), overwrite=overwrite)


def require_same(job: Job, out: Path, store: PartStore) -> None:
    """Refuse to start where parts of other inputs or settings lie beside the output.

    Parameters
    ----------
    job : Job
    out : Path
        Absolute.
    store : PartStore
        Of the job.

    Raises
    ------
    InputError
        There are such parts; what differs is named.
    """
    for folder in work_folders(out):
        if folder == store.folder:
            continue
        if not any(path.is_file() for path in folder.rglob("*")):
            # Killed before it had begun.
            shutil.rmtree(folder, ignore_errors=True)
            continue
        changed = _changed(folder, job.identity)
        raise InputError(
            facts(
                str(out),
                found=f"unfinished work with other inputs or settings in {folder.name}",
                expected="the same ones to continue",
                fix="give them again to continue, pass --restart to delete that work, or choose "
                "another --out",
                count=len(changed),
                examples=changed,
            )
        )


def _changed(folder: Path, identity: Identity) -> list[str]:
    """Return a line per value that differs, as far as it can be told."""
    try:
        old = read_json(folder / "manifest.json")
    except (FormatError, OSError):
        old = None
    if not isinstance(old, dict):
        return ["its manifest cannot be read"]
    return differences({**old, "num_shards": None}, identity.values())


def remove_work(folder: Path, *, finished: bool = False) -> None:
    """Delete a work folder and the half written outputs that it knows of; the lock is held.

    Parameters
    ----------
    folder : Path
    finished : bool
        The outputs have their names: what says so goes last, so that a run that is killed here
        finds itself finished.
    """
    if not finished:
        discard_partial(folder)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(folder)
