"""Pictures of saturation mutagenesis: a logo of importance above a heat map of all substitutions.

Short regions are shown base by base. Long ones have a line of importance and a heat map of the
whole region, and both base by base for the stretch where importance is strongest.

Positions on axes count from 1, as in browsers. Shapes: P bases, C the four bases A C G T.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import ALPHABET, N_CODE, NUM_BASES
from seq2exp.interpret.logo import draw_logo, styled
from seq2exp.variants.saturation import Saturation
from seq2exp.variants.saturation_files import folder_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_saturation", "save_plots"]

LETTERS_BP = 120
"""Longest stretch that is shown base by base."""
_COLUMNS = 600
_CLIP = 99.0
_INK, _GREY, _LIGHT, _PAPER = "#222222", "#6B6B6B", "#E3E3E3", "#F4F4F4"
_ELEMENT, _ZOOM, _UP, _DOWN = "#009E73", "#F0E442", "#B2182B", "#2166AC"
_COLOURS = "RdBu_r"


def plot_saturation(one: Saturation, label: int) -> Figure:
    """Draw the effects of a region on a gene for one label.

    Parameters
    ----------
    one : Saturation
    label : int
        Number of the label.

    Returns
    -------
    Figure
    """
    with styled():
        return _short(one, label) if len(one.region) <= LETTERS_BP else _long(one, label)


def _short(one: Saturation, label: int) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    num = len(one.region)
    figure = NewFigure(figsize=(max(5.0, 1.5 + 0.075 * num), 3.1), layout="constrained")
    strip, logo, heat = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [0.22, 1.5, 0.8], "hspace": 0.03}
    )
    low = one.region.start
    _strip(strip, one)
    _logo(logo, one, label, low, low + num)
    image = _letters_heat(heat, one, label, low, low + num)
    _colour_bar(figure, image, [logo, heat], one)
    _axis(heat, one, min(8, max(num // 12, 3)))
    strip.set_title(_title(one, label), pad=16)
    return figure


def _long(one: Saturation, label: int) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(8.6, 5.4), layout="constrained")
    strip, line, heat, logo, cells = figure.subplots(
        5, 1, gridspec_kw={"height_ratios": [0.2, 1.2, 0.8, 1.3, 0.8], "hspace": 0.03}
    )
    for axes, other in ((strip, heat), (line, heat), (logo, cells)):
        axes.sharex(other)
    first, last = _strongest_stretch(one, label)
    _strip(strip, one)
    _line(line, one, label)
    image = _whole_heat(heat, one, label)
    for axes in (line, strip):
        axes.axvspan(first + 0.5, last + 0.5, color=_ZOOM, alpha=0.45, linewidth=0, zorder=0)
    _colour_bar(figure, image, [line, heat], one)
    _axis(heat, one, 8)
    strip.set_title(_title(one, label), pad=16)
    logo.set_title(f"strongest {last - first} bp, yellow above")
    _logo(logo, one, label, first, last)
    image = _letters_heat(cells, one, label, first, last)
    _colour_bar(figure, image, [logo, cells], one)
    _axis(cells, one, 8)
    return figure


def _title(one: Saturation, label: int) -> str:
    region, contig = one.region, one.region.contig
    return f"{one.name}, {one.labels[label]}: {contig}:{region.start + 1:,}-{region.end:,}"


def _strip(axes: Axes, one: Saturation) -> None:
    """Draw elements of the gene, its direction and where its TSS is."""
    start, end = one.region.span
    axes.set_xlim(start + 0.5, end + 0.5)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    marker = "<" if one.strand == "-" else ">"
    places = np.linspace(start, end, 14)[1:-1]
    axes.plot([start + 0.5, end + 0.5], [0.5, 0.5], color=_GREY, linewidth=0.7, zorder=1)
    axes.plot(places, np.full(places.size, 0.5), marker, color=_GREY, markersize=2.6, zorder=3)
    runs = _runs(one.element_P == 1)
    for first, stop in runs:
        axes.axvspan(
            start + first + 0.5, start + stop + 0.5, 0.14, 0.86, color=_ELEMENT, linewidth=0,
            alpha=0.85, zorder=2,
        )  # fmt: skip
    known = (one.element_P >= 0).any()
    note = "elements" if runs else "no element" if known else ""
    strand = "minus" if one.strand == "-" else "plus"
    place = f"TSS {one.tss + 1:,}"
    if start <= one.tss < end:
        axes.plot([one.tss + 1] * 2, [0, 1.3], color=_INK, linewidth=1.2, zorder=4, clip_on=False)
        axes.plot(one.tss + 1, 1.3, marker, color=_INK, markersize=4.5, zorder=4, clip_on=False)
    else:
        away = start - one.tss if one.tss < start else one.tss - end + 1
        place += f", {away:,} bp to the {'left' if one.tss < start else 'right'}"
    axes.text(
        1, 1.12, f"{strand} strand; {place}", transform=axes.transAxes, ha="right", va="bottom",
        fontsize=7, color=_GREY,
    )  # fmt: skip
    axes.text(
        -0.008, 0.5, note, transform=axes.transAxes, ha="right", va="center", fontsize=7,
        color=_ELEMENT if runs else _GREY,
    )  # fmt: skip


def _runs(inside_P: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside_P.astype(np.int8), [0]])))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def _logo(axes: Axes, one: Saturation, label: int, low: int, high: int) -> None:
    here = slice(low - one.region.start, high - one.region.start)
    codes, importance = one.codes_P[here], one.importance_PK[here, label]
    heights_PC = np.zeros((codes.size, NUM_BASES))
    known = np.flatnonzero(codes < N_CODE)
    heights_PC[known, codes[known]] = np.nan_to_num(importance[known])
    # A base at 0-based place p is centred on p + 1.
    draw_logo(axes, heights_PC, start=low + 0.5)
    axes.set_ylabel(f"importance,\n{one.unit}")
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _letters_heat(axes: Axes, one: Saturation, label: int, low: int, high: int) -> Any:  # noqa: ANN401  an image of matplotlib
    here = slice(low - one.region.start, high - one.region.start)
    values_PC = one.delta_PCK[here, :, label]
    image = _heat(axes, values_PC, low, high)
    codes = one.codes_P[here]
    known = np.flatnonzero((codes < N_CODE) & ~np.isnan(values_PC).all(axis=1))
    axes.plot(low + known + 1, codes[known], "o", color=_GREY, markersize=1.3, markeredgewidth=0)
    return image


def _whole_heat(axes: Axes, one: Saturation, label: int) -> Any:  # noqa: ANN401  an image
    values_PC = one.delta_PCK[:, :, label]
    wide = -(-len(values_PC) // _COLUMNS)
    if wide > 1:
        values_PC = _extremes(values_PC, wide)
        axes.set_xlabel(f"a column is {wide} bp, the effect with the largest size")
    end = one.region.start + wide * len(values_PC)
    return _heat(axes, values_PC, one.region.start, end)


def _extremes(values_PC: NDArray[np.float32], wide: int) -> NDArray[np.float32]:
    """Of each ``wide`` rows the values with the largest size; NaN where there is none."""
    num = -(-len(values_PC) // wide)
    padded = np.full((num * wide, NUM_BASES), np.nan, dtype=np.float32)
    padded[: len(values_PC)] = values_PC
    blocks = padded.reshape(num, wide, NUM_BASES)
    best = np.where(np.isnan(blocks), -1, np.abs(blocks)).argmax(axis=1)
    found: NDArray[np.float32] = np.take_along_axis(blocks, best[:, None], axis=1)[:, 0]
    return found


def _heat(axes: Axes, values_PC: NDArray[np.float32], low: int, high: int) -> Any:  # noqa: ANN401  an image of matplotlib
    limit = _limit(values_PC)
    axes.set_facecolor(_LIGHT)
    image = axes.imshow(
        values_PC.T, cmap=_COLOURS, vmin=-limit, vmax=limit, aspect="auto",
        interpolation="nearest", extent=(low + 0.5, high + 0.5, NUM_BASES - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(NUM_BASES), list(ALPHABET))
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("new base")
    return image


def _limit(values_PC: NDArray[np.float32]) -> float:
    """Return where colours end: very few large effects do not make all others pale."""
    size_PC = np.abs(values_PC)
    sizes = size_PC[np.isfinite(size_PC) & (size_PC > 0)]
    return float(max(np.percentile(sizes, _CLIP), sizes.max() / 2)) if sizes.size else 1.0


def _line(axes: Axes, one: Saturation, label: int) -> None:
    """Draw importance base by base."""
    importance = np.nan_to_num(one.importance_PK[:, label])
    position = np.arange(one.region.start, one.region.end) + 1
    for colour, values in (
        (_UP, np.clip(importance, 0, None)),
        (_DOWN, np.clip(importance, None, 0)),
    ):
        axes.fill_between(position, 0, values, step="mid", color=colour, linewidth=0)
    axes.axhline(0, color=_GREY, linewidth=0.5)
    axes.set_ylabel(f"importance,\n{one.unit}")
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _strongest_stretch(one: Saturation, label: int) -> tuple[int, int]:
    size_P = np.abs(np.nan_to_num(one.importance_PK[:, label]))
    sums = np.convolve(size_P, np.ones(LETTERS_BP), mode="valid")
    first = one.region.start + int(sums.argmax())
    return first, first + LETTERS_BP


def _colour_bar(figure: Any, image: Any, axes: list[Axes], one: Saturation) -> None:  # noqa: ANN401
    shown = np.asarray(image.get_array().filled(0))
    clipped = np.abs(shown).max(initial=0) > image.get_clim()[1]
    bar = figure.colorbar(
        image, ax=axes, fraction=0.03, pad=0.01, aspect=18, extend="both" if clipped else "neither"
    )
    bar.set_label(f"change of prediction,\n{one.unit}", fontsize=7)
    bar.ax.tick_params(labelsize=6.5)
    bar.outline.set_linewidth(0.5)


def _axis(axes: Axes, one: Saturation, num_ticks: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="x", length=2.5, labelbottom=True)
    note = axes.get_xlabel()
    axes.set_xlabel(f"position on {one.region.contig}" + (f" ({note})" if note else ""))


def save_plots(found: Sequence[Saturation], places: Sequence[Path], *, number: int) -> None:
    """Draw the regions, genes and labels with the strongest effects as PNG and SVG.

    Parameters
    ----------
    found : sequence of Saturation
    places : sequence of Path
        Folder of each; pictures are named by the label.
    number : int
        How many.
    """
    ranked = [
        (-abs(best[2]), index, label)
        for index, one in enumerate(found)
        for label in range(len(one.labels))
        if (best := one.strongest(label)) is not None
    ]
    for _, index, label in sorted(ranked)[:number]:
        one = found[index]
        name = folder_names(one.labels)[one.labels[label]]
        figure = plot_saturation(one, label)
        with styled():
            for suffix in ("png", "svg"):
                metadata = {"Date": None} if suffix == "svg" else {}
                figure.savefig(places[index] / f"{name}.{suffix}", metadata=metadata)
