"""Sequence logos: letters as outlines, of any height, upwards and downwards.

Shapes: L positions, C the four bases A C G T.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import ALPHABET, NUM_BASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BASE_COLOURS", "draw_logo", "information", "save_logo", "styled"]

BASE_COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
"""Four of the colours of Okabe and Ito, which readers with any kind of colour vision can tell."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "seq2exp",
}


def styled() -> Any:  # noqa: ANN401  a context of matplotlib
    """Return a context with the look of the pictures of this room."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def information(probabilities_LC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the heights of a logo: probability times the information of its column, in bits.

    Parameters
    ----------
    probabilities_LC : float array, shape (length, 4)
        Rows sum to 1.
    """
    safe = np.where(probabilities_LC > 0, probabilities_LC, 1.0)
    bits = 2 + (probabilities_LC * np.log2(safe)).sum(axis=1, keepdims=True)
    heights: NDArray[np.float64] = probabilities_LC * bits
    return heights


def draw_logo(axes: Axes, heights_LC: NDArray[np.floating], *, start: float = 0) -> None:
    """Draw letters with the given heights; negative ones hang below the line, upside up.

    Parameters
    ----------
    axes : Axes
    heights_LC : float array, shape (length, 4)
        Columns A C G T. In each column the largest letter is the outermost.
    start : float
        Coordinate of the left edge of the first letter.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.transforms import Affine2D

    glyphs = _glyphs()
    for place, row in enumerate(np.nan_to_num(heights_LC)):
        for sign in (1, -1):
            edge = 0.0
            signed = [(abs(row[b]), b) for b in range(NUM_BASES) if row[b] * sign > 0]
            for height, base in sorted(signed):
                low = edge if sign > 0 else -edge - height
                move = Affine2D().scale(1.0, height).translate(start + place, low)
                axes.add_patch(
                    PathPatch(
                        move.transform_path(glyphs[base]),
                        facecolor=BASE_COLOURS[ALPHABET[base]],
                        edgecolor="none",
                    )
                )
                edge += height
    total_up = np.clip(heights_LC, 0, None).sum(axis=1).max(initial=0)
    total_down = np.clip(heights_LC, None, 0).sum(axis=1).min(initial=0)
    room = 0.05 * ((total_up - total_down) or 1.0)
    axes.set_xlim(start, start + len(heights_LC))
    axes.set_ylim(total_down - (room if total_down < 0 else 0), total_up + room)
    axes.axhline(0, color="#6B6B6B", linewidth=0.5)


def _glyphs() -> list[Any]:
    """Outlines of A C G T, each filling a box one wide (with a small gap) and one high."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import TextPath
    from matplotlib.transforms import Affine2D

    font = FontProperties(family="DejaVu Sans", weight="bold")
    outlines = []
    for letter in ALPHABET:
        path = TextPath((0, 0), letter, size=1, prop=font)
        box = path.get_extents()
        fit = Affine2D().translate(-box.x0, -box.y0).scale(0.94 / box.width, 1 / box.height)
        outlines.append(fit.translate(0.03, 0).transform_path(path))
    return outlines


def save_logo(
    path: Path,
    heights_LC: NDArray[np.floating],
    *,
    title: str,
    ylabel: str,
    start: int = 0,
    xlabel: str = "position, bp",
) -> None:
    """Write one logo as PNG and SVG.

    Parameters
    ----------
    path : Path
        Without suffix.
    heights_LC : float array, shape (length, 4)
    title, ylabel, xlabel : str
        The labels carry the units.
    start : int
        Coordinate of the first letter.
    """
    from matplotlib.figure import Figure

    with styled():
        width = float(np.clip(0.09 * len(heights_LC), 2.5, 14))
        figure: Figure = Figure(figsize=(width, 1.9), layout="constrained")
        axes = figure.subplots()
        draw_logo(axes, heights_LC, start=start)
        axes.set_title(title)
        axes.set_ylabel(ylabel)
        axes.set_xlabel(xlabel)
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("png", "svg"):
            metadata = {"Date": None} if suffix == "svg" else {}
            figure.savefig(path.with_name(f"{path.name}.{suffix}"), metadata=metadata)
