"""Concentrations of stains over tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seq2exp.report.style import styled
from seq2exp.report.tissue import Tissue, add_scale_bar, draw_tissue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["plot_concentrations"]

_PANEL = 3.0
_EMPTY = "#E3EEF6"


def plot_concentrations(
    tissue: Tissue, maps_QHW: NDArray[np.float32], *, labels: Sequence[str], title: str
) -> Figure:
    """Draw the tissue and beside it each map: dark where there is much, pale blue where none is.

    Parameters
    ----------
    tissue : Tissue
    maps_QHW : float32 array, shape (num_maps, height, width)
        On the pixels of the tissue; NaN where there is none.
    labels : sequence of str
        Titles of the maps.
    title : str
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as NewFigure

    height, width = tissue.pixels_HW3.shape[:2]
    with styled():
        size = (_PANEL * (1 + len(maps_QHW)), _PANEL * tissue.aspect + 1.35)
        figure = NewFigure(figsize=size, layout="constrained")
        axes = figure.subplots(1, 1 + len(maps_QHW))
        draw_tissue(axes[0], tissue)
        axes[0].set_title("tissue\n")
        colours = mpl.colormaps["gray_r"].with_extremes(bad=_EMPTY)
        for axis, values, label in zip(axes[1:], maps_QHW, labels, strict=True):
            low, high = map(float, np.nanquantile(values, [0.01, 0.99]))
            shown = axis.imshow(
                values, extent=(0, width, height, 0), cmap=colours, vmin=low,
                vmax=high if high > low else low + 1, interpolation="antialiased",
            )  # fmt: skip
            axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], title=label)
            for side in axis.spines.values():
                side.set_visible(False)
            add_scale_bar(axis, tissue)
            _bar(figure, shown, axis)
        # The same room below the tissue, so that the pictures stand side by side.
        _bar(figure, shown, axes[0]).ax.set_visible(False)
        figure.suptitle(title, x=0.006, ha="left", fontsize=9)
    return figure


def _bar(figure: Figure, shown: AxesImage, axis: Axes) -> Colorbar:
    bar = figure.colorbar(
        shown, ax=axis, location="bottom", shrink=0.7, aspect=24, fraction=0.05, pad=0.02,
        extend="both", extendfrac=0.04,
    )  # fmt: skip
    bar.set_label("concentration after the bend")
    bar.outline.set_visible(False)
    return bar
