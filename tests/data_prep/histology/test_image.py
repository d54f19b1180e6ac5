from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep.histology.image import saturation
from seq2exp.core.images import TissueImage


def image():
    """Left half red of saturation 200, right half grey."""
    pixels = np.full((10, 20, 3), 100, np.uint8)
    pixels[:, :10] = (210, 10, 60)
    return TissueImage(Path("x.png"), pixels)


def at(*points):
    x, y = np.array(points, float).T
    return x, y


def test_saturation_is_the_mean_of_largest_minus_smallest_channel():
    assert saturation(image(), *at((5, 5)), side=4) == 200
    assert saturation(image(), *at((15, 5)), side=4) == 0
    assert saturation(image(), *at((5, 5), (15, 5)), side=4) == 100
    # Half of the square lies on either side.
    assert saturation(image(), *at((10, 5)), side=4) == 100


def test_squares_are_cut_at_the_border_and_left_out_beyond_it():
    assert saturation(image(), *at((0, 0)), side=4) == 200
    assert saturation(image(), *at((5, 5), (-50, 5), (5, 500)), side=4) == 200
    assert np.isnan(saturation(image(), *at((-50, 5)), side=4))
