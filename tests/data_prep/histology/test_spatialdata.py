"""The conversion of docs/spatial_cohort.md, on a store of the form that Visium readers write."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import SectionConfig
from seq2exp.spatial.cohort import SpatialCohort
from tests.data_prep.histology import raw

PAGE = Path(__file__).parents[3] / "docs" / "spatial_cohort.md"


def conversion():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "spatialdata.read_zarr" in block)


def write_store(path):
    """Write a table of counts, circles and a pyramid of the image, spots of the table shuffled."""
    import spatialdata
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    rows, columns = raw.grid()
    order = np.random.default_rng(0).permutation(30)
    obs = pd.DataFrame(
        {"array_row": rows, "array_col": columns, "in_tissue": 1, "region": "sample",
         "spot_id": np.arange(30)},
        index=[f"AAC-{i}" for i in range(30)],
    )  # fmt: skip
    obs["region"] = obs["region"].astype("category")
    table = anndata.AnnData(
        X=raw.counts().astype(np.float32), obs=obs, var=pd.DataFrame(index=raw.GENES)
    )[order].copy()
    circles = ShapesModel.parse(
        np.column_stack(raw.places()), geometry=0, radius=5.0, index=np.arange(30)
    )
    image = Image2DModel.parse(
        np.moveaxis(raw.picture(), -1, 0), dims=("c", "y", "x"), scale_factors=[2]
    )
    parsed = TableModel.parse(table, region="sample", region_key="region", instance_key="spot_id")
    spatialdata.SpatialData(
        images={"sample_full_image": image}, shapes={"sample": circles}, tables={"table": parsed}
    ).write(path)


@pytest.mark.filterwarnings("ignore")
def test_the_conversion_of_the_page_gives_a_section(tmp_path, monkeypatch):
    pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "data.zarr")
    exec(conversion().replace('"um_per_px": 0.5, "grid": "hex"', '"um_per_px": 10.0'), {})
    prepare_cohort(raw.cohort(SectionConfig("S1", table="sample.h5ad")), tmp_path, tmp_path / "out")
    section = SpatialCohort(tmp_path / "out").section("S1")
    np.testing.assert_array_equal(section.counts_NA.toarray(), raw.counts())
    np.testing.assert_array_equal(section.xy_N2, np.column_stack(raw.places()))
    x, y = (int(axis[11]) for axis in raw.places())
    np.testing.assert_array_equal(section.patches[11], raw.picture()[y - 8 : y + 8, x - 8 : x + 8])


def test_the_page_has_a_conversion_that_python_can_read():
    compile(conversion(), str(PAGE), "exec")
