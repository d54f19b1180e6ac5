from __future__ import annotations

import pytest

from seq2exp.dataset.store import Dataset


@pytest.fixture(scope="session")
def dataset(toy) -> Dataset:
    return Dataset(toy)
