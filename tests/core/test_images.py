from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.images import TissueImage, open_image


def numbered(height=12, width=16):
    """Red says the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 10, rows * 10, np.full_like(rows, 7)], axis=-1)
    return TissueImage(Path("x.png"), pixels.astype(np.uint8))


def test_a_patch_is_the_square_around_x_along_columns_and_y_along_rows():
    patch = numbered().patch(9, 5, side=4, px=4)
    np.testing.assert_array_equal(patch[0, :, 0], [70, 80, 90, 100])
    np.testing.assert_array_equal(patch[:, 0, 1], [30, 40, 50, 60])


def test_places_between_pixels_and_odd_sides():
    """The square starts at floor(centre - side / 2)."""
    patch = numbered().patch(9.9, 5.2, side=3, px=3)
    np.testing.assert_array_equal(patch[0, :, 0], [80, 90, 100])
    np.testing.assert_array_equal(patch[:, 0, 1], [30, 40, 50])


def test_what_lies_beyond_the_border_has_the_colour_of_the_glass():
    pixels = np.full((20, 20, 3), (250, 240, 230), np.uint8)
    pixels[5:15, 5:15] = 9
    image = TissueImage(Path("x"), pixels)
    np.testing.assert_array_equal(image.glass, (250, 240, 230))
    patch = image.patch(1, 10, side=8, px=8)
    np.testing.assert_array_equal(patch[:, :3], np.broadcast_to((250, 240, 230), (8, 3, 3)))
    np.testing.assert_array_equal(patch[:, 3:], pixels[6:14, :5])
    corner = image.patch(19, 19, side=6, px=6)
    np.testing.assert_array_equal(corner[:4, :4], pixels[16:, 16:])
    for x, y in ((-100, 5), (5, -100), (200, 200), (-100, 200)):
        outside = image.patch(x, y, side=6, px=6)
        np.testing.assert_array_equal(outside, np.broadcast_to((250, 240, 230), (6, 6, 3)))


def test_scaling_down_takes_means_of_blocks_and_scaling_up_keeps_flat_colours():
    small = numbered().patch(4, 4, side=8, px=4)
    np.testing.assert_array_equal(small[0, :, 0], [5, 25, 45, 65])  # means of 0 and 10, 20 and 30
    np.testing.assert_array_equal(small[:, 0, 1], [5, 25, 45, 65])
    flat = TissueImage(Path("x"), np.full((9, 9, 3), 77, np.uint8)).patch(4, 4, side=4, px=32)
    assert flat.shape == (32, 32, 3)
    assert np.unique(flat).tolist() == [77]


# Files ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for suffix in ("png", "tif", "jpg"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", quality=95)
    return tmp_path, pixels


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_images_are_read_as_rgb(saved, suffix):
    folder, pixels = saved
    image = open_image(folder / f"a.{suffix}")
    assert (image.width, image.height) == (50, 40)
    if suffix != "jpg":
        np.testing.assert_array_equal(image.pixels_HW3, pixels)


def test_a_palette_image_is_read_in_its_colours(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "p.png")
    found = Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4)
    found.save(tmp_path / "p.png")
    np.testing.assert_array_equal(open_image(tmp_path / "p.png").pixels_HW3[0, 0], (10, 20, 30))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_f19_a_truncated_image_is_named(saved, suffix, share):
    path = saved[0] / f"a.{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=rf"a\.{suffix}.*Fix: restore the file"):
        open_image(path)


def test_f19_flipped_bytes_of_a_png_are_noticed(saved):
    path = saved[0] / "a.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FormatError, match="restore the file"):
        open_image(path)


def test_f19_text_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    with pytest.raises(FormatError, match="expected a whole JPEG"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no such file"):
        open_image(tmp_path / "b.jpg")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path, width, height):
    """A few bytes whose header claims a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [40_000, 2_000_000_000])
def test_f19_a_header_that_claims_a_huge_image_is_refused_before_decoding(tmp_path, side):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises((InputError, FormatError), match=r"bomb\.png"):
        open_image(bomb(tmp_path / "bomb.png", side, side))
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_of_size_is_the_callers(saved):
    path = saved[0] / "a.png"  # 0.002 megapixels
    with pytest.raises(InputError, match=r"50 x 40 pixels, expected at most 0\.001 megapixels"):
        open_image(path, max_megapixels=0.001)
    assert open_image(path, max_megapixels=0.002).width == 50


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_f19_an_image_that_is_to_be_rotated_is_refused(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 4)).save(tmp_path / "r.jpg", exif=exif)
    with pytest.raises(InputError, match=f"EXIF orientation {orientation}"):
        open_image(tmp_path / "r.jpg")
    exif[0x0112] = 1
    Image.new("RGB", (8, 4)).save(tmp_path / "ok.jpg", exif=exif)
    assert open_image(tmp_path / "ok.jpg").width == 8


def test_sixteen_bits_are_refused_not_clipped_to_white(tmp_path):
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match="deeper than eight bits"):
        open_image(tmp_path / "deep.tif")
