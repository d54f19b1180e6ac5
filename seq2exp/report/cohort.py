"""Pictures and the page of a cohort benchmark: r per gene, models against baselines, scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from seq2exp.cohort.metrics import UNSCORABLE
from seq2exp.cohort.splits import read_split
from seq2exp.cohort.text import SPLIT_TEXTS, model_names, value_of
from seq2exp.core.files import atomic_file, read_json
from seq2exp.dataset.format import read_table
from seq2exp.report import page
from seq2exp.report.style import COLOURS, GREY, LIGHT, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_accuracy", "plot_genes", "plot_people", "write_cohort_page"]

Row = Mapping[str, Any]
_LINEAR = ("mean", "top1", "ridge_cv", "blup", "lasso", "enet")
_BEST, _UNTRAINED = "enet", "untrained"
_SHOWN_GENES = 6


def plot_accuracy(rows: Sequence[Row], *, split: str) -> Figure:
    """Draw the mean correlation across people of every model, with its interval.

    Parameters
    ----------
    rows : sequence of dict
        Of the benchmark.
    split : str
    """
    every = {name: value_of(rows, name, "pearson_mean", split) for name in model_names(rows)}
    found = {name: row for name, row in every.items() if row is not None}
    with styled():
        figure, axis = _new(4.2, 0.5 + 0.24 * len(found))
        for place, (name, row) in enumerate(found.items()):
            if _undefined(rows, name, split):
                axis.text(0, place, " undefined", color=GREY, fontsize=7, va="center")
                continue
            colour = GREY if _is_baseline(name) else COLOURS["blue"]
            axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
            inside = "white" if name == _UNTRAINED else colour
            axis.plot([row["value"]], [place], "o", color=colour, mfc=inside, markersize=4)
        axis.axvline(0, color=LIGHT, linewidth=1, zorder=0)
        axis.set_yticks(range(len(found)), list(found))
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.set_xlabel("mean r across people (95 % interval over genes)")
        axis.set_title(f"{split}: {SPLIT_TEXTS.get(split, split)}")
    return figure


def plot_genes(genes: pd.DataFrame, names: Sequence[str], *, split: str) -> Figure:
    """Draw the share of genes whose correlation across people is above each value, by model.

    Parameters
    ----------
    genes : DataFrame
        genes.parquet of the benchmark; undefined correlations count as 0. A model without any
        other is not drawn.
    names : sequence of str
        Which models.
    split : str
    """
    part = genes[(genes["split"] == split) & ~genes["status"].isin(UNSCORABLE)]
    trained = [name for name in names if name != _UNTRAINED and not _is_baseline(name)]
    colours = dict(zip(trained, COLOURS.values(), strict=False))
    with styled():
        figure, axis = _new(4.2, 2.4)
        axis.axvline(0, color=LIGHT, linewidth=1, zorder=0)
        for name in names:
            known = part.loc[part["name"] == name, "pearson"]
            r = np.sort(known.fillna(0.0))
            if known.notna().any():
                axis.step(
                    np.concatenate([[-1.0], r, [1.0]]),
                    np.concatenate([[1.0], 1 - np.arange(1, len(r) + 1) / len(r), [0.0]]),
                    where="post", label=name, color=colours.get(name, GREY), linewidth=1.3,
                    linestyle="--" if name == _UNTRAINED else "-",
                )  # fmt: skip
        axis.set_xlim(-1, 1)
        axis.set_xlabel("r across people")
        axis.set_ylabel("share of genes above r")
        axis.set_title(f"{split}: {SPLIT_TEXTS.get(split, split)}")
        axis.legend(loc="lower left")
    return figure


def plot_people(
    expression: pd.DataFrame,
    predictions: pd.DataFrame,
    genes: pd.DataFrame,
    *,
    name: str,
    split: str,
    people: Sequence[str],
) -> Figure:
    """Draw predicted against observed expression of people for genes over the range of accuracy.

    Parameters
    ----------
    expression : DataFrame
        gene_id, donor, corrected.
    predictions : DataFrame
        gene_id, donor, value.
    genes : DataFrame
        genes.parquet of the benchmark.
    name, split : str
    people : sequence of str
        The tested people.
    """
    part = genes[(genes["split"] == split) & (genes["name"] == name)].dropna(subset=["pearson"])
    ordered = part.sort_values("pearson", ascending=False)["gene"].tolist()
    # Evenly over the ranks, so that the best genes do not speak for all.
    places = np.linspace(0, len(ordered) - 1, min(_SHOWN_GENES, len(ordered))).round().astype(int)
    chosen = [ordered[place] for place in places]
    both = expression.merge(predictions, on=["gene_id", "donor"])
    both = both[both["donor"].isin(set(people))]
    with styled():
        figure, axes = _new_row(7.2, 1.7, max(len(chosen), 1))
        for rank, (axis, gene) in enumerate(zip(axes, chosen, strict=False)):
            rows = both[both["gene_id"] == gene]
            r = float(part.loc[part["gene"] == gene, "pearson"].iloc[0])
            axis.scatter(rows["value"], rows["corrected"], s=4, color=COLOURS["blue"], linewidth=0)
            axis.set_title(f"{gene}\nr = {r:.2f}, rank {places[rank] + 1}", fontsize=6)
            axis.set_xlabel("predicted")
            axis.tick_params(labelsize=5)
            axis.locator_params(axis="x", nbins=2)
            axis.locator_params(axis="y", nbins=5)
        axes[0].set_ylabel("observed, corrected")
    return figure


def write_cohort_page(folder: Path) -> Path:
    """Write ``report.html`` and pictures of a benchmark folder and return the page's path.

    Parameters
    ----------
    folder : Path
        Folder of `seq2exp cohort benchmark` or `cohort evaluate`.
    """
    table = read_json(folder / "table.json")
    rows, notes = table["rows"], table["notes"]
    genes = read_table(folder / "genes.parquet")
    expression = read_table(folder / "expression.parquet")
    sets = read_split(folder / "split.json")
    names = model_names(rows)
    models = [name for name in names if not _is_baseline(name)]
    shown = [*models[:4], *(name for name in (_BEST,) if name in names)]
    sections = []
    for split in dict.fromkeys(str(row["split"]) for row in rows):
        accuracy = plot_accuracy(rows, split=split)
        spread = plot_genes(genes, shown or names, split=split)
        save_figure(accuracy, folder / "plots" / f"accuracy_{split}")
        save_figure(spread, folder / "plots" / f"genes_{split}")
        parts = [
            page.table(*_table(rows, names, split)),
            page.pair(
                page.figure(accuracy, "Mean correlation across people."),
                page.figure(
                    spread,
                    "Genes with a larger r: the further right, the better.",
                ),
            ),
        ]
        best = _best_model(rows, [name for name in models if name != _UNTRAINED], split)
        path = folder / "predictions" / f"{best}.parquet"
        if best and path.is_file():
            kinds = {"A": ("test",), "B": ("population",), "C_new": ("test", "population")}
            wanted = kinds.get(split)
            both = zip(sets.donors, sets.donor_sets, strict=True)
            people = [one for one, kind in both if not wanted or kind in wanted]
            scatter = plot_people(
                expression, read_table(path), genes, name=best, split=split, people=people
            )
            save_figure(scatter, folder / "plots" / f"people_{split}")
            text = f"Tested people in genes over the range of accuracy of {best}, the best first."
            parts.append(page.figure(scatter, text))
        title = f"{split}: {SPLIT_TEXTS.get(split, split)}"
        sections.append(page.section(f"split-{split}", title, *parts))
    listed = "".join(f"<p>{page.escape(note)}</p>" for note in notes)
    sections.append(page.section("protocol", "Protocol", listed))
    text = page.document(
        f"Personal expression: {folder.name}",
        "Correlation across people within genes, and across genes; intervals over genes.",
        _headline(rows, models),
        sections,
    )
    target = folder / "report.html"
    with atomic_file(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def _is_baseline(name: str) -> bool:
    """Say whether a name is that of a linear model, also one fitted on a share of the people."""
    return name.partition("@")[0] in _LINEAR


def _undefined(rows: Sequence[Row], name: str, split: str) -> bool:
    """Say whether there is no correlation at all: predictions that are constant, or missing."""
    lost = value_of(rows, name, "pearson_num_undefined", split)
    return lost is not None and lost["n"] > 0 and lost["value"] == lost["n"]


def _best_model(rows: Sequence[Row], models: Sequence[str], split: str) -> str:
    found = {name: value_of(rows, name, "pearson_mean", split) for name in models}
    scored = {name: row["value"] for name, row in found.items() if row is not None}
    return max(scored, key=lambda name: scored[name]) if scored else ""


def _table(
    rows: Sequence[Row], names: Sequence[str], split: str
) -> tuple[list[str], list[list[str]]]:
    columns = {
        "pearson_mean": "r across people",
        "pearson_median": "median r",
        "pearson_num_undefined": "undefined",
        "pearson_sign_flip_fraction": "sign flips",
        "fraction_of_h2_corrected": "share of h2",
        "pearson_mean_p": "p, signs",
        "across_genes_pearson_mean": "r across genes",
    }
    body = []
    for name in names:
        cells = [value_of(rows, name, metric, split) for metric in columns]
        if any(cells):
            body.append([page.escape(name), *(page.escape(_cell(row)) for row in cells)])
    return ["", *columns.values()], body


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None or row["value"] != row["value"]:
        return "-"
    if row["low"] is None or row["low"] != row["low"]:
        return f"{row['value']:g}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _headline(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    sentences = []
    for split in dict.fromkeys(str(row["split"]) for row in rows):
        trained = [name for name in models if name != _UNTRAINED]
        best, linear = _best_model(rows, trained, split), _best_model(rows, _LINEAR, split)
        ours, theirs = (value_of(rows, n, "pearson_mean", split) for n in (best, linear))
        parts = [] if ours is None else [f"best model {best} {_cell(ours)}"]
        if theirs is not None:
            undefined = _undefined(rows, linear, split)
            none = "linear models say nothing of genes they were not fitted on"
            parts.append(none if undefined else f"best linear model {linear} {_cell(theirs)}")
        sentences.append(f"{split}, {SPLIT_TEXTS.get(split, split)}: {'; '.join(parts)}.")
    return sentences


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = _new_row(width, height, 1)
    return figure, axes[0]


def _new_row(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)
