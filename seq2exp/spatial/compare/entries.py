"""Train and judge many runs into one folder; what stands is kept, what fails stops nothing else.

::

    OUT/protocol.json              cohort and protocol; a folder serves one of each
    OUT/runs/<key>/                runs, as `seq2exp spatial train` writes them
    OUT/judged/<key>/              what was found on held-out spots: tables and numbers
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.config import load_config, to_dict
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError, facts
from seq2exp.core.files import atomic_directory, read_json, sha256, write_json
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.format import manifest_path
from seq2exp.spatial.run import SpatialRun, train_run
from seq2exp.spatial.run_folder import refuse_foreign

__all__ = ["Entry", "Judge", "Judged", "Outcome", "claim_folder", "run_entries"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Judged:
    """What a run gave on held-out spots.

    Attributes
    ----------
    tables : dict of str to DataFrame
    numbers : dict of str to float
        Such as seconds.
    """

    tables: dict[str, pd.DataFrame]
    numbers: dict[str, float] = field(default_factory=dict)


Judge = Callable[[SpatialRun, Any], Judged]
"""From a finished run and the features of its spots to what it gave."""


@dataclass(frozen=True)
class Entry:
    """One training."""

    name: str
    """Of the system or arm."""
    seed: int
    """Number of the training among those of the same settings."""
    config: SpatialConfig
    """What is trained."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.name}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of an entry.

    Attributes
    ----------
    entry : Entry
    judged : Judged or None
        None where it failed.
    run : SpatialRun or None
    error : str
        Why it failed.
    """

    entry: Entry
    judged: Judged | None
    run: SpatialRun | None
    error: str = ""


def claim_folder(
    out: Path, cohort: SpatialCohort, protocol: Mapping[str, Any], entries: Sequence[Entry]
) -> None:
    """Say in a folder what it serves; refuse one that serves something else.

    Parameters
    ----------
    out : Path
    cohort : SpatialCohort
    protocol : mapping
        Plain values.
    entries : sequence of Entry

    Raises
    ------
    ConfigError
        The folder is of another cohort or protocol, or holds a run of an entry with other settings.
    """
    about = {"cohort_sha256": sha256(manifest_path(cohort.root)), "protocol": dict(protocol)}
    place = out / "protocol.json"
    if place.is_file():
        known = read_json(place)
        other = [key for key in about if known.get(key) != about[key]]
        if other:
            raise ConfigError(
                facts(
                    str(out),
                    found=f"a comparison of another {other[0].removesuffix('_sha256')}",
                    expected="a new folder, or the same cohort and protocol",
                    fix="give another --out",
                )
            )
    else:
        refuse_foreign(out, ours=())
    for entry in entries:
        path = out / "runs" / entry.key / "config.yaml"
        if path.is_file() and to_dict(load_config(SpatialConfig, [path])) != to_dict(entry.config):
            raise ConfigError(
                facts(
                    f"system {entry.name}",
                    found=f"other settings in {path}",
                    expected="those of this comparison",
                    fix="give it another name, or delete that run and its folder in judged/",
                )
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(about, place)


def run_entries(
    entries: Sequence[Entry],
    *,
    data: Path,
    out: Path,
    features: Callable[[SpatialConfig], Any],
    judge: Judge,
    about: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Train and judge every entry; one that fails is noted.

    Parameters
    ----------
    entries : sequence of Entry
    data : Path
        Cohort folder.
    out : Path
    features : callable
        From a configuration to the features of all spots.
    judge : callable
    about : mapping, optional
        Plain values that the judgement hangs on; one that was kept is used where they are the same.
    """
    found = []
    for number, entry in enumerate(entries, start=1):
        logger.info("[%d/%d] %s, training %d", number, len(entries), entry.name, entry.seed)
        try:
            values = features(entry.config)
            run = train_run(
                entry.config, data, out / "runs" / entry.key, features=values, progress=False
            )
            judged = _judged(run, out / "judged" / entry.key, judge, values, about or {})
        except Exception as error:
            logger.warning(
                "%s failed: %s",
                entry.key,
                error,
                exc_info=None if isinstance(error, Seq2ExpError) else error,
            )
            text = str(error) or type(error).__name__
            found.append(Outcome(entry, None, None, " ".join(text.split())))
            continue
        found.append(Outcome(entry, judged, run))
    _require_one_protocol([outcome.run for outcome in found if outcome.run is not None])
    return found


def _judged(
    run: SpatialRun, folder: Path, judge: Judge, features: object, about: Mapping[str, Any]
) -> Judged:
    """Judge a run, or read what was found before about the same weights."""
    # Members and banks too, so all files of weights.
    weights = {
        name: {
            str(path.relative_to(run.place(name))): sha256(path)
            for path in sorted(run.place(name).rglob("*.safetensors"))
        }
        for name in run.fold_names
    }
    inputs = {"about": dict(about), "weights": weights}
    place = folder / "judged.json"
    if place.is_file() and read_json(place)["inputs"] == inputs:
        known = read_json(place)
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in known["tables"]}
        return Judged(tables, known["numbers"])
    found = judge(run, features)
    with atomic_directory(folder, overwrite=True) as partial:
        for name, table in found.tables.items():
            table.to_parquet(partial / f"{name}.parquet", index=False)
        known = {"inputs": inputs, "numbers": found.numbers, "tables": list(found.tables)}
        write_json(known, partial / "judged.json")
    return found


def _require_one_protocol(runs: Sequence[SpatialRun]) -> None:
    """Refuse runs whose folds, spots, genes or recipe are not the same.

    They follow from the protocol, so a difference is a fault of the package or of the files.
    """
    for run in runs[1:]:
        for name in [*runs[0].fold_names, "final"]:
            for file in ("fold.json", "labels.json"):
                first, other = (read_json(each.place(name) / file) for each in (runs[0], run))
                if first != other or run.fold_names != runs[0].fold_names:
                    raise InputError(
                        facts(
                            f"runs {runs[0].folder} and {run.folder}",
                            found=f"another {file} of fold {name}",
                            expected="the same spots, genes and labels in every run",
                            fix="delete the one that was changed and compare again",
                        )
                    )
