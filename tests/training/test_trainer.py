from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time

import pytest

from seq2exp.core.config import dump_yaml, load_yaml
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import read_json, sha256
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import build_model
from seq2exp.training.trainer import control_config, model_params, train
from tests.runs import tiny_config


def weights(run):
    return sha256(run / "model" / "model.safetensors")


def epochs(run):
    with (run / "metrics.csv").open(newline="") as handle:
        return [row["epoch"] for row in csv.DictReader(handle)]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(toy, tmp_path, finished):
    train(tiny_config(), toy, tmp_path / "same")
    train(tiny_config(seed=2), toy, tmp_path / "other")
    assert weights(tmp_path / "same") == weights(finished)
    assert weights(tmp_path / "other") != weights(finished)


def test_worker_processes_do_not_change_the_weights(toy, tmp_path, finished):
    train(tiny_config(fit={"workers": 2}), toy, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished)


def test_members_trained_side_by_side_are_those_trained_in_turn(toy, tmp_path):
    for parallel, name in ((1, "turn"), (2, "side")):
        fit = {"seeds": 2, "parallel": parallel}
        train(tiny_config(fit=fit, controls=["sequence_only"]), toy, tmp_path / name)
    turn, side = tmp_path / "turn", tmp_path / "side"
    models = sorted(path.relative_to(turn) for path in turn.rglob("model.safetensors"))
    assert len(models) == 4
    assert [sha256(turn / path) for path in models] == [sha256(side / path) for path in models]
    assert read_json(side / "controls" / "sequence_only" / "manifest.json")["state"] == "finished"


def test_how_many_train_at_once_may_change_on_the_way(toy, finished):
    before = weights(finished)
    train(tiny_config(fit={"parallel": 2, "workers": 1}), toy, finished)
    assert weights(finished) == before


def test_a_finished_run_is_left_alone(toy, finished):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    train(tiny_config(), toy, finished)
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert read_json(finished / "manifest.json")["state"] == "finished"
    assert epochs(finished) == ["0", "1"]


def test_a_run_of_a_version_with_fewer_settings_goes_on(toy, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    settings = load_yaml(run / "config.yaml")
    del settings["fit"]["deterministic"]
    (run / "config.yaml").unlink()
    dump_yaml(settings, run / "config.yaml")
    train(tiny_config(), toy, run)


def test_a_folder_of_another_configuration_is_refused_with_the_difference(toy, finished):
    with pytest.raises(InputError, match=r"optim\.lr 0\.01 -> 0\.5"):
        train(tiny_config(optim={"lr": 0.5}), toy, finished)
    with pytest.raises(InputError, match="--resume never"):
        train(tiny_config(), toy, finished, resume="never")


@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_run_continues_to_the_same_weights(toy, tmp_path, kills):
    config = tiny_config(fit={"max_epochs": 4, "ema_decay": 0.9})
    train(config, toy, tmp_path / "whole")
    dump_yaml(config, tmp_path / "config.yaml")
    command = [sys.executable, "-m", "seq2exp.cli.main", "train", "--config",
               str(tmp_path / "config.yaml"), "--data", str(toy), "--out"]  # fmt: skip
    for wanted in range(1, kills + 1):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        _wait_for_epochs(tmp_path / "killed" / "metrics.csv", wanted, process)
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    train(config, toy, tmp_path / "killed")
    assert epochs(tmp_path / "killed") == ["0", "1", "2", "3"]
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_text()


def _wait_for_epochs(path, wanted, process):
    for _ in range(3000):
        if path.is_file() and len(path.read_text().splitlines()) > wanted:
            return
        if process.poll() is not None:
            pytest.fail("the run ended before it could be killed")
        time.sleep(0.02)
    pytest.fail("the run never finished an epoch")


def test_what_the_dataset_decides_must_not_be_contradicted(toy):
    samples = GeneSamples(Dataset(toy), tiny_config().data, [0])
    assert model_params(tiny_config(), samples)["num_outputs"] == 2
    with pytest.raises(ConfigError, match=r"model\.num_outputs: found 7, expected 2"):
        model_params(tiny_config(model={"num_outputs": 7}), samples)


def test_controls_see_less(toy):
    dataset = Dataset(toy)
    sequence_only = control_config(tiny_config(), dataset, "sequence_only")
    samples = GeneSamples(dataset, sequence_only.data, [0])
    assert samples.track_names == []
    assert "promoter_DNase" not in samples.feature_names
    shuffled = control_config(tiny_config(), dataset, "shuffled_tracks")
    assert shuffled.data.shuffle_tracks
    assert shuffled.model == tiny_config().model


def test_sequence_only_control_drops_settings_that_need_tracks(toy):
    about_tracks = {"track_betas": {"DNase": 0.5}, "track_loss_weight": 0.1}
    config = tiny_config(model=about_tracks)
    control = control_config(config, Dataset(toy), "sequence_only")
    assert not set(about_tracks) & set(control.model)
    params = model_params(control, GeneSamples(Dataset(toy), control.data, [0]))
    model = build_model("seq2exp", {k: v for k, v in params.items() if k != "name"})
    assert model.track_head is None
    assert control_config(config, Dataset(toy), "shuffled_tracks").model == config.model


def test_trained_controls_are_runs_of_their_own(toy, tmp_path):
    train(tiny_config(controls=["sequence_only"], fit={"max_epochs": 1}), toy, tmp_path / "run")
    control = tmp_path / "run" / "controls" / "sequence_only"
    assert read_json(control / "manifest.json")["state"] == "finished"
    assert weights(control) != weights(tmp_path / "run")


def test_early_stopping_ends_after_the_patience(toy, tmp_path):
    config = tiny_config(fit={"max_epochs": 6, "patience": 1}, optim={"lr": 0.0, "start_lr": 0.0,
                         "final_lr": 0.0, "weight_decay": 0.0})  # fmt: skip
    train(config, toy, tmp_path / "run")
    # Nothing moves, so only epoch 0 improves and epoch 1 runs out of patience.
    assert epochs(tmp_path / "run") == ["0", "1"]


def test_an_unknown_control_and_a_missing_split_are_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match="sequence_only"):
        tiny_config(controls=["sequence_onlt"])
    from tests.toys import ToyPlan, toy_dataset

    plan = ToyPlan(contigs=(("chr1", "train", 6), ("chr3", "test", 4)))
    lacking = toy_dataset(tmp_path / "lacking", plan)
    with pytest.raises(InputError, match="no labelled gene in split 'valid'"):
        train(tiny_config(), lacking, tmp_path / "run")
