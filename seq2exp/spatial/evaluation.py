"""A system beside its controls on held-out spots.

Controls that stand in every table:

``train mean``
    the mean label of every gene over the fitting spots; it has no correlation, and an error;
``shuffled patches``
    the same system, with the patches exchanged within each section that is judged;
``depth``
    each gene as a line of log(1 + total count) of the spot itself, with the slope of the fitting
    spots: what sequencing depth alone gives. It uses the counts that are to be predicted, so it is
    no rival, only a measure.

A system may have further controls of its own (``controls``), which stand beside it.

Axes: N spots, G genes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.spatial.data import SpotTable, shuffled_patches
from seq2exp.spatial.metrics import (
    aggregate,
    gene_table,
    mean_table,
    paired_difference,
    relative_variance,
    summary_rows,
)
from seq2exp.training.metrics import Estimate, Row

__all__ = [
    "COMPARED",
    "CONTROLS",
    "DEPTH",
    "LISTS",
    "MEAN",
    "MODEL",
    "SHUFFLED",
    "FoldResult",
    "accuracy_rows",
    "evaluation_rows",
    "judge_fold",
    "section_tables",
]

Floats = NDArray[np.float64]
Predict = Callable[[SpotTable], Floats]

MODEL, MEAN, SHUFFLED, DEPTH = "model", "train mean", "shuffled patches", "depth"
CONTROLS = (MEAN, SHUFFLED, DEPTH)
COMPARED = {DEPTH: ("pearson", "mse"), MEAN: ("mse",)}
"""Metrics that a model is compared with a control in, where not all three: nothing of depth is left
when depth is taken out, and a constant has no correlation."""
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
    seconds : float
        Time of predicting the held-out spots once.
    """

    name: str
    leaky: bool
    tables: dict[str, pd.DataFrame]
    seconds: float = 0.0


def judge_fold(
    predict: Predict,
    *,
    fitting: SpotTable,
    test: SpotTable,
    genes: Sequence[str],
    name: str,
    leaky: bool = False,
    controls: Mapping[str, Predict] | None = None,
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
    controls : mapping of str to callable, optional
        Further controls by name.
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
    started = time.perf_counter()
    predicted = np.asarray(predict(test), np.float64)
    seconds = time.perf_counter() - started
    predictions = {
        MODEL: predicted,
        MEAN: np.broadcast_to(mean_G, test.y_NG.shape),
        SHUFFLED: np.asarray(predict(shuffled_patches(test, seed=seed)), np.float64),
        DEPTH: _depth(fitting, test),
        **{key: np.asarray(control(test), np.float64) for key, control in (controls or {}).items()},
    }
    tables = {
        key: section_tables(test, values, genes).merge(listed, on="gene_id").assign(fold=name)
        for key, values in predictions.items()
    }
    return FoldResult(name, leaky, tables, seconds)


def _top(values_G: Floats, size: int) -> NDArray[np.bool_]:
    chosen = np.zeros(values_G.size, dtype=np.bool_)
    chosen[np.argsort(-values_G, kind="stable")[:size]] = True
    return chosen


def _depth(fitting: SpotTable, test: SpotTable) -> Floats:
    """Return each gene as a line of log(1 + total count), fitted within the fitting sections."""
    cross_G, power_G = np.zeros((2, fitting.y_NG.shape[1]))
    for _, places in fitting.by_section():
        y_NG = fitting.y_NG[places].astype(np.float64)
        # A section measures a gene in all spots or in none.
        known_G = np.isfinite(y_NG).all(axis=0)
        depth_N = np.log1p(fitting.total_N[places].astype(np.float64))
        depth_N -= depth_N.mean()
        cross_G[known_G] += depth_N @ y_NG[:, known_G]
        power_G[known_G] += depth_N @ depth_N
    slope_G = cross_G / np.where(power_G > 0, power_G, np.inf)
    mean_G = np.nanmean(fitting.y_NG.astype(np.float64), axis=0)
    middle = np.log1p(fitting.total_N.astype(np.float64)).mean()
    away_N = np.log1p(test.total_N.astype(np.float64)) - middle
    return np.asarray(mean_G + np.outer(away_N, slope_G))


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
) -> list[Row]:
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
    rows: list[Row] = []
    for key, table in joined.items():
        rows += accuracy_rows([table], key, split=split, num_resamples=num_resamples, seed=seed)
    for control in [key for key in joined if key != MODEL]:
        for metric in COMPARED.get(control, ("pearson", "pearson_partial", "mse")):
            found = paired_difference(
                joined[MODEL], joined[control], metric, num_resamples=num_resamples, seed=seed
            )
            rows.append(found.row(control, f"{metric}_difference", split=split))
    return rows


def accuracy_rows(
    tables: Sequence[pd.DataFrame],
    name: str,
    *,
    split: str,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Return the rows of a model or control: every metric, by gene list, and what was constant.

    Parameters
    ----------
    tables : sequence of DataFrame
        All folds of a training; several trainings of the same folds are averaged
        (:func:`seq2exp.spatial.metrics.mean_table`).
    name : str
        In the rows.
    split : str
    num_resamples, seed : int
        Of the bootstrap over patients and genes.
    """
    rows = summary_rows(
        mean_table(tables), name, split=split, lists=LISTS, num_resamples=num_resamples, seed=seed
    )
    extra = pd.DataFrame([_extra(table) for table in tables]).mean().to_dict()
    n = len(tables[0])
    return rows + [
        Estimate(value, n=n).row(name, str(metric), split=split) for metric, value in extra.items()
    ]


def _oracle(table: pd.DataFrame) -> float:
    """Mean correlation of the 50 genes that the test labels choose, as published numbers do."""
    known = table.assign(pearson=table["pearson"].fillna(0))
    by_patient = known.groupby(["patient", "gene_id"])["pearson"].mean()
    return float(by_patient.groupby("gene_id").mean().nlargest(_LIST_SIZE).mean())


def _extra(table: pd.DataFrame) -> dict[str, float]:
    constant = table[["const_truth", "const_predicted"]].sum()
    varied = table[~table["const_truth"].astype(bool)]
    spread = table.assign(rvd=relative_variance(table))
    return {
        "pearson oracle_hpg": _oracle(table),
        "pearson_defined": aggregate(varied, "pearson", num_resamples=1).value,
        "n_const_truth": float(constant["const_truth"]),
        "n_const_predicted": float(constant["const_predicted"]),
        "rvd": aggregate(spread, "rvd", num_resamples=1).value,
    }
