"""One toy dataset and one tiny trained run with its trained controls, shared by the room."""

from __future__ import annotations

import pytest

from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.training.config import FitConfig, TrainConfig
from seq2exp.training.trainer import train
from tests.toys import toy_dataset

MODEL = {
    "name": "seq2exp",
    "d_model": 8,
    "d_state": 2,
    "generator_layers": 1,
    "predictor_layers": 1,
    "promoter_bp": 128,
    "readout_bp": 256,
    "head_hidden": 8,
    "stem": {"channels": 8, "width": 9},
}


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("toy") / "dataset"))


@pytest.fixture(scope="session")
def toy_run(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = TrainConfig(
        data=SampleConfig(window_bp=1024, bin_size=32),
        model=MODEL,
        fit=FitConfig(max_epochs=1, batch_size=12),
        controls=["sequence_only"],
    )
    train(config, toy.root, folder)
    return folder
