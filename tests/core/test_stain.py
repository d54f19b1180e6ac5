"""Stains that were mixed by the law of Lambert and Beer are found again."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.stain import Macenko

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
EOSIN = np.array([0.27, 0.91, 0.32]) / np.linalg.norm([0.27, 0.91, 0.32])


def mixed(stains, concentrations):
    """Light that comes through the stains, in bytes."""
    light = 255 * np.exp(-concentrations @ stains)
    side = int(np.sqrt(len(light)))
    return light[: side * side].reshape(side, side, 3).round().astype(np.uint8)


def tissue(stains, *, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    concentrations = random.uniform(0, 1, (10_000, 2)) * [1.6, 1.2] * scale
    # Some pixels of one stain alone, which are the extreme directions.
    concentrations[:800, 1] = 0
    concentrations[800:1600, 0] = 0
    return mixed(stains, concentrations)


def test_planted_stains_are_found():
    stains = np.stack([HAEMATOXYLIN, EOSIN])
    found = Macenko.fit(tissue(stains))
    assert (found.stains_23 * stains).sum(axis=1).min() > 0.998  # cosines
    np.testing.assert_allclose(found.top_2, [1.6, 1.2], rtol=0.08)
    np.testing.assert_allclose(np.linalg.norm(found.stains_23, axis=1), 1)


def test_the_order_of_the_stains_does_not_depend_on_how_much_there_is():
    stains = np.stack([HAEMATOXYLIN, EOSIN])
    random = np.random.default_rng(1)
    for amount in ([1.8, 0.9], [0.9, 1.8]):
        found = Macenko.fit(mixed(stains, random.uniform(0.2, 1, (10_000, 2)) * amount))
        assert found.stains_23[0, 0] > found.stains_23[1, 0]


def test_its_own_reference_changes_nothing_and_another_scanner_is_undone():
    first, other = np.stack([HAEMATOXYLIN, EOSIN]), np.array([[0.75, 0.6, 0.28], [0.2, 0.93, 0.3]])
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    here, there = tissue(first), tissue(other, scale=0.7)
    reference, fitted = Macenko.fit(here), Macenko.fit(there)
    same = reference.transform(here, reference).astype(int)
    assert np.abs(same - here).mean() < 1
    before = np.abs(there.astype(int) - here).mean()
    after = np.abs(fitted.transform(there, reference).astype(int) - here).mean()
    assert after < 0.2 * before


def test_glass_stays_glass():
    stains = np.stack([HAEMATOXYLIN, EOSIN])
    reference, fitted = Macenko.fit(tissue(stains)), Macenko.fit(tissue(stains, scale=0.6))
    white = np.full((3, 3, 3), 255, np.uint8)
    np.testing.assert_array_equal(fitted.transform(white, reference), white)


def test_large_images_are_sampled_with_a_seed():
    stains = np.stack([HAEMATOXYLIN, EOSIN])
    large = np.tile(tissue(stains), (5, 5, 1))
    first, again = Macenko.fit(large, seed=3), Macenko.fit(large, seed=3)
    np.testing.assert_array_equal(first.stains_23, again.stains_23)
    np.testing.assert_allclose(first.stains_23, Macenko.fit(tissue(stains)).stains_23, atol=0.02)


def test_an_image_of_glass_has_no_stains():
    with pytest.raises(InputError, match=r"0 stained pixels.*patch\.stain: none"):
        Macenko.fit(np.full((50, 50, 3), 250, np.uint8))
