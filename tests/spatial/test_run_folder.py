"""The folder of a run: nothing half-written, nothing of others replaced, nothing changed unseen."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.spatial.config import EncoderConfig, SpatialConfig
from seq2exp.spatial.folds import FoldConfig
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.run import evaluate_run, open_spatial_run, train_run

CONFIG = SpatialConfig(
    system={"name": "ridge", "alpha": 10.0, "neighbours": False},
    panel=PanelConfig("heg", 20),
    folds=FoldConfig(),
)
TOO_MANY = dataclasses.replace(CONFIG, panel=PanelConfig("heg", 9_999))


@pytest.fixture(scope="module")
def run(cohort, features, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return train_run(CONFIG, cohort.root, out, features=features, progress=False)


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "copy")
    return tmp_path / "copy"


def train(config, cohort, features, out):
    return train_run(config, cohort.root, out, features=features, progress=False)


def test_settings_that_no_fold_can_be_fitted_with_leave_nothing(cohort, features, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="ask for fewer genes"):
        train(TOO_MANY, cohort, features, out)
    assert not out.exists()
    # Neither do those that only the first fold finds.
    unfit = dataclasses.replace(CONFIG, system={"name": "nsl", "source": "tokens"})
    with pytest.raises(ConfigError, match="densities of pixels"):
        train(unfit, cohort, features, out)
    assert not out.exists()


def test_a_fault_while_a_fold_is_written_leaves_nothing(cohort, features, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise InputError("broken")

    monkeypatch.setattr("seq2exp.spatial.run.write_heldout", broken)
    with pytest.raises(InputError, match="broken"):
        train(CONFIG, cohort, features, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_fitted_fold_may_get_other_settings(cohort, features, run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.yaml", "manifest.json"):  # as a run that was killed at its start
        shutil.copy(run.folder / name, out / name)
    other = dataclasses.replace(CONFIG, panel=PanelConfig("heg", 10))
    assert len(train(other, cohort, features, out).fold("A").labels.panel) == 10
    with pytest.raises(ConfigError, match="another configuration"):
        train(CONFIG, cohort, features, out)


def test_a_folder_of_other_things_is_left_alone(cohort, features, tmp_path):
    out = tmp_path / "cohort"
    shutil.copytree(cohort.root, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(ConfigError, match="a folder of other things") as caught:
        train(CONFIG, cohort, features, out)
    assert "patches" in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="found a file, expected a folder"):
        train(CONFIG, cohort, features, tmp_path / "file")


@pytest.mark.parametrize("system", ["ridge", "nsl"])
def test_an_encoder_that_nobody_trains_is_refused(cohort, features, tmp_path, system):
    config = dataclasses.replace(
        CONFIG, system={"name": system}, trained_encoder=EncoderConfig("tinycnn")
    )
    with pytest.raises(ConfigError, match=f"system {system}: found a trained_encoder"):
        train(config, cohort, features, tmp_path / "run")


def test_f27_weights_that_changed_on_disk_are_noticed(copy, features):
    place = copy / "folds" / "A" / "model.safetensors"
    content = bytearray(place.read_bytes())
    content[-3] ^= 0xFF  # a tensor: the file is still whole
    place.write_bytes(bytes(content))
    with pytest.raises(FormatError, match=r"model.safetensors: found another content"):
        evaluate_run(open_spatial_run(copy), features=features)


def test_f27_a_file_of_a_fold_that_is_gone_is_named(copy, features):
    (copy / "folds" / "A" / "labels.json").unlink()
    with pytest.raises(FormatError, match=r"labels.json: found no such file"):
        evaluate_run(open_spatial_run(copy), features=features)
    shutil.rmtree(copy / "folds" / "A")
    with pytest.raises(FormatError, match=r"no model.safetensors.*train` again"):
        open_spatial_run(copy).fold("A")


@pytest.mark.parametrize("key", ["folds", "cohort", "state", None])
def test_f27_manifests_that_lack_something(copy, key):
    manifest = json.loads((copy / "manifest.json").read_text())
    changed = [] if key is None else {name: manifest[name] for name in manifest if name != key}
    (copy / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(FormatError, match=f"found no {key or 'state, folds'}"):
        open_spatial_run(copy)
