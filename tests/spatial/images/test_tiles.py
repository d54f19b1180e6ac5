from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from seq2exp.core.errors import FormatError, InputError
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.tiles import open_section_image, tile_centres, tiles_of
from tests.data_prep.histology import raw
from tests.spatial.images.toy import make_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("tiles"))


def test_tiles_lie_row_by_row_around_the_spot(cohort):
    """160 micrometres are 16 pixels; tile 0 lies two tiles up and two to the left."""
    centres, mask = tile_centres(cohort.section("A"), um=160)
    x, y = raw.places()
    assert centres.shape == (30, 25, 2)
    assert centres[0, 0].tolist() == [x[0] - 32, y[0] - 32]
    assert centres[0, 1].tolist() == [x[0] - 16, y[0] - 32]
    assert centres[0, 5].tolist() == [x[0] - 32, y[0] - 16]
    np.testing.assert_array_equal(centres[:, 12], np.column_stack([x, y]))
    assert mask.all()


def test_tiles_whose_centre_is_outside_are_not_there(cohort):
    """Steps of 40 pixels from (60, 60): columns -20, 20, ...; the image is 280 x 220."""
    _, mask = tile_centres(cohort.section("A"), um=400)
    assert mask[0].reshape(5, 5).tolist() == [[False] * 5] + [[False] + [True] * 4] * 4
    # The last spot: x = 160 + 80 = 240 is on the image, y = 140 + 80 = 220 no more.
    assert mask[29].reshape(5, 5).tolist() == [[True] * 5] * 4 + [[False] * 5]


def test_the_tile_in_the_middle_is_the_patch_and_tiles_meet(cohort):
    section = cohort.section("A")
    image = open_section_image(cohort, "A")
    found = {(spot, tile): pixels for spot, tile, pixels in tiles_of(section, image, um=160, px=16)}
    assert len(found) == 30 * 25
    for spot in range(30):
        np.testing.assert_array_equal(found[spot, 12], section.patches[spot])
    rows = [np.concatenate([found[14, 5 * r + c] for c in range(5)], axis=1) for r in range(5)]
    x, y = (int(part[14]) for part in raw.places())
    expected = raw.picture(seed=0)[y - 40 : y + 40, x - 40 : x + 40]
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_tiles_have_the_stain_of_the_patches(tmp_path):
    """The second section is brought to the colours of the first, as its patches were."""
    cohort = make_cohort(tmp_path, stain="macenko")
    for name in cohort.names:
        section = cohort.section(name)
        image = open_section_image(cohort, name)
        for spot, tile, pixels in tiles_of(section, image, um=160, px=16):
            if tile == 12:
                np.testing.assert_array_equal(pixels, section.patches[spot])


def test_another_image_under_the_same_name_is_refused(cohort, tmp_path):
    root = shutil.copytree(cohort.root, tmp_path / "cohort")
    path = root / "images/A.png"
    Image.fromarray(255 - raw.picture()).save(path)
    with pytest.raises(FormatError, match=r"A\.png: found another image, 280 x 220"):
        open_section_image(SpatialCohort(root), "A")
    other = SpatialCohort(root)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        open_section_image(other, "A")
