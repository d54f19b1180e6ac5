"""A system beside its controls on held-out spots.

Controls that stand in every table:

``train mean``
    the mean label of every gene over the fitting spots; it has no correlation, and an error;
``shuffled patches``
    the same system, with the patches exchanged within each section that is judged;
``depth``
    log(1 + total count) of the spot itself, for every gene: what sequencing depth alone gives.
    It uses the counts that are to be predicted, so it is no rival, only a measure; and its unit is
    not that of the labels, so only its correlations mean anything.

Axes: N spots, G genes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.spatial.data import SpotTable, shuffled_patches
from seq2exp.spatial.metrics import (
    CORRELATIONS,
    gene_table,
    paired_difference,
    relative_variance,
    summary_rows,
)

__all__ = ["CONTROLS", "LISTS", "FoldResult", "evaluation_rows", "judge_fold", "section_tables"]

Floats = NDArray[np.float64]
Predict = Callable[[SpotTable], Floats]

MODEL = "model"
CONTROLS = ("train mean", "shuffled patches", "depth")
LISTS = ("HEG", "HVG")
_LIST_SIZE = 50


@dataclass(frozen=True, eq=False)
class FoldResult:
    """What a fold gave.

    Attributes
    ----------
    name : str
    leaky : bool
    tables : dict of str to DataFrame
        One row per section and gene, for the model and each control, with the columns of
        :func:`seq2exp.spatial.metrics.gene_table`, ``fold``, and one per gene list.
    """

    name: str
    leaky: bool
    tables: dict[str, pd.DataFrame]


def judge_fold(
    predict: Predict,
    *,
    fitting: SpotTable,
    test: SpotTable,
    genes: Sequence[str],
    name: str,
    leaky: bool = False,
    seed: int = 0,
) -> FoldResult:
    """Predict the held-out spots of a fold and score them beside the controls.

    Parameters
    ----------
    predict : callable
        From spots to labels, shape (num_spots, num_genes).
    fitting, test : SpotTable
    genes : sequence of str
        Ids of the panel.
    name : str
        Of the fold.
    leaky : bool
    seed : int
        Of the shuffled patches.
    """
    mean_G = np.nanmean(fitting.y_NG.astype(np.float64), axis=0)
    spread_G = np.nanvar(fitting.y_NG.astype(np.float64), axis=0)
    listed = pd.DataFrame(
        {
            "gene_id": list(genes),
            "HEG": _top(mean_G, _LIST_SIZE),
            "HVG": _top(spread_G, _LIST_SIZE),
        }
    )
    predictions = {
        MODEL: np.asarray(predict(test), np.float64),
        "train mean": np.broadcast_to(mean_G, test.y_NG.shape),
        "shuffled patches": np.asarray(predict(shuffled_patches(test, seed=seed)), np.float64),
        "depth": _depth(test),
    }
    tables = {
        key: section_tables(test, values, genes).merge(listed, on="gene_id").assign(fold=name)
        for key, values in predictions.items()
    }
    return FoldResult(name, leaky, tables)


def _top(values_G: Floats, size: int) -> NDArray[np.bool_]:
    chosen = np.zeros(values_G.size, dtype=np.bool_)
    chosen[np.argsort(-values_G, kind="stable")[:size]] = True
    return chosen


def _depth(table: SpotTable) -> Floats:
    """Return log(1 + total count) of every spot, for every gene."""
    depth = np.log1p(table.total_N.astype(np.float64))
    return np.repeat(depth[:, None], table.y_NG.shape[1], axis=1)


def section_tables(table: SpotTable, predicted: Floats, genes: Sequence[str]) -> pd.DataFrame:
    """Return the gene tables of the sections of some spots, one below the other.

    Parameters
    ----------
    table : SpotTable
    predicted : float64 array, shape (num_spots, num_genes)
    genes : sequence of str
        Ids of the columns.
    """
    parts = []
    for name, places in table.by_section():
        patient = table.patients[int(table.patient_N[places[0]])]
        parts.append(
            gene_table(
                table.y_NG[places].astype(np.float64),
                predicted[places],
                total_N=table.total_N[places].astype(np.float64),
                genes=genes,
                section=name,
                patient=patient,
            )
        )
    return pd.concat(parts, ignore_index=True)


def evaluation_rows(
    results: Sequence[FoldResult], *, num_resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Return rows of every metric for the model and its controls, and paired differences.

    Parameters
    ----------
    results : sequence of FoldResult
    num_resamples, seed : int
        Of the bootstrap over patients and genes.

    Returns
    -------
    list of dict
        name, metric, split, value, low, high, n. Metrics named ``X_difference`` are those of the
        model minus those of the control on the same sections and genes.
    """
    joined = {
        key: pd.concat([result.tables[key] for result in results], ignore_index=True)
        for key in results[0].tables
    }
    leaky = any(result.leaky for result in results)
    split = "test (leaky)" if leaky else "test"
    rows: list[dict[str, Any]] = []
    for key, table in joined.items():
        summary = summary_rows(
            table, key, split=split, lists=LISTS, num_resamples=num_resamples, seed=seed
        )
        rows += [row for row in summary if key != "depth" or _is_correlation(row["metric"])]
        constant = table[["const_truth", "const_predicted"]].sum()
        extra = {
            "pearson_defined": float(table.loc[~table["const_truth"], "pearson"].fillna(0).mean()),
            "n_const_truth": float(constant["const_truth"]),
            "n_const_predicted": float(constant["const_predicted"]),
        }
        if key != "depth":
            extra["rvd"] = relative_variance(table)
        rows += [_row(key, metric, split, value, len(table)) for metric, value in extra.items()]
    for control in CONTROLS:
        # The error of depth has another unit; a constant has no correlation to compare with.
        metrics = {"depth": ("pearson",), "train mean": ("mse",)}
        for metric in metrics.get(control, ("pearson", "pearson_partial", "mse")):
            found = paired_difference(
                joined[MODEL], joined[control], metric, num_resamples=num_resamples, seed=seed
            )
            row = _row(control, f"{metric}_difference", split, found.value, found.n)
            rows.append(row | {"low": found.low, "high": found.high})
    return rows


def _is_correlation(metric: str) -> bool:
    return metric.split(" ")[0] in CORRELATIONS


def _row(name: str, metric: str, split: str, value: float, n: int) -> dict[str, Any]:
    return {
        "name": name,
        "metric": metric,
        "split": split,
        "value": value,
        "low": None,
        "high": None,
        "n": n,
    }
