"""Stores of the form that Visium readers of spatialdata-io write."""

from __future__ import annotations

import builtins

import anndata
import numpy as np
import pandas as pd
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import SectionConfig
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError
from seq2exp.spatial.cohort import SpatialCohort
from tests.data_prep.histology import raw

SECTION = SectionConfig(
    "S1", "P7", layout="spatialdata", table="data.zarr", image="full", um_per_px=10.0
)
STORE = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path):
    """Counts, circles in micrometres, and two images; spots of the table in another order."""
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    rows, columns = raw.grid()
    order = np.random.default_rng(0).permutation(30)
    obs = pd.DataFrame(
        {"array_row": rows, "array_col": columns, "in_tissue": 1, "spot_id": np.arange(30),
         "region": pd.Categorical(["sample"] * 30)},
        index=[f"AAC-{i}" for i in range(30)],
    )  # fmt: skip
    table = anndata.AnnData(
        X=raw.counts().astype(np.float32), obs=obs, var=pd.DataFrame(index=raw.GENES)
    )[order].copy()
    circles = ShapesModel.parse(
        10 * np.column_stack(raw.places()), geometry=0, radius=50.0, index=np.arange(30)
    )
    channels = np.moveaxis(raw.picture(), -1, 0)
    images = {
        "full": Image2DModel.parse(
            channels, dims=("c", "y", "x"), scale_factors=[2],
            transformations={"global": Scale([10.0, 10.0], axes=("x", "y"))},
        ),
        "small": Image2DModel.parse(channels[:, ::4, ::4], dims=("c", "y", "x")),
    }  # fmt: skip
    parsed = TableModel.parse(table, region="sample", region_key="region", instance_key="spot_id")
    made = spatialdata.SpatialData(images=images, shapes={"sample": circles}, tables={"t": parsed})
    made.write(tmp_path / "data.zarr")
    return tmp_path


@STORE
def test_a_store_becomes_a_section(store):
    """Counts and pixels meet although spots, units and order differ."""
    prepare_cohort(raw.cohort(SECTION), store, store / "out")
    section = SpatialCohort(store / "out", verify_checksums=True).section("S1")
    assert section.patient == "P7"
    np.testing.assert_array_equal(section.counts_NA.toarray(), raw.counts())
    np.testing.assert_allclose(section.xy_N2, np.column_stack(raw.places()))
    x, y = (int(axis[11]) for axis in raw.places())
    np.testing.assert_array_equal(section.patches[11], raw.picture()[y - 8 : y + 8, x - 8 : x + 8])
    assert section.image_path.is_file()


@STORE
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ""}, "full, small"),
        ({"image": "other"}, "not other"),
        ({"spots": "cells"}, "not cells"),
        ({"table": "none.zarr"}, "no such store"),
    ],
)
def test_what_cannot_be_told_is_asked_for(store, change, message):
    import dataclasses

    section = dataclasses.replace(SECTION, **change)
    with pytest.raises(InputError, match=message):
        prepare_cohort(raw.cohort(section), store, store / "out")
    assert not (store / "out").exists()


@STORE
def test_a_damaged_store_is_refused(store):
    for path in (store / "data.zarr").rglob("zarr.json"):
        path.write_text("{")
    with pytest.raises(Seq2ExpError):
        prepare_cohort(raw.cohort(SECTION), store, store / "out")


def test_images_of_a_store_cannot_stay_where_they_are(tmp_path):
    import dataclasses

    config = dataclasses.replace(raw.cohort(SECTION), images="reference")
    with pytest.raises(ConfigError, match="images: copy"):
        prepare_cohort(config, tmp_path, tmp_path / "out")


def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **kwargs):
        if name == "spatialdata":
            raise ImportError("No module named 'spatialdata'")
        return real(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "data.zarr").mkdir()
    with pytest.raises(ConfigError, match=r"seq2exp\[spatialdata\]"):
        prepare_cohort(raw.cohort(SECTION), tmp_path, tmp_path / "out")
