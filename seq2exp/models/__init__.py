"""Models: tensors in, predictions and masks out; chosen by registry name."""

from __future__ import annotations

from seq2exp.models.registry import build_model, config_dict, model_names
from seq2exp.models.seq2exp import Seq2Exp, Seq2ExpConfig, Seq2ExpOutput

__all__ = [
    "Seq2Exp",
    "Seq2ExpConfig",
    "Seq2ExpOutput",
    "build_model",
    "config_dict",
    "model_names",
]
