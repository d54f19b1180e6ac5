from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from data_prep.histology.checks import (
    alignment,
    keep_spots,
    physical_scale,
    require_on_image,
    require_patch_in_image,
)
from data_prep.histology.raw import RawSection
from seq2exp.core.errors import InputError, Seq2ExpWarning
from seq2exp.core.images import TissueImage
from tests.data_prep.histology import raw


def section(**changes):
    rows, columns = raw.grid()
    x, y = raw.places()
    values = {
        "name": "S1",
        "patient": "P1",
        "counts": sparse.csr_matrix(raw.counts()),
        "genes": raw.GENES,
        "gene_ids": [""] * len(raw.GENES),
        "array_row": rows,
        "array_col": columns,
        "x": x,
        "y": y,
        "labels": pd.DataFrame({"number": range(len(x))}),
        "image": Path("S1.png"),
        "spot_pitch_um": 200.0,
    }
    return RawSection(**(values | changes))


IMAGE = TissueImage(Path("S1.png"), raw.picture())


def some(base, rows):
    """A section of some spots."""
    parts = {
        name: getattr(base, name)[rows] for name in ("counts", "array_row", "array_col", "x", "y")
    }
    return dataclasses.replace(base, labels=base.labels.iloc[rows], **parts)


# On the image --------------------------------------------------------------------------------


def test_spots_on_the_image_pass():
    require_on_image(section(), IMAGE)


@pytest.mark.parametrize(("axis", "value"), [("x", -1.0), ("x", 1e5), ("y", -0.5), ("y", np.nan)])
def test_f19_a_spot_beyond_the_image(axis, value):
    places = getattr(section(), axis).copy()
    places[4] = value
    with pytest.raises(InputError, match=rf"beyond S1\.png, 280 x 220 pixels.*1 in all; .*{axis} "):
        require_on_image(section(**{axis: places}), IMAGE)


def test_f19_exchanged_axes_that_leave_the_image_are_guessed():
    """On a high and narrow image the columns reach beyond the width."""
    narrow = TissueImage(Path("S1.png"), raw.picture().transpose(1, 0, 2)[:, :150])
    with pytest.raises(InputError, match="x and y may be exchanged"):
        require_on_image(section(), narrow)


# Spots ---------------------------------------------------------------------------------------


def test_spots_are_ordered_by_row_and_column_with_all_that_belongs_to_them():
    order = np.random.default_rng(0).permutation(30)
    found, left_out = keep_spots(some(section(), order), min_umi=1)
    expected = section()
    for name in ("array_row", "array_col", "x", "y"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.counts.toarray(), raw.counts())
    assert found.labels["number"].tolist() == list(range(30))
    assert left_out == {"fewer than 1 counts": 0}


def test_spots_with_few_counts_are_left_out_and_counted():
    counts = raw.counts()
    counts[[2, 7]] = 0
    counts[7, 0], counts[9] = 99, 0
    counts[9, 0] = 100
    found, left_out = keep_spots(section(counts=sparse.csr_matrix(counts)), min_umi=100)
    assert left_out == {"fewer than 100 counts": 2}
    assert sorted(set(range(30)) - set(found.labels["number"])) == [2, 7]


def test_f19_two_spots_at_one_place():
    columns = section().array_col.copy()
    columns[1] = 0
    with pytest.raises(InputError, match=r"share a place.*1 in all; first: row 0, column 0"):
        keep_spots(section(array_col=columns), min_umi=1)


def test_f19_no_spot_with_counts():
    with pytest.raises(InputError, match="no spot with 100000 counts among 30; the most is"):
        keep_spots(section(), min_umi=100_000)
    with pytest.raises(InputError, match="among 0; the most is 0"):
        keep_spots(some(section(), np.array([], int)), min_umi=1)


def test_f19_one_spot_is_flagged():
    with pytest.warns(Seq2ExpWarning, match="found 1 spots"):
        found, _ = keep_spots(some(section(), np.array([3])), min_umi=1)
    assert len(found.x) == 1


# Scale ---------------------------------------------------------------------------------------


def test_the_size_of_a_pixel_is_as_stated_or_follows_from_the_pitch():
    assert physical_scale(section()) == 10  # 200 micrometres over 20 pixels
    assert physical_scale(section(um_per_px=10.5)) == 10.5
    assert physical_scale(section(um_per_px=3.0, spot_pitch_um=None)) == 3
    alone = some(section(), np.array([0]))
    assert physical_scale(dataclasses.replace(alone, um_per_px=3.0)) == 3


def test_f19_no_size_of_a_pixel():
    with pytest.raises(InputError, match="give um_per_px of the section"):
        physical_scale(section(spot_pitch_um=None))
    with pytest.raises(InputError, match="give um_per_px of the section"):
        physical_scale(some(section(), np.array([0])))


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_f19_a_size_that_is_no_size(size):
    with pytest.raises(InputError, match="expected a number above 0"):
        physical_scale(section(um_per_px=size))


@pytest.mark.parametrize("size", [8.9, 11.2, 2.2])
def test_f19_image_and_places_of_different_resolutions(size):
    """A scaled image with the pixel size of the original: 20 pixels are no longer 200 um."""
    with pytest.raises(InputError, match=r"spots 20\.0 pixels apart.*different resolutions"):
        physical_scale(section(um_per_px=size))


# Alignment -----------------------------------------------------------------------------------


def test_spots_on_the_stain_are_more_coloured_than_glass():
    notes = alignment(section(), IMAGE)
    # Of a disc (150 + 10 row, 60 + 10 column, 160): largest minus smallest channel, and noise.
    rows, columns = raw.grid()
    expected = np.mean(np.maximum(150 + 10 * rows, 160) - (60 + 10 * columns))
    assert abs(notes["saturation_on_spots"] - expected) < 5
    assert notes["saturation_off_spots"] < 5


def test_f19_exchanged_axes_show():
    """Tissue in the lower left, spots mirrored to the upper right: no spot is on it."""
    pixels = np.full((600, 600, 3), 244, np.uint8)
    pixels[380:, :220] = (180, 60, 160)
    x, y = raw.places()
    right = section(x=x - 40, y=y + 340)
    image = TissueImage(Path("S1.png"), pixels)
    notes = alignment(right, image)
    assert notes["saturation_on_spots"] > notes["saturation_off_spots"]
    notes = alignment(section(x=right.y, y=right.x), image)
    assert notes["saturation_on_spots"] < notes["saturation_off_spots"]


def test_tissue_that_fills_the_image_has_no_off():
    """Numbers that are not there are left out: NaN cannot stand in a manifest."""
    cut = TissueImage(Path("S1.png"), raw.picture()[45:-45, 45:-85])
    x, y = raw.places()
    assert set(alignment(section(x=x - 45, y=y - 45), cut)) == {"saturation_on_spots"}


def test_a_single_spot_has_an_alignment():
    notes = alignment(some(section(), np.array([8])), IMAGE)
    assert notes["saturation_on_spots"] > notes["saturation_off_spots"]


def test_f19_two_spots_on_one_pixel():
    base = section()
    x, y = base.x.copy(), base.y.copy()
    x[1], y[1] = x[0], y[0]
    with pytest.raises(InputError, match="share a place of the image"):
        keep_spots(dataclasses.replace(base, x=x, y=y), min_umi=1)


def test_patches_that_no_image_can_hold():
    most = max(IMAGE.width, IMAGE.height)
    require_patch_in_image(section(), IMAGE, side=most)
    for side in (most + 1, float("inf"), float("nan")):
        with pytest.raises(InputError, match="smaller than the image"):
            require_patch_in_image(section(), IMAGE, side=side)
