"""Every system in the same run: trained, saved, loaded, judged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.config import EncoderConfig, SpatialConfig, SpatialFitConfig
from seq2exp.spatial.data import fit_labels, spot_table
from seq2exp.spatial.evaluation import evaluation_rows
from seq2exp.spatial.features import cohort_features
from seq2exp.spatial.fitting import fit_system
from seq2exp.spatial.folds import FoldConfig, make_folds
from seq2exp.spatial.heldout import read_heldout
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.panels import GenePanel, PanelConfig
from seq2exp.spatial.recall import recall_table
from seq2exp.spatial.recipes import RECIPES
from seq2exp.spatial.run import evaluate_run, train_run
from seq2exp.spatial.system_files import load_system
from seq2exp.spatial.systems.registry import MODULES
from seq2exp.spatial.uncertainty import retrieval_sd
from tests.spatial.fakes import colour_features, small_cohort

RETRIEVAL = {"k": 8}
SETTINGS = {
    "stnet": {},
    "bleep": {"width": 16, "retrieval": RETRIEVAL},
    "mclstexp": {"width": 16, "retrieval": RETRIEVAL},
    "hescape": {"width": 16, "retrieval": RETRIEVAL},
    "nsl": {},
    "triplex": {
        "width": 32,
        "depths": [1, 1, 1],
        "heads": [2, 2, 2],
        "mlp_ratios": [2.0, 2.0, 2.0],
        "dropouts": [0.1, 0.1, 0.1],
    },
}
FIT = {"triplex": {"max_epochs": 30, "lr": 2e-3, "augment": "dihedral"}}
TRAINED = {"triplex": EncoderConfig("tinycnn")}
"""Encoders that are trained with the system: colour statistics have no tokens."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    sections = {"A1": "A", "B1": "B", "C1": "C"}
    return small_cohort(tmp_path_factory.mktemp("three"), sections)


@pytest.fixture(scope="module")
def features(cohort):
    return colour_features(cohort)


def trained(name, cohort, features, out, epochs=None):
    fit = {"max_epochs": 25, "batch_size": 16, "lr": 5e-3, "patience": 0, **FIT.get(name, {})}
    fit |= {} if epochs is None else {"max_epochs": epochs}
    config = SpatialConfig(
        system={"name": name, **SETTINGS[name]},
        trained_encoder=TRAINED.get(name),
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(**fit),
    )
    return train_run(config, cohort.root, out, features=features, progress=False)


def test_every_system_is_tried_here():
    assert set(SETTINGS) == set(MODULES)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_system_from_training_to_judgement(name, cohort, features, tmp_path):
    """Ten of sixteen genes follow the colour of the patch; shuffled patches say nothing."""
    run = trained(name, cohort, features, tmp_path / "run")
    results = evaluate_run(run, features=features)
    rows = {
        (row["name"], row["metric"]): row for row in evaluation_rows(results, num_resamples=200)
    }
    model, shuffled = rows["model", "pearson"], rows["shuffled patches", "pearson"]
    assert model["low"] > 0
    assert rows["shuffled patches", "pearson_difference"]["low"] > 0
    assert abs(shuffled["value"]) < 0.12
    # genes.tsv was written while the system was trained, the results come from what was saved.
    kept = read_heldout(run.folder, run.fold_names)
    loaded = pd.concat([result.tables["model"] for result in results], ignore_index=True)
    both = kept.merge(loaded, on=["section", "gene_id"], suffixes=("", "_loaded"))
    assert len(both) == len(kept) == 3 * 16
    for metric in ("pearson", "mse", "var_predicted"):
        np.testing.assert_allclose(both[metric], both[f"{metric}_loaded"], atol=1e-6)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_predictions_do_not_depend_on_the_other_spots(name, cohort, features, tmp_path):
    fitted = trained(name, cohort, features, tmp_path / "run", epochs=2).fold("A")
    test = fitted.table(cohort, fitted.fold.test, features=features)
    whole = fitted.system.predict(test)
    order = np.random.default_rng(0).permutation(len(test))
    np.testing.assert_allclose(fitted.system.predict(test.take(order)), whole[order], atol=2e-4)
    few = np.arange(5)
    np.testing.assert_allclose(fitted.system.predict(test.take(few)), whole[few], atol=2e-4)


@pytest.mark.parametrize("name", ["bleep", "mclstexp"])
def test_a_patient_with_one_section_trains_alone(name, tmp_path):
    """The inner validation is a block of the only section; the bank holds the other blocks."""
    cohort = small_cohort(tmp_path, {"A1": "A", "B1": "B"})
    found = colour_features(cohort)
    run = trained(name, cohort, found, tmp_path / "run", epochs=2)
    results = evaluate_run(run, features=found)
    assert [result.name for result in results] == ["A", "B"]
    assert not any(result.leaky for result in results)


def test_a_system_names_its_parameters_costs_and_controls(cohort, features, tmp_path):
    run = trained("nsl", cohort, features, tmp_path / "run", epochs=1)
    assert run.fold("A").system.num_parameters == 11 * 16
    costs = run.costs()
    assert set(costs) == {"A", "B", "C", "final"}
    assert all(cost.seconds > 0 for cost in costs.values())
    results = evaluate_run(run, features=features)
    assert all(result.seconds > 0 for result in results)
    rows = evaluation_rows(results, num_resamples=50)
    control = {row["metric"]: row for row in rows if row["name"] == "mean density ridge"}
    # Ten of sixteen genes follow the colour: four numbers find that too.
    assert control["pearson"]["low"] > 0.1
    assert {"pearson_difference", "pearson_partial_difference", "mse_difference"} <= set(control)


def test_towers_align_in_one_order_whatever_that_of_the_spots(cohort, features, tmp_path):
    fitted = trained("hescape", cohort, features, tmp_path / "run", epochs=1).fold("A")
    spots = fitted.fold.fitting
    table = fitted.table(cohort, spots, training=True, features=features)
    views = fitted.system.align(table)
    turned = fitted.system.align(table.take(np.arange(len(table))[::-1]))
    np.testing.assert_allclose(views.image_SD, turned.image_SD, atol=1e-5)
    np.testing.assert_allclose(views.gene_SD, turned.gene_SD, atol=1e-5)
    np.testing.assert_array_equal(views.section_S, np.sort(table.section_N))
    other = trained("stnet", cohort, features, tmp_path / "stnet", epochs=1).fold("A")
    with pytest.raises(ConfigError, match="no towers"):
        other.system.align(table)


def test_hescape_keeps_the_pass_with_the_best_recall_where_told_to(cohort, features, tmp_path):
    config = SpatialConfig(
        system={"name": "hescape", "select": "recall", **SETTINGS["hescape"]},
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(max_epochs=6, batch_size=16, lr=5e-3, patience=0),
    )
    run = train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)
    history = json.loads((run.place("A") / "metrics.json").read_text())
    scores = [row["valid_score"] for row in history]
    fitted = run.fold("A")
    valid = fitted.table(cohort, fitted.fold.valid, training=True, features=features)
    views = fitted.system.align(valid)
    table = recall_table(
        views.image_SD, views.gene_SD, section_S=views.section_S, spot_S=views.spot_S,
        sizes=("section",), ks=(5,),
    )  # fmt: skip
    assert table["recall"].mean() == pytest.approx(max(scores))


def test_weights_of_another_system_are_refused(cohort, features, tmp_path):
    run = trained("stnet", cohort, features, tmp_path / "run", epochs=1)
    place = run.folder / "folds" / "A"
    (place / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(FormatError, match=r"checksums\.json lists"):
        run.fold("A")
    # Folders without checksums are read too.
    with pytest.raises(FormatError, match="weights of system stnet"):
        load_system(run.config.system, place, panel=GenePanel(["a"], ["A"]))


@pytest.mark.parametrize("name", ["ridge", "stnet", "bleep"])
def test_weights_know_the_genes_of_their_columns(name, cohort, features, tmp_path):
    """Another panel of the same size, or the same in another order, is refused by id."""
    config = SpatialConfig(
        system={"name": name, **SETTINGS.get(name, {})},
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(max_epochs=1, batch_size=16, members=2),
    )
    run = train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)
    place = run.place("A") / "labels.json"
    labels = json.loads(place.read_text())
    run.fold("A")
    (run.place("A") / "checksums.json").unlink()
    genes = labels["panel"]["gene_id"]
    for changed, message in (
        ([genes[1], genes[0], *genes[2:]], "in another order"),
        ([*genes[:-1], "other"], "1 of the panel missing"),
    ):
        panel = labels["panel"] | {"gene_id": changed}
        place.write_text(json.dumps(labels | {"panel": panel}))
        with pytest.raises(FormatError, match=message):
            run.fold("A")
    if name == "bleep":
        bank = json.loads((run.place("A") / "member-1" / "bank" / "bank.json").read_text())
        assert bank["genes"] == genes


def test_the_control_of_neural_stain_learning_stands_beside_it(cohort, features, tmp_path):
    """Four numbers per gene find the planted colour as well; they are saved with the system."""
    fitted = trained("nsl", cohort, features, tmp_path / "run", epochs=2).fold("A")
    (control,) = fitted.system.controls.values()
    test = fitted.table(cohort, fitted.fold.test, features=features)
    scores = columns_pearson(test.y_NG.astype(float), control(test))
    assert np.nanmean(np.sort(scores)[-5:]) > 0.5


def test_neural_stain_learning_from_kept_densities(cohort, tmp_path):
    """Densities computed once give the weights and predictions of those made in every step."""
    found = {}
    for source, encoder in (("img", "colour_stats"), ("tokens", "pixel_densities")):
        config = SpatialConfig(
            system={"name": "nsl", "source": source},
            encoder=EncoderConfig(encoder),
            panel=PanelConfig("heg", 16),
            fit=SpatialFitConfig(max_epochs=3, lr=1e-2),
        )
        features = cohort_features(cohort, config.encoder)
        run = train_run(config, cohort.root, tmp_path / source, features=features, progress=False)
        (result, *_) = evaluate_run(run, features=features)
        found[source] = result.tables["model"]["pearson"]
    np.testing.assert_allclose(found["img"], found["tokens"], atol=1e-5)


def test_members_differ_in_their_seeds_and_their_mean_predicts(cohort, features, tmp_path):
    def run_of(name, **fit):
        config = SpatialConfig(
            system={"name": "bleep", "width": 16, "retrieval": RETRIEVAL},
            panel=PanelConfig("heg", 16),
            fit=SpatialFitConfig(max_epochs=3, batch_size=16, **fit),
        )
        out = tmp_path / name
        return train_run(config, cohort.root, out, features=features, progress=False)

    both = run_of("both", members=2, seed=5).fold("A")
    test = both.table(cohort, both.fold.test, features=features)
    alone = [run_of(f"seed{seed}", seed=seed).fold("A").system for seed in (5, 6)]
    means = np.stack([one.predict(test) for one in alone])
    assert not np.allclose(means[0], means[1])
    np.testing.assert_allclose(both.system.predict(test), means.mean(axis=0), atol=1e-6)
    spreads = np.stack([retrieval_sd(one, test) for one in alone])
    expected = np.sqrt((spreads**2).mean(axis=0) + means.var(axis=0))
    np.testing.assert_allclose(retrieval_sd(both.system, test), expected, atol=1e-5)
    assert not list((tmp_path / "both").glob(".*checkpoint*"))
    with pytest.raises(ConfigError, match="members"):
        SpatialFitConfig(members=0)


@pytest.mark.parametrize("name", ["stnet", "bleep"])
def test_a_refit_is_the_fit_on_all_spots_for_the_best_number_of_passes(name, cohort, features):
    config = SpatialFitConfig(max_epochs=6, batch_size=16, patience=2, refit=True)
    fold = make_folds(cohort, FoldConfig())[0]
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", 16), recipe=RECIPES["default"])
    train, valid = (
        spot_table(cohort, spots, labels, training=True, features=features)
        for spots in (fold.train, fold.valid)
    )
    settings = {"name": name, **SETTINGS[name]}
    info = SystemInfo(num_genes=16, feat_dim=features.dim)
    refitted = fit_system(settings, train, valid, config, info=info)
    best = int(np.argmax([row["valid_pearson"] for row in refitted.history]))
    plain = dataclasses.replace(config, max_epochs=best + 1, refit=False)
    expected = fit_system(settings, train.joined(valid), None, plain, info=info)
    test = spot_table(cohort, fold.test, labels, training=False, features=features)
    np.testing.assert_array_equal(refitted.predict(test), expected.predict(test))
    once = fit_system(settings, train, valid, dataclasses.replace(config, refit=False), info=info)
    assert not np.allclose(refitted.predict(test), once.predict(test))


def test_an_encoder_for_a_system_that_takes_none(cohort, features, tmp_path):
    config = SpatialConfig(
        system={"name": "nsl"},
        trained_encoder=EncoderConfig("tinycnn"),
        panel=PanelConfig("heg", 16),
    )
    with pytest.raises(ConfigError, match="leave trained_encoder out"):
        train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)


def test_tokens_of_a_kept_encoder_serve_triplex(cohort, tmp_path):
    config = SpatialConfig(
        system={"name": "triplex", **SETTINGS["triplex"], "batches": "within_slide"},
        encoder=EncoderConfig("tinycnn", px=16),
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(max_epochs=1, batch_size=16),
    )
    features = cohort_features(cohort, config.encoder)
    run = train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)
    fitted = run.fold("A")
    assert fitted.system.needs == {"tokens", "nbr", "nbr_mask", "sections"}
    # 16 pixels a side leave 2 x 2 places.
    assert features.tokens("A1").shape == (42, 4, 64)
    assert [result.name for result in evaluate_run(run, features=features)] == ["A", "B", "C"]


def test_colours_alone_do_not_serve_triplex(cohort, features, tmp_path):
    config = SpatialConfig(system={"name": "triplex"}, panel=PanelConfig("heg", 16))
    with pytest.raises(ConfigError, match="tokens"):
        train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)


def test_what_a_system_needs_is_named(cohort, tmp_path):
    config = SpatialConfig(system={"name": "stnet"}, panel=PanelConfig("heg", 16))
    with pytest.raises(ConfigError, match="choose an image encoder"):
        train_run(config, cohort.root, tmp_path / "run", features=None, progress=False)
