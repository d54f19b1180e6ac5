"""Parts of all shards to the outputs: checked, in order, one at a time; outputs appear together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import read_json, refuse_existing, write_json
from seq2exp.variants.parts import Counts, PartInfo, PartStore, Shard, add_counts

__all__ = [
    "INDEX_SUFFIXES",
    "Parts",
    "Write",
    "discard_partial",
    "merge",
    "publish",
    "publishable",
    "require_all",
    "summarise",
]

INDEX_SUFFIXES = (".tbi", ".csi", ".gzi")
"""Files that may lie beside an output and appear and go with it."""

_ENDS = ("", *INDEX_SUFFIXES)
_STATE = "merge.json"


class Parts(Iterator[pd.DataFrame]):
    """Scores of every shard, in order; each is read, checked and forgotten.

    Attributes
    ----------
    num_left : int
        Shards that were not asked for yet.
    """

    def __init__(
        self, store: PartStore, shards: Sequence[Shard], infos: Sequence[PartInfo]
    ) -> None:
        self.store, self.shards, self.infos = store, shards, infos
        self.num_left = len(shards)
        self.columns: list[tuple[str, str]] | None = None

    def __next__(self) -> pd.DataFrame:
        """Return the scores of the next shard.

        Raises
        ------
        FormatError
            The part was damaged since it was written.
        InputError
            It holds other counts than when it was checked, or other columns than the first.
        """
        if not self.num_left:
            raise StopIteration
        number = len(self.shards) - self.num_left
        info, scores = self.store.read(number, self.shards[number])
        columns = [(str(name), str(kind)) for name, kind in scores.dtypes.items()]
        self.columns = self.columns or columns
        if info != self.infos[number] or len(scores) != info.num_rows or columns != self.columns:
            raise InputError(
                facts(
                    str(self.store.path(number)),
                    found=f"{len(scores)} rows in {len(columns)} columns",
                    expected=f"{self.infos[number].num_rows} rows in the {len(self.columns)} "
                    "columns of the first part",
                    fix="let no other process write there; run again with --restart",
                )
            )
        self.num_left -= 1
        return scores


Write = Callable[[Parts, Mapping[Path, Path]], None]
"""Writes the outputs from the scores of all shards, in order. The mapping says for each output
where to write it; an index lies beside that, with a suffix of ``INDEX_SUFFIXES`` more."""


def require_all(
    store: PartStore, shards: Sequence[Shard], *, problems: Sequence[str] = ()
) -> list[PartInfo]:
    """Return what every part holds.

    Parameters
    ----------
    store : PartStore
    shards : sequence of Shard
    problems : sequence of str
        Why parts may be missing, for the message.

    Raises
    ------
    InputError
        Parts are missing or damaged; they are named.
    """
    found = [store.find(number, shard) for number, shard in enumerate(shards)]
    missing = [number for number, info in enumerate(found) if info is None]
    if missing:
        raise InputError(
            facts(
                str(store.folder),
                found="; ".join(
                    [f"{len(shards) - len(missing)} of {len(shards)} parts", *problems]
                ),
                expected="a whole part for every shard",
                fix="run the same command again, it continues",
                count=len(missing),
                examples=[store.path(number).name for number in missing],
            )
        )
    return [info for info in found if info is not None]


def merge(
    store: PartStore,
    shards: Sequence[Shard],
    infos: Sequence[PartInfo],
    outputs: Sequence[Path],
    write: Write,
) -> None:
    """Have the outputs written aside, and note that they are whole and what is in them.

    Parameters
    ----------
    store : PartStore
    shards : sequence of Shard
    infos : sequence of PartInfo
        What each part held when it was checked.
    outputs : sequence of Path
        Absolute.
    write : callable

    Raises
    ------
    FormatError, InputError
        A part changed since it was checked.
    RuntimeError
        The writer left out scores or an output: a mistake of the program.
    """
    discard_partial(store.folder)
    targets = {path: path.with_name(f".{store.mark}.partial.{path.name}") for path in outputs}
    # Noted first, so that whoever removes this folder knows what else to remove.
    _note(store, targets)
    whole = False
    try:
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
        parts = Parts(store, shards, infos)
        write(parts, targets)
        _require_written(parts, targets)
        there, stale = _synced(targets)
        _note(store, there, stale=stale, summary=summarise(infos))
        whole = True
    finally:
        if not whole:
            discard_partial(store.folder)


def _require_written(parts: Parts, targets: Mapping[Path, Path]) -> None:
    lost = [str(path) for path, partial in targets.items() if not partial.is_file()]
    if parts.num_left or lost:
        raise RuntimeError(
            facts(
                "the merge",
                found=f"{parts.num_left} parts not read and {len(lost)} outputs not written",
                expected="all read and written",
                fix="report this with the command",
                examples=lost,
            )
        )


def _synced(targets: Mapping[Path, Path]) -> tuple[dict[Path, Path], list[Path]]:
    """Return the files that were written, indexes too, on the disk by now; and those that were not.

    An index of what was there before would be read with the new file.
    """
    files = {
        _beside(path, suffix): _beside(partial, suffix)
        for path, partial in targets.items()
        for suffix in _ENDS
    }
    there = {path: partial for path, partial in files.items() if partial.exists()}
    for partial in there.values():
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
    return there, [path for path in files if path not in there]


def summarise(infos: Sequence[PartInfo]) -> dict[str, Any]:
    """Return sums over parts: records, alleles, rows, and how often each status occurs."""
    names = ("num_records", "num_alleles", "num_rows")
    summary: dict[str, Any] = {name: sum(getattr(info, name) for info in infos) for name in names}
    counts: Counts = {}
    for info in infos:
        add_counts(counts, info.counts)
    return {**summary, "counts": counts}


def publishable(store: PartStore, outputs: Sequence[Path]) -> dict[str, Any] | None:
    """Return the summary of a finished merge to these outputs, if it waits to be published.

    Parameters
    ----------
    store : PartStore
    outputs : sequence of Path
    """
    state = _read(store.folder)
    files = {Path(path): Path(partial) for path, partial in state.get("files", {}).items()}
    known = {*files, *map(Path, state.get("stale", []))}
    summary: dict[str, Any] | None = state.get("summary")
    same = known == {_beside(path, suffix) for path in outputs for suffix in _ENDS}
    there = all(path.exists() or partial.exists() for path, partial in files.items())
    return summary if same and there else None


def publish(store: PartStore, *, overwrite: bool) -> None:
    """Rename the outputs that `publishable` found. Killed after any rename, it goes on from there.

    Parameters
    ----------
    store : PartStore
    overwrite : bool
        Replace files that appeared since the merge.

    Raises
    ------
    InputError
        An output appeared since, and may not be replaced.
    """
    state = _read(store.folder)
    files = {Path(path): Path(partial) for path, partial in state["files"].items()}
    waiting = [path for path, partial in files.items() if partial.exists()]
    for path in waiting:
        refuse_existing(path, overwrite=overwrite)
    for path in state["stale"]:
        Path(path).unlink(missing_ok=True)
    for path in waiting:
        files[path].replace(path)


def discard_partial(folder: Path) -> None:
    """Delete the outputs that a killed merge left half written."""
    for partial in _read(folder).get("files", {}).values():
        for suffix in _ENDS:
            _beside(Path(partial), suffix).unlink(missing_ok=True)
    (folder / _STATE).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _note(
    store: PartStore,
    targets: Mapping[Path, Path],
    *,
    stale: Sequence[Path] = (),
    summary: Mapping[str, Any] | None = None,
) -> None:
    files = {str(path): str(partial) for path, partial in targets.items()}
    state = {"files": files, "stale": [str(path) for path in stale], "summary": summary}
    write_json(state, store.folder / _STATE)


def _read(folder: Path) -> dict[str, Any]:
    """Return what was noted; nothing where that was damaged, so that the merge is done again."""
    path = folder / _STATE
    try:
        state = read_json(path) if path.is_file() else {}
    except FormatError:
        return {}
    return state if isinstance(state, dict) else {}
