"""Picture of a comparison of spatial systems: an interval per system, controls as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seq2exp.report.style import COLOURS, GREY, INK, LIGHT, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_recall", "plot_systems"]

_PANELS = {
    "pearson": "Pearson across spots",
    "pearson_partial": "Depth-partial Pearson across spots",
}
_Rows = Mapping[tuple[str, str], Mapping[str, Any]]


def plot_systems(
    rows: Sequence[Mapping[str, Any]], systems: Sequence[str], *, reference: str, note: str
) -> Figure:
    """Draw correlation and depth-partial correlation of every system.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the comparison: name, metric, value, low, high.
    systems : sequence of str
        Names, from top to bottom; controls of a system (``SYSTEM: CONTROL``) follow it, in grey.
    reference : str
        System that is also drawn as a line.
    note : str
        Folds and number of patients, below the panels.
    """
    from matplotlib.figure import Figure as NewFigure

    found = {(row["name"], row["metric"]): row for row in rows}
    shuffled = ": shuffled patches"
    lines = []
    for system in systems:
        lines.append(system)
        lines += [
            name
            for name, metric in found
            if metric == "pearson" and name.startswith(f"{system}: ") and shuffled not in name
        ]
    with styled():
        figure = NewFigure(figsize=(7.2, 1.35 + 0.27 * len(lines)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (metric, title) in zip(axes, _PANELS.items(), strict=True):
            _band(axis, [found.get((f"{name}{shuffled}", metric)) for name in systems])
            _line(axis, found.get((reference, metric)), reference, COLOURS["blue"], (0, (4, 2)))
            if metric == "pearson":
                _line(
                    axis, found.get(("depth", metric)), "depth", COLOURS["vermilion"], (0, (1, 1))
                )
            axis.axvline(0, color=GREY, linewidth=0.9, label="train mean (0)", zorder=1)
            for place, name in enumerate(lines[::-1]):
                own = name in systems
                colour = COLOURS["blue"] if name == reference else INK if own else GREY
                _interval(axis, place, found.get((name, metric)), colour)
            axis.set_title(title)
            axis.set_xlabel("mean over genes, sections, patients")
        axes[0].set_yticks(range(len(lines)), lines[::-1])
        axes[0].set_ylim(-0.6, len(lines) - 0.4)
        for axis in axes:
            axis.tick_params(axis="y", length=0)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        figure.supxlabel(note, fontsize=7, color=GREY, x=0.01, ha="left")
    return figure


def plot_recall(rows: Sequence[Mapping[str, Any]], *, title: str, note: str) -> Figure:
    """Draw the recall of every arm in both directions, with chance.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of one metric per direction: name, direction, chance, value, low, high; those named
        ``ARM: shuffled pairs`` are drawn in grey below their arm.
    title, note : str
    """
    from matplotlib.figure import Figure as NewFigure

    shuffled = ": shuffled pairs"
    names = [name for name in dict.fromkeys(row["name"] for row in rows) if shuffled not in name]
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    with styled():
        figure = NewFigure(figsize=(7.2, 1.35 + 0.27 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
        for axis, direction in zip(axes, directions, strict=True):
            found = {row["name"]: row for row in rows if row["direction"] == direction}
            chance = next(iter(found.values()))["chance"]
            label = f"chance {chance:.3f}"
            axis.axvline(
                chance, color=COLOURS["vermilion"], linewidth=1, linestyle=(0, (4, 2)), label=label
            )
            for place, name in enumerate(names[::-1]):
                _interval(axis, place - 0.22, found.get(f"{name}{shuffled}"), LIGHT)
                _interval(axis, place, found.get(name), INK)
            axis.plot([], [], "o-", color=LIGHT, linewidth=1.6, markersize=4.5, label=shuffled[2:])
            axis.set_xlim(0, None)
            axis.set_title(direction)
            axis.set_xlabel(title)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(names)), names[::-1])
        axes[0].set_ylim(-0.6, len(names) - 0.4)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        figure.supxlabel(note, fontsize=7, color=GREY, x=0.01, ha="left")
    return figure


def _interval(axis: Axes, place: float, row: Mapping[str, Any] | None, colour: str) -> None:
    if row is None or row["value"] is None:
        return
    if row["low"] is not None:
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6, zorder=3)
    axis.plot(row["value"], place, "o", color=colour, markersize=4.5, zorder=4)


def _line(
    axis: Axes,
    row: Mapping[str, Any] | None,
    label: str,
    colour: str,
    style: Any,  # noqa: ANN401
) -> None:
    if row is not None and row["value"] is not None:
        axis.axvline(
            row["value"], color=colour, linewidth=1, linestyle=style, label=label, zorder=2
        )


def _band(axis: Axes, rows: Sequence[Mapping[str, Any] | None]) -> None:
    """Shade what the systems reach with exchanged patches: from the least to the largest bound."""
    known = [row for row in rows if row is not None and row["low"] is not None]
    if known:
        low, high = min(row["low"] for row in known), max(row["high"] for row in known)
        axis.axvspan(low, high, color=LIGHT, linewidth=0, label="shuffled patches", zorder=0)
