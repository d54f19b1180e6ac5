"""The order of genes and the content of batches depend on seed and epoch, nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from seq2exp.core.errors import InputError
from seq2exp.dataset.datamodule import (
    GeneDataModule,
    SeededSampler,
    labelled_rows,
    predict_loader,
)
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from tests.toys import ToyPlan, toy_dataset

CONFIG = SampleConfig(window_bp=256, bin_size=32, jitter_bp=20)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("m") / "d"))


def content(loader):
    return [dataclasses.astuple(batch) for batch in loader]


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
        for left, right in zip(first, second, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def test_the_sampler_visits_every_gene_once_in_an_order_of_its_own_each_epoch():
    sampler = SeededSampler(50, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert list(sampler) == orders[-1]
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]
    assert list(SeededSampler(50, seed=4)) != orders[0]
    assert len(sampler) == 50


@pytest.mark.parametrize("kind", ["train", "valid"])
def test_worker_processes_do_not_change_batches(dataset, kind):
    loaders = []
    for workers in (0, 2):
        module = GeneDataModule(dataset, CONFIG, batch_size=5, workers=workers, seed=1)
        loaders.append(content(getattr(module, {"train": "train", "valid": "val"}[kind]
                                       + "_dataloader")()))  # fmt: skip
    assert len(loaders[0]) == {"train": 5, "valid": 2}[kind]
    assert equal(*loaders)


def test_training_batches_change_with_the_epoch_and_validation_ones_do_not(dataset):
    module = GeneDataModule(dataset, CONFIG, batch_size=24, seed=1)
    first_train, first_valid = content(module.train_dataloader()), content(module.val_dataloader())
    module.train.set_epoch(1)
    module.sampler.set_epoch(1)
    index = [batch[0][-1].tolist() for batch in (first_train, content(module.train_dataloader()))]
    assert index[0] != index[1]
    assert sorted(index[0]) == sorted(index[1])
    assert equal(first_valid, content(module.val_dataloader()))


def test_only_labelled_genes_of_a_split_are_used(dataset):
    rows = labelled_rows(dataset, "valid", CONFIG)
    assert (dataset.genes["split"].iloc[rows] == "valid").all()
    assert len(rows) == 8
    lacking = Dataset(dataset.root)
    lacking.__dict__["expression"] = np.where(
        np.arange(44)[:, None] == rows[0], np.nan, dataset.expression
    )
    assert labelled_rows(lacking, "valid", CONFIG).tolist() == rows[1:].tolist()


def test_an_empty_split_is_named(tmp_path):
    plan = ToyPlan(contigs=(("chr1", "train", 6),))
    with pytest.raises(InputError, match="no labelled gene in split 'valid'"):
        GeneDataModule(Dataset(toy_dataset(tmp_path / "d", plan)), CONFIG, batch_size=2)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_prediction_keeps_the_order_and_never_shifts(dataset, batch_size):
    rows = np.array([5, 2, 9, 0])
    batches = list(predict_loader(dataset, CONFIG, rows, batch_size=batch_size))
    assert torch.cat([batch.index_B for batch in batches]).tolist() == rows.tolist()
    still = dataclasses.replace(CONFIG, jitter_bp=0)
    other = list(predict_loader(dataset, still, rows, batch_size=batch_size))
    assert all(torch.equal(a.codes_BL, b.codes_BL) for a, b in zip(batches, other, strict=True))
