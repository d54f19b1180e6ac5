"""The folder `seq2exp elements compare --out` writes: numbers, tables and pictures.

::

    OUT/comparison.json            settings, what was read, all rows
    OUT/rows.tsv                   the same rows
    OUT/<file>.pairs.tsv           pairs in reach with the score of every method
    OUT/plots/<file>.*.png, .svg   precision-recall, by distance, enrichment, minimal pairs
    OUT/plots/budget_curve.*       prediction error with the best bins open
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from seq2exp.core.files import atomic_directory, safe_name, write_json
from seq2exp.elements.budget import OPEN, OWN, PROMOTER_ONLY, BudgetCurve
from seq2exp.elements.judging import Row
from seq2exp.elements.scored import MODEL
from seq2exp.elements.suite import ReferenceResult
from seq2exp.report import plots
from seq2exp.report.style import COLOURS, GREY, LIGHT, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["all_rows", "plot_budget_curve", "plot_enrichment", "write_comparison_folder"]

_ORDER = ("blue", "orange", "green", "purple", "vermilion", "sky", "yellow")
_KEYS = ["reference", "name", "metric", "split", "value", "low", "high", "n"]


def all_rows(results: Iterable[ReferenceResult], curve: BudgetCurve | None) -> list[Row]:
    """Return the rows of all parts; those of the budget curve have no reference."""
    rows = [row for result in results for row in result.rows]
    return rows + [{**row, "reference": None} for row in (curve.rows if curve else [])]


def write_comparison_folder(
    out: Path,
    results: Sequence[ReferenceResult],
    *,
    curve: BudgetCurve | None = None,
    inputs: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write everything; the folder appears whole or not at all.

    Parameters
    ----------
    out : Path
    results : sequence of ReferenceResult
    curve : BudgetCurve, optional
    inputs : mapping
        Settings for comparison.json.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    InputError
        The folder exists.
    """
    rows = all_rows(results, curve)
    details = {"files": [result.info for result in results]}
    if curve is not None:
        details["budget_curve"] = [curve.info]
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        content = {"command": "elements compare", "inputs": {**inputs, **details}, "rows": rows}
        write_json(content, partial / "comparison.json")
        _tsv(pd.DataFrame(rows, columns=_KEYS), partial / "rows.tsv")
        for stem, result in zip(_stems(results), results, strict=True):
            if result.pairs is not None:
                _tsv(result.pairs.table, partial / f"{stem}.pairs.tsv")
            _draw(result, partial / "plots", stem)
        if curve is not None:
            save_figure(plot_budget_curve(curve), partial / "plots" / "budget_curve")


def _stems(results: Sequence[ReferenceResult]) -> list[str]:
    """Return a name per file that no other has."""
    plain = [safe_name(result.reference.name) for result in results]
    return [
        name if plain.count(name) == 1 else f"{name}.{number + 1}"
        for number, name in enumerate(plain)
    ]


def _tsv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, sep="\t", index=False, float_format="%.6g")


def _draw(result: ReferenceResult, folder: Path, stem: str) -> None:
    if result.bins is not None:
        names = [MODEL, *result.bins.chosen.values()]
        picture = _precision_recall(
            result.bins.curves,
            result.bins.rows,
            "auprc",
            base_rate=result.bins.info["base_rate"],
            what="true distal bins",
        )
        save_figure(picture, folder / f"{stem}.precision_recall")
        save_figure(plots.plot_bands(result.bins.rows, names), folder / f"{stem}.by_distance")
    if result.pairs is not None and result.pairs.rows:
        names = [MODEL, *result.pairs.chosen.values()]
        picture = _precision_recall(
            result.pairs.curves,
            result.pairs.rows,
            "pair_auprc",
            base_rate=result.pairs.info["base_rate"],
            what="acting pairs",
        )
        save_figure(picture, folder / f"{stem}.pairs_precision_recall")
        picture = plots.plot_bands(result.pairs.rows, names, metric="pair_auprc", what="element")
        save_figure(picture, folder / f"{stem}.pairs_by_distance")
        alone = [row for row in result.pairs.rows if " - " not in row["name"]]
        if any(row["metric"] == "minimal_pairs" for row in alone):
            picture = plots.plot_metric(alone, "minimal_pairs", own=MODEL)
            picture.axes[0].set_xlabel("acting element ranked above its match (95 % interval)")
            picture.axes[0].axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
            save_figure(picture, folder / f"{stem}.minimal_pairs")
    if result.overlap:
        save_figure(plot_enrichment(result.overlap), folder / f"{stem}.enrichment")


def _precision_recall(
    curves: Mapping[str, Any], rows: Sequence[Row], metric: str, *, base_rate: float, what: str
) -> Figure:
    values = {row["name"]: row["value"] for row in rows if row["metric"] == metric}
    known = {name: values[name] for name in curves if values.get(name) is not None}
    return plots.plot_precision_recall(curves, base_rate=base_rate, values=known, what=what)


def plot_enrichment(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the enrichment of each method with its interval, and the range of shifted intervals.

    Parameters
    ----------
    rows : sequence of mapping
        Of :func:`seq2exp.elements.overlap.overlap_rows`.
    """
    from matplotlib.figure import Figure as NewFigure

    found = {(row["name"], row["metric"]): row for row in rows}
    names = [name for name, metric in found if metric == "enrichment"][::-1]
    with styled():
        figure = NewFigure(figsize=(5.6, 0.9 + 0.26 * len(names)), layout="constrained")
        axis = figure.subplots()
        for place, name in enumerate(names):
            null, row = found.get((name, "enrichment_null")), found[name, "enrichment"]
            if null is not None and null["low"] is not None:
                width = null["high"] - null["low"]
                axis.barh(place, width, 0.6, null["low"], color=LIGHT, linewidth=0)
            colour = COLOURS["blue"] if place == len(names) - 1 else GREY
            if row["low"] is not None:
                axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
            if row["value"] is not None:
                axis.plot(row["value"], place, "o", color=colour, markersize=4.5)
        axis.axvline(1.0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, None)
        axis.set_xlabel("enrichment of bases (line: 95 % interval; grey: shifted at random)")
    return figure


def plot_budget_curve(curve: BudgetCurve) -> Figure:
    """Draw error and correlation against the share of learned bins that is open.

    Parameters
    ----------
    curve : BudgetCurve
    """
    from matplotlib.figure import Figure as NewFigure

    with styled():
        figure = NewFigure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, metric, label in zip(
            axes, ("mse", "pearson"), ("mean squared error", "Pearson across genes"), strict=True
        ):
            _budget_axis(axis, curve, f"curve_{metric}")
            axis.set_ylabel(label)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
    return figure


def _budget_axis(axis: Axes, curve: BudgetCurve, metric: str) -> None:
    found = {(row["name"], row["metric"]): row for row in curve.rows}
    share = 100 * np.array(curve.budgets)
    for number, name in enumerate(curve.methods):
        rows = [found[name, f"{metric}@{budget:g}"] for budget in curve.budgets]
        low, mid, high = (
            np.array([row[key] for row in rows], dtype=np.float64)
            for key in ("low", "value", "high")
        )
        colour = COLOURS[_ORDER[number % len(_ORDER)]]
        first = number == 0
        # Side by side on the logarithmic axis, so that the intervals can be told apart.
        place = share * 1.03 ** (number - len(curve.methods) / 2)
        axis.plot(place, mid, "o-", color=colour, label=name, markersize=3,
                  linewidth=2.0 if first else 1.1, zorder=3 if first else 2)  # fmt: skip
        axis.vlines(place, low, high, color=colour, linewidth=0.8)
    styles = {PROMOTER_ONLY: (0, (1, 1)), OPEN: (0, (4, 2)), OWN: "solid"}
    for name, style in styles.items():
        value = found[name, metric]["value"]
        if value is not None:
            axis.axhline(value, color=GREY, linewidth=0.9, linestyle=style, label=name, zorder=1)
    axis.set_xscale("log")
    axis.set_xticks(share, [f"{value:g}" for value in share])
    axis.minorticks_off()
    axis.set_xlabel("learned bins open (%)")
