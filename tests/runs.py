"""The smallest training configuration that still has every part: mask, tracks, two epochs."""

from __future__ import annotations

from typing import Any

from seq2exp.core.config import bind
from seq2exp.training.config import TrainConfig

MODEL = {
    "name": "seq2exp",
    "d_model": 8,
    "d_state": 4,
    "generator_layers": 1,
    "predictor_layers": 1,
    "promoter_bp": 64,
    "readout_bp": 128,
    "head_hidden": 8,
    "stem": {"channels": 8, "width": 5},
}


def tiny_config(**changes: Any) -> TrainConfig:
    """Return a configuration that trains on the toy dataset in about a second."""
    values: dict[str, Any] = {
        "data": {"window_bp": 512, "bin_size": 32, "jitter_bp": 8},
        "model": MODEL,
        "optim": {"lr": 0.01, "warmup_fraction": 0.1},
        "fit": {"max_epochs": 2, "batch_size": 8, "threads": 1},
        "seed": 1,
    }
    for key, change in changes.items():
        old = values.get(key)
        values[key] = {**old, **change} if isinstance(old, dict) else change
    return bind(TrainConfig, values, where="test")
