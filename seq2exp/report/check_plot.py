"""Pictures of the causal checks: mask and effect, elements and decoys, gain and loss, swaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.report.style import COLOURS, GREY, INK, LIGHT, save_figure, styled
from seq2exp.training.metrics import spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_check", "write_check_plots"]

Float = NDArray[np.float64]


def write_check_plots(
    sites: pd.DataFrame,
    swaps: pd.DataFrame,
    samples: Sequence[str],
    folder: Path,
    *,
    unit: str = "expression",
) -> None:
    """Write check.png and check.svg; the arguments are those of :func:`plot_check`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(plot_check(sites, swaps, samples, unit=unit), folder / "check")


def plot_check(
    sites: pd.DataFrame,
    swaps: pd.DataFrame,
    samples: Sequence[str],
    *,
    unit: str = "expression",
) -> Figure:
    """Draw up to four panels.

    Parameters
    ----------
    sites, swaps : DataFrame
        Of :class:`seq2exp.interpret.checks.Checked`.
    samples : sequence of str
        Outputs of the run.
    unit : str
        Unit of predictions, for the axes.
    """
    from matplotlib.figure import Figure as NewFigure

    tested = sites[sites["status"] == "ok"]
    element, decoy = (tested[tested["kind"] == kind] for kind in ("element", "decoy"))
    with styled():
        figure = NewFigure(figsize=(7.2, 5.6), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        _mask_panel(axes[0], element, decoy, unit)
        _effect_panel(axes[1], element, decoy, unit)
        _gain_panel(axes[2], element, decoy)
        _swap_panel(axes[3], element, swaps, samples)
    return figure


def _scatter(axis: Axes, first: pd.Series, second: pd.Series, colour: str, label: str) -> None:
    axis.scatter(
        first, second, s=7, alpha=0.5, linewidth=0, color=COLOURS[colour],
        label=f"{label} ({len(first):,})", rasterized=len(first) > 2000,
    )  # fmt: skip


def _correlation(axis: Axes, first: Float, second: Float, where: str = "") -> None:
    rho = spearman(first, second) if len(first) > 2 else np.nan
    axis.text(
        0.03, 0.97, f"Spearman {rho:.2f}{where}", transform=axis.transAxes, va="top", color=INK
    )


def _empty(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", color=GREY)
    axis.set(xticks=[], yticks=[])


def _mask_panel(axis: Axes, element: pd.DataFrame, decoy: pd.DataFrame, unit: str) -> None:
    axis.set_title("Mask and effect of deletion")
    both = pd.concat([element, decoy])
    if both["mask_mean"].isna().all():
        _empty(axis, "the model has no mask")
        return
    _scatter(axis, decoy["mask_mean"], decoy["effect"], "sky", "decoys")
    _scatter(axis, element["mask_mean"], element["effect"], "vermilion", "elements")
    _correlation(axis, both["mask_mean"].to_numpy(), both["effect"].to_numpy())
    axis.set_xlabel("mean mask")
    axis.set_ylabel(f"|change of prediction| ({unit})")
    axis.legend(loc="upper center")


def _effect_panel(axis: Axes, element: pd.DataFrame, decoy: pd.DataFrame, unit: str) -> None:
    axis.set_title("Effect by distance from the TSS")
    for part, colour, label in ((decoy, "sky", "decoys"), (element, "vermilion", "elements")):
        _scatter(axis, part["distance"] / 1000, part["delta"], colour, label)
    axis.axhline(0, color=LIGHT, linewidth=1, zorder=0)
    axis.set_xlabel("distance from the TSS (kb, negative upstream)")
    axis.set_ylabel(f"change when deleted ({unit})")


def _gain_panel(axis: Axes, element: pd.DataFrame, decoy: pd.DataFrame) -> None:
    axis.set_title("Needed and sufficient")
    if element["gain"].isna().all():
        _empty(axis, "sufficiency was left out")
        return
    for part, colour, label in ((decoy, "sky", "decoys"), (element, "vermilion", "elements")):
        _scatter(axis, -part["delta"], part["gain"], colour, label)
    _correlation(axis, -element["delta"].to_numpy(), element["gain"].to_numpy(), " (elements)")
    axis.axline((0, 0), slope=1, color=LIGHT, linewidth=1, zorder=0)
    axis.set_xlabel("loss when deleted")
    axis.set_ylabel("gain beside the promoter alone")


def _swap_panel(
    axis: Axes, element: pd.DataFrame, swaps: pd.DataFrame, samples: Sequence[str]
) -> None:
    axis.set_title("Elements in another gene")
    if swaps.empty:
        _empty(axis, "no element was swapped")
        return
    loss = -element.drop_duplicates("name").set_index("name")["delta"]
    there = swaps[[f"effect_there:{sample}" for sample in samples]].mean(axis=1)
    home, place = swaps["donor"].map(loss), swaps["name"].map(loss)
    _scatter(axis, place, there, "sky", "against the effect of the place")
    _scatter(axis, home, there, "green", "against the effect at home")
    axis.axline((0, 0), slope=1, color=LIGHT, linewidth=1, zorder=0)
    axis.set_xlabel("loss when deleted, at home or in the place")
    axis.set_ylabel("effect in the other gene")
    axis.set_ylim(top=1.3 * max(axis.get_ylim()[1], 0))
    axis.legend(loc="upper left")
