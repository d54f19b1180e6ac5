"""Pictures of tissue, judged by the pixels that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from seq2exp.report.gene_map import GeneOnSection, plot_gene
from seq2exp.report.section import plot_section
from seq2exp.report.stain_map import plot_concentrations
from seq2exp.report.tissue import (
    Tissue,
    centred_limits,
    draw_spots,
    draw_tissue,
    nice_length,
    plot_spot_values,
    pooled_limits,
)

XY = np.array([[20.0, 20.0], [60.0, 20.0], [20.0, 50.0], [60.0, 50.0]])


@pytest.fixture
def tissue():
    """Eighty by seventy pixels of 5 um, four spots of 100 um."""
    return Tissue(np.full((70, 80, 3), 200, np.uint8), XY.copy(), 20.0, 5.0)


def rendered(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def colour_at(figure, axis, x, y):
    """Colour drawn at a place of the tissue."""
    pixels = rendered(figure)
    column, row = axis.transData.transform((x, y))
    return pixels[pixels.shape[0] - 1 - int(row), int(column)]


def discs_of(axis):
    """Collections of spots that carry values."""
    found = [part for part in axis.collections if isinstance(part, EllipseCollection)]
    return [part for part in found if part.get_array() is not None]


def expected_colour(value, low, high, colours="viridis"):
    return (255 * np.array(colormaps[colours](Normalize(low, high)(value))[:3])).round()


def test_every_spot_has_the_colour_of_its_value_where_it_lies(tissue):
    figure = plot_spot_values(
        tissue, [("a", np.array([0.0, 1.0, 2.0, 3.0]))], unit="counts", limits=(0.0, 3.0)
    )
    axis = figure.axes[0]
    for value, (x, y) in enumerate(XY):
        found = colour_at(figure, axis, x, y)
        assert np.abs(found - expected_colour(value, 0, 3)).max() <= 2
    # Between the spots there is tissue: 255 - 0.35 * (255 - 200).
    assert np.abs(colour_at(figure, axis, 40, 35) - 236).max() <= 1


def test_spots_have_their_true_diameter(tissue):
    figure = plot_spot_values(tissue, [("a", np.full(4, 3.0))], unit="", limits=(0.0, 3.0))
    axis = figure.axes[0]
    full = expected_colour(3.0, 0, 3)
    for away, inside in ((0.0, True), (8.5, True), (11.5, False)):
        for x, y in ((20 + away, 20), (20, 20 + away)):
            near = np.abs(colour_at(figure, axis, x, y) - full).max() <= 3
            assert near == inside


def test_x_is_to_the_right_and_y_down(tissue):
    """The first spot is the only one with a value: it lies at the upper left."""
    values = np.array([5.0, np.nan, np.nan, np.nan])
    figure = plot_spot_values(tissue, [("a", values)], unit="", limits=(0.0, 5.0))
    axis = figure.axes[0]
    left, right = (axis.transData.transform((x, 20))[0] for x in (20, 60))
    above, under = (axis.transData.transform((20, y))[1] for y in (20, 50))
    assert left < right
    assert above > under
    assert np.abs(colour_at(figure, axis, 20, 20) - expected_colour(5, 0, 5)).max() <= 2
    # Spots without a value are rings: tissue inside.
    assert np.abs(colour_at(figure, axis, 60, 20) - 236).max() <= 1
    assert len(axis.collections) == 2


@pytest.mark.parametrize(
    ("most", "length"), [(120, 100), (100, 100), (99, 50), (49, 20), (0.7, 0.5), (5200, 5000)]
)
def test_bars_have_round_lengths(most, length):
    assert nice_length(most) == pytest.approx(length)


@pytest.mark.parametrize(("um_per_px", "um", "text"), [(5.0, 100, "100 \u00b5m"),
                                                       (50.0, 1000, "1 mm")])  # fmt: skip
def test_the_scale_bar_is_as_long_as_it_says(tissue, um_per_px, um, text):
    wide = Tissue(tissue.pixels_HW3, XY, 20.0, um_per_px)
    figure = plot_spot_values(wide, [("a", np.zeros(4))], unit="")
    bar = next(line for line in figure.axes[0].lines if line.get_gid() == "scale bar")
    # 30 % of 80 pixels are 120 and 1,200 micrometres.
    assert bar.get_xdata()[1] - bar.get_xdata()[0] == pytest.approx(um / um_per_px)
    assert text in [item.get_text() for item in figure.axes[0].texts]


def test_a_crop_keeps_spots_on_their_tissue():
    pixels = np.zeros((200, 300, 3), np.uint8)
    xy = np.array([[100.0, 60.0], [150.0, 120.0]])
    for x, y in xy.astype(int):
        pixels[y, x] = 255
    part = Tissue(pixels, xy, 10.0, 1.0).cropped(margin=2)
    assert part.pixels_HW3.shape[:2] == (100, 90)
    for x, y in part.xy_N2.astype(int):
        assert part.pixels_HW3[y, x, 0] == 255
    at_border = Tissue(pixels, np.array([[2.0, 3.0]]), 10.0, 1.0).cropped(margin=2)
    np.testing.assert_array_equal(at_border.xy_N2, [[2, 3]])


def test_coarser_tissue_has_means_of_blocks_and_the_same_size():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, ::2] = 100
    coarse = Tissue(pixels, np.array([[30.0, 20.0]]), 8.0, 1.0).coarser(2.0)
    assert coarse.pixels_HW3.shape == (20, 30, 3)
    assert np.unique(coarse.pixels_HW3) == [50]
    assert (coarse.um_per_px, coarse.diameter) == (2.0, 4.0)
    np.testing.assert_allclose(coarse.xy_N2, [[15, 10]])
    assert coarse.coarser(1.0) is coarse


def test_limits():
    values = np.arange(101.0)
    assert pooled_limits(values, values, tail=0.01) == pytest.approx((1, 99))
    assert pooled_limits(np.array([2.0, np.nan])) == (1.5, 2.5)
    assert pooled_limits(np.array([np.nan])) == (0.0, 1.0)
    assert centred_limits(np.array([-3.0, 1.0]), tail=0.0) == (-3.0, 3.0)
    assert centred_limits(np.zeros(4)) == (-1.0, 1.0)


def test_a_difference_of_nothing_is_white(tissue):
    figure = plot_spot_values(
        tissue, [("a", np.array([-2.0, 0.0, 0.0, 2.0]))], unit="", centred=True
    )
    axis = figure.axes[0]
    low, middle, high = (colour_at(figure, axis, *XY[spot]) for spot in (0, 1, 3))
    assert middle.min() >= 240
    assert low[2] > low[0] + 50
    assert high[0] > high[2] + 50


# A gene --------------------------------------------------------------------------------------


def gene_rows(tissue, *, with_truth=True, with_sd=True):
    truth = np.array([0.0, 1.0, 2.0, 4.0])
    guess = np.array([0.5, 1.5, 1.5, 2.5])
    sd = np.array([0.1, 0.2, 0.3, 0.4])
    return [
        GeneOnSection(
            name, tissue, guess + shift, truth if with_truth else None, sd if with_sd else None,
            how="held out",
        )
        for name, shift in (("C2", 0.0), ("C3", 1.0))
    ]  # fmt: skip


def test_observed_and_predicted_share_one_scale_and_the_difference_is_centred(tissue):
    figure = plot_gene("ERBB2", gene_rows(tissue), unit="ln(counts + 1)", spread="sd of spots")
    titles = [axis.get_title(loc="left") for axis in figure.axes[:8]]
    # Pearson of (0, 1, 2, 4) and (0.5, 1.5, 1.5, 2.5): 4 / sqrt(8.75 * 2).
    assert titles[:4] == ["observed", f"predicted, r = {4 / np.sqrt(8.75 * 2):.2f}",
                          "difference", "spread"]  # fmt: skip
    assert [axis.get_ylabel() for axis in figure.axes[:8:4]] == ["C2", "C3"]
    norms = [discs_of(axis)[0].norm for axis in figure.axes[:8]]
    assert norms[0] is norms[1] is norms[4] is norms[5]
    assert norms[2].vmin == -norms[2].vmax
    observed, predicted = (discs_of(axis)[0].get_array() for axis in figure.axes[4:6])
    np.testing.assert_allclose(discs_of(figure.axes[6])[0].get_array(), predicted - observed)
    np.testing.assert_allclose(discs_of(figure.axes[7])[0].get_array(), [0.1, 0.2, 0.3, 0.4])
    assert [axis.get_xlabel() for axis in figure.axes[8:]] == [
        "ln(counts + 1)", "predicted - observed", "sd of spots"]  # fmt: skip


def test_a_prediction_alone_is_drawn_without_the_rest(tissue):
    figure = plot_gene("A", gene_rows(tissue, with_truth=False, with_sd=False)[:1], unit="u")
    assert [axis.get_title(loc="left") for axis in figure.axes[:1]] == ["predicted"]
    assert len(figure.axes) == 2
    rendered(figure)


def test_a_section_without_counts_leaves_its_place_empty(tissue):
    rows = [gene_rows(tissue)[0], gene_rows(tissue, with_truth=False)[1]]
    figure = plot_gene("A", rows, unit="u")
    assert [axis.axison for axis in figure.axes[4:8]] == [False, True, False, True]
    assert figure.axes[5].get_title(loc="left") == "predicted"


def test_spots_that_were_not_measured_are_rings_and_do_not_count(tissue):
    row = GeneOnSection("C2", tissue, np.array([1.0, 2.0, 3.0, 0.0]),
                        np.array([1.0, 2.0, 3.0, np.nan]))  # fmt: skip
    assert row.correlation == pytest.approx(1)
    figure = plot_gene("A", [row], unit="u")
    assert len(figure.axes[0].collections) == 2
    assert GeneOnSection("C2", tissue, np.zeros(4), np.full(4, np.nan)).correlation is None
    constant = GeneOnSection("C2", tissue, np.zeros(4), np.arange(4.0))
    assert "r undefined" in plot_gene("A", [constant], unit="u").axes[1].get_title(loc="left")


@pytest.mark.parametrize("num_sections", [1, 3])
def test_no_text_of_a_gene_overlaps_another(tissue, num_sections):
    rows = (gene_rows(tissue) * 2)[:num_sections]
    figure = plot_gene("ERBB2 (ENSG00000141736)", rows, unit="ln(counts per 10,000 + 1)",
                       note="ridge, labels default; on 4 held-out sections: r = 0.66")  # fmt: skip
    assert overlaps(figure) == []


# A section -----------------------------------------------------------------------------------


def section_figure(tissue):
    patches = np.stack([np.full((8, 8, 3), shade, np.uint8) for shade in (10, 90, 170)])
    counts = np.array([100.0, 1000.0, 10000.0, 10000.0])
    return plot_section(
        tissue, counts, patches=patches, rows=np.array([0, 1, 3]), patch_um=160.0,
        title="section C2, patient C", note="9,274 x 9,911 px",
    )  # fmt: skip


def test_a_section_shows_counts_in_logarithms_and_where_patches_are_from(tissue):
    figure = section_figure(tissue)
    plain, spots = figure.axes[:2]
    # Half way between 100 and 10,000 in logarithms.
    middle = expected_colour(0.5, 0, 1)
    assert np.abs(colour_at(figure, spots, *XY[1]) - middle).max() <= 2
    frames = [(patch.get_x(), patch.get_y(), patch.get_width()) for patch in plain.patches]
    # 160 um are 32 pixels.
    np.testing.assert_allclose(frames, [[x - 16, y - 16, 32] for x, y in XY[[0, 1, 3]]])
    assert [item.get_text() for item in plain.texts][1:] == ["1", "2", "3"]
    strip = [axis for axis in figure.axes if axis.images and axis not in (plain, spots)]
    assert [int(axis.images[0].get_array()[0, 0, 0]) for axis in strip] == [10, 90, 170]
    assert [axis.get_xlabel() for axis in strip] == ["100 counts", "1,000 counts", "10,000 counts"]


def test_no_text_of_a_section_overlaps_another(tissue):
    assert overlaps(section_figure(tissue)) == []


def overlaps(figure):
    """Pairs of visible texts that are drawn over each other."""
    rendered(figure)
    renderer = figure.canvas.get_renderer()
    items = [item for item in figure.findobj(lambda part: hasattr(part, "get_text"))
             if item.get_visible() and item.get_text().strip()
             and (item.axes is None or item.axes.get_visible())]  # fmt: skip
    # Labels of ticks beyond the axis exist but are not drawn.
    boxes = [(item.get_text(), item.get_window_extent(renderer)) for item in items
             if item.get_in_layout()]  # fmt: skip
    drawn = [(text, box) for text, box in boxes if box.width > 1 and box.x0 >= 0 and box.y0 >= 0]
    return [
        (first, second)
        for place, (first, box) in enumerate(drawn)
        for second, other in drawn[place + 1 :]
        if box.shrunk(0.95, 0.9).overlaps(other.shrunk(0.95, 0.9)) and first != second
    ]


def test_the_check_for_overlaps_sees_one():
    figure = Figure()
    figure.text(0.5, 0.5, "first words")
    figure.text(0.52, 0.5, "second words")
    assert overlaps(figure) == [("first words", "second words")]


# Stains --------------------------------------------------------------------------------------


def test_concentrations_are_dark_where_there_is_much_and_blue_where_none_is(tissue):
    maps = np.zeros((1, 70, 80), np.float32)
    maps[0, :, 40:] = 1
    maps[0, 60:] = np.nan
    figure = plot_concentrations(tissue, maps, labels=["H"], title="gene")
    axis = figure.axes[1]
    assert colour_at(figure, axis, 20, 30).min() >= 250
    assert colour_at(figure, axis, 60, 30).max() <= 5
    np.testing.assert_array_equal(colour_at(figure, axis, 40, 66), [0xE3, 0xEE, 0xF6])


def test_faded_tissue_is_grey_and_plain_tissue_is_not():
    pixels = np.full((10, 10, 3), (200, 50, 120), np.uint8)
    figure = Figure(figsize=(4, 2))
    plain, faded = figure.subplots(1, 2)
    part = Tissue(pixels, np.array([[5.0, 5.0]]), 2.0, 1.0)
    draw_tissue(plain, part)
    draw_tissue(faded, part, faded=True)
    draw_spots(faded, part, np.array([1.0]), norm=Normalize(0, 1))
    np.testing.assert_array_equal(colour_at(figure, plain, 2, 2), [200, 50, 120])
    # Luma 102.83; 255 - 0.35 * (255 - 102.83) = 201.7.
    np.testing.assert_array_equal(colour_at(figure, faded, 2, 2), [202, 202, 202])


def test_spots_without_counts_are_rings(tissue):
    patches = np.zeros((1, 8, 8, 3), np.uint8)
    for counts, title, bars in ((np.array([0.0, 10, 10, 10]), "4 spots", 1),
                                (np.zeros(4), "4 spots, no counts", 0)):  # fmt: skip
        figure = plot_section(
            tissue, counts, patches=patches, rows=np.array([0]), patch_um=160.0, title="image"
        )
        spots = figure.axes[1]
        assert spots.get_title(loc="left") == title
        assert np.abs(colour_at(figure, spots, *XY[0]) - 236).max() <= 1
        labels = [axis.get_ylabel() for axis in figure.axes]
        assert labels.count("counts of the spot, all genes") == bars
