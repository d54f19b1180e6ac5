"""HER2ST sections: the crop of 25 spots, and one whole section at full resolution."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from data_prep.histology.bare import tissue_grid
from data_prep.histology.build import prepare_cohort
from data_prep.histology.checks import alignment
from data_prep.histology.config import CohortConfig, PatchConfig, SectionConfig
from data_prep.histology.pitch import estimate_pitch, nearest_distance
from data_prep.histology.section import read_section
from seq2exp.core.images import open_image
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.cache import FeatureCache
from seq2exp.spatial.images.registry import make_encoder

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data")) / "her2st"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
]


def st_section(**settings):
    values = {"name": "C4", "patient": "C", "layout": "st", "table": "C4_counts.tsv.gz",
              "spots": "C4_spots.tsv", "image": "C4.jpg"}  # fmt: skip
    return SectionConfig(**(values | settings))


@pytest.fixture(scope="module")
def crop(tmp_path_factory):
    out = tmp_path_factory.mktemp("crop") / "cohort"
    config = CohortConfig("crop", [st_section(image="C4_crop.jpg")])
    prepare_cohort(config, DATA / "fixture_C4", out)
    return SpatialCohort(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "cohort"
    prepare_cohort(CohortConfig("whole", [st_section()]), DATA / "fullres", out)
    return SpatialCohort(out, verify_checksums=True)


def test_the_crop(crop):
    """25 spots in 5 rows and columns, 200 genes without the sum that stands beside them."""
    section = crop.section("C4")
    assert (len(section), section.info.num_genes) == (25, 200)
    assert "__total_umi" not in section.var.index
    table = pd.read_csv(DATA / "fixture_C4/C4_counts.tsv.gz", sep="\t", index_col=0)
    names = [f"{column}x{row}" for row, column in section.grid_N2]
    np.testing.assert_array_equal(
        section.counts_NA.toarray(), table.loc[names, section.var.index].to_numpy()
    )
    # 25 spots that are some pixels off their places tell the pitch to about a percent.
    assert section.info.um_per_px == pytest.approx(200 / 290.7, rel=0.03)


def test_patches_of_the_crop_are_cut_around_the_pixels_of_the_spots(crop):
    """165 micrometres, about 240 pixels of the image."""
    section = crop.section("C4")
    with Image.open(DATA / "fixture_C4/C4_crop.jpg") as image:
        pixels = np.asarray(image.convert("RGB"))
    side = round(165 / section.info.um_per_px)
    assert abs(side - 240) <= 6
    for spot in (0, 7, 24):
        left, top = np.floor(section.xy_N2[spot] - side / 2).astype(int)
        cut = pixels[top : top + side, left : left + side]
        if side != 224:
            method = Image.Resampling.BOX if side > 224 else Image.Resampling.BICUBIC
            cut = np.asarray(Image.fromarray(cut).resize((224, 224), method))
        np.testing.assert_array_equal(section.patches[spot], cut)


def test_features_of_the_crop(crop, tmp_path):
    cache = FeatureCache(crop, make_encoder("colour_stats"), root=tmp_path)
    cache.build(["feat", "nbr"])
    feat, (nbr, mask) = cache.feat("C4"), cache.nbr("C4")
    assert feat.shape == (25, 137)
    np.testing.assert_array_equal(nbr[:, 12], feat)
    # The window of a corner spot reaches two tiles beyond the crop, that of the middle one none.
    corner = int(np.argmin(crop.section("C4").xy_N2.sum(axis=1)))
    middle = int(np.argmin(np.abs(crop.section("C4").xy_N2 - 810).sum(axis=1)))
    assert not mask[corner, 0]
    assert mask[middle].all()
    assert len(np.unique(feat.round(4), axis=0)) == 25


def test_a_whole_section_keeps_its_184_spots_on_stained_tissue(whole):
    info = whole.section("C4").info
    assert (info.num_spots, info.left_out) == (184, {"fewer than 100 counts": 0})
    assert (info.width, info.height, info.num_genes) == (9278, 9916, 15_842)
    assert 43 <= info.notes["saturation_on_spots"] <= 46
    assert info.notes["saturation_off_spots"] < 20
    assert info.um_per_px == pytest.approx(200 / 290.8, rel=0.003)
    assert int(np.median(whole.section("C4").total_N)) == 10_190


@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C5"])
def test_the_pitch_is_that_of_the_refined_places(name):
    """new_x and new_y are the pixels in units of the array: their slope is its pitch.

    The nearest neighbours are 271 to 274 pixels away, as a jitter of 17 pixels makes them.
    """
    spots = pd.read_csv(DATA / f"fullres/{name}_spots.tsv", sep="\t")
    slopes = [np.polyfit(spots[f"new_{axis}"], spots[f"pixel_{axis}"], 1)[0] for axis in "xy"]
    assert np.ptp(slopes) < 3
    files = {"table": f"{name}_counts.tsv.gz", "spots": f"{name}_spots.tsv", "image": f"{name}.jpg"}
    config = st_section(name=name, **files)
    section = read_section(config, CohortConfig("pitch", [config]), DATA / "fullres")
    assert estimate_pitch(section) == pytest.approx(np.mean(slopes), rel=0.005)
    assert nearest_distance(np.column_stack([section.x, section.y])) < 0.95 * np.mean(slopes)


@pytest.mark.parametrize("name", ["A1", "C2", "C3", "C4", "C5"])
def test_a_grid_over_the_tissue_meets_the_measured_spots(name):
    """Spots were measured under tissue: a grid of their pitch lies on it and covers it."""
    spots = pd.read_csv(DATA / f"lowres/{name}_spots.tsv", sep="\t")[["px", "py"]].to_numpy()
    step = 200 / 3.19
    x, y, _, _ = tissue_grid(open_image(DATA / f"lowres/{name}.jpg"), step)
    grid = np.column_stack([x, y])
    assert (cKDTree(spots).query(grid)[0] < 0.75 * step).mean() > 0.9
    assert (cKDTree(grid).query(spots)[0] < 0.75 * step).mean() > 0.95


def test_the_tables_and_the_anndata_of_a_section_agree(whole, tmp_path):
    published = anndata.read_h5ad(DATA / "fullres/C4.h5ad")
    section = whole.section("C4")
    place = {
        (row, column): i
        for i, (row, column) in enumerate(
            zip(published.obs["array_row"], published.obs["array_col"], strict=True)
        )
    }
    order = [place[tuple(cell)] for cell in section.grid_N2]
    np.testing.assert_allclose(section.xy_N2, np.asarray(published.obsm["spatial"])[order])
    np.testing.assert_array_equal(section.counts_NA.sum(axis=1), published.X[order].sum(axis=1))


def test_exchanged_axes_of_a_real_section_are_not_taken(tmp_path):
    """The low resolution is enough: columns and rows of pixels are exchanged."""
    spots = pd.read_csv(DATA / "lowres/C4_spots.tsv", sep="\t")
    spots = spots.rename(columns={"px": "py", "py": "px"})
    spots.to_csv(tmp_path / "spots.tsv", sep="\t", index=False)
    section = st_section(
        table=str(DATA / "fullres/C4_counts.tsv.gz"),
        spots=str(tmp_path / "spots.tsv"),
        image=str(DATA / "lowres/C4.jpg"),
    )
    good = st_section(
        table=str(DATA / "fullres/C4_counts.tsv.gz"),
        spots=str(DATA / "lowres/C4_spots.tsv"),
        image=str(DATA / "lowres/C4.jpg"),
    )
    config = CohortConfig("low", [section], patch=PatchConfig(px=48))
    image = open_image(DATA / "lowres/C4.jpg")
    on = {}
    for name, one in (("right", good), ("exchanged", section)):
        notes = alignment(read_section(one, config, tmp_path), image)
        on[name] = notes["saturation_on_spots"] - notes["saturation_off_spots"]
    assert on["right"] > 25
    assert on["exchanged"] < on["right"]
