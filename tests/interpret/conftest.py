from __future__ import annotations

import pytest

from seq2exp.dataset.store import Dataset
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("interpret") / "toy"
    return Dataset(toy_dataset(root, ToyPlan(contacts=True)))
