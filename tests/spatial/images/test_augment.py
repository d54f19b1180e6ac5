from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.images.augment import (
    ColourJitter,
    dihedral,
    paired_dihedral,
    symmetry_mean,
    symmetry_of,
)


def test_the_eight_symmetries_are_different_and_closed():
    square = torch.arange(9).reshape(1, 1, 3, 3)
    found = [dihedral(square, kind) for kind in range(8)]
    assert torch.equal(found[0], square)
    assert len({tuple(one.flatten().tolist()) for one in found}) == 8
    for first in range(8):
        for second in range(8):
            both = dihedral(dihedral(square, first), second)
            assert sum(torch.equal(both, one) for one in found) == 1


def test_symmetries_by_hand():
    """k quarter turns counterclockwise, after a mirror of left and right for k >= 4."""
    square = torch.tensor([[1, 2], [3, 4]])
    assert dihedral(square, 1).tolist() == [[2, 4], [1, 3]]
    assert dihedral(square, 4).tolist() == [[2, 1], [4, 3]]
    assert dihedral(square, 5).tolist() == [[1, 3], [2, 4]]
    with pytest.raises(ConfigError, match="0 to 7"):
        dihedral(square, 8)


def marked(num=64, side=12):
    """A random bright pixel per sample, in the patch and in every map at the same place."""
    random = torch.Generator().manual_seed(0)
    img = torch.zeros(num, 3, side, side)
    places = torch.randint(0, side, (num, 2), generator=random)
    maps = {
        "edge": torch.zeros(num, 1, side, side),
        "nuc": torch.zeros(num, 1, side // 2, side // 2),
    }
    for i, (row, column) in enumerate(places.tolist()):
        img[i, :, row, column] = 1
        maps["edge"][i, 0, row, column] = 1
        maps["nuc"][i, 0, row // 2, column // 2] = 1
    return img, maps


def test_patch_and_maps_move_together():
    img, maps = marked()
    moved, others = paired_dihedral(img, maps, 11)
    assert torch.equal(moved[:, :1], others["edge"])
    # A map of half the resolution too.
    coarse = torch.nn.functional.max_pool2d(moved[:, :1], 2)
    assert torch.equal(coarse, others["nuc"])
    assert not torch.equal(moved, img)


def test_a_sample_moves_by_its_own_seed_not_by_its_batch():
    img, maps = marked()
    seeds = list(range(100, 164))
    moved, others = paired_dihedral(img, maps, seeds)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    shuffled, parts = paired_dihedral(
        img[order], {name: value[order] for name, value in maps.items()}, [seeds[i] for i in order]
    )
    assert torch.equal(shuffled, moved[order])
    assert torch.equal(parts["nuc"], others["nuc"][order])
    alone, part = paired_dihedral(img[5], {"edge": maps["edge"][5]}, 105)
    assert torch.equal(alone, moved[5])
    assert torch.equal(part["edge"], others["edge"][5])
    assert torch.equal(paired_dihedral(img, None, 100)[0], moved)
    assert torch.equal(paired_dihedral(img, None, torch.tensor(seeds))[0], moved)


def test_all_symmetries_are_drawn_evenly_and_near_seeds_are_unrelated():
    """8000 draws: 1000 of each, with a standard deviation of 30; pairs 125, deviation 11."""
    kinds = torch.tensor(symmetry_of(range(8000)))
    assert (torch.bincount(kinds, minlength=8) - 1000).abs().max() < 130
    pairs = torch.bincount(kinds[:-1] * 8 + kinds[1:], minlength=64)
    assert (pairs - 125).abs().max() < 55


def test_what_does_not_fit_is_refused():
    img, maps = marked(num=4)
    with pytest.raises(ConfigError, match="square images"):
        paired_dihedral(img[..., :-1], None, 0)
    with pytest.raises(ConfigError, match="as many maps and seeds"):
        paired_dihedral(img, {"edge": maps["edge"][:3]}, 0)
    with pytest.raises(ConfigError, match="3 seeds"):
        paired_dihedral(img, None, [1, 2, 3])
    assert paired_dihedral(img[:0], None, 0)[0].shape == (0, 3, 12, 12)


def test_the_mean_over_symmetries_does_not_change_when_the_patch_is_turned():
    random = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 8, 8, generator=random)
    weight = torch.rand(3, 8, 8, generator=random)

    def function(x):
        return (x * weight).sum(dim=(1, 2, 3)).pow(2)[:, None]

    mean = symmetry_mean(function, x)
    expected = torch.stack([function(dihedral(x, kind)) for kind in range(8)]).mean(0)
    torch.testing.assert_close(mean, expected)
    for kind in range(8):
        torch.testing.assert_close(symmetry_mean(function, dihedral(x, kind)), mean)
    assert not torch.allclose(function(dihedral(x, 1)), function(x))


# Colour --------------------------------------------------------------------------------------


def test_no_strength_changes_nothing():
    x = torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(ColourJitter(0, 0, 0)(x, 3), x)


def test_brightness_multiplies_contrast_keeps_the_mean_and_saturation_the_grey():
    x = torch.rand(64, 3, 6, 6) * 0.4 + 0.3
    weight = torch.tensor([0.2125, 0.7154, 0.0721])[:, None, None]
    bright = ColourJitter(0.2, 0, 0)(x, 0)
    factor = (bright / x).flatten(1)
    torch.testing.assert_close(factor.amin(1), factor.amax(1))
    assert 0.8 <= factor.min() < 0.9
    assert 1.1 < factor.max() <= 1.2
    contrast = ColourJitter(0, 0.2, 0)(x, 0)
    torch.testing.assert_close(
        (contrast * weight).sum(1).mean((1, 2)), (x * weight).sum(1).mean((1, 2))
    )
    assert not torch.allclose(contrast, x, atol=0.01)
    colour = ColourJitter(0, 0, 0.2)(x, 0)
    torch.testing.assert_close((colour * weight).sum(1), (x * weight).sum(1))
    assert not torch.allclose(colour, x, atol=0.01)


def test_colours_stay_between_0_and_1_and_follow_the_seed_of_the_sample():
    x = torch.rand(16, 3, 6, 6)
    jitter = ColourJitter(0.9, 0.9, 0.9)
    out = jitter(x, list(range(16)))
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out[[3]], jitter(x[[3]], [3]))
    assert not torch.equal(out, jitter(x, list(range(16, 32))))


def test_strengths_are_checked():
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        ColourJitter(1.5, 0, 0)
