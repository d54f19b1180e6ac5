"""Batches, banks and sections go where the system is; nothing here has a GPU."""

from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.batch import SpotBatch
from seq2exp.spatial.config import SpatialConfig, SpatialFitConfig
from seq2exp.spatial.devices import device_of, pick_device
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.run import train_run
from seq2exp.spatial.systems.registry import MODULES


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no GPU that torch can use"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")


def test_the_device_of_a_module_is_that_of_its_weights():
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(torch.nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")
    assert device_of(torch.nn.Identity()) == torch.device("cpu")


@pytest.mark.parametrize("name", ["bleep", "mclstexp", "stnet"])
def test_every_batch_goes_where_the_system_is(name, cohort, features, tmp_path, monkeypatch):
    """What a system is given in training, in its bank and in prediction has been moved."""
    to = SpotBatch.to

    def watched(batch, device):
        found = to(batch, device)
        found.__dict__["_moved"] = True
        return found

    monkeypatch.setattr(SpotBatch, "to", watched)
    seen = []

    kind = MODULES[name][1]

    def spying(plain):
        def asked(self, batch, *rest, **named):
            seen.append("_moved" in vars(batch))
            return plain(self, batch, *rest, **named)

        return asked

    for method in ("loss", "predict"):
        monkeypatch.setattr(kind, method, spying(getattr(kind, method)))
    config = SpatialConfig(
        system={"name": name, **({} if name == "stnet" else {"retrieval": {"k": 8}})},
        panel=PanelConfig("heg", 16),
        fit=SpatialFitConfig(max_epochs=1, batch_size=16),
    )
    train_run(config, cohort.root, tmp_path / "run", features=features, progress=False)
    assert seen
    assert all(seen)
