"""One look for all pictures: colours, fonts, saving.

The palette is that of Okabe and Ito, made for readers with any kind of colour vision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "GREY", "INK", "LIGHT", "save_figure", "styled"]

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
}
INK = "#222222"
GREY = "#6B6B6B"
LIGHT = "#D9D9D9"

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.4,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    # Text as outlines: looks the same on machines without the font.
    "svg.fonttype": "path",
    "svg.hashsalt": "seq2exp",
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look inside the block; the user's own settings are put back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def save_figure(figure: Figure, path: Path, *, formats: tuple[str, ...] = ("png", "svg")) -> None:
    """Write a figure as ``path`` with each suffix; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    path : Path
        Without suffix.
    formats : tuple of str
        Suffixes: png, svg, pdf.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        for suffix in formats:
            metadata = {"Date": None} if suffix == "svg" else {}
            figure.savefig(path.with_name(f"{path.name}.{suffix}"), metadata=metadata)
