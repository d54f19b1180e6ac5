"""Draw the walk of one gene: docs/images/walk.png. A scheme, no data.

python docs/images/walk.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, GREEN, GREY, INK = "#0072b2", "#d55e00", "#009e73", "#8a8f98", "#22262b"
LEFT, WIDTH = 3.55, 5.2
PEAKS = (
    (0.18, 0.9, 0.9),
    (0.36, 0.75, 0.05),
    (0.5, 1.0, 1.0),
    (0.68, 0.6, 0.75),
    (0.86, 0.85, 0.08),
)


def main() -> None:
    """Draw and save."""
    plt.rcParams.update({"font.size": 10})
    figure, axes = plt.subplots(figsize=(11, 5.6))
    axes.set(xlim=(0, 11.6), ylim=(0.3, 6.0))
    axes.axis("off")
    sources(axes)
    window(axes)
    results(axes)
    figure.savefig(Path(__file__).parent / "walk.png", bbox_inches="tight", dpi=150)


def box(
    axes: Axes, x: float, y: float, text: str, *, width: float, height: float, color: str
) -> None:
    """Draw a box with a text."""
    shape = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0.02,rounding_size=0.08",
        fc="white",
        ec=color,
        lw=1.6,
    )
    axes.add_patch(shape)
    axes.text(
        x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, linespacing=1.35
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, lw=1.4, color=GREY)
    )


def sources(axes: Axes) -> None:
    """Draw raw files and the dataset."""
    names = "FASTA\nGTF\nbigWig tracks\nexpression\ncontacts, BED"
    box(axes, 0.1, 3.75, names, width=1.5, height=1.75, color=GREY)
    axes.text(0.85, 5.72, "raw files", ha="center", color=GREY)
    box(axes, 0.1, 1.2, "dataset/\narrays and\ntables", width=1.5, height=1.15, color=INK)
    arrow(axes, (0.85, 3.7), (0.85, 2.42))
    axes.text(0.98, 3.05, "prepare", va="center", color=GREY)
    arrow(axes, (1.68, 2.1), (2.32, 4.2))
    axes.text(2.42, 5.72, "one gene, centred on its TSS", color=GREY)


def window(axes: Axes) -> None:
    """Draw what happens to one window."""
    x = np.linspace(0, 1, 400)
    wave = 0.03 + 0.02 * np.sin(60 * x)
    signal = wave + sum(h * np.exp(-(((x - c) / 0.018) ** 2)) for c, h, _ in PEAKS)
    at = LEFT + WIDTH * x
    random = np.random.default_rng(1)
    bases = "".join(random.choice(list("ACGT"), 52))
    axes.text(2.42, 5.15, "DNA", va="center")
    axes.text(LEFT, 5.15, bases, va="center", family="monospace", fontsize=9.2, color=GREY)
    axes.text(2.42, 4.35, "tracks", va="center")
    axes.fill_between(at, 4.1, 4.1 + 0.6 * signal, color=BLUE, lw=0)
    box(
        axes,
        3.55,
        3.2,
        "generator: Mamba blocks, both directions",
        width=WIDTH,
        height=0.42,
        color=GREEN,
    )
    axes.text(2.42, 2.5, "mask", va="center")
    bins = (np.arange(52) + 0.5) / 52
    mask = 0.04 + sum(m * (np.abs(bins - c) < 0.021) for c, _, m in PEAKS)
    forced = np.abs(bins - 0.5) < 0.05
    heights = np.where(forced, 1.0, np.minimum(mask, 1.0))
    colors = [GREY if flag else ORANGE for flag in forced]
    axes.bar(LEFT + WIDTH * bins, 0.55 * heights, bottom=2.2, width=WIDTH / 52 * 0.82, color=colors)
    axes.text(LEFT + WIDTH * 0.5, 1.98, "TSS", ha="center", va="center", fontsize=9, color=GREY)
    for place, text in ((0.18, "kept"), (0.36, "open, but\nnot needed"), (0.68, "kept")):
        axes.text(LEFT + WIDTH * place, 1.93, text, ha="center", va="top", fontsize=8.5, color=GREY)
    box(
        axes,
        3.55,
        0.85,
        "predictor: reads DNA and tracks through the mask",
        width=WIDTH,
        height=0.42,
        color=GREEN,
    )
    arrow(axes, (LEFT + WIDTH * 0.5, 4.02), (LEFT + WIDTH * 0.5, 3.68))
    arrow(axes, (LEFT + WIDTH * 0.5, 3.16), (LEFT + WIDTH * 0.5, 2.82))
    arrow(axes, (LEFT + WIDTH * 0.5, 1.85), (LEFT + WIDTH * 0.5, 1.33))


def results(axes: Axes) -> None:
    """Draw what comes out."""
    box(
        axes,
        9.7,
        2.15,
        "element map\nBED, bigWig,\nBEDPE, plots",
        width=1.7,
        height=1.1,
        color=ORANGE,
    )
    box(axes, 9.7, 0.55, "expression\nper biosample", width=1.7, height=0.95, color=BLUE)
    arrow(axes, (8.85, 2.6), (9.6, 2.7))
    arrow(axes, (8.85, 1.06), (9.6, 1.03))


if __name__ == "__main__":
    main()
