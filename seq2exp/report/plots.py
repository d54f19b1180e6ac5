"""Small summary pictures: predictions, training, precision-recall, AUPRC by distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from seq2exp.core.errors import InputError, facts
from seq2exp.report.style import COLOURS, GREY, INK, LIGHT, styled
from seq2exp.training.metrics import pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "kept_epoch",
    "plot_bands",
    "plot_elements",
    "plot_metric",
    "plot_precision_recall",
    "plot_scatter",
    "plot_training",
]

_ORDER = ("blue", "orange", "green", "purple", "vermilion", "sky")
_MANY_POINTS = 400


def _new(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def plot_scatter(
    observed: ArrayLike, predicted: ArrayLike, *, unit: str = "expression", title: str = ""
) -> Figure:
    """Draw predicted against observed expression across genes, with r and n.

    Parameters
    ----------
    observed, predicted : float arrays, shape (num_genes,)
        Genes without a label are left out.
    unit : str
        Unit of both axes.
    title : str
    """
    first = np.asarray(observed, dtype=np.float64)
    second = np.asarray(predicted, dtype=np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        raise InputError(
            facts("scatter", found="no labelled gene", expected="at least one", fix="add labels")
        )
    first, second = first[known], second[known]
    with styled():
        figure, (axis,) = _new(3.2, 3.2)
        low, high = min(first.min(), second.min()), max(first.max(), second.max())
        margin = 0.04 * (high - low or 1.0)
        limits = (low - margin, high + margin)
        axis.plot(limits, limits, color=LIGHT, linewidth=1, zorder=0)
        many = first.size > _MANY_POINTS
        axis.scatter(
            first,
            second,
            s=5 if many else 12,
            alpha=0.35 if many else 0.6,
            color=COLOURS["blue"],
            linewidth=0,
            rasterized=many,
        )
        axis.set(xlim=limits, ylim=limits, aspect="equal", title=title)
        axis.set_xlabel(f"observed ({unit})")
        axis.set_ylabel(f"predicted ({unit})")
        text = f"r = {pearson(first, second):.3f}\nn = {first.size:,} genes"
        axis.text(0.04, 0.96, text, transform=axis.transAxes, va="top", fontsize=8)
    return figure


def plot_training(metrics: pd.DataFrame) -> Figure:
    """Draw training curves: losses, validation correlation, share of the window in the mask.

    Parameters
    ----------
    metrics : DataFrame
        metrics.csv of a run.
    """
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure, (loss, score, ratio) = _new(7.2, 2.1, 3)
        epoch = metrics["epoch"].to_numpy() + 1
        for name, label, colour in (
            ("train_loss", "training", "orange"),
            ("valid_loss", "validation", "blue"),
        ):
            if name in metrics:
                loss.plot(epoch, metrics[name], color=COLOURS[colour], label=label)
        loss.set(title="Loss", xlabel="epoch", ylabel="loss")
        loss.legend()
        if (kept := kept_epoch(metrics)) is not None:
            for axis in (loss, score, ratio):
                axis.axvline(kept, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        _line(score, epoch, metrics, "valid_pearson", "blue")
        score.set(title="Validation genes", xlabel="epoch", ylabel="Pearson across genes")
        _line(ratio, epoch, metrics, "mask_ratio", "green")
        ratio.set(title="Mask", xlabel="epoch", ylabel="mean of the mask")
        for axis in (loss, score, ratio):
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def kept_epoch(metrics: pd.DataFrame) -> int | None:
    """Return the epoch of the smallest validation loss, from 1; None where there is no such loss.

    Parameters
    ----------
    metrics : DataFrame
        metrics.csv of a run.
    """
    if "valid_loss" not in metrics or not metrics["valid_loss"].notna().any():
        return None
    place = int(np.nanargmin(metrics["valid_loss"].to_numpy(dtype=np.float64)))
    return int(metrics["epoch"].iloc[place]) + 1


def _line(axis: Axes, epoch: ArrayLike, metrics: pd.DataFrame, name: str, colour: str) -> None:
    if name in metrics:
        axis.plot(epoch, metrics[name], color=COLOURS[colour])


def plot_precision_recall(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    base_rate: float,
    values: Mapping[str, float] | None = None,
    title: str = "",
    what: str = "true distal bins",
) -> Figure:
    """Draw precision against recall over distal bins or pairs, one line per method.

    Parameters
    ----------
    curves : mapping of name to (recall, precision)
        The first is drawn on top and thicker.
    base_rate : float
        Share of positive bins: what a random order reaches.
    values : mapping of name to float, optional
        AUPRC for the legend.
    title : str
    what : str
        Of which recall is the share.
    """
    with styled():
        figure, (axis,) = _new(4.8, 2.9)
        for number, (name, (recall, precision)) in enumerate(curves.items()):
            area = f"  {values[name]:.3f}" if values and name in values else ""
            axis.plot(
                recall,
                precision,
                color=COLOURS[_ORDER[number % len(_ORDER)]],
                linewidth=2.0 if number == 0 else 1.1,
                zorder=3 if number == 0 else 2,
                label=f"{name}{area}",
            )
        axis.axhline(base_rate, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        axis.text(1.0, base_rate, "chance ", ha="right", va="bottom", fontsize=6.5, color=GREY)
        axis.set(xlim=(0, 1), ylim=(0, None), title=title)
        axis.set_xlabel(f"recall (share of {what} found)")
        axis.set_ylabel("precision")
        figure.legend(loc="outside right upper", title="AUPRC" if values else None)
    return figure


def plot_bands(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    metric: str = "auprc",
    what: str = "bin",
) -> Figure:
    """Draw AUPRC by distance band as bars with intervals.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of a comparison; metrics called ``auprc <band>`` are used.
    names : sequence of str
        Methods, in the order of the bars.
    metric : str
        What the bands are of.
    what : str
        Whose distance it is.
    """
    start = f"{metric} "
    bands = [m for m in dict.fromkeys(r["metric"] for r in rows) if m.startswith(start)]
    return _bars(
        rows,
        names,
        metrics=bands,
        labels=[band.removeprefix(start) for band in bands],
        axis_labels=(f"distance of the {what} from the TSS", "AUPRC"),
    )


def plot_elements(elements: pd.DataFrame, mask: ArrayLike, *, threshold: float | None) -> Figure:
    """Draw lengths and distances of distal elements, and the distribution of the mask.

    Parameters
    ----------
    elements : DataFrame
        Called elements; classes other than distal are left out of the first two.
    mask : float array
        Mask of the learned bins.
    threshold : float, optional
        Of the calls, marked; None where nothing is called.
    """
    from matplotlib.ticker import MaxNLocator

    distal = elements[elements["element_class"] == "distal"]
    length = (distal["end"] - distal["start"]).to_numpy(dtype=np.float64)
    distance = distal["distance"].to_numpy(dtype=np.float64) / 1000
    with styled():
        figure, (lengths, distances, values) = _new(7.2, 2.1, 3)
        lengths.hist(length, bins=30, color=COLOURS["blue"])
        lengths.set(title="Length", xlabel="bp", ylabel="distal elements")
        distances.hist(distance, bins=40, color=COLOURS["blue"])
        distances.axvline(0, color=GREY, linewidth=0.8)
        distances.set(title="Distance from the TSS", xlabel="kb, downstream positive")
        values.hist(np.asarray(mask), bins=50, range=(0, 1), color=GREY)
        if threshold is not None:
            dashes = (0, (4, 3))
            values.axvline(threshold, color=COLOURS["vermilion"], linewidth=1, linestyle=dashes)
        values.set(title="Mask", xlabel="mask of learned bins", ylabel="bins", xlim=(0, 1))
        values.set_yscale("log")
        for axis in (lengths, distances):
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def plot_metric(
    rows: Sequence[Mapping[str, Any]], metric: str, *, own: str = "model", title: str = ""
) -> Figure:
    """Draw one metric for every model and control as points with intervals, best on top.

    Parameters
    ----------
    rows : sequence of mapping
        ``name, metric, value, low, high``; rows of other metrics and without a value are ignored.
    metric : str
    own : str
        Name of the row to stress.
    title : str
    """
    shown = [row for row in rows if row["metric"] == metric and row["value"] is not None]
    shown.sort(key=lambda row: row["value"])
    with styled():
        figure, (axis,) = _new(5.6, 0.7 + 0.24 * max(len(shown), 1))
        for place, row in enumerate(shown):
            colour = COLOURS["blue"] if row["name"] == own else GREY
            if row.get("low") is not None:
                axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
            axis.plot(row["value"], place, "o", color=colour, markersize=4.5)
        axis.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color=LIGHT, linewidth=0.5)
        axis.set_axisbelow(True)
        axis.set(xlabel=f"{metric} (bars: 95 % interval)", title=title)
    return figure


def _bars(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    metrics: Sequence[str],
    labels: Sequence[str],
    axis_labels: tuple[str, str],
) -> Figure:
    found = {(row["name"], row["metric"]): row for row in rows}
    with styled():
        figure, (axis,) = _new(7.2, 2.7)
        width = 0.82 / max(len(names), 1)
        for number, name in enumerate(names):
            shown = [found.get((name, metric)) for metric in metrics]
            place = np.arange(len(metrics)) - 0.41 + (number + 0.5) * width
            value = np.array([np.nan if r is None else r["value"] or np.nan for r in shown])
            axis.bar(
                place,
                np.nan_to_num(value),
                width * 0.92,
                color=COLOURS[_ORDER[number % len(_ORDER)]],
                label=name,
                linewidth=0,
            )
            for x, row in zip(place, shown, strict=True):
                if row is not None and row.get("low") is not None:
                    axis.plot([x, x], [row["low"], row["high"]], color=INK, linewidth=0.8)
        axis.set_xticks(range(len(metrics)), list(labels))
        axis.tick_params(axis="x", length=0)
        axis.set_xlabel(axis_labels[0])
        axis.set_ylabel(axis_labels[1])
        axis.set_ylim(0, None)
        figure.legend(loc="outside upper left", ncols=min(len(names), 5))
    return figure
