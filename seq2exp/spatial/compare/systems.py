"""Compare systems under one protocol: train, judge, put in a table.

::

    OUT/table.tsv, table.json      rows of name, metric, split, value, low, high, n
    OUT/costs.tsv                  time, parameters and memory of every system
    OUT/table.md                   the main numbers, and what may be concluded
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seq2exp.core.files import file_lock
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.compare.config import (
    CompareConfig,
    Contender,
    encoder_label,
    open_bank,
    plain_protocol,
    seeded,
)
from seq2exp.spatial.compare.costs import SystemCost, cohort_facts, system_costs
from seq2exp.spatial.compare.entries import Entry, Judged, Outcome, claim_folder, run_entries
from seq2exp.spatial.compare.rows import comparison_rows, failed_rows
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.folds import make_folds
from seq2exp.spatial.run import SpatialRun, evaluate_run, fold_labels
from seq2exp.spatial.systems.registry import SYSTEMS
from seq2exp.training.metrics import Row

__all__ = ["Comparison", "compare_systems"]

logger = logging.getLogger(__name__)
_ACCURACY = "accuracy"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was compared, and what came out.

    Attributes
    ----------
    config : CompareConfig
    rows : list of dict
    costs : list of SystemCost
    failed : dict of str to str
        By training, why it failed.
    notes : list of str
        What was set for a system because of the protocol.
    cohort : dict
        As :func:`seq2exp.spatial.compare.costs.cohort_facts` gives it.
    """

    config: CompareConfig
    rows: list[Row]
    costs: list[SystemCost]
    failed: dict[str, str]
    cohort: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def compare_systems(
    config: CompareConfig,
    systems: Sequence[Contender],
    *,
    data: Path,
    out: Path,
    features: Callable[[SpatialConfig], Any],
) -> Comparison:
    """Train and judge every system; runs that stand are kept.

    Parameters
    ----------
    config : CompareConfig
    systems : sequence of Contender
    data : Path
        Cohort folder.
    out : Path
        Folder of the comparison; one of another protocol or cohort is refused.
    features : callable
        From the configuration of a run to the features of all spots, as ``train_run`` takes them.

    Raises
    ------
    InputError, ConfigError, FormatError
        What cannot be used, and why; a system that fails while it trains does not raise.
    """
    cohort = SpatialCohort(data)
    folds = make_folds(cohort, config.folds)
    leaky = any(fold.leaky for fold in folds)
    notes = _other_inputs(config, systems)
    if leaky:
        systems, more = _opened_banks(systems)
        notes += more
    entries = [
        Entry(each.name, seed, seeded(each, seed))
        for each in systems
        for seed in range(config.num_seeds if each.has_seed else 1)
    ]
    fold_labels(config, cohort, folds)  # what the protocol cannot give is no fault of a system
    protocol = {"kind": "systems", **plain_protocol(config)}
    with file_lock(Path(out) / ".lock", what=f"comparison {out}"):
        claim_folder(Path(out), cohort, protocol, entries)
        outcomes = run_entries(entries, data=data, out=Path(out), features=features, judge=_judge)
    names = [each.name for each in systems]
    split = "test (leaky)" if leaky else "test"
    good = {
        name: [_by_name(each) for each in outcomes if each.entry.name == name and each.judged]
        for name in names
    }
    rows = comparison_rows(
        {name: tables for name, tables in good.items() if tables},
        reference=config.reference,
        split=split,
        num_resamples=config.num_resamples,
        seed=config.bootstrap_seed,
    )
    failed = {each.entry.key: each.error for each in outcomes if each.judged is None}
    rows += failed_rows(names, outcomes, split=split)
    costs = system_costs(names, outcomes)
    return Comparison(config, rows, costs, failed, cohort_facts(cohort, folds), notes)


def _other_inputs(config: CompareConfig, systems: Sequence[Contender]) -> list[str]:
    """Say which systems see the patches in another way than through the common features."""
    found = []
    for each in systems:
        trained = each.config.trained_encoder
        if trained is not None:
            found.append(f"{each.name} trains {encoder_label(trained)}")
        elif each.config.encoder != config.encoder:
            found.append(f"{each.name} reads {encoder_label(each.config.encoder)}")
    return ["from the same patches, in another way: " + ", ".join(found)] if found else []


def _opened_banks(systems: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """Let banks answer with other sections of a patient: under leaky folds the rest learns so."""
    found, changed = [], []
    for each in systems:
        system = each.config.system
        names = {part.name for part in dataclasses.fields(SYSTEMS[str(system["name"])])}
        opened = open_bank(system)
        if "retrieval" in names and opened != system:
            each = Contender(each.name, dataclasses.replace(each.config, system=opened))
            changed.append(each.name)
        found.append(each)
    if not changed:
        return found, []
    text = (
        f"the banks of {', '.join(changed)} answer with other sections of the same patient "
        "(system.retrieval.exclude: section), as the folds let every system learn from them"
    )
    logger.info("note: %s", text)
    return found, [text]


def _judge(run: SpatialRun, features: Any) -> Judged:  # noqa: ANN401
    results = evaluate_run(run, features=features)
    tables = [
        table.assign(name=name) for result in results for name, table in result.tables.items()
    ]
    systems = [run.fold(name).system for name in run.fold_names]
    numbers = {
        "predict_seconds": sum(result.seconds for result in results),
        "num_parameters": float(np.mean([system.num_parameters for system in systems])),
    }
    return Judged({_ACCURACY: pd.concat(tables, ignore_index=True)}, numbers)


def _by_name(outcome: Outcome) -> dict[str, pd.DataFrame]:
    """Return the tables of model and controls."""
    table = outcome.judged.tables[_ACCURACY] if outcome.judged else pd.DataFrame()
    return {
        str(name): part.drop(columns="name").reset_index(drop=True)
        for name, part in table.groupby("name", sort=False)
    }
