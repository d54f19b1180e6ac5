"""F30 and the ranks of one run: devices that are not there, too little memory, who leads."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch

from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import read_json
from seq2exp.training import fitting
from seq2exp.training.devices import is_leader, require_devices
from seq2exp.training.module import ExpressionModule
from seq2exp.training.run import open_run
from seq2exp.training.trainer import train
from tests.runs import tiny_config


@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
def test_f30_an_absent_accelerator_is_refused_before_anything_is_written(
    toy, tmp_path, monkeypatch, accelerator
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = tiny_config(fit={"accelerator": accelerator})
    with pytest.raises(ConfigError, match=rf"fit\.accelerator: found {accelerator}, but torch"):
        train(config, toy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_f30_auto_falls_back_to_the_cpu(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fitting._precision("auto") == "32-true"
    require_devices(tiny_config(fit={"accelerator": "auto"}))


def test_f30_more_devices_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_devices(tiny_config(fit={"accelerator": "gpu", "devices": 2}))
    with pytest.raises(ConfigError, match=r"fit\.devices: found 3, expected at most 2"):
        require_devices(tiny_config(fit={"accelerator": "gpu", "devices": 3}))


def test_f30_too_little_memory_names_batch_and_window(toy, tmp_path, monkeypatch):
    def training_step(self, batch, index):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(ExpressionModule, "training_step", training_step)
    with pytest.raises(InputError, match=r"fit\.batch_size 8 with windows of 512 bases"):
        train(tiny_config(), toy, tmp_path / "run")


def test_an_unknown_accelerator_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"found cpuu.*did you mean 'cpu'"):
        tiny_config(fit={"accelerator": "cpuu"})


@pytest.mark.parametrize("change", [{"fit": {"seeds": 2}}, {"controls": ["sequence_only"]}])
def test_several_devices_train_one_model_at_a_time(change):
    fit = {"devices": 2, "accelerator": "cpu", **change.pop("fit", {})}
    with pytest.raises(ConfigError, match="one model at a time"):
        require_devices(tiny_config(fit=fit, **change))


def test_ranks_of_a_batch_system_mean_nothing_to_one_device(monkeypatch):
    several = tiny_config(fit={"devices": 2})
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_leader(several)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert is_leader(tiny_config())
    assert not is_leader(several)
    monkeypatch.setenv("RANK", "0")
    assert is_leader(several)


@pytest.mark.slow
def test_two_processes_train_one_run(toy, tmp_path):
    """Gloo on the CPU: each epoch is written once, and the model that is left can be used."""
    fit = {"devices": 2, "accelerator": "cpu", "batch_size": 4, "max_epochs": 2}
    dump_yaml(tiny_config(fit=fit), tmp_path / "c.yaml")
    run = tmp_path / "run"
    line = [sys.executable, "-m", "seq2exp", "train", "--config", str(tmp_path / "c.yaml")]
    free = {k: v for k, v in os.environ.items() if "RANK" not in k and not k.startswith("SLURM")}
    done = subprocess.run(
        [*line, "--data", str(toy), "--out", str(run)],
        env=free, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained model") == 1
    with (run / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    # 24 training genes, 4 per process and step: 3 steps an epoch.
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "3"), ("1", "6")]
    assert read_json(run / "manifest.json")["state"] == "finished"
    assert len(open_run(run).models) == 1
