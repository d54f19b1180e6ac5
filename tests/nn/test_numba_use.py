"""Compiled loops keep to the number of threads that torch was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

# A pool of two threads, whatever the machine has: numba's launch must not make them torch's.
PROBE = """
import torch
from seq2exp.nn.numba_use import use_threads
import numba
before = torch.get_num_threads()
print(before, use_threads(), numba.config.NUMBA_NUM_THREADS, torch.get_num_threads())
torch.set_num_threads(2)
print(use_threads(), torch.get_num_threads())
"""


def test_launching_numba_leaves_the_threads_of_torch_alone():
    root = Path(__file__).parents[2]
    settings = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | settings, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1 1 2 1", "2 2"]
