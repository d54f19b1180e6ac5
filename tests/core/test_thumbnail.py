from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.thumbnail import read_thumbnail


def quarters(height=400, width=600):
    """Red, green, blue and white quarters."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    top, left = slice(None, height // 2), slice(None, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    pixels[top, left], pixels[top, right], pixels[bottom, left] = (
        (200, 0, 0),
        (0, 200, 0),
        (0, 0, 200),
    )
    return pixels


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_place_of_the_image_is_found_by_the_scale(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(quarters()).save(path)
    small = read_thumbnail(path, max_px=60)
    assert small.pixels_HW3.shape == (40, 60, 3)
    assert small.scale == pytest.approx(0.1)
    places = {(150, 100): (200, 0, 0), (450, 100): (0, 200, 0),
              (150, 300): (0, 0, 200), (450, 300): (255, 255, 255)}  # fmt: skip
    for (x, y), colour in places.items():
        found = small.pixels_HW3[int(y * small.scale), int(x * small.scale)].astype(int)
        assert np.abs(found - colour).max() <= 6


def test_a_small_image_stays_as_it_is(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "image.png")
    small = read_thumbnail(tmp_path / "image.png", max_px=1000)
    assert small.scale == 1
    np.testing.assert_array_equal(small.pixels_HW3, quarters())


def test_a_large_jpeg_is_never_held_whole(tmp_path, monkeypatch):
    """The decoder is asked for a smaller picture before any pixel is read."""
    Image.fromarray(quarters(1600, 2400)).save(tmp_path / "image.jpg")
    sizes = []
    convert = Image.Image.convert

    def spy(self, *arguments, **settings):
        sizes.append(self.size)
        return convert(self, *arguments, **settings)

    monkeypatch.setattr(Image.Image, "convert", spy)
    assert read_thumbnail(tmp_path / "image.jpg", max_px=300).pixels_HW3.shape == (200, 300, 3)
    assert sizes[0] == (300, 200)


def test_no_image_and_a_broken_one(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_thumbnail(tmp_path / "none.jpg", max_px=10)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(FormatError, match="a whole JPEG"):
        read_thumbnail(tmp_path / "text.jpg", max_px=10)
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
