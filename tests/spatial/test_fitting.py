"""Every system in the same run: trained, saved, loaded, judged."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.spatial.colour import colour_stats
from seq2exp.spatial.config import SpatialConfig, SpatialFitConfig
from seq2exp.spatial.data import spot_table
from seq2exp.spatial.evaluation import evaluation_rows
from seq2exp.spatial.panels import PanelConfig
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


def test_weights_of_another_system_are_refused(cohort, features, tmp_path):
    run = trained("stnet", cohort, features, tmp_path / "run", epochs=1)
    (run.folder / "folds" / "A" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="weights of system stnet"):
        run.fold("A")


def test_what_a_system_needs_is_named(cohort, tmp_path):
    config = SpatialConfig(system={"name": "stnet"}, panel=PanelConfig("heg", 16))
    with pytest.raises(ConfigError, match="choose an image encoder"):
        train_run(config, cohort.root, tmp_path / "run", features=None, progress=False)
