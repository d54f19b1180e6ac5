"""Cohorts of whole slides: equal to those of the same image in memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import PatchConfig, SectionConfig
from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.images import TissueImage
from seq2exp.core.slides import SlideImage
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.cache import FeatureCache
from seq2exp.spatial.images.registry import make_encoder
from seq2exp.spatial.images.tiles import open_section_image
from tests.core.slide_files import write_slide
from tests.data_prep.histology import raw

REASON = "extra wsi is not installed"
pytest.importorskip("tifffile", reason=REASON)
pytest.importorskip("tiffslide", reason=REASON)


@pytest.fixture
def pair(tmp_path):
    """One section with its image as a slide, and once more as PNG."""
    png = raw.write_st(tmp_path)
    write_slide(tmp_path / "S1.tif", raw.picture(), um_per_px=10.0)
    return dataclasses.replace(png, name="T1", image="S1.tif"), png


def cohort_of(folder, *sections, stain="none", **settings):
    config = raw.cohort(*sections, patch=PatchConfig(um=160, px=16, stain=stain), **settings)
    prepare_cohort(config, folder, folder / "out", overwrite=True)
    return SpatialCohort(folder / "out")


@pytest.mark.parametrize("images", ["copy", "reference"])
def test_patches_and_tiles_of_a_slide_are_those_of_its_image(tmp_path, pair, images):
    """0.05 megapixels is less than the slide of 280 x 220; the PNG is read apart."""
    slide, png = pair
    known = cohort_of(tmp_path, png)
    expected = known.section("S1").patches.copy()
    tiles, mask = FeatureCache(known, make_encoder("colour_stats")).nbr("S1")
    cohort = cohort_of(tmp_path, slide, max_megapixels=0.05, images=images)
    section = cohort.section("T1")
    assert section.info.by_region
    np.testing.assert_array_equal(section.patches, expected)
    assert isinstance(open_section_image(cohort, "T1"), SlideImage)
    found, there = FeatureCache(cohort, make_encoder("colour_stats")).nbr("T1")
    np.testing.assert_array_equal(there, mask)
    np.testing.assert_allclose(found, tiles, atol=1e-6)
    assert section.info.notes == pytest.approx(known.section("S1").info.notes)


def test_stains_of_a_slide_are_normalised_as_those_of_its_image(tmp_path, pair):
    slide, png = pair
    light = raw.picture() / 255
    Image.fromarray((255 * light**1.5).round().astype(np.uint8)).save(tmp_path / "dark.png")
    dark = dataclasses.replace(png, name="D1", image="dark.png")
    expected = cohort_of(tmp_path, dark, png, stain="macenko").section("S1").patches.copy()
    Image.fromarray((255 * light**1.5).round().astype(np.uint8)).save(tmp_path / "d.tif")
    write_slide(tmp_path / "dark.tif", np.asarray(Image.open(tmp_path / "dark.png")))
    other = dataclasses.replace(dark, image="dark.tif")
    cohort = cohort_of(tmp_path, other, slide, stain="macenko", max_megapixels=0.05)
    np.testing.assert_array_equal(cohort.section("T1").patches, expected)
    image = open_section_image(cohort, "T1")
    x, y = cohort.section("T1").xy_N2[3]
    np.testing.assert_array_equal(image.patch(x, y, side=16, px=16), expected[3])


def test_a_bare_slide_says_its_scale_and_where_its_tissue_is(tmp_path, pair):
    """Nothing but the file is given; the PNG needs its size of a pixel."""
    slide = SectionConfig("B1", layout="image", image="S1.tif", grid_um=200.0)
    png = dataclasses.replace(slide, name="B2", image="S1.png", um_per_px=10.0)
    cohort = cohort_of(tmp_path, slide, max_megapixels=0.05)
    found = cohort.section("B1")
    places, patches = found.xy_N2, found.patches.copy()
    assert found.info.um_per_px == pytest.approx(10)
    expected = cohort_of(tmp_path, png).section("B2")
    np.testing.assert_allclose(places, expected.xy_N2)
    np.testing.assert_array_equal(patches, expected.patches)


def test_a_slide_that_is_scaled_down_for_its_checks(tmp_path, pair, monkeypatch):
    """At a quarter of its size, saturation and tissue are about the same."""
    from seq2exp.core import slides

    known = cohort_of(tmp_path, pair[0]).section("T1").info.notes
    monkeypatch.setattr(slides, "OVERVIEW_PX", 70)
    notes = cohort_of(tmp_path, pair[0], max_megapixels=0.05).section("T1").info.notes
    assert notes["saturation_on_spots"] == pytest.approx(known["saturation_on_spots"], rel=0.1)
    assert notes["saturation_off_spots"] < 10
    bare = SectionConfig("B1", layout="image", image="S1.tif", grid_um=200.0)
    grid = cohort_of(tmp_path, bare, max_megapixels=0.05).section("B1")
    assert 28 <= len(grid) <= 44


def test_f19_a_slide_that_was_exchanged_or_moved(tmp_path, pair):
    cohort = cohort_of(tmp_path, pair[0], max_megapixels=0.05, images="reference")
    write_slide(tmp_path / "S1.tif", raw.picture(seed=5), um_per_px=10.0)
    with pytest.raises(FormatError, match="another image"):
        open_section_image(cohort, "T1")
    (tmp_path / "S1.tif").unlink()
    with pytest.raises(InputError, match="no such file"):
        open_section_image(cohort, "T1")


def test_f19_a_damaged_tile_leaves_no_cohort(tmp_path, pair):
    import tifffile

    path = tmp_path / "S1.tif"
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[-1], page.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"S1\.tif.*restore the file"):
        cohort_of(tmp_path, pair[0], max_megapixels=0.05)
    assert not (tmp_path / "out").exists()


def test_small_tiled_tiffs_are_read_whole(tmp_path, pair):
    cohort = cohort_of(tmp_path, pair[0])
    assert not cohort.section("T1").info.by_region
    assert isinstance(open_section_image(cohort, "T1"), TissueImage)
