from __future__ import annotations

import pytest

from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import gene_masks
from tests.elements.fakes import fake_run
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("elements") / "toy"
    return Dataset(toy_dataset(root, ToyPlan(contacts=True)))


@pytest.fixture
def run(dataset):
    return fake_run(dataset)


@pytest.fixture
def masks(run, dataset):
    return gene_masks(run, dataset, range(len(dataset.genes)))
