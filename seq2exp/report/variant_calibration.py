"""Picture of the calibration of p-values: sorted ones against uniform ones, shares below levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.report.style import COLOURS, GREY, INK, LIGHT, save_figure, styled
from seq2exp.variants.calibration import LEVELS, calibration_table, quantile_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_calibration", "write_calibration"]

_ORDER = ("blue", "vermilion", "green", "purple", "orange", "sky")
# Points of a quantile plot: all small p, and of the many large ones so many.
_MOST_POINTS = 2000

Floats = NDArray[np.float64]


def plot_calibration(
    p: Mapping[str, ArrayLike],
    *,
    step: Mapping[str, float] | float = 0.0,
    levels: Sequence[float] = LEVELS,
    groups: NDArray[np.object_] | None = None,
) -> Figure:
    """Draw two panels: sorted p-values against expected ones, and shares below levels.

    Parameters
    ----------
    p : mapping of name to float array
        p-values of variants without effect first, whose number the band is for; then others, at
        most 6 in all. NaN do not count.
    step : float, or mapping of name to float
        Of which p-values are multiples: :func:`seq2exp.variants.calibration.expected_share`.
    levels : sequence of float
        Of the right panel; those below a step are left out, as no p-value can be below them.
    groups : array, optional
        For the intervals of the right panel; as for
        :func:`seq2exp.variants.calibration.calibration_table`.

    Raises
    ------
    InputError
        No p-values, or more kinds than colours.
    """
    from matplotlib.figure import Figure as NewFigure

    known = {name: _known(values) for name, values in p.items()}
    known = {name: values for name, values in known.items() if values.size}
    if not 0 < len(known) <= len(_ORDER):
        raise InputError(
            facts("plot of calibration", found=f"{len(known)} sets of p-values",
                  expected=f"1 to {len(_ORDER)}, with values", fix="choose other sets")
        )  # fmt: skip
    steps = {name: step[name] if isinstance(step, Mapping) else step for name in known}
    with styled():
        figure = NewFigure(figsize=(7.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _sorted_panel(left, known, steps)
        _share_panel(right, {name: p[name] for name in known}, steps, levels, groups)
    return figure


def write_calibration(
    p: Mapping[str, ArrayLike],
    folder: Path,
    *,
    step: Mapping[str, float] | float = 0.0,
    groups: NDArray[np.object_] | None = None,
) -> pd.DataFrame:
    """Write calibration.png, .svg and .tsv; return the table, one row for each name and level.

    Parameters
    ----------
    p, step
        As for :func:`plot_calibration`.
    folder : Path
    groups : array, optional
        As for :func:`seq2exp.variants.calibration.calibration_table`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(plot_calibration(p, step=step, groups=groups), folder / "calibration")
    tables = [
        calibration_table(
            values, step=step[name] if isinstance(step, Mapping) else step, groups=groups
        ).assign(name=name)
        for name, values in p.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "name", table.pop("name"))
    table.to_csv(folder / "calibration.tsv", sep="\t", index=False)
    return table


def _known(values: ArrayLike) -> Floats:
    numbers = np.asarray(values, np.float64)
    return np.sort(numbers[~np.isnan(numbers)])


def _thinned(num: int) -> NDArray[np.int64]:
    """Ranks to draw, dense where p is small."""
    if num <= _MOST_POINTS:
        return np.arange(num)
    return np.unique(np.geomspace(1, num, _MOST_POINTS).astype(np.int64)) - 1


def _sorted_panel(axis: Axes, known: dict[str, Floats], steps: dict[str, float]) -> None:
    most = max(values.size for values in known.values())
    largest = 0.0
    expected, low, high = quantile_band(next(iter(known.values())).size)
    axis.fill_between(-np.log10(expected), -np.log10(high), -np.log10(low), color=LIGHT, alpha=0.6,
                      linewidth=0, label=f"95 % of {expected.size:,} uniform p")  # fmt: skip
    if floor := min(steps.values()):
        axis.axhline(-np.log10(floor), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1,
                     label=f"smallest possible p, {floor:.2g}")  # fmt: skip
    for (name, values), colour in zip(known.items(), _ORDER, strict=False):
        ranks = _thinned(values.size)
        there = -np.log10((ranks + 1) / (values.size + 1))
        seen = -np.log10(np.maximum(values[ranks], 1e-300))
        largest = max(largest, float(seen.max()))
        axis.plot(there, seen, ".", color=COLOURS[colour], markersize=3, rasterized=most > 500,
                  label=f"{name} (n = {values.size:,})")  # fmt: skip
    limit = 1.05 * max(largest, float(np.log10(most + 1)))
    axis.plot([0, limit], [0, limit], color=GREY, linewidth=0.8, zorder=1)
    axis.set(title="Sorted p-values", xlim=(0, 1.05 * np.log10(most + 1)), ylim=(0, limit))
    axis.set_xlabel("expected, -log10 p")
    axis.set_ylabel("observed, -log10 p")
    axis.legend(loc="upper left")


def _share_panel(
    axis: Axes,
    sets: Mapping[str, ArrayLike],
    steps: dict[str, float],
    levels: Sequence[float],
    groups: NDArray[np.object_] | None,
) -> None:
    axis.set_title("Share of p-values below a level")
    least = 1.0
    for place, ((name, values), colour) in enumerate(zip(sets.items(), _ORDER, strict=False)):
        table = calibration_table(values, levels=levels, step=steps[name], groups=groups)
        table = table[table["expected"] > 0]
        least = min(least, float(table["expected"].min()))
        # Side by side where several sets have the same levels.
        shift = 1.06 ** (place - (len(sets) - 1) / 2)
        spread = [table["observed"] - table["low"], table["high"] - table["observed"]]
        axis.errorbar(
            table["expected"] * shift, table["observed"], yerr=spread, fmt="o", markersize=3.5,
            linewidth=1, color=COLOURS[colour], label=name,
        )  # fmt: skip
    ends = np.array([least / 3, 1.2])
    axis.plot([ends[0], 1], [ends[0], 1], color=GREY, linewidth=0.8, zorder=1)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axis.set_xlabel("expected")
    axis.set_ylabel("observed, with 95 % interval")
    axis.text(0.97, 0.04, "above the line: too many small p", transform=axis.transAxes, ha="right",
              color=INK, fontsize=7)  # fmt: skip
