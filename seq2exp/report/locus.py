"""The picture of one gene's window: genes, tracks, mask, elements, links, and known truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta as beta_distribution

from seq2exp.core.intervals import Window
from seq2exp.dataset.samples import SampleConfig, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import FREE, PROMOTER, GeneMasks
from seq2exp.elements.truth import Truth
from seq2exp.report.style import COLOURS, GREY, INK, LIGHT, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LocusData", "bare_locus", "locus_data", "plot_locus"]

_TRACK_COLOURS = ("blue", "orange", "green", "purple", "sky", "vermilion")
_WIDTH_IN = 7.2


@dataclass(frozen=True, eq=False)
class LocusData:
    """What the picture shows; positions are 0-based genome bases.

    Attributes
    ----------
    gene : Series
        Row of the gene table.
    contig : str
    start, end : int
        Shown region.
    genes : DataFrame
        Genes whose TSS lies inside.
    edges : int64 array, shape (num_bins + 1,)
        Edges of the mask's bins, clipped to the contig.
    tracks : dict of (unit, float array of shape (num_bins,))
    mask, low, high : float arrays, shape (num_bins,)
        Mask and the bounds of the central 95 % of its Beta; NaN where the mask is forced or the
        Beta is not known.
    forced : list of (start, end)
        Forced promoter.
    threshold : float or None
    elements, truth : DataFrames
    """

    gene: pd.Series
    contig: str
    start: int
    end: int
    genes: pd.DataFrame
    edges: NDArray[np.int64]
    tracks: dict[str, tuple[str, NDArray[np.float64]]]
    mask: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    forced: list[tuple[int, int]]
    threshold: float | None
    elements: pd.DataFrame
    truth: pd.DataFrame = field(default_factory=pd.DataFrame)
    truth_name: str = ""


def locus_data(
    masks: GeneMasks,
    dataset: Dataset,
    gene: str,
    *,
    elements: pd.DataFrame | None = None,
    threshold: float | None = None,
    truth: Truth | None = None,
) -> LocusData:
    """Gather the picture of a gene's window.

    Parameters
    ----------
    masks : GeneMasks
    dataset : Dataset
    gene : str
        Id or symbol.
    elements : DataFrame, optional
        Called elements of all genes; those of this gene are shown.
    threshold : float, optional
        Threshold of the calls, drawn as a line.
    truth : Truth, optional
    """
    number = masks.index(gene)
    row = masks.genes.iloc[number]
    contig = str(row["contig"])
    first = int(row["start"])
    stop = first + masks.num_bins * masks.bin_size
    window = Window(contig, first, stop, "+", int(row["contig_length"]))
    start, end = window.clipped_start, window.clipped_end
    edges = np.arange(first, stop + 1, masks.bin_size, dtype=np.int64).clip(start, end)
    forced = np.asarray(masks.forced[number])
    mask = np.asarray(masks.mask[number], dtype=np.float64)
    low, high = _band(masks, number, forced)
    known = truth.of_gene(str(row["gene_id"]), contig) if truth else pd.DataFrame()
    if len(known):
        known = known[(known["start"] < end) & (known["end"] > start)]
    chosen = pd.DataFrame() if elements is None else elements
    if len(chosen):
        chosen = chosen[chosen["gene_id"] == row["gene_id"]]
    near = dataset.genes[dataset.genes["contig"] == contig]
    signal = dataset.track_bins(window, bin_size=masks.bin_size).astype(np.float64)
    return LocusData(
        gene=row,
        contig=contig,
        start=start,
        end=end,
        genes=near[(near["tss"] >= start) & (near["tss"] < end)],
        edges=edges,
        tracks={
            info.name: (info.unit, signal[:, t]) for t, info in enumerate(dataset.manifest.tracks)
        },
        mask=np.where(forced == FREE, mask, np.nan),
        low=low,
        high=high,
        forced=_spans(edges, forced == PROMOTER),
        threshold=threshold,
        elements=chosen,
        truth=known,
        truth_name=truth.name if truth else "",
    )


def bare_locus(dataset: Dataset, row: int, config: SampleConfig) -> LocusData:
    """Gather what can be shown of a gene's window without a mask: its genes and tracks.

    Parameters
    ----------
    dataset : Dataset
    row : int
        Row of the gene table.
    config : SampleConfig
        Windows and bins of the model.
    """
    oriented = gene_window(dataset, row, config)
    window = Window(oriented.contig, oriented.start, oriented.end, "+", oriented.contig_length)
    start, end = window.clipped_start, window.clipped_end
    edges = np.arange(window.start, window.end + 1, config.bin_size, dtype=np.int64)
    nothing = np.full(len(edges) - 1, np.nan)
    near = dataset.genes[dataset.genes["contig"] == window.contig]
    signal = dataset.track_bins(window, bin_size=config.bin_size).astype(np.float64)
    return LocusData(
        gene=dataset.genes.iloc[row],
        contig=window.contig,
        start=start,
        end=end,
        genes=near[(near["tss"] >= start) & (near["tss"] < end)],
        edges=edges.clip(start, end),
        tracks={
            info.name: (info.unit, signal[:, t]) for t, info in enumerate(dataset.manifest.tracks)
        },
        mask=nothing,
        low=nothing,
        high=nothing,
        forced=[],
        threshold=None,
        elements=pd.DataFrame(),
    )


def _band(
    masks: GeneMasks, gene: int, forced: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nothing = np.full(masks.num_bins, np.nan)
    if masks.alpha is None or masks.beta is None:
        return nothing, nothing
    alpha = np.asarray(masks.alpha[gene], dtype=np.float64)
    other = np.asarray(masks.beta[gene], dtype=np.float64)
    known = (forced == FREE) & (alpha > 0) & (other > 0)
    bounds = [
        np.where(
            known,
            beta_distribution.ppf(q, np.maximum(alpha, 1e-6), np.maximum(other, 1e-6)),
            np.nan,
        )
        for q in (0.025, 0.975)
    ]
    return bounds[0], bounds[1]


def _spans(edges: NDArray[np.int64], flag: NDArray[np.bool_]) -> list[tuple[int, int]]:
    steps = np.diff(np.concatenate(([0], flag.astype(np.int8), [0])))
    pairs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    return [(int(edges[a]), int(edges[b])) for a, b in pairs if edges[b] > edges[a]]


def plot_locus(data: LocusData, *, title: str | None = None) -> Figure:
    """Draw a locus: one row per layer, all on one genome axis.

    Parameters
    ----------
    data : LocusData
    title : str, optional
        Gene, place and strand by default.
    """
    with styled():
        from matplotlib.figure import Figure as NewFigure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layers = _layers(data)
        heights = [height for _, height, _ in layers]
        size = (_WIDTH_IN, 0.95 + 0.62 * sum(heights))
        engine = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.02)
        figure = NewFigure(figsize=size, layout=engine)
        axes = figure.subplots(len(layers), 1, sharex=True, squeeze=False, height_ratios=heights)[
            :, 0
        ]
        for axis, (label, _, draw) in zip(axes, layers, strict=True):
            draw(data, axis)
            axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
            axis.tick_params(axis="x", length=0)
            axis.spines["bottom"].set_visible(False)
        _genome_axis(data, axes[-1])
        _distance_axis(data, axes[0])
        figure.align_ylabels(list(axes))
        figure.suptitle(title or _title(data), x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _title(data: LocusData) -> str:
    gene = data.gene
    place = f"{data.contig}:{data.start + 1:,}-{data.end:,}"
    return f"{gene['symbol'] or gene['gene_id']}  ({gene['strand']} strand)   {place}"


def _layers(data: LocusData) -> list[tuple[str, float, Any]]:
    layers: list[tuple[str, float, Any]] = [("genes", 0.8, _draw_genes)]
    for number, name in enumerate(data.tracks):
        colour = COLOURS[_TRACK_COLOURS[number % len(_TRACK_COLOURS)]]
        unit = data.tracks[name][0]
        label = f"{name}\n({unit})" if unit else name
        layers.append((label, 0.9, lambda d, ax, n=name, c=colour: _draw_track(d, ax, n, c)))
    layers.append(("mask\n(0 to 1)", 1.5, _draw_mask))
    layers.append(("called\nelements", 1.1, _draw_elements))
    if len(data.truth):
        layers.append(("truth", 0.5, _draw_truth))
    return layers


def _draw_genes(data: LocusData, axis: Axes) -> None:
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.axhline(0.25, color=LIGHT, linewidth=0.8, zorder=0)
    span = data.end - data.start
    taken: list[tuple[float, float]] = []
    own = data.genes["gene_id"] == data.gene["gene_id"]
    # The gene of the picture is labelled first, so that it always keeps its name.
    for gene in _records(pd.concat([data.genes[own], data.genes[~own]])):
        mine = gene["gene_id"] == data.gene["gene_id"]
        colour = COLOURS["vermilion"] if mine else GREY
        tss, sign = int(gene["tss"]), 1 if gene["strand"] == "+" else -1
        axis.plot([tss, tss], [0.25, 0.62], color=colour, linewidth=1.2)
        axis.annotate(
            "",
            xy=(tss + sign * 0.02 * span, 0.62),
            xytext=(tss, 0.62),
            arrowprops={
                "arrowstyle": "-|>",
                "color": colour,
                "lw": 1.2,
                "shrinkA": 0,
                "shrinkB": 0,
                "mutation_scale": 7,
            },
        )
        name = str(gene["symbol"] or gene["gene_id"])
        width = 0.0135 * span * len(name)
        anchor = tss + sign * 0.028 * span
        left = anchor if sign > 0 else anchor - width
        crowded = any(left < b and left + width > a for a, b in taken)
        if crowded or left < data.start or left + width > data.end:
            continue
        taken.append((left, left + width))
        axis.text(
            anchor,
            0.62,
            name,
            ha="left" if sign > 0 else "right",
            va="center",
            fontsize=7,
            style="italic",
            fontweight="bold" if mine else "normal",
            color=colour,
        )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy(dtype=object)]


def _draw_track(data: LocusData, axis: Axes, name: str, colour: str) -> None:
    _, values = data.tracks[name]
    axis.stairs(values, data.edges, fill=True, color=colour, linewidth=0)
    top = float(np.nanmax(values, initial=0.0)) or 1.0
    axis.set_ylim(0, top * 1.08)
    axis.set_yticks([0, top], ["0", f"{top:.3g}"])


def _draw_mask(data: LocusData, axis: Axes) -> None:
    for number, (start, end) in enumerate(data.forced):
        label = "forced to 1 (promoter)" if number == 0 else None
        axis.axvspan(start, end, color=LIGHT, linewidth=0, label=label, zorder=0)
    known = np.isfinite(data.low)
    if known.any():
        axis.fill_between(
            np.repeat(data.edges, 2)[1:-1],
            np.repeat(data.low, 2),
            np.repeat(data.high, 2),
            color=COLOURS["sky"],
            alpha=0.35,
            linewidth=0,
            label="central 95 % of the Beta",
        )
    axis.stairs(data.mask, data.edges, color=INK, linewidth=1.0, baseline=None, label="mask")
    if data.threshold is not None:
        axis.axhline(
            data.threshold,
            color=COLOURS["vermilion"],
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            label=f"threshold {data.threshold:.2f}",
        )
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        borderaxespad=0.0,
        handlelength=1.4,
        columnspacing=1.2,
        fontsize=6.5,
    )


def _draw_elements(data: LocusData, axis: Axes) -> None:
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    if not len(data.elements):
        axis.text(data.start, 0.5, " none called", va="center", fontsize=7, color=GREY)
        return
    tss, half = float(data.gene["tss"]), (data.end - data.start) / 2
    for element in _records(data.elements):
        promoter = element["element_class"] == "promoter"
        start, width = element["start"], element["end"] - element["start"]
        colour = LIGHT if promoter else COLOURS["blue"]
        axis.broken_barh([(start, width)], (0.06, 0.2), color=colour, linewidth=0)
        if not promoter:
            _arc(
                axis,
                element["summit"],
                tss,
                height=0.65 * abs(element["summit"] - tss) / half,
                strength=element["mean_mask"],
            )


def _arc(axis: Axes, first: float, second: float, *, height: float, strength: float) -> None:
    place = np.linspace(0, np.pi, 60)
    x = (first + second) / 2 + (second - first) / 2 * np.cos(place)
    y = 0.28 + (0.08 + height) * np.sin(place)
    axis.plot(
        x, y, color=COLOURS["blue"], alpha=0.25 + 0.6 * min(max(strength, 0), 1), linewidth=0.9
    )


def _draw_truth(data: LocusData, axis: Axes) -> None:
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    for element in _records(data.truth):
        width = max(element["end"] - element["start"], (data.end - data.start) / 500)
        axis.broken_barh(
            [(element["start"], width)],
            (0.25, 0.5),
            facecolor=COLOURS["green"] if element["causal"] else "white",
            edgecolor=COLOURS["green"] if element["causal"] else GREY,
            linewidth=0.8,
        )


def _genome_axis(data: LocusData, axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_xlim(data.start, data.end)
    axis.spines["bottom"].set_visible(True)
    axis.tick_params(axis="x", length=3)
    axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    digits = 0 if data.end - data.start > 20_000 else 1
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:,.{digits}f}"))
    note = ""
    if len(data.truth):
        note = "   (truth: filled = causal for this gene, open = not)"
    axis.set_xlabel(f"position on {data.contig} (kb){note}")


def _distance_axis(data: LocusData, axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    tss, sign = int(data.gene["tss"]), 1 if data.gene["strand"] == "+" else -1

    def to_distance(position: Any) -> Any:  # noqa: ANN401
        return sign * (position - tss) / 1000

    def to_position(distance: Any) -> Any:  # noqa: ANN401
        return sign * distance * 1000 + tss

    top = axis.secondary_xaxis("top", functions=(to_distance, to_position))
    top.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 4, 5, 10]))
    top.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g}" if x else "TSS"))
    top.tick_params(length=2, labelsize=6.5, labelcolor=GREY)
    top.spines["top"].set_visible(False)
    top.set_xlabel("distance from the TSS along transcription (kb)", fontsize=6.5, color=GREY)
