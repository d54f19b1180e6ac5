"""A gene over tissue: what was observed, what was predicted, and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.report.style import GREY, styled
from seq2exp.report.tissue import (
    Tissue,
    centred_limits,
    colour_bar,
    draw_spots,
    draw_tissue,
    pooled_limits,
)
from seq2exp.training.metrics import pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GeneOnSection", "plot_gene"]

Floats = NDArray[np.float64]
_PANEL = 2.5


@dataclass(frozen=True, eq=False)
class GeneOnSection:
    """A gene on a section.

    Attributes
    ----------
    section : str
    tissue : Tissue
    predicted_N : float64 array, shape (num_spots,)
    observed_N, sd_N : float64 arrays, shape (num_spots,), or None
        NaN where not known.
    how : str
        How the prediction was made, such as held out.
    """

    section: str
    tissue: Tissue
    predicted_N: Floats
    observed_N: Floats | None = None
    sd_N: Floats | None = None
    how: str = ""

    @property
    def correlation(self) -> float | None:
        """Pearson correlation across spots with both; None without any observed value."""
        if self.observed_N is None:
            return None
        known = np.isfinite(self.observed_N) & np.isfinite(self.predicted_N)
        if known.sum() < 3:
            return None
        return float(pearson(self.observed_N[known], self.predicted_N[known]))


def plot_gene(
    gene: str,
    sections: Sequence[GeneOnSection],
    *,
    unit: str,
    note: str = "",
    spread: str = "deviation",
) -> Figure:
    """Draw a gene on sections, one row each, under common colour scales.

    Observed and predicted share one scale; the difference has its own, of equal length around 0.

    Parameters
    ----------
    gene : str
        Title.
    sections : sequence of GeneOnSection
    unit : str
        Of the values.
    note : str
        Below the title.
    spread : str
        What ``sd_N`` is.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure as NewFigure

    predicted = [row.predicted_N for row in sections]
    observed = [row.observed_N for row in sections if row.observed_N is not None]
    sds = [row.sd_N for row in sections if row.sd_N is not None]
    differences = [
        row.predicted_N - row.observed_N for row in sections if row.observed_N is not None
    ]
    values = Normalize(*pooled_limits(*predicted, *observed))
    kinds: list[tuple[str, Normalize, str, str, list[Floats]]] = []
    if observed:
        kinds.append(("observed", values, "viridis", unit, [*predicted, *observed]))
    kinds.append(("predicted", values, "viridis", unit, [*predicted, *observed]))
    if differences:
        limits = centred_limits(*differences)
        kinds.append(("difference", Normalize(*limits), "RdBu_r", "predicted - observed",
                      differences))  # fmt: skip
    if sds:
        kinds.append(("sd", Normalize(*pooled_limits(*sds)), "magma", spread, sds))
    with styled():
        tall = sum(_PANEL * row.tissue.aspect + 0.48 for row in sections)
        size = (max(_PANEL * len(kinds) + 0.4, 4.4), tall + 0.95)
        figure = NewFigure(figsize=size, layout="constrained")
        axes = figure.subplots(len(sections), len(kinds), squeeze=False)
        drawn: dict[str, Any] = {}
        for row, line in zip(sections, axes, strict=True):
            line[0].set_ylabel(row.section, fontsize=9, fontweight="bold")
            for axis, (kind, norm, colours, *_) in zip(line, kinds, strict=True):
                discs = _panel(axis, row, kind, norm=norm, colours=colours)
                drawn[kind] = discs if discs is not None else drawn.get(kind)
        _bars(figure, axes, kinds, drawn)
        heading = f"{gene}\n{note}" if note else gene
        figure.suptitle(heading, x=0.01, ha="left", fontsize=9)
    return figure


def _panel(axis: Axes, row: GeneOnSection, kind: str, *, norm: Any, colours: str) -> Any:  # noqa: ANN401
    shown = {"observed": row.observed_N, "predicted": row.predicted_N, "sd": row.sd_N}
    values = shown.get(kind)
    if kind == "difference" and row.observed_N is not None:
        values = row.predicted_N - row.observed_N
    if values is None:
        axis.set_axis_off()
        return None
    draw_tissue(axis, row.tissue, faded=True)
    title = "spread" if kind == "sd" else kind
    if kind == "predicted":
        r = row.correlation
        if r is not None:
            title += f", r = {r:.2f}" if np.isfinite(r) else ", r undefined"
        axis.set_xlabel(row.how, fontsize=7, color=GREY, loc="right")
    axis.set_title(title)
    return draw_spots(axis, row.tissue, values, norm=norm, colours=colours)


def _bars(figure: Figure, axes: Any, kinds: Sequence[Any], drawn: dict[str, Any]) -> None:  # noqa: ANN401
    """One bar below each column; one for observed and predicted together."""
    names = [kind for kind, *_ in kinds]
    for place, (kind, _, _, label, values) in enumerate(kinds):
        if kind == "observed":
            continue
        shared = kind == "predicted" and "observed" in names
        columns = [place - 1, place] if shared else [place]
        chosen = [axes[line][column] for line in range(len(axes)) for column in columns]
        colour_bar(figure, drawn[kind], chosen, unit=label, values=values,
                   shrink=0.4 if shared else 0.8)  # fmt: skip
