"""Images without counts: their spots, the tissue they show, the size of their pixels."""

from __future__ import annotations

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_prep.histology.bare import tissue_grid, tissue_mask
from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import SectionConfig
from data_prep.histology.section import read_section
from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.core.images import open_image
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.data import require_counts
from tests.data_prep.histology import raw


def read(config, folder):
    return read_section(config, raw.cohort(config), folder)


def bare(folder, *, spots=None, **settings):
    """Write the picture of `raw` and, where given, a table of spots."""
    folder.mkdir(parents=True, exist_ok=True)
    raw.write_image(folder / "slide.png")
    values = {"name": "N1", "layout": "image", "image": "slide.png", "um_per_px": 10.0}
    if spots is not None:
        spots.to_csv(folder / "spots.tsv", sep="\t", index=False)
        values["spots"] = "spots.tsv"
    elif "spots" not in settings:
        values["grid_um"] = 200.0
    return SectionConfig(**(values | settings))


def table(**columns):
    x, y = raw.places()
    return pd.DataFrame({"x": x, "y": y} | columns)


def test_a_table_of_spots(tmp_path):
    """Rows and columns follow from the pixels; the patient is the section itself."""
    names = [f"S{i}" for i in range(30)]
    found = read(bare(tmp_path, spots=table(barcode=names, region="tumour")), tmp_path)
    np.testing.assert_array_equal(found.array_row, raw.grid()[0])
    np.testing.assert_array_equal(found.array_col, raw.grid()[1])
    np.testing.assert_array_equal(found.x, raw.places()[0])
    assert found.labels["barcode"].tolist() == names
    assert set(found.labels["region"]) == {"tumour"}
    assert (found.patient, found.counts.shape, found.has_counts) == ("N1", (30, 0), False)
    assert read(bare(tmp_path, spots=table(), patient="P7"), tmp_path).patient == "P7"


def test_places_on_the_array_are_taken_where_given(tmp_path):
    rows, columns = raw.grid()
    found = read(bare(tmp_path, spots=table(array_row=columns, array_col=rows + 3)), tmp_path)
    np.testing.assert_array_equal(found.array_row, columns)
    np.testing.assert_array_equal(found.array_col, rows + 3)
    x, y = raw.places()
    st = pd.DataFrame({"x": columns, "y": rows, "pixel_x": x, "pixel_y": y, "selected": 1})
    found = read(bare(tmp_path, spots=st), tmp_path)
    np.testing.assert_array_equal(found.array_row, rows)
    np.testing.assert_array_equal(found.y, y)
    assert list(found.labels) == []


def test_spots_at_any_place_get_a_cell_of_their_own(tmp_path):
    """Cells or neurons, not an array: the lattice is as fine as it must be."""
    places = np.random.default_rng(0).uniform(60, 150, (40, 2))
    found = read(bare(tmp_path, spots=pd.DataFrame(places, columns=["x", "y"])), tmp_path)
    assert len(set(zip(found.array_row, found.array_col, strict=True))) == 40
    assert np.corrcoef(found.array_row, found.y)[0, 1] > 0.99


def test_the_cohort_of_an_image_has_patches_and_no_genes(tmp_path):
    """min_umi does not apply; training is refused, and the table opens."""
    config = bare(tmp_path, spots=table())
    prepare_cohort(raw.cohort(config, min_umi=500), tmp_path, tmp_path / "out")
    cohort = SpatialCohort(tmp_path / "out", verify_checksums=True)
    section = cohort.section("N1")
    assert (section.info.num_spots, section.info.num_genes, section.info.left_out) == (30, 0, {})
    assert section.info.spot_pitch_um == 200
    x, y = (int(axis[11]) for axis in raw.places())
    np.testing.assert_array_equal(section.patches[11], raw.picture()[y - 8 : y + 8, x - 8 : x + 8])
    assert anndata.read_h5ad(tmp_path / "out/sections/N1.h5ad").shape == (30, 0)
    with pytest.raises(InputError, match=r"sections without counts.*1 in all; first: N1"):
        require_counts(cohort)


# Grid -----------------------------------------------------------------------------------------


def test_the_grid_lies_on_the_tissue_and_nowhere_else(tmp_path):
    """Discs fill 50 <= x < 170, 50 <= y < 150; places half of whose square is there are kept."""
    found = read(bare(tmp_path), tmp_path)
    step, kept = 20, []
    for row in range(220 // step):
        for col in range(280 // step):
            inside = [
                max(0, min(low + step, end) - max(low, 50)) / step
                for low, end in ((col * step, 170), (row * step, 150))
            ]
            if inside[0] * inside[1] >= 0.5:
                kept.append((row, col))
    assert list(zip(found.array_row, found.array_col, strict=True)) == kept
    np.testing.assert_array_equal(found.x, found.array_col * 20 + 10.0)
    assert found.spot_pitch_um == 200
    prepare_cohort(raw.cohort(bare(tmp_path)), tmp_path, tmp_path / "out")


def test_pale_and_black_glass_are_no_tissue(tmp_path):
    pixels = np.full((100, 200, 3), (233, 214, 230), np.uint8)
    pixels[:, :10] = 5  # the border of a scan
    pixels[20:80, 60:160] = (205, 150, 190)  # pale eosin
    raw.write_image(tmp_path / "a.png", pixels)
    mask, scale = tissue_mask(open_image(tmp_path / "a.png"))
    assert scale == 1
    expected = np.zeros((100, 200), bool)
    expected[20:80, 60:160] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_finer_grid_holds_more_places():
    """The tissue is 120 x 100 pixels."""
    image = open_image_of(raw.picture())
    assert [tissue_grid(image, step)[0].size for step in (5, 2.5)] == [24 * 20, 48 * 40]
    with pytest.raises(InputError, match=r"a grid of 0\.5 pixels"):
        tissue_grid(image, 0.5)


def open_image_of(pixels):
    from pathlib import Path

    from seq2exp.core.images import TissueImage

    return TissueImage(Path("x.png"), pixels)


def test_glass_without_tissue_is_refused(tmp_path):
    config = bare(tmp_path)
    raw.write_image(tmp_path / "slide.png", np.full((200, 200, 3), 240, np.uint8))
    with pytest.raises(InputError, match=r"section N1.*no tissue"):
        read(config, tmp_path)


# Size of a pixel ------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "resolution"), [(3, 10_000 / 2.5), (2, 25_400 / 2.5)])
def test_tiff_tags_say_the_size_of_a_pixel(tmp_path, unit, resolution):
    Image.fromarray(raw.picture()).save(
        tmp_path / "a.tif", tiffinfo={282: resolution, 283: resolution, 296: unit}
    )
    config = bare(tmp_path, image="a.tif", um_per_px=None)
    assert read(config, tmp_path).um_per_px == pytest.approx(2.5)
    config = dataclasses.replace(config, um_per_px=3.0)
    assert read(config, tmp_path).um_per_px == 3


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_f19_no_size_of_a_pixel(tmp_path, name):
    """72 dots per inch are those of a print: 353 micrometres."""
    Image.fromarray(raw.picture()).save(tmp_path / name, dpi=(72, 72))
    config = bare(tmp_path, image=name, um_per_px=None)
    with pytest.raises(InputError, match=r"section N1.*no size of a pixel.*give um_per_px"):
        read(config, tmp_path)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"grid_um": None}, "neither spots nor grid_um"),
        ({"spots": table(), "grid_um": 100.0}, "both spots and grid_um"),
        ({"grid_um": 0.0}, "grid_um: found 0"),
        ({"image": ""}, "found no image"),
        ({"um_per_px": -1.0}, "um_per_px: found -1"),
        ({"um_per_px": float("nan")}, "um_per_px: found nan"),
        ({"um_per_px": 0.0}, "um_per_px: found 0"),
        ({"patches": "x.h5"}, "found patches, which it does not read"),
        ({"name": " "}, "found no name"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings, text):
    with pytest.raises(ConfigError, match=text):
        bare(tmp_path, **settings)


@pytest.mark.parametrize(
    ("spots", "error", "text"),
    [
        (pd.DataFrame({"row": [1], "col": [2]}), FormatError, "columns row, col.*x and y"),
        (table()[:0], FormatError, "found 0 rows"),
        (table(x=np.nan), FormatError, "values of x that are no numbers"),
        (pd.concat([table(), table()[:2]]), InputError, "spots that lie upon each other"),
        (table(barcode="same"), InputError, "spots listed twice"),
        (table(array_row=0, array_col=0), InputError, "share a place of the array"),
        (table(x=5000.0 + raw.places()[0]), InputError, "spots beyond slide.png"),
    ],
)
def test_f19_tables_of_spots_that_are_none(tmp_path, spots, error, text):
    config = bare(tmp_path, spots=spots)
    with pytest.raises(error, match=text):
        prepare_cohort(raw.cohort(config), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
