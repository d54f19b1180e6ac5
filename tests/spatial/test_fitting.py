"""Every system in the same run: trained, saved, loaded, judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.spatial.colour import colour_stats
from seq2exp.spatial.config import SpatialConfig, SpatialFitConfig
from seq2exp.spatial.data import spot_table
from seq2exp.spatial.evaluation import evaluation_rows
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recall import recall_table
from seq2exp.spatial.run import evaluate_run, open_spatial_run, train_run
from seq2exp.spatial.systems.registry import MODULES
from tests.spatial.fakes import small_cohort

RETRIEVAL = {"k": 8}
SETTINGS = {
    "stnet": {},
    "bleep": {"width": 16, "retrieval": RETRIEVAL},
    "mclstexp": {"width": 16, "retrieval": RETRIEVAL},
    "hescape": {"width": 16, "retrieval": RETRIEVAL},
    "nsl": {},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    sections = {"A1": "A", "B1": "B", "C1": "C"}
    return small_cohort(tmp_path_factory.mktemp("three"), sections)


@pytest.fixture(scope="module")
def features(cohort):
    return {
        section.name: np.stack([colour_stats(patch) for patch in section.patches])
        for section in cohort.sections()
    }


def trained(name, cohort, features, out, epochs=25):
    config = SpatialConfig(
        system={"name": name, **SETTINGS[name]},
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(max_epochs=epochs, batch_size=16, lr=5e-3, patience=0),
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
    again = evaluate_run(open_spatial_run(run.folder), features=features)
    for first, second in zip(results, again, strict=True):
        np.testing.assert_array_equal(
            first.tables["model"]["pearson"], second.tables["model"]["pearson"]
        )


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_predictions_do_not_depend_on_the_other_spots(name, cohort, features, tmp_path):
    fitted = trained(name, cohort, features, tmp_path / "run", epochs=2).fold("A")
    test = spot_table(cohort, fitted.fold.test, fitted.labels, training=False, features=features)
    whole = fitted.system.predict(test)
    order = np.random.default_rng(0).permutation(len(test))
    np.testing.assert_allclose(fitted.system.predict(test.take(order)), whole[order], atol=2e-4)
    few = np.arange(5)
    np.testing.assert_allclose(fitted.system.predict(test.take(few)), whole[few], atol=2e-4)


@pytest.mark.parametrize("name", ["bleep", "mclstexp"])
def test_a_patient_with_one_section_trains_alone(name, tmp_path):
    """The inner validation is a block of the only section; the bank holds the other blocks."""
    cohort = small_cohort(tmp_path, {"A1": "A", "B1": "B"})
    found = {
        section.name: np.stack([colour_stats(patch) for patch in section.patches])
        for section in cohort.sections()
    }
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
    table = spot_table(cohort, spots, fitted.labels, training=True, features=features)
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
    valid = spot_table(cohort, fitted.fold.valid, fitted.labels, training=True, features=features)
    views = fitted.system.align(valid)
    table = recall_table(
        views.image_SD, views.gene_SD, section_S=views.section_S, spot_S=views.spot_S,
        sizes=("section",), ks=(5,),
    )  # fmt: skip
    assert table["recall"].mean() == pytest.approx(max(scores))


def test_weights_of_another_system_are_refused(cohort, features, tmp_path):
    run = trained("stnet", cohort, features, tmp_path / "run", epochs=1)
    (run.folder / "folds" / "A" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="weights of system stnet"):
        run.fold("A")


def test_what_a_system_needs_is_named(cohort, tmp_path):
    config = SpatialConfig(system={"name": "stnet"}, panel=PanelConfig("heg", 16))
    with pytest.raises(ConfigError, match="choose an image encoder"):
        train_run(config, cohort.root, tmp_path / "run", features=None, progress=False)
