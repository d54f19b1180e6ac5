from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.config import EncoderConfig, SpatialConfig
from seq2exp.spatial.data import fit_labels, shuffled_patches, spot_table
from seq2exp.spatial.evaluation import accuracy_rows, evaluation_rows, judge_fold
from seq2exp.spatial.features import cohort_features
from seq2exp.spatial.folds import FoldConfig, make_folds
from seq2exp.spatial.metrics import gene_table
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recipes import RECIPES
from seq2exp.spatial.run import evaluate_run, open_spatial_run, train_run
from seq2exp.spatial.systems.ridge import Ridge, RidgeConfig, neighbour_mean

CONFIG = SpatialConfig(
    system={"name": "ridge", "alpha": 10.0, "neighbours": False},
    panel=PanelConfig("heg", 20),
    folds=FoldConfig(),
)


@pytest.fixture(scope="module")
def run(cohort, features, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return train_run(CONFIG, cohort.root, out, features=features, progress=False)


def tables_of(cohort, features, *, kind="patient", panel=20):
    fold = make_folds(cohort, FoldConfig(kind))[0]
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", panel), recipe=RECIPES["default"])
    fitting = spot_table(cohort, fold.fitting, labels, training=True, features=features)
    test = spot_table(cohort, fold.test, labels, training=False, features=features)
    return labels, fitting, test


def test_planted_genes_are_predicted_and_shuffled_patches_give_nothing(run, features):
    rows = {
        (row["name"], row["metric"]): row
        for row in evaluation_rows(evaluate_run(run, features=features), num_resamples=200)
    }
    # A third of the panel follows the colour of the patches.
    assert rows["model", "pearson"]["low"] > 0.1
    assert rows["model", "pearson"]["split"] == "test"
    shuffled = rows["shuffled patches", "pearson"]
    assert shuffled["low"] < 0 < shuffled["high"]
    assert rows["shuffled patches", "pearson_difference"]["low"] > 0
    assert rows["train mean", "mse_difference"]["high"] < 0
    assert rows["train mean", "pearson"]["value"] == 0
    assert abs(rows["depth", "pearson_partial"]["value"]) < 1e-9
    assert rows["model", "n_const_truth"]["value"] == 0


@pytest.mark.parametrize("panel", ["var", "hvg", "heg", "hmhvg"])
def test_panel_and_recipe_do_not_see_the_held_out_sections(cohort, features, panel):
    """The genes of a fold, and what its recipe takes from spots, stay when test counts change."""
    fold = make_folds(cohort)[0]
    recipe = dataclasses.replace(RECIPES["hescape_mlp"], scale="zscore_train")

    def fitted(fold):
        return fit_labels(cohort, fold, panel=PanelConfig(panel, 9), recipe=recipe)

    before = fitted(fold)
    sections = {name: cohort.section(name).counts_NA for name in fold.test}
    try:
        for name, counts in sections.items():
            # Genes change places, and the weak ones vary most: every rule would choose others.
            changed = counts[:, ::-1].tolil()
            changed[::2, 20:] = 900
            object.__setattr__(cohort.section(name), "counts_NA", changed.tocsr())
        after = fitted(fold)
        leaked = fitted(dataclasses.replace(fold, train={**fold.train, **fold.test}))
    finally:
        for name, counts in sections.items():
            object.__setattr__(cohort.section(name), "counts_NA", counts)
    assert before.panel.gene_id == after.panel.gene_id != leaked.panel.gene_id
    assert before.recipe.target == after.recipe.target != leaked.recipe.target
    np.testing.assert_array_equal(before.recipe.shift_G, after.recipe.shift_G)
    np.testing.assert_array_equal(before.recipe.width_G, after.recipe.width_G)


def test_f20_a_fold_that_leaks_is_not_fitted(cohort, features, tmp_path, monkeypatch):
    """Whoever made the folds: spots, or patients that are not marked, on two sides are refused."""
    fold = make_folds(cohort, FoldConfig("section"))[0]
    monkeypatch.setattr(
        "seq2exp.spatial.run.make_folds",
        lambda *_: [dataclasses.replace(fold, leaky=False)],
    )
    with pytest.raises(InputError, match="patient A on both sides"):
        train_run(CONFIG, cohort.root, tmp_path / "run", features=features, progress=False)
    assert not list((tmp_path / "run").glob("folds/*"))


def test_folds_load_as_they_were_saved(run, cohort, features):
    fitted = open_spatial_run(run.folder).fold("A")
    labels, fitting, test = tables_of(cohort, features)
    again = Ridge(RidgeConfig(alpha=10.0, neighbours=False)).fit(fitting)
    np.testing.assert_allclose(fitted.system.predict(test), again.predict(test), atol=1e-12)
    assert fitted.labels.panel.gene_id == labels.panel.gene_id
    assert (
        open_spatial_run(run.folder).fold("final").labels.panel.rule.endswith("4 training sections")
    )


def test_a_run_goes_on_where_it_stopped(run, cohort, features, tmp_path):
    """A fold that stands is kept; one that is missing is fitted to the same numbers."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / "folds" / "B")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"state": "running"}))
    with pytest.raises(InputError, match="not finished"):
        open_spatial_run(copy)
    kept = (copy / "folds" / "A" / "model.safetensors").stat().st_mtime_ns
    train_run(CONFIG, cohort.root, copy, features=features, progress=False)
    assert (copy / "folds" / "A" / "model.safetensors").stat().st_mtime_ns == kept
    for name in ("A", "B"):
        place = f"folds/{name}/model.safetensors"
        assert (copy / place).read_bytes() == (run.folder / place).read_bytes()
    other = SpatialConfig(system={"name": "ridge", "alpha": 20.0})
    with pytest.raises(ConfigError, match="another configuration"):
        train_run(other, cohort.root, copy, features=features, progress=False)


def test_ridge_against_the_closed_form(cohort, features):
    """Without centring, clipping and neighbours it is the textbook solution on scaled features."""
    _, fitting, test = tables_of(cohort, features)
    config = RidgeConfig(alpha=3.0, neighbours=False, clip=0.0, center_sections=False)
    found = Ridge(config).fit(fitting).predict(test)
    x, y = fitting.feat_ND.astype(float), fitting.y_NG.astype(float)
    scale = x.std(axis=0)
    scale[scale < 1e-9] = np.inf
    design = (x - x.mean(axis=0)) / scale
    weight = np.linalg.lstsq(
        np.vstack([design, np.sqrt(3.0) * np.eye(design.shape[1])]),
        np.vstack([y - y.mean(axis=0), np.zeros((design.shape[1], y.shape[1]))]),
        rcond=None,
    )[0]
    expected = (test.feat_ND - x.mean(axis=0)) / scale @ weight + y.mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["patient", "section"])
def test_the_strength_of_ridge_is_chosen_on_patients_left_out(cohort, features, kind):
    """Of one patient (folds by patient leave one here) on sections; the least squared error."""
    _, fitting, _ = tables_of(cohort, features, kind=kind)
    assert len(np.unique(fitting.patient_N)) == (2 if kind == "section" else 1)
    code = fitting.patient_N if kind == "section" else fitting.section_N
    config = RidgeConfig(alphas=(1.0, 30.0, 1000.0), neighbours=False)
    errors = []
    for alpha in config.alphas:
        fixed, total = dataclasses.replace(config, alpha=alpha), 0.0
        for left_out in np.unique(code):
            held = fitting.take(np.flatnonzero(code == left_out))
            known = fitting.take(np.flatnonzero(code != left_out))
            error = held.y_NG - Ridge(fixed).fit(known).predict(held)
            for _, places in held.by_section():
                total += ((error[places] - error[places].mean(axis=0)) ** 2).sum()
        errors.append(total)
    assert Ridge(config).fit(fitting).alpha == config.alphas[int(np.argmin(errors))]


def test_genes_missing_in_a_section_are_fitted_on_the_others(cohort, features):
    _, fitting, test = tables_of(cohort, features)
    holes = fitting.y_NG.copy()
    holes[fitting.section_N == fitting.section_N[0], 4] = np.nan
    config = RidgeConfig(alpha=3.0, neighbours=False)
    partly = Ridge(config).fit(dataclasses.replace(fitting, y_NG=holes)).predict(test)
    whole = Ridge(config).fit(fitting).predict(test)
    assert np.isfinite(partly).all()
    others = np.delete(np.arange(20), 4)
    np.testing.assert_allclose(partly[:, others], whole[:, others], atol=1e-9)
    assert not np.allclose(partly[:, 4], whole[:, 4])


def test_the_order_of_spots_does_not_matter(cohort, features):
    _, fitting, test = tables_of(cohort, features)
    order = np.random.default_rng(0).permutation(len(test))
    fields = {
        part.name: getattr(test, part.name)[order]
        for part in dataclasses.fields(test)
        if part.name.endswith(("_N", "_N2", "_NG", "_ND"))
    }
    fitted = Ridge(RidgeConfig(alpha=10.0)).fit(fitting)
    moved = fitted.predict(dataclasses.replace(test, **fields))
    np.testing.assert_allclose(moved, fitted.predict(test)[order], atol=1e-9)


def test_neighbours_are_those_within_a_diagonal(cohort, features):
    _, fitting, _ = tables_of(cohort, features)
    mean = neighbour_mean(fitting)
    name, places = next(fitting.by_section())
    grid = fitting.grid_N2[places]
    spot = 9
    near = np.abs(grid - grid[spot]).max(axis=1) == 1
    expected = fitting.feat_ND[places][near].mean(axis=0)
    np.testing.assert_allclose(mean[places[spot]], expected, rtol=1e-5)
    assert name in cohort.names


def test_shuffling_keeps_sections_and_labels(cohort, features):
    _, fitting, _ = tables_of(cohort, features)
    moved = shuffled_patches(fitting, seed=1)
    assert moved.y_NG is fitting.y_NG
    for _, places in fitting.by_section():
        before, after = (np.sort(t.feat_ND[places], axis=0) for t in (fitting, moved))
        np.testing.assert_array_equal(before, after)
        assert not np.array_equal(fitting.feat_ND[places], moved.feat_ND[places])


def test_the_control_of_depth_is_a_line_per_gene(cohort, features):
    """Slope within the fitting sections, so that genes which fall with depth correlate too."""
    _, fitting, test = tables_of(cohort, features)
    away = np.log1p(fitting.total_N.astype(float))
    slopes = np.linspace(-2, 2, 20)
    offset = fitting.section_N[:, None] * 3.0
    planted = dataclasses.replace(
        fitting, y_NG=(away[:, None] * slopes + offset).astype(np.float32)
    )
    truth = np.log1p(test.total_N.astype(float))[:, None] * slopes
    held = dataclasses.replace(test, y_NG=truth.astype(np.float32))
    result = judge_fold(
        lambda table: np.zeros(table.y_NG.shape), fitting=planted, test=held,
        genes=[str(i) for i in range(20)], name="one",
    )  # fmt: skip
    found = result.tables["depth"]
    np.testing.assert_allclose(found["pearson"], 1, atol=1e-6)
    np.testing.assert_allclose(found["pearson_partial"].fillna(0), 0, atol=1e-9)


def test_the_oracle_takes_the_best_fifty_genes_of_the_test_spots():
    """60 genes of correlation 0.01 to 0.60 in patient A, twice that in B; one undefined in both."""
    rank = np.arange(1, 61)
    parts = []
    for patient, factor in (("A", 0.01), ("B", 0.02)):
        truth = np.random.default_rng(0).normal(size=(30, 60))
        table = gene_table(
            truth, truth, total_N=np.ones(30), genes=[f"G{i}" for i in rank], section=patient,
            patient=patient,
        )  # fmt: skip
        parts.append(table.assign(pearson=np.where(rank == 60, np.nan, rank * factor)))
    whole = pd.concat(parts).assign(HEG=True, HVG=True)
    rows = {row["metric"]: row["value"] for row in accuracy_rows([whole], "x", split="test")}
    assert rows["pearson oracle_hpg"] == pytest.approx(0.015 * np.arange(10, 60).mean())


def test_controls_and_gene_lists_are_fitted_on_the_fitting_spots(cohort, features):
    """Mean, line of depth, HEG and HVG come from labels that the test spots do not share."""
    _, fitting, test = tables_of(cohort, features, panel=12)
    random = np.random.default_rng(0)
    level, slope = random.normal(5, 1, 12), random.normal(0, 2, 12)
    away = np.log1p(fitting.total_N.astype(float))
    middle = away.mean()
    for _, places in fitting.by_section():
        away[places] -= away[places].mean()
    planted = dataclasses.replace(fitting, y_NG=(level + away[:, None] * slope).astype(np.float32))
    truth = random.normal(-5, 3, (len(test), 12))
    result = judge_fold(
        lambda table: np.zeros(table.y_NG.shape), fitting=planted,
        test=dataclasses.replace(test, y_NG=truth.astype(np.float32)),
        genes=[str(i) for i in range(12)], name="one",
    )  # fmt: skip
    line = level + (np.log1p(test.total_N.astype(float)) - middle)[:, None] * slope
    for name, expected in (("train mean", np.broadcast_to(level, truth.shape)), ("depth", line)):
        table = result.tables[name].set_index(["section", "gene_id"])["mse"]
        for section, places in test.by_section():
            error = ((truth - expected)[places] ** 2).mean(axis=0)
            found = [table[section, str(gene)] for gene in range(12)]
            np.testing.assert_allclose(found, error, rtol=1e-4)


def test_gene_lists_are_those_of_the_fitting_spots(cohort, features):
    """Of sixty genes the fifty of largest mean, and of largest variance, where it is fitted."""
    _, fitting, test = tables_of(cohort, features, panel=3)
    random = np.random.default_rng(1)
    mean, width = random.permutation(60.0 * np.arange(60)), random.permutation(1.0 + np.arange(60))
    wave = np.where(np.arange(len(fitting)) % 2, 1.0, -1.0)[:, None]
    y_NG = (mean + wave * width).astype(np.float32)
    turned = (60.0 * 60 - mean + random.normal(size=(len(test), 60)) / width).astype(np.float32)
    result = judge_fold(
        lambda table: np.zeros(table.y_NG.shape), name="one",
        fitting=dataclasses.replace(fitting, y_NG=y_NG),
        test=dataclasses.replace(test, y_NG=turned), genes=[str(i) for i in range(60)],
    )  # fmt: skip
    for name, score in (("HEG", mean), ("HVG", width)):
        listed = result.tables["model"].drop_duplicates("gene_id").set_index("gene_id")[name]
        expected = {str(gene) for gene in np.argsort(-score)[:50]}
        assert set(listed.index[listed]) == expected


class WholePatches:
    """Features that name the row of their patch, of every kind that a system may read."""

    dim, token_dim = 2, 3

    def __init__(self, cohort):
        self.rows = {name: np.arange(len(cohort.section(name))) for name in cohort.names}

    def feat(self, section):
        return np.repeat(self.rows[section][:, None], 2, axis=1).astype(np.float32)

    def tokens(self, section):
        return np.tile(self.rows[section][:, None, None], (1, 4, 3)).astype(np.float32)

    def nbr(self, section):
        mask = np.ones((len(self.rows[section]), 25), bool)
        mask[:, 3] = self.rows[section] % 2 == 0
        return np.tile(self.rows[section][:, None, None], (1, 25, 2)).astype(np.float32), mask


def test_a_shuffled_spot_shows_one_other_patch_in_all_it_shows(cohort):
    """Features, places, tiles, pixels and the whole section: none keeps the true patch."""
    fold = make_folds(cohort, FoldConfig())[0]
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", 9), recipe=RECIPES["default"])
    needs = frozenset({"img", "feat", "tokens", "nbr", "nbr_mask", "sections"})
    test = spot_table(
        cohort, fold.test, labels, training=False, features=WholePatches(cohort), needs=needs
    ).take(np.arange(5, 60))
    moved = shuffled_patches(test, seed=3)
    batch = moved.batch(np.arange(len(test)), needs=needs)
    assert (moved.patch_N != test.patch_N).mean() > 0.9
    for spot, patch in enumerate(moved.patch_N.tolist()):
        section = int(batch.section[spot])
        shown = batch.sections[section][0][int(batch.spot[spot])]
        for values in (batch.feat[spot], batch.tokens[spot], batch.nbr[spot], shown):
            assert (values == patch).all()
        assert bool(batch.nbr_mask[spot, 3]) == (patch % 2 == 0)
        pixels = cohort.section(cohort.names[section]).patches[patch]
        np.testing.assert_array_equal((batch.img[spot] * 255).round().permute(1, 2, 0), pixels)
        np.testing.assert_array_equal(
            batch.sections[section][1][int(batch.spot[spot])], batch.grid[spot]
        )
    # Spots that are not in the table keep theirs.
    first = int(batch.section[0])
    assert (batch.sections[first][0][:5, 0] == np.arange(5)).all()
    assert np.array_equal(moved.y_NG, test.y_NG)
    assert np.array_equal(moved.total_N, test.total_N)


def test_features_of_another_program(cohort, features, tmp_path):
    """A file per section, named by a pattern, in place of an encoder."""
    for section in cohort.sections():
        np.save(tmp_path / f"{section.name}.npy", features.feat(section.name)[::-1, :7])
        names = "\n".join(section.obs.index[::-1])
        (tmp_path / f"{section.name}.txt").write_text(names)
    config = EncoderConfig(embeddings=str(tmp_path / "{section}.npy"))
    given = cohort_features(cohort, config)
    assert given.dim == 7
    np.testing.assert_array_equal(given.feat("B1"), features.feat("B1")[:, :7])
    with pytest.raises(ConfigError, match="tiles around"):
        given.nbr("B1")
    with pytest.raises(ConfigError, match="a path that holds"):
        EncoderConfig(embeddings="features.npy")


def test_centred_features_do_not_know_their_section(cohort, features):
    centred = cohort_features(cohort, EncoderConfig(center="section"))
    for name in cohort.names:
        plain = features.feat(name)
        np.testing.assert_allclose(centred.feat(name), plain - plain.mean(axis=0), atol=1e-4)
        tiles, mask = centred.nbr(name)
        # The middle tile is the patch of the spot; tiles that are not there stay 0.
        np.testing.assert_allclose(tiles[:, 12], centred.feat(name), atol=1e-3)
        assert not tiles[~mask].any()


def test_another_cohort_is_refused(run, features, tmp_path):
    from tests.spatial.fakes import small_cohort

    other = small_cohort(tmp_path, {"A1": "A", "B1": "B"})
    with pytest.raises(ConfigError, match="another cohort"):
        evaluate_run(run, features=features, data=other.root)
    with pytest.raises(InputError, match="no spatial run"):
        open_spatial_run(tmp_path)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="recipe"):
        SpatialConfig(recipe="custom")
    for wrong in (EncoderConfig(), EncoderConfig("tinycnn", center="section")):
        with pytest.raises(ConfigError, match="a network that sees the patches"):
            SpatialConfig(trained_encoder=wrong)
    with pytest.raises(ConfigError, match="no name"):
        SpatialConfig(system={})
    with pytest.raises(ConfigError, match="strengths above 0"):
        RidgeConfig(alpha=-1)
