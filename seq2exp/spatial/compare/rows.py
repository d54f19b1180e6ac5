"""Numbers of a comparison as rows: systems, controls, and differences on the same spots and genes.

Names of rows: a system; ``depth`` and ``train mean``, the same for all; ``SYSTEM: CONTROL``, a
control of that system alone; ``SYSTEM - OTHER``, a paired difference. Of several trainings of a
system the metrics are averaged by section and gene before anything else; ``METRIC seed sd`` is the
deviation of their means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from seq2exp.core.errors import InputError, facts
from seq2exp.spatial.compare.entries import Outcome
from seq2exp.spatial.evaluation import (
    COMPARED,
    DEPTH,
    MEAN,
    MODEL,
    accuracy_rows,
)
from seq2exp.spatial.metrics import (
    CORRELATIONS,
    SPOT_METRICS,
    aggregate,
    mean_table,
    paired_difference,
)
from seq2exp.training.metrics import Estimate, Row

__all__ = ["SEED_SD", "comparison_rows", "failed_rows", "require_same_spots"]

SEED_SD = "seed sd"
_DIFFERENCES = ("pearson", "spearman", "pearson_partial", "mse")
_SHARED = (DEPTH, MEAN)

Tables = Sequence[Mapping[str, pd.DataFrame]]
"""Of every training of a system the tables of model and controls."""


def comparison_rows(
    found: Mapping[str, Tables],
    *,
    reference: str,
    split: str,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Return all rows.

    Parameters
    ----------
    found : mapping of str to sequence of mappings
        By system, for each of its trainings, the tables of :class:`FoldResult` of all folds.
    reference : str
        System that the others are compared with; left out where it is not among them.
    split : str
    num_resamples, seed : int
        Of the bootstrap over patients and genes.

    Raises
    ------
    InputError
        The systems were judged on other spots, genes or labels.
    """
    if not found:
        return []
    require_same_spots(found)
    options = {"num_resamples": num_resamples, "seed": seed}
    rows: list[Row] = []
    for name, trainings in found.items():
        models = [tables[MODEL] for tables in trainings]
        rows += accuracy_rows(models, name, split=split, **options)
        rows += _seed_rows(models, name, split, SPOT_METRICS)
    first = next(iter(found.values()))[0]
    for control in _SHARED:
        rows += accuracy_rows([first[control]], control, split=split, **options)
    for name, trainings in found.items():
        for control in [key for key in trainings[0] if key not in (MODEL, *_SHARED)]:
            tables = [each[control] for each in trainings]
            rows += accuracy_rows(tables, f"{name}: {control}", split=split, **options)
    for name, trainings in found.items():
        models = [tables[MODEL] for tables in trainings]
        if reference in found and name != reference:
            other = mean_table([tables[MODEL] for tables in found[reference]])
            rows += _differences(models, other, f"{name} - {reference}", split, None, options)
        for control in trainings[0]:
            if control != MODEL:
                other = mean_table([tables[control] for tables in trainings])
                label = f"{name} - {control}"
                rows += _differences(models, other, label, split, control, options)
    return rows


def _differences(
    models: Sequence[pd.DataFrame],
    other: pd.DataFrame,
    label: str,
    split: str,
    control: str | None,
    options: Mapping[str, int],
) -> list[Row]:
    metrics = COMPARED.get(control, _DIFFERENCES) if control else _DIFFERENCES
    whole, rows = mean_table(models), []
    for metric in metrics:
        found = paired_difference(
            whole, other, metric, num_resamples=options["num_resamples"], seed=options["seed"]
        )
        rows.append(found.row(label, metric, split=split))
    return rows + _seed_rows(models, label, split, metrics, other)


def _seed_rows(
    models: Sequence[pd.DataFrame],
    name: str,
    split: str,
    metrics: Sequence[str],
    other: pd.DataFrame | None = None,
) -> list[Row]:
    """Return the deviation of the trainings' values, of a system or of its difference."""
    if len(models) < 2:
        return []
    rows = []
    for metric in metrics:
        values = [
            aggregate(table, metric, num_resamples=1).value
            if other is None
            else paired_difference(table, other, metric, num_resamples=1).value
            for table in models
        ]
        spread = Estimate(float(np.std(values, ddof=1)), n=len(values))
        rows.append(spread.row(name, f"{metric} {SEED_SD}", split=split))
    return rows


def failed_rows(names: Sequence[str], outcomes: Sequence[Outcome], *, split: str) -> list[Row]:
    """Return a row ``failed`` for each system of which trainings failed: how many, of n."""
    rows = []
    for name in names:
        trainings = [each for each in outcomes if each.entry.name == name]
        count = sum(each.judged is None for each in trainings)
        if count:
            rows.append(Estimate(count, n=len(trainings)).row(name, "failed", split=split))
    return rows


def require_same_spots(found: Mapping[str, Tables]) -> None:
    """Refuse tables of other spots, genes or labels: depth gives the same in all of them.

    Raises
    ------
    InputError
        Names the first system that differs.
    """
    columns = ["fold", "patient", "section", "gene_id", "num_spots", "var_truth", *CORRELATIONS]
    every = [(name, tables[DEPTH][columns]) for name, all_ in found.items() for tables in all_]
    for name, table in every[1:]:
        if not table.equals(every[0][1]):
            raise InputError(
                facts(
                    f"comparison of {every[0][0]} and {name}",
                    found="other spots, genes or labels",
                    expected="the same for every system",
                    fix="delete runs/ and judged/ of one of them and compare again",
                )
            )
