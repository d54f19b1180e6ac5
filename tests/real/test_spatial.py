"""The breast sections: labels and floors come out as they were measured before this code existed.

The numbers are those of an independent implementation (specification of the spatial modules).
"""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import CohortConfig
from seq2exp.core.config import load_config
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.evaluation import evaluation_rows
from seq2exp.spatial.features import cohort_features
from seq2exp.spatial.folds import FoldConfig
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.panels import GenePanel
from seq2exp.spatial.recipes import RECIPES
from seq2exp.spatial.run import evaluate_run, train_run

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (REAL_DATA / "her2st").is_dir(), reason="the real sections are not here"
    ),
]


@pytest.mark.parametrize(
    ("section", "expected"), [("C2", 0.261), ("C3", 0.247), ("C4", 0.246), ("C5", 0.241)]
)
def test_depth_alone_under_the_785_gene_recipe(section, expected):
    data = anndata.read_h5ad(REAL_DATA / "her2st" / "fullres" / f"{section}.h5ad")
    listed = (REAL_DATA / "her2st" / "genes" / "her2_genes_785.txt").read_text().split()
    panel = GenePanel(listed, listed)
    columns = panel.columns(data.var.assign(gene_id=data.var_names))
    assert (columns >= 0).all()
    recipe = RECIPES["her2_785"].fit([(data.X, columns)])
    labels = recipe.labels(data.X, columns)
    depth = np.log1p(np.asarray(data.X.sum(axis=1), np.float64))
    found = np.nan_to_num(columns_pearson(np.repeat(depth, 785, axis=1), labels))
    assert found.mean() == pytest.approx(expected, abs=6e-4)


@pytest.mark.slow
def test_the_ridge_floor_of_the_four_sections(tmp_path):
    """Patch and neighbours, centred per section: .318 .348 .370 .348, depth-partial mean .175."""
    config = load_config(
        CohortConfig, [ROOT / "configs" / "spatial" / "data" / "her2st_fullres.yaml"]
    )
    prepare_cohort(config, REAL_DATA / "her2st" / "fullres", tmp_path / "cohort")
    settings = SpatialConfig(folds=FoldConfig("section"))
    features = cohort_features(SpatialCohort(tmp_path / "cohort"), settings.encoder)
    run = train_run(
        settings, tmp_path / "cohort", tmp_path / "run", features=features, progress=False
    )
    results = evaluate_run(run, features=features)
    found = [result.tables["model"]["pearson"].mean() for result in results]
    np.testing.assert_allclose(found, [0.318, 0.348, 0.370, 0.348], atol=0.006)
    rows = {
        (row["name"], row["metric"]): row["value"]
        for row in evaluation_rows(results, num_resamples=50)
    }
    assert rows["model", "pearson_partial"] == pytest.approx(0.175, abs=0.006)
    assert rows["model", "mse"] == pytest.approx(0.465, abs=0.002)
    assert rows["train mean", "mse"] == pytest.approx(0.537, abs=0.002)
    assert rows["shuffled patches", "pearson"] == pytest.approx(0, abs=0.03)
    assert all(result.leaky for result in results)
