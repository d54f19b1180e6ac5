"""A toy dataset and a tiny finished run that many rooms share; no test changes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.runs import tiny_config
from tests.toys import toy_dataset

if not torch.cuda.is_available():
    # Read when a Triton kernel is defined: from here on kernels run in Triton's interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("toy") / "dataset")


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory) -> Path:
    from seq2exp.training.trainer import train

    out = tmp_path_factory.mktemp("run") / "run"
    train(tiny_config(), toy, out)
    return out
