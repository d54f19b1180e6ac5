"""The 137 numbers of design 11.3, by hand and beside scikit-image where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seq2exp.spatial.colour import (
    NUM_FEATURES,
    _binary_patterns,
    colour_stats,
    stain_concentrations,
)

GREY = np.array([0.2125, 0.7154, 0.0721])


def patch(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_the_parts_lie_where_they_should():
    """7 channels of mean, SD and 5 quantiles; 3; 9; 10; 2; 64."""
    pixels = patch()
    found = colour_stats(pixels)
    assert found.shape == (NUM_FEATURES,) == (49 + 3 + 9 + 10 + 2 + 64,)
    assert found.dtype == np.float32
    rgb = pixels / 255
    grey = rgb @ GREY
    channels = [*np.moveaxis(rgb, 2, 0), *np.moveaxis(stain_concentrations(rgb), 2, 0), grey]
    for i, channel in enumerate(channels):
        quantiles = np.percentile(channel, [5, 25, 50, 75, 95])
        expected = [channel.mean(), channel.std(), *quantiles]
        np.testing.assert_allclose(found[i:49:7], expected, rtol=1e-5)
    size = np.hypot(*np.gradient(grey))
    np.testing.assert_allclose(
        found[49:52], [size.mean(), size.std(), np.percentile(size, 90)], rtol=1e-5
    )
    blocks = grey.reshape(8, 4, 8, 4).mean((1, 3))
    size = np.hypot(*np.gradient(blocks))
    np.testing.assert_allclose(found[55:58], [blocks.std(), size.mean(), size.std()], rtol=1e-5)
    assert found[61:71].sum() == pytest.approx(1)
    np.testing.assert_allclose(found[71:73], [(grey < 0.45).mean(), (grey > 0.85).mean()])
    expected, _ = np.histogramdd(pixels[::2, ::2].reshape(-1, 3), bins=[np.arange(0, 257, 64)] * 3)
    np.testing.assert_allclose(found[73:], expected.ravel() / 256)


def test_a_white_patch():
    found = colour_stats(np.full((16, 16, 3), 255, np.uint8))
    assert found[71:73].tolist() == [0, 1]
    assert found[-1] == 1  # the brightest colour
    assert found[61:71].tolist() == [0] * 8 + [1, 0]  # nothing is darker than the centre
    np.testing.assert_allclose(found[[3, 4, 5]], 0, atol=1e-7)  # no stain


def test_pure_haematoxylin_has_no_other_stain():
    """Colour 10^(-c v) of stain vector v: the concentration is c, over log10(1e6)."""
    light = 10 ** (-0.6 * np.array([0.65, 0.70, 0.29]))
    np.testing.assert_allclose(stain_concentrations(light), [0.6 / 6, 0, 0], atol=1e-9)
    eosin = 10 ** (-0.6 * np.array([0.07, 0.99, 0.11]))
    np.testing.assert_allclose(stain_concentrations(eosin), [0, 0.6 / 6, 0], atol=1e-9)


def test_patterns_by_hand():
    """One bright point: its own pattern is 0, straight neighbours see one bright point."""
    grey = np.full((5, 5), 0.5)
    grey[2, 2] = 0.9
    shares = _binary_patterns(grey) * 9
    assert shares[0] == 1
    # All others see points at least as bright everywhere.
    assert shares[8] == 8
    grey[2, 2] = 0.1
    shares = _binary_patterns(grey) * 9
    # The dark one sees eight brighter; beside it one point is darker and, interpolated, the two
    # next to it on straight neighbours; on diagonal ones just one.
    assert shares[8] == 1
    assert shares[7] + shares[5] == 8


@pytest.mark.parametrize("side", [16, 33])
def test_beside_scikit_image(side):
    colour = pytest.importorskip("skimage.color")
    feature = pytest.importorskip("skimage.feature")
    random = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(patch(1, 8)).resize((side, side), Image.Resampling.BICUBIC))
    for pixels in (patch(0, side), smooth):
        np.testing.assert_allclose(
            stain_concentrations(pixels / 255), colour.rgb2hed(pixels), atol=1e-12
        )
        np.testing.assert_allclose(pixels / 255 @ GREY, colour.rgb2gray(pixels), atol=1e-12)
    # Real numbers, so that no two are equal: for ties scikit-image depends on rounding.
    for grey in (random.random((side, side)), random.random((side, side)).cumsum(0).cumsum(1)):
        codes = feature.local_binary_pattern(grey, 8, 1, method="uniform")[1:-1, 1:-1]
        expected = np.bincount(codes.astype(int).ravel(), minlength=10) / codes.size
        np.testing.assert_allclose(_binary_patterns(grey), expected)
