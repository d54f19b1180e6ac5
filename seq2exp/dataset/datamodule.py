"""Loaders for training, validation and prediction; Lightning sees them through one module."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.samples import Batch, GeneSamples, Sample, SampleConfig, collate
from seq2exp.dataset.store import Dataset

__all__ = ["GeneDataModule", "SeededSampler", "predict_loader"]


class SeededSampler(Sampler[int]):
    """A new order each epoch that depends on the seed and the epoch only.

    A resumed run therefore sees the batches an unbroken one would have seen.
    """

    def __init__(self, num_items: int, *, seed: int) -> None:
        self.num_items = num_items
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch (Lightning calls it)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(self.num_items, generator=generator).tolist()


def predict_loader(
    dataset: Dataset,
    config: SampleConfig,
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    workers: int = 0,
) -> DataLoader[Sample]:
    """Return a loader over genes in the given order, without shifts."""
    return DataLoader(
        GeneSamples(dataset, config, rows),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
    )


class GeneDataModule(pl.LightningDataModule):
    """Labelled genes of the training and validation splits.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
    batch_size : int
    workers : int
        Loader processes; 0 loads in the main process.
    seed : int
        Decides order and shifts.

    Raises
    ------
    InputError
        A split has no labelled gene.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: SampleConfig,
        *,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.train = GeneSamples(
            dataset, config, labelled_rows(dataset, "train", config), jitter=True, seed=seed
        )
        self.valid = GeneSamples(dataset, config, labelled_rows(dataset, "valid", config))
        self.sampler = SeededSampler(len(self.train), seed=seed)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return shuffled training batches; order and shifts follow the current epoch."""
        if self.trainer is not None:
            self.train.set_epoch(self.trainer.current_epoch)
            self.sampler.set_epoch(self.trainer.current_epoch)
        return DataLoader(
            self.train,
            batch_size=self.batch_size,
            sampler=self.sampler,
            num_workers=self.workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return validation batches in table order."""
        return DataLoader(
            self.valid, batch_size=self.batch_size, num_workers=self.workers, collate_fn=collate
        )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch (Lightning calls it)."""
        return batch.to(device)


def labelled_rows(dataset: Dataset, split: str, config: SampleConfig) -> NDArray[np.int64]:
    """Return the rows of labelled genes of a split that ``config.edge`` keeps.

    Raises
    ------
    InputError
        There is none.
    """
    rows = dataset.gene_rows((split,))
    rows = rows[dataset.labelled()[rows]]
    if rows.size == 0:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"no labelled gene in split {split!r}",
                expected="at least one",
                fix="change the split or the label table of the data configuration",
            )
        )
    return usable_rows(dataset, rows, config, what=f"{split} genes")
