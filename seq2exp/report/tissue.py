"""Pictures of tissue: spots at their true size coloured by any value, with a scale bar.

Positions and diameters are pixels of the picture that is drawn, x to the right and y down from its
upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.report.style import GREY, INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = [
    "MICROMETRE",
    "Limits",
    "Tissue",
    "add_scale_bar",
    "centred_limits",
    "colour_bar",
    "draw_spots",
    "draw_tissue",
    "nice_length",
    "plot_spot_values",
    "pooled_limits",
]

Floats = NDArray[np.float64]
Limits = tuple[float, float]
MICROMETRE = "\u00b5m"
_PANEL = 2.6


@dataclass(frozen=True, eq=False)
class Tissue:
    """A picture of a section and where its spots lie.

    Attributes
    ----------
    pixels_HW3 : uint8 array, shape (height, width, 3)
        RGB.
    xy_N2 : float64 array, shape (num_spots, 2)
        Centres of the spots.
    diameter : float
        Of a spot.
    um_per_px : float
        Micrometres per pixel of this picture.
    """

    pixels_HW3: NDArray[np.uint8]
    xy_N2: Floats
    diameter: float
    um_per_px: float

    @property
    def aspect(self) -> float:
        """Height over width."""
        return float(self.pixels_HW3.shape[0] / self.pixels_HW3.shape[1])

    def cropped(self, *, margin: float = 1.5) -> Tissue:
        """Return the part around the spots.

        Parameters
        ----------
        margin : float
            Left around the centres, in diameters.
        """
        height, width = self.pixels_HW3.shape[:2]
        room = margin * self.diameter
        left, top = np.maximum(np.floor(self.xy_N2.min(axis=0) - room), 0).astype(int)
        right, bottom = np.ceil(self.xy_N2.max(axis=0) + room).astype(int)
        part = self.pixels_HW3[top : min(bottom, height), left : min(right, width)]
        return replace(self, pixels_HW3=part, xy_N2=self.xy_N2 - [left, top])

    def coarser(self, um_per_px: float) -> Tissue:
        """Return it at so many micrometres per pixel, by means of blocks; itself if no finer."""
        from PIL import Image

        share = self.um_per_px / um_per_px
        if share >= 1:
            return self
        height, width = self.pixels_HW3.shape[:2]
        size = (max(1, round(width * share)), max(1, round(height * share)))
        small = Image.fromarray(np.ascontiguousarray(self.pixels_HW3)).resize(
            size, Image.Resampling.BOX
        )
        return Tissue(
            np.asarray(small), self.xy_N2 * share, self.diameter * share, self.um_per_px / share
        )


def pooled_limits(*values: Floats, tail: float = 0.01) -> Limits:
    """Return the range of several sets of values together, without the tails.

    Parameters
    ----------
    *values : float arrays
        NaN is left out.
    tail : float
        Share of the values that may lie beyond on either side.
    """
    known = np.concatenate([np.ravel(part) for part in values])
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = map(float, np.quantile(known, [tail, 1 - tail]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def centred_limits(*values: Floats, tail: float = 0.02) -> Limits:
    """Return limits of equal distance from 0 that hold all but a share of the values."""
    known = np.abs(np.concatenate([np.ravel(part) for part in values]))
    known = known[np.isfinite(known)]
    high = float(np.quantile(known, 1 - tail)) if known.size else 0.0
    return (-high, high) if high > 0 else (-1.0, 1.0)


def draw_tissue(axis: Axes, tissue: Tissue, *, faded: bool = False) -> None:
    """Draw the picture with a scale bar below; faded to light grey, so that spots stand out."""
    pixels = tissue.pixels_HW3
    if faded:
        grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        light = (255 - 0.35 * (255 - grey)).round().astype(np.uint8)
        pixels = np.repeat(light[..., None], 3, axis=2)
    height, width = pixels.shape[:2]
    # Pixel i covers [i, i + 1), as in the coordinates of spots.
    axis.imshow(pixels, extent=(0, width, height, 0), interpolation="antialiased")
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)
    add_scale_bar(axis, tissue)


def nice_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above ``most``."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def add_scale_bar(axis: Axes, tissue: Tissue) -> float:
    """Draw a bar below the picture and return its length in micrometres."""
    height, width = tissue.pixels_HW3.shape[:2]
    length = nice_length(0.3 * width * tissue.um_per_px)
    below = height * (1 + 0.03 / tissue.aspect)
    axis.plot(
        [0, length / tissue.um_per_px], [below, below], color=INK, linewidth=1.6, clip_on=False,
        solid_capstyle="butt", gid="scale bar",
    )  # fmt: skip
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} {MICROMETRE}"
    axis.text(
        length / tissue.um_per_px + 0.02 * width, below, label, va="center", ha="left", fontsize=7
    )
    return length


def draw_spots(
    axis: Axes,
    tissue: Tissue,
    values_N: Floats,
    *,
    norm: Normalize,
    colours: str = "viridis",
) -> Any:  # noqa: ANN401  a collection of matplotlib
    """Draw every spot as a disc of its true size; spots without a value as empty rings.

    Parameters
    ----------
    axis : Axes
        With the tissue.
    tissue : Tissue
    values_N : float64 array, shape (num_spots,)
        NaN: no value.
    norm : Normalize
        From values to colours.
    colours : str
        A colour map.

    Returns
    -------
    EllipseCollection
        For a colour bar.
    """
    known = np.isfinite(values_N)
    if not known.all():
        empty = _discs(tissue, tissue.xy_N2[~known], axis, facecolors="none", edgecolors=GREY)
        empty.set_linewidth(0.5)
        axis.add_collection(empty, autolim=False)
    discs = _discs(tissue, tissue.xy_N2[known], axis, cmap=colours, norm=norm)
    # A thin rim keeps pale spots apart from pale tissue.
    discs.set(edgecolor=GREY, linewidth=0.25)
    discs.set_array(values_N[known])
    axis.add_collection(discs, autolim=False)
    return discs


def _discs(tissue: Tissue, xy_N2: Floats, axis: Axes, **settings: Any) -> Any:  # noqa: ANN401
    from matplotlib.collections import EllipseCollection

    sizes = np.full(len(xy_N2), tissue.diameter)
    return EllipseCollection(
        sizes, sizes, np.zeros(len(xy_N2)), units="xy", offsets=xy_N2,
        offset_transform=axis.transData, **settings,
    )  # fmt: skip


def plot_spot_values(
    tissue: Tissue,
    values: Sequence[tuple[str, Floats]],
    *,
    unit: str,
    title: str = "",
    limits: Limits | None = None,
    centred: bool = False,
) -> Figure:
    """Draw values of the spots side by side, under one colour scale.

    Parameters
    ----------
    tissue : Tissue
    values : sequence of (title, float64 array of shape (num_spots,))
    unit : str
        For the colour bar.
    title : str
        Of the whole.
    limits : pair of float, optional
        Values at the ends of the colours; else all but the outermost hundredths.
    centred : bool
        Diverging colours around 0.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure as NewFigure

    known = [np.asarray(part, np.float64) for _, part in values]
    if limits is None:
        limits = centred_limits(*known) if centred else pooled_limits(*known)
    with styled():
        size = (_PANEL * len(known) + 0.3, _PANEL * tissue.aspect + 1.0)
        figure = NewFigure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(known), squeeze=False)[0]
        norm = Normalize(*limits)
        for axis, (name, _), part in zip(axes, values, known, strict=True):
            draw_tissue(axis, tissue, faded=True)
            discs = draw_spots(
                axis, tissue, part, norm=norm, colours="RdBu_r" if centred else "viridis"
            )
            axis.set_title(name)
        colour_bar(figure, discs, list(axes), unit=unit, values=known, shrink=0.8 / len(known))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    return figure


def colour_bar(
    figure: Figure,
    discs: Any,  # noqa: ANN401
    axes: Sequence[Axes],
    *,
    unit: str,
    values: Sequence[Floats],
    shrink: float = 0.8,
) -> Any:  # noqa: ANN401
    """Add a colour bar below axes, with arrows where values lie beyond its ends.

    Parameters
    ----------
    figure : Figure
    discs : EllipseCollection
        Of :func:`draw_spots`.
    axes : sequence of Axes
    unit : str
        Label.
    values : sequence of float64 arrays
        All that is drawn with these colours.
    shrink : float
        Share of the width of the axes.
    """
    together = np.concatenate([part[np.isfinite(part)] for part in values])
    low, high = discs.norm.vmin, discs.norm.vmax
    below, above = bool((together < low).any()), bool((together > high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar = figure.colorbar(
        discs, ax=list(axes), location="bottom", shrink=shrink, fraction=0.05, aspect=22,
        pad=0.02, extend=extend.get((below, above), "neither"), extendfrac=0.04,
    )  # fmt: skip
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return bar
