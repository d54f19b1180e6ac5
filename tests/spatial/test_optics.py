from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.core.stain import STAINS
from seq2exp.spatial.colour import stain_concentrations
from seq2exp.spatial.optics import (
    OpticalPixels,
    foreground,
    optical_density,
    transmitted,
)


def test_glass_has_density_zero_and_black_a_finite_one():
    assert torch.equal(optical_density(torch.ones(2, 3)), torch.zeros(2, 3))
    assert optical_density(torch.zeros(1)).item() == pytest.approx(np.log(255))
    assert optical_density(torch.tensor([0.5])).item() == pytest.approx(np.log(2))


def test_concentrations_that_made_a_colour_are_found_again():
    torch.manual_seed(0)
    stains = torch.tensor(STAINS, dtype=torch.float64)
    # Up to 1.5 of each: the darkest colour is exp(-3.6), well above 1 / 255.
    concentrations = torch.rand(50, 3, dtype=torch.float64) * 1.5
    colour = transmitted(concentrations @ stains)
    assert colour.min() > 1 / 255
    found = optical_density(colour) @ torch.linalg.inv(stains)
    torch.testing.assert_close(found, concentrations, atol=1e-4, rtol=0)
    # The same stains as those of the colour features, which use another unit.
    other = stain_concentrations(colour.numpy()) * -np.log(1e-6)
    np.testing.assert_allclose(other, concentrations, atol=1e-4)


def test_pixels_are_tissue_by_their_density_unless_too_few_are():
    dark, light = [0.5, 0.4, 0.3], [0.1, 0.1, 0.1]
    density = torch.tensor([[dark, light, dark, light], [dark, light, light, light]])
    kept, flagged = foreground(density, threshold=0.15, min_pixels=2)
    assert kept.tolist() == [[True, False, True, False], [True] * 4]
    assert flagged.tolist() == [False, True]
    kept, flagged = foreground(density, threshold=0.0, min_pixels=2)
    assert kept.all()
    assert not flagged.any()


def test_a_seed_chooses_the_same_pixels_of_every_patch():
    torch.manual_seed(0)
    img = torch.rand(3, 3, 100, 80)
    one, same, other = (OpticalPixels(num_pixels=50, side=16, seed=seed) for seed in (1, 1, 2))
    found = one.tokens(img)
    assert found.shape == (3, 50, 3)
    assert torch.equal(found, same.tokens(img))
    assert not torch.equal(found, other.tokens(img))
    torch.testing.assert_close(one.tokens(img[1:2]), found[1:2])
    # Each is the mean of a block of colours of the patch.
    assert torch.equal(one.cached(img), found.half())
    torch.testing.assert_close(one.pool(img), found.mean(dim=1))
    blocks = img[..., :96, :80].unfold(2, 6, 6).unfold(3, 5, 5).mean(dim=(-1, -2))
    small = OpticalPixels(num_pixels=10_000, side=16).tokens(img[..., :96, :80])
    torch.testing.assert_close(small, optical_density(blocks).flatten(2).transpose(1, 2))


def test_a_patch_smaller_than_the_square_keeps_its_pixels():
    img = torch.rand(1, 3, 8, 8)
    found = OpticalPixels(num_pixels=1024, side=64).tokens(img)
    torch.testing.assert_close(found, optical_density(img).flatten(2).transpose(1, 2))
    with pytest.raises(ConfigError, match="1 or more"):
        OpticalPixels(num_pixels=0)
