"""What a section looks like: the tissue, its spots, and the patches that a system sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.report.style import GREY, INK, styled
from seq2exp.report.tissue import MICROMETRE, Tissue, draw_spots, draw_tissue, nice_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_section"]

_WIDTH = 8.0


def plot_section(
    tissue: Tissue,
    counts_N: NDArray[np.float64],
    *,
    patches: NDArray[np.uint8],
    rows: NDArray[np.int64],
    patch_um: float,
    title: str,
    note: str = "",
) -> Figure:
    """Draw the plain tissue, beside it the spots coloured by counts, and patches below.

    Parameters
    ----------
    tissue : Tissue
    counts_N : float64 array, shape (num_spots,)
        Counts of every spot; those without any are rings.
    patches : uint8 array, shape (num_patches, px, px, 3)
        As systems see them.
    rows : int64 array, shape (num_patches,)
        Their spots.
    patch_um : float
        Side of a patch in micrometres.
    title, note : str
        Above the pictures.
    """
    from matplotlib.figure import Figure as NewFigure

    with styled():
        above, below = 0.425 * _WIDTH * tissue.aspect + 0.8, _WIDTH / max(len(rows), 6) + 0.6
        figure = NewFigure(figsize=(_WIDTH, above + below), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[above, below])
        pictures, strip = parts
        _pictures(pictures, tissue, counts_N, rows, patch_um)
        heading = title if not note else f"{title}\n{note}"
        pictures.suptitle(heading, x=0.006, ha="left", fontsize=9)
        _strip(strip, patches, rows, counts_N, patch_um)
    return figure


def _pictures(
    figure: SubFigure,
    tissue: Tissue,
    counts_N: NDArray[np.float64],
    rows: NDArray[np.int64],
    patch_um: float,
) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain, spots = figure.subplots(1, 2)
    draw_tissue(plain, tissue)
    plain.set_title("tissue, and where the patches below are from")
    _mark(plain, tissue, rows, patch_um)
    draw_tissue(spots, tissue, faded=True)
    known = counts_N[counts_N > 0]
    spots.set_title(f"{len(counts_N):,} spots" + ("" if known.size else ", no counts"))
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    norm = LogNorm(low, high if high > low else 2 * low)
    shown = np.where(counts_N > 0, counts_N, np.nan)
    discs = draw_spots(spots, tissue, shown, norm=norm)
    if not known.size:
        return
    bar = figure.colorbar(discs, ax=[plain, spots], location="right", shrink=0.7, aspect=24)
    bar.set_label("counts of the spot, all genes")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _mark(axis: Axes, tissue: Tissue, rows: NDArray[np.int64], patch_um: float) -> None:
    """Frame the tissue of the patches shown, and number them."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    side = patch_um / tissue.um_per_px
    for number, (x, y) in enumerate(tissue.xy_N2[rows], start=1):
        frame = Rectangle(
            (x - side / 2, y - side / 2), side, side, fill=False, edgecolor=INK, linewidth=0.8
        )
        axis.add_patch(frame)
        axis.text(
            x, y - side / 2, str(number), ha="center", va="bottom", fontsize=7, fontweight="bold",
            path_effects=[withStroke(linewidth=1.6, foreground="white")],
        )  # fmt: skip


def _strip(
    figure: SubFigure,
    patches: NDArray[np.uint8],
    rows: NDArray[np.int64],
    counts_N: NDArray[np.float64],
    patch_um: float,
) -> None:
    from matplotlib.patheffects import withStroke

    px = patches.shape[1]
    figure.suptitle(
        f"patches as systems see them: {patch_um:g} {MICROMETRE} of tissue in {px} x {px} pixels",
        x=0.006, ha="left", fontsize=9, fontweight="bold",
    )  # fmt: skip
    axes = figure.subplots(1, max(len(rows), 6))
    for axis in axes[len(rows) :]:
        axis.set_visible(False)
    length = nice_length(0.4 * patch_um)
    for number, (axis, patch, row) in enumerate(zip(axes, patches, rows, strict=False), start=1):
        axis.imshow(patch, extent=(0, patch_um, patch_um, 0), interpolation="antialiased")
        axis.set(xticks=[], yticks=[], xlim=(0, patch_um), ylim=(patch_um, 0))
        axis.set_title(f"{number}", fontsize=8)
        axis.set_xlabel(f"{counts_N[row]:,.0f} counts", fontsize=7, color=GREY)
        if number == 1:
            halo = [withStroke(linewidth=2.5, foreground="white")]
            axis.plot(
                [0.06 * patch_um, 0.06 * patch_um + length], [0.94 * patch_um] * 2, linewidth=1.6,
                color=INK, solid_capstyle="butt", gid="scale bar", path_effects=halo,
            )  # fmt: skip
            axis.text(
                0.06 * patch_um, 0.9 * patch_um, f"{length:g} {MICROMETRE}", fontsize=6.5,
                va="bottom", path_effects=halo,
            )  # fmt: skip
