"""Who owns a run folder: claimed for one configuration and dataset, continued, finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from seq2exp.core.config import bind, differences, dump_yaml, load_yaml, to_dict
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError, facts
from seq2exp.core.files import read_json, write_json
from seq2exp.dataset.store import Dataset
from seq2exp.training.run import describe_machine

__all__ = ["claim_folder", "clean_start", "finish_folder", "refuse_occupied", "sweep_folder"]

T = TypeVar("T")
# Settings that change how fast an interrupted run goes on, and nothing else.
_FREE_TO_CHANGE = ("fit.parallel ", "fit.workers ", "fit.store_masks ")


def refuse_occupied(out: Path, resume: str) -> None:
    """Raise InputError where ``--resume never`` meets a folder that holds anything."""
    occupied = out.is_dir() and any(path.name != ".lock" for path in out.iterdir())
    if resume == "never" and occupied:
        raise InputError(
            facts(
                str(out),
                found="an existing folder",
                expected="a free path with --resume never",
                fix="choose another --out, delete the folder, or use --resume auto",
            )
        )


@contextmanager
def clean_start(out: Path) -> Iterator[None]:
    """Leave nothing in a new folder when the user's mistake comes out before the first checkpoint.

    Otherwise the mended command would be refused there, as one of another configuration. The caller
    holds the lock of the folder. What lay in it before stays, and so does a run that is continued.

    Parameters
    ----------
    out : Path
        Run folder, which exists.
    """
    before = {path for path in out.iterdir() if path.name != ".lock"}
    try:
        yield
    except Seq2ExpError:
        continued = out / "manifest.json" in before
        if not continued and next(out.rglob("last*.ckpt"), None) is None:
            for path in set(out.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not before:
                out.rmdir()
        raise


def claim_folder(config: object, seed: int, dataset: Dataset, out: Path) -> None:
    """Write config and manifest into a new run; refuse a folder of another run.

    Parameters
    ----------
    config : configuration dataclass
    seed : int
    dataset : Dataset
    out : Path

    Raises
    ------
    InputError
        The folder holds a run of another configuration or dataset.
    """
    sweep_folder(out)
    values = to_dict(config)
    manifest = out / "manifest.json"
    if manifest.is_file():
        old, state = (
            _with_defaults(type(config), load_yaml(out / "config.yaml")),
            read_json(manifest),
        )
        changed = [
            line for line in differences(old, values) if not line.startswith(_FREE_TO_CHANGE)
        ]
        if state["dataset"]["checksum"] != dataset.manifest.checksum:
            changed.append("dataset checksum")
        if changed:
            raise InputError(
                facts(
                    str(out),
                    found="a run of another configuration or dataset",
                    expected="the same one to continue, or a free folder",
                    fix="choose another --out, or delete the folder",
                    count=len(changed),
                    examples=changed,
                )
            )
        return
    dump_yaml(values, out / "config.yaml")
    write_json(
        {
            "state": "running",
            "dataset": {"path": str(dataset.root), "checksum": dataset.manifest.checksum},
            "seed": seed,
            "machine": describe_machine(),
        },
        manifest,
    )


def finish_folder(out: Path) -> None:
    """Say in the manifest that everything of the run is there."""
    state = read_json(out / "manifest.json")
    write_json({**state, "state": "finished"}, out / "manifest.json")


def sweep_folder(folder: Path) -> None:
    """Delete what a killed process left half written; the caller holds the run's lock."""
    for orphan in [*folder.glob("checkpoints/.*"), *folder.glob(".*.partial.*")]:
        if orphan.is_dir():
            shutil.rmtree(orphan)
        else:
            orphan.unlink()


def _with_defaults(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an earlier version with the default of every setting it did not have."""
    try:
        return to_dict(bind(kind, values, where="config.yaml"))
    except ConfigError:
        # It holds what this version does not know; the differences will say so.
        return values
