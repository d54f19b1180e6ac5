"""Slides that are read by region give what the same image in memory gives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seq2exp.core import slides
from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.core.images import TissueImage
from seq2exp.core.slides import SlideImage, open_slide, open_tissue, stored_um_per_px
from tests.core.slide_files import write_slide

REASON = "extra wsi is not installed"


def picture(width=400, height=300, *, seed=0):
    """Blobs on glass, so that every patch differs."""
    pixels = np.full((height, width, 3), 240, np.uint8)
    noise = np.random.default_rng(seed).integers(60, 200, (height // 10, width // 10, 3), np.uint8)
    blobs = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    inner = (slice(30, -30), slice(40, -40))
    pixels[inner] = np.asarray(blobs)[inner]
    return pixels


@pytest.fixture
def slide(tmp_path):
    pytest.importorskip("tifffile", reason=REASON)
    pytest.importorskip("tiffslide", reason=REASON)
    return write_slide(tmp_path / "a.tif", picture(), um_per_px=0.5)


def test_patches_are_those_of_the_image_in_memory(slide):
    """Inside, over the border, scaled down and up."""
    known, found = TissueImage(Path("x"), picture()), open_slide(slide)
    assert (found.width, found.height) == (400, 300)
    np.testing.assert_array_equal(found.glass, known.glass)
    for x, y in ((200, 150), (0, 0), (399, 299), (-5, 150), (120.4, 77.5), (1000, 1000)):
        for side, px in ((64, 64), (101, 32), (20, 48)):
            np.testing.assert_array_equal(
                found.patch(x, y, side=side, px=px), known.patch(x, y, side=side, px=px)
            )


def test_a_patch_reads_its_region_only(slide, monkeypatch):
    image, asked = open_slide(slide), []
    real = image.slide.read_region

    def spied(location, level, size, **settings):
        asked.append((location, level, size))
        return real(location, level, size, **settings)

    monkeypatch.setattr(image.slide, "read_region", spied)
    image.patch(200, 150, side=64, px=64)
    assert asked == [((168, 118), 0, (64, 64))]


def test_an_overview_is_small_and_says_its_scale(slide, tmp_path, monkeypatch):
    pixels, scale = open_slide(slide).overview()
    np.testing.assert_array_equal(pixels, picture())
    assert scale == 1
    monkeypatch.setattr(slides, "OVERVIEW_PX", 90)
    expected = np.asarray(Image.fromarray(picture()).resize((90, 68), Image.Resampling.BOX))
    flat = write_slide(tmp_path / "flat.tif", picture(), levels=1)
    for path in (slide, flat):
        for limit in (32_000_000, 20_000):  # in one piece, and in strips
            monkeypatch.setattr(slides, "_STRIP_PIXELS", limit)
            pixels, scale = open_slide(path).overview()
            assert pixels.shape == (68, 90, 3)
            assert scale == pytest.approx(90 / 400)
            assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_colours_change_where_they_are_read(slide):
    known = TissueImage(Path("x"), 255 - picture())
    found = open_slide(slide).recoloured(lambda pixels: 255 - pixels)
    np.testing.assert_array_equal(
        found.patch(100, 100, side=50, px=50), known.patch(100, 100, side=50, px=50)
    )


def test_large_tiled_tiffs_and_files_of_scanners_are_read_by_region(slide, tmp_path):
    """400 x 300 pixels are 0.12 megapixels."""
    assert isinstance(open_tissue(slide, max_megapixels=0.1), SlideImage)
    image = open_tissue(slide, max_megapixels=0.2)
    assert isinstance(image, TissueImage)
    np.testing.assert_array_equal(image.pixels_HW3, picture())
    (tmp_path / "b.svs").write_bytes(slide.read_bytes())
    assert isinstance(open_tissue(tmp_path / "b.svs"), SlideImage)


def test_a_large_image_in_one_piece_is_refused(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(picture()).save(tmp_path / name)
        with pytest.raises(InputError, match=r"400 x 300 pixels.*at most 0\.1 megapixels"):
            open_tissue(tmp_path / name, max_megapixels=0.1)


def test_the_size_of_a_pixel_is_read_from_the_slide(slide, tmp_path):
    assert stored_um_per_px(open_slide(slide)) == pytest.approx(0.5)
    assert stored_um_per_px(open_tissue(slide)) == pytest.approx(0.5)
    silent = write_slide(tmp_path / "silent.tif", picture())
    assert stored_um_per_px(open_slide(silent)) is None


# Faults ---------------------------------------------------------------------------------------


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiffslide", None)
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    with pytest.raises(ConfigError, match=r"no tiffslide.*pip install seq2exp\[wsi\]"):
        open_tissue(tmp_path / "a.svs")


def test_f19_no_such_slide(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_tissue(tmp_path / "a.svs")
    with pytest.raises(InputError, match="no such file"):
        open_tissue(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0, 0.02, 0.3])
def test_f19_truncated_slides(slide, tmp_path, share):
    content = slide.read_bytes()
    (tmp_path / "b.svs").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=r"b\.svs.*restore the file"):
        open_slide(tmp_path / "b.svs").overview()


def test_f19_a_damaged_tile_is_named_when_it_is_read(slide, tmp_path):
    """The directory is whole and the other tiles too."""
    import tifffile

    with tifffile.TiffFile(slide) as file:
        offset, size = (
            getattr(file.pages[0], f"data{what}")[0] for what in ("offsets", "bytecounts")
        )
    content = bytearray(slide.read_bytes())
    content[offset : offset + size] = b"\xff" * size
    (tmp_path / "b.svs").write_bytes(content)
    (tmp_path / "c.tif").write_bytes(content)
    with pytest.raises(FormatError, match=r"b\.svs"):
        open_slide(tmp_path / "b.svs").patch(10, 10, side=20, px=20)
    with pytest.raises(FormatError, match=r"c\.tif"):
        open_tissue(tmp_path / "c.tif")


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_slides_are_refused(tmp_path, kind):
    tifffile = pytest.importorskip("tifffile", reason=REASON)
    pytest.importorskip("tiffslide", reason=REASON)
    pixels = picture().astype(kind)
    tifffile.imwrite(tmp_path / "deep.svs", pixels, tile=(64, 64), photometric="rgb")
    with pytest.raises(FormatError, match=r"expected a whole slide, RGB in 8 bits"):
        open_slide(tmp_path / "deep.svs")
