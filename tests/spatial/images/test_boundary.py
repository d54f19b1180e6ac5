"""Boundary maps of pictures with planted edges and nuclei."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import seq2exp.spatial.images.boundary as module
from seq2exp.core.errors import ConfigError
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.boundary import BasicBoundary, BoundaryMaps, otsu
from tests.spatial.images.toy import make_cohort

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])


def stained(haematoxylin, eosin):
    """Light through the two stains."""
    density = haematoxylin[..., None] * HAEMATOXYLIN + eosin[..., None] * EOSIN
    return (255 * 10**-density).round().astype(np.uint8)


def tissue(side=120, *, radius=6):
    """Nine nuclei on stroma, of which one touches nothing, and glass on the right."""
    rows, columns = np.mgrid[:side, : side + 40]
    nuclei = np.zeros(rows.shape, int)
    for number, (row, column) in enumerate(
        ((r, c) for r in (20, 60, 100) for c in (20, 60, 100)), start=1
    ):
        nuclei[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    glass = columns >= side
    haematoxylin = np.where(nuclei > 0, 0.7, 0.15) * ~glass
    return stained(haematoxylin, 0.25 * ~glass), nuclei


def test_planted_nuclei_are_found_one_by_one():
    rgb, nuclei = tissue()
    labels = BasicBoundary().labels(rgb, um_per_px=1.0)
    assert labels.max() == 9
    both = (labels > 0) & (nuclei > 0)
    assert both.sum() > 0.85 * ((labels > 0) | (nuclei > 0)).sum()
    for number in range(1, 10):
        assert len(np.unique(labels[(nuclei == number) & (labels > 0)])) == 1
    mask = BasicBoundary().nuclei(rgb, um_per_px=1.0)
    np.testing.assert_array_equal(mask, labels > 0)
    assert mask.dtype == np.float32


def test_specks_are_no_nuclei_and_holes_are_filled():
    rgb, _ = tissue()
    rgb[38:40, 38:40] = rgb[20, 20]  # a speck of four pixels
    rgb[59:62, 59:62] = rgb[40, 10]  # a hole in a nucleus
    found = BasicBoundary(smooth_um=0.3, min_um2=8).labels(rgb, um_per_px=1.0)
    assert found.max() == 9
    assert found[60, 60] > 0
    assert BasicBoundary(smooth_um=0.3, min_um2=0).labels(rgb, um_per_px=1.0).max() == 10
    # Four pixels of 2 micrometres are 16 square micrometres.
    assert BasicBoundary(smooth_um=0.3, min_um2=8).labels(rgb, um_per_px=2.0).max() == 10


def test_a_ring_of_nuclei_is_no_nucleus():
    rows, columns = np.mgrid[:100, :100]
    far = np.hypot(rows - 50, columns - 50)
    ring = np.where(np.abs(far - 25) <= 4, 0.7, 0.15)
    labels = BasicBoundary().labels(stained(ring, np.full(ring.shape, 0.25)), um_per_px=1.0)
    assert labels.max() == 1
    assert labels[50, 50] == 0
    assert labels[50, 25] == 1


def test_edges_are_where_haematoxylin_changes_and_eosin_alone_makes_none():
    columns = np.arange(64)
    haematoxylin = np.broadcast_to(np.where(columns < 32, 0.2, 0.8), (64, 64))
    flat = np.full((64, 64), 0.3)
    edge = BasicBoundary().edge(stained(haematoxylin, flat), um_per_px=1.0)
    assert edge.max() == 1
    assert (edge[:, 31:33] > 0.9).all()
    assert edge[:, :30].max() < 0.1 > edge[:, 34:].max()
    other = BasicBoundary().edge(
        stained(haematoxylin, np.where(haematoxylin > 0.5, 0, 0.6)), um_per_px=1.0
    )
    np.testing.assert_allclose(edge, other, atol=0.1)


def test_an_edge_map_is_not_the_grey_picture():
    rgb, _ = tissue()
    edge = BasicBoundary().edge(rgb, um_per_px=1.0)
    grey = rgb.mean(axis=2)
    assert abs(np.corrcoef(edge.ravel(), grey.ravel())[0, 1]) < 0.6
    assert 0 <= edge.min() <= edge.max() <= 1


def test_a_blank_image_has_no_boundaries():
    white = np.full((20, 20, 3), 250, np.uint8)
    assert not BasicBoundary().edge(white, um_per_px=1.0).any()
    assert not BasicBoundary().nuclei(white, um_per_px=1.0).any()
    assert not BasicBoundary().nuclei(np.full((20, 20, 3), 90, np.uint8), um_per_px=1.0).any()


def test_otsu_parts_two_classes_in_the_middle():
    values = np.array([0.0] * 50 + [0.1] * 50 + [0.9] * 30 + [1.0] * 10)
    assert otsu(values) == pytest.approx(0.5, abs=0.01)
    assert otsu(np.ones(5)) == 1
    # By trying every threshold.
    random = np.random.default_rng(0)
    mixed = np.concatenate([random.normal(0, 1, 4000), random.normal(4, 0.5, 1000)])

    def spread(threshold):
        parts = (mixed[mixed <= threshold], mixed[mixed > threshold])
        return sum(len(part) * part.var() for part in parts if len(part))

    tried = np.linspace(mixed.min(), mixed.max(), 2000)
    best = tried[np.argmin([spread(one) for one in tried])]
    assert otsu(mixed) == pytest.approx(best, abs=0.06)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="0 or more"):
        BasicBoundary(smooth_um=-1)


# On disk -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("boundary"))


@pytest.fixture
def cohort(source, tmp_path):
    return SpatialCohort(shutil.copytree(source.root, tmp_path / "cohort"))


@pytest.fixture
def runs(monkeypatch):
    found, real = [], module.open_section_image
    monkeypatch.setattr(
        module, "open_section_image", lambda c, name: found.append(name) or real(c, name)
    )
    return found


def test_maps_are_cut_where_the_patches_are(cohort):
    """The maps of the pixels of a patch are the cut of the maps of the section."""
    maps = BoundaryMaps(cohort, BasicBoundary())
    whole = maps.section("A")
    assert (whole.shape, whole.dtype) == ((2, 220, 280), np.uint8)
    section = cohort.section("A")
    x, y = section.xy_N2[8].astype(int)
    for tiles in (1, 5):
        found, half = maps.crop("A", 8, tiles=tiles), 8 * tiles
        for kind, name in enumerate(("edge", "nuc")):
            expected = whole[kind, y - half : y + half, x - half : x + half]
            np.testing.assert_array_equal(found[name], expected)
    assert whole[0].any()


def test_beyond_the_image_maps_are_0(cohort):
    maps = BoundaryMaps(cohort, BasicBoundary())
    corner = maps.crop("A", 0, tiles=9)["edge"]  # 144 pixels around (60, 60)
    assert corner.shape == (144, 144)
    assert not corner[:12].any()
    assert not corner[:, :12].any()
    np.testing.assert_array_equal(corner[12:, 12:], maps.section("A")[0, :132, :132])


def test_maps_are_computed_once_and_again_when_settings_change_or_files_are_cut(cohort, runs):
    maps = BoundaryMaps(cohort, BasicBoundary())
    assert len(maps.build()) == 2
    assert BoundaryMaps(cohort, BasicBoundary()).build() == []
    assert runs == ["A", "B"]
    other = BoundaryMaps(cohort, BasicBoundary(smooth_um=2))
    assert other.path("A") != maps.path("A")
    assert len(other.build(["A"])) == 1
    path = maps.path("B")
    content = path.read_bytes()
    for damaged in (b"", content[:-100], content[:40]):
        path.write_bytes(damaged)
        assert maps.build() == [path]
        assert path.read_bytes() == content
