"""What a prediction carries: spread, accuracy of genes on held-out tissue, and a picture."""

from __future__ import annotations

import logging
import shutil
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seq2exp.core.errors import FormatError
from seq2exp.spatial.config import SpatialConfig, SpatialFitConfig
from seq2exp.spatial.data import spot_table
from seq2exp.spatial.heldout import heldout_genes, read_heldout
from seq2exp.spatial.metrics import gene_table
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.prediction import predict_cohort
from seq2exp.spatial.prediction_file import drawn_diameter_um, label_unit, spatial_uns
from seq2exp.spatial.recipes import RECIPES, FittedRecipe, LabelRecipe
from seq2exp.spatial.run import evaluate_run, train_run
from seq2exp.spatial.uncertainty import as_labels_of, fold_opinions, retrieval_sd
from tests.spatial.fakes import colour_features, small_cohort

RIDGE = {"name": "ridge", "alpha": 10.0, "neighbours": False}


def config_of(system, **settings):
    fit = SpatialFitConfig(max_epochs=3, batch_size=16, lr=5e-3, patience=0)
    return SpatialConfig(system=system, panel=PanelConfig("heg", 20), fit=fit, **settings)


@pytest.fixture(scope="module")
def ridge(cohort, features, tmp_path_factory):
    out = tmp_path_factory.mktemp("ridge") / "run"
    return train_run(config_of(RIDGE), cohort.root, out, features=features, progress=False)


@pytest.fixture(scope="module")
def bleep(cohort, features, tmp_path_factory):
    out = tmp_path_factory.mktemp("bleep") / "run"
    config = config_of({"name": "bleep", "width": 16, "retrieval": {"k": 8}})
    return train_run(config, cohort.root, out, features=features, progress=False)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A cohort of another patient."""
    return small_cohort(tmp_path_factory.mktemp("others"), {"Z1": "Z"})


def predicted(run, cohort, out, **settings):
    predict_cohort(run, cohort, out, features=colour_features(cohort), **settings)
    return {path.stem: anndata.read_h5ad(path) for path in sorted(out.glob("*.h5ad"))}


@pytest.fixture(scope="module")
def own(ridge, cohort, tmp_path_factory):
    return predicted(ridge, cohort, tmp_path_factory.mktemp("own") / "out")


# Held-out accuracy ----------------------------------------------------------------------------


def test_the_kept_accuracy_is_that_of_the_evaluation(ridge, features):
    kept = read_heldout(ridge.folder, ridge.fold_names)
    tables = [result.tables["model"] for result in evaluate_run(ridge, features=features)]
    judged = pd.concat(tables, ignore_index=True)
    keys = ["section", "gene_id"]
    both = kept.merge(judged, on=keys, suffixes=("", "_judged"))
    assert len(both) == len(kept) == 4 * 20
    for name in ("pearson", "pearson_partial", "mse"):
        np.testing.assert_allclose(both[name], both[f"{name}_judged"], atol=1e-12)
    assert not (ridge.folder / "final" / "genes.tsv").exists()


def test_sections_are_averaged_within_patients_first():
    """Patient A: two sections (0.2, 0.4), B one (0.9), in a gene; a constant gene counts as 0."""
    rows = pd.DataFrame(
        {
            "patient": ["A", "A", "B", "A"],
            "section": ["A1", "A2", "B1", "A1"],
            "gene_id": ["g", "g", "g", "flat"],
            "num_spots": 10,
            "pearson": [0.2, 0.4, 0.9, np.nan],
            "pearson_partial": [0.1, 0.1, 0.3, 0.0],
            "mse": [1.0, 3.0, 14.0, 4.0],
        }
    )
    found = heldout_genes(rows, ["flat", "g", "never"])
    np.testing.assert_allclose(found["heldout_pearson"], [0, (0.3 + 0.9) / 2, np.nan])
    np.testing.assert_allclose(found["heldout_pearson_partial"], [0, 0.2, np.nan])
    np.testing.assert_allclose(found["heldout_rmse"], [2, np.sqrt((2 + 14) / 2), np.nan])
    assert list(found["heldout_sections"]) == [1, 3, 0]


def test_genes_of_the_file_carry_it_by_id(own, ridge):
    var = own["B1"].var
    expected = heldout_genes(read_heldout(ridge.folder, ridge.fold_names), list(var["gene_id"]))
    for name in expected:
        np.testing.assert_allclose(var[name], expected[name])
    planted = [int(gene[1:]) < 10 for gene in var.index]
    good = var["heldout_pearson"].to_numpy()
    # Genes that follow the colour of the patch are the ones to believe.
    assert good[planted].min() > np.abs(good[np.invert(planted)]).max()


def test_a_run_without_it_says_so(ridge, cohort, tmp_path, caplog):
    copy = tmp_path / "run"
    shutil.copytree(ridge.folder, copy)
    (copy / "folds" / "A" / "genes.tsv").unlink()
    old = type(ridge)(copy, ridge.config, ridge.manifest)
    with caplog.at_level(logging.WARNING, logger="seq2exp"):
        found = predicted(old, cohort, tmp_path / "out", folds=False)
    assert "train again" in caplog.text
    assert found["A1"].var["heldout_pearson"].isna().all()
    assert (found["A1"].var["heldout_sections"] == 0).all()
    (copy / "folds" / "A" / "genes.tsv").write_text("gene_id\tsection\ng\tA1\n")
    with pytest.raises(FormatError, match="no column patient, num_spots"):
        read_heldout(copy, ["A"])


# Spread ---------------------------------------------------------------------------------------


def test_the_held_out_layer_is_the_prediction_of_the_fold_that_did_not_see_the_section(
    own, ridge, cohort, features
):
    for name, data in own.items():
        fitted = ridge.fold(name[0])
        assert name in fitted.fold.test
        table = spot_table(
            cohort, fitted.fold.test, fitted.labels, training=False, features=features
        )
        places = dict(table.by_section())[name]
        expected = pd.DataFrame(
            fitted.system.predict(table)[places], columns=fitted.labels.panel.gene_id
        ).reindex(columns=list(data.var["gene_id"]))
        np.testing.assert_allclose(data.layers["heldout"], expected, atol=1e-5)
    # The numbers of the gene table follow from it.
    data = own["A1"]
    data = data[:, np.isfinite(data.layers["heldout"]).all(axis=0)]
    assert data.n_vars > 10
    table = gene_table(
        data.layers["observed"].astype(float), data.layers["heldout"].astype(float),
        total_N=data.obs["total_counts"].to_numpy(float), genes=list(data.var["gene_id"]),
        section="A1", patient="A",
    )  # fmt: skip
    kept = read_heldout(ridge.folder, ["A"])
    kept = kept[kept["section"] == "A1"].set_index("gene_id").loc[table["gene_id"]]
    np.testing.assert_allclose(table["pearson"], kept["pearson"], atol=1e-4)


def test_fold_sd_is_the_deviation_of_the_fold_systems(ridge, others):
    final = ridge.fold("final")
    folds = [ridge.fold(name) for name in ridge.fold_names]
    spots = {"Z1": np.arange(42)}
    features = colour_features(others)
    table = spot_table(others, spots, final.labels, training=False, features=features)
    found = fold_opinions(folds, final.labels, table, section="Z1", same_cohort=False)
    genes = final.labels.panel.gene_id
    frames = [
        pd.DataFrame(one.system.predict(table), columns=one.labels.panel.gene_id) for one in folds
    ]
    for place, gene in enumerate(genes):
        values = np.array([frame[gene] for frame in frames if gene in frame])
        assert found.systems_G[place] == len(values)
        if len(values) > 1:
            expected = np.abs(values[0] - values[1]) / np.sqrt(2)
            np.testing.assert_allclose(found.sd_NG[:, place], expected, atol=1e-12)
        else:
            assert np.isnan(found.sd_NG[:, place]).all()
    assert np.isnan(found.heldout_NG).all()


def test_a_gene_of_one_fold_only_has_no_spread(ridge, others):
    final = ridge.fold("final")
    features = colour_features(others)
    table = spot_table(
        others, {"Z1": np.arange(42)}, final.labels, training=False, features=features
    )
    found = fold_opinions([ridge.fold("A")], final.labels, table, section="Z1", same_cohort=False)
    assert np.isnan(found.sd_NG).all()
    assert set(found.systems_G) <= {0, 1}


def test_a_new_cohort_has_spread_and_no_held_out_layer(ridge, others, tmp_path):
    data = predicted(ridge, others, tmp_path / "out")["Z1"]
    assert "heldout" not in data.layers
    assert "fold_sd" in data.layers
    assert data.var["fold_systems"].max() == 2
    plain = predicted(ridge, others, tmp_path / "plain", folds=False)["Z1"]
    assert "fold_sd" not in plain.layers
    np.testing.assert_array_equal(plain.X, data.X)


def test_retrieval_gives_the_deviation_of_the_spots_it_averages(bleep, others, tmp_path):
    data = predicted(bleep, others, tmp_path / "out")["Z1"]
    final = bleep.fold("final")
    features = colour_features(others)
    table = spot_table(
        others, {"Z1": np.arange(42)}, final.labels, training=False, features=features,
        needs=final.system.needs,
    )  # fmt: skip
    np.testing.assert_allclose(data.layers["sd"], retrieval_sd(final.system, table), atol=1e-6)
    # By hand for one spot: eight rows of the bank and their weights.
    import dataclasses

    batch = dataclasses.replace(table, scale=final.system.scale).batch(
        np.arange(3), needs=final.system.needs
    )
    answer = final.system.module.retrieve(batch)
    rows, weights = answer.ids_BK[2], answer.weights_BK[2].numpy()[:, None]
    values = final.system.module.bank.expression_NG[rows].numpy()
    mean = (weights * values).sum(axis=0)
    assert len(rows) == 8
    np.testing.assert_allclose(data.X[2], mean, atol=1e-5)
    sd = np.sqrt((weights * (values - mean) ** 2).sum(axis=0))
    np.testing.assert_allclose(data.layers["sd"][2], sd, atol=1e-4)


def test_systems_without_examples_have_no_such_deviation(ridge, own):
    assert "sd" not in own["A1"].layers
    assert retrieval_sd(ridge.fold("final").system, None) is None


def test_labels_of_one_fold_in_the_unit_of_another():
    """Counts 1 and 9 of 100 scaled to 1,000 and standardised, and to 500 and not."""
    for log in ("ln", "log10", "log2", None):
        recipe = LabelRecipe(target="median_train", log=log, scale="zscore_train")
        counts, columns = np.array([[1.0, 9.0, 90.0]]), np.array([0, 1])
        first = FittedRecipe(recipe, 1000.0, np.array([1.0, 2.0]), np.array([2.0, 4.0]))
        second = FittedRecipe(recipe, 500.0, np.array([0.5, 0.0]), np.array([1.0, 3.0]))
        found = as_labels_of(
            first.labels(counts, columns), first, columns, second, np.array([0, 1])
        )
        np.testing.assert_allclose(found, second.labels(counts, columns), rtol=1e-9)
        # Only the second gene, which is the first of the other panel.
        part = as_labels_of(
            first.labels(counts, columns)[:, [1]], first, np.array([1]), first, np.array([0])
        )
        np.testing.assert_allclose(part * 2 + 1, first.labels(counts, columns)[:, [1]] * 4 + 2)


# The file -------------------------------------------------------------------------------------


def test_the_picture_is_where_scanpy_and_squidpy_look_for_it(own, cohort):
    data, section = own["A1"], cohort.section("A1")
    assert list(data.uns["spatial"]) == ["A1"]
    library = data.uns["spatial"]["A1"]
    scale = library["scalefactors"]["tissue_hires_scalef"]
    # 100 um at 5 um per pixel.
    assert library["scalefactors"]["spot_diameter_fullres"] == 20
    pixels = library["images"]["hires"]
    assert pixels.dtype == np.uint8
    image = np.asarray(Image.open(section.image_path))
    assert pixels.shape == image.shape
    x, y = (data.obsm["spatial"][7] * scale).astype(int)
    np.testing.assert_array_equal(pixels[y, x], image[y, x])
    np.testing.assert_array_equal(data.obsm["spatial"], section.xy_N2)
    assert data.uns["image"]["spot_diameter_px"] == 20
    assert data.uns["seq2exp"]["unit"] == "ln(counts per 10,000 + 1)"
    assert data.uns["seq2exp"]["heldout_by"] == "patient"
    assert not data.uns["seq2exp"]["heldout_leaky"]


def test_a_large_image_is_made_small(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2exp.spatial.prediction_file._HIRES_PX", 100)
    section = cohort.section("A1")
    library = spatial_uns(section)["A1"]
    assert max(library["images"]["hires"].shape) == 100
    scale = library["scalefactors"]["tissue_hires_scalef"]
    assert scale == pytest.approx(100 / 400)
    # The spots are reddish, the glass is 240.
    for x, y in section.xy_N2 * scale:
        assert library["images"]["hires"][int(y), int(x), 1] < 150


def test_without_its_image_a_section_is_predicted_all_the_same(ridge, tmp_path, caplog):
    cohort = small_cohort(tmp_path, {"Z1": "Z"})
    colour_features(cohort)
    cohort.section("Z1").image_path.unlink()
    with caplog.at_level(logging.WARNING, logger="seq2exp"):
        data = predicted(ridge, cohort, tmp_path / "out")["Z1"]
    assert "without a picture" in caplog.text
    assert "spatial" not in data.uns
    assert np.isfinite(data.X).all()


def test_spots_of_unknown_size_are_drawn_half_a_pitch_wide(cohort):
    import dataclasses

    section = cohort.section("A1")
    for diameter, pitch, expected in ((55.0, 100.0, 55.0), (0.0, 100.0, 50.0), (0.0, 0.0, 100.0)):
        info = dataclasses.replace(section.info, spot_diameter_um=diameter, spot_pitch_um=pitch)
        found = drawn_diameter_um(dataclasses.replace(section, info=info))
        # Spots of this section are 200 um apart.
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("recipe", "unit"),
    [
        (RECIPES["default"], "ln(counts per 10,000 + 1)"),
        (RECIPES["her2_785"], "log10(counts per 10,000 of the panel + 1)"),
        (RECIPES["stem"], "log2(counts + 1)"),
        (RECIPES["triplex_new"],
         "ln(counts per 10,000 of the panel + 1), mean over 3 x 3 spots"),
        (RECIPES["hescape_mlp"], "ln(counts per median of the panel + 1)"),
        (LabelRecipe(log=None, scale="zscore_train"), "counts per 10,000, standardised"),
    ],
)  # fmt: skip
def test_units_in_words(recipe, unit):
    assert label_unit(recipe) == unit


def test_files_open_without_warnings_of_names(own):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert own["A1"][:, ["G0", "G1"]].shape == (42, 2)
