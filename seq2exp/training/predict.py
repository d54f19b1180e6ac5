"""Predictions of a finished run for any genes of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.core.progress import track
from seq2exp.dataset.datamodule import predict_loader
from seq2exp.dataset.samples import Batch
from seq2exp.dataset.store import Dataset
from seq2exp.training.module import forward_batch
from seq2exp.training.run import TrainedRun

__all__ = ["Prediction", "gene_table", "iterate", "predict"]


@dataclass(frozen=True)
class Prediction:
    """Predicted expression, in the units of the labels.

    Attributes
    ----------
    rows : int64 array, shape (num_genes,)
        Rows of the gene table.
    expression : float32 array, shape (num_genes, num_samples)
        Mean over the members of the run.
    spread : float32 array, shape (num_genes, num_samples)
        Standard deviation over the members; 0 for a single one.
    mask_ratio : float32 array, shape (num_genes,)
        Mean of the mask over the window.
    """

    rows: NDArray[np.int64]
    expression: NDArray[np.float32]
    spread: NDArray[np.float32]
    mask_ratio: NDArray[np.float32]


def predict(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
) -> Prediction:
    """Predict expression for genes of a dataset; nothing is sampled.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run (:meth:`TrainedRun.check_dataset`).
    rows : int64 array, shape (num_genes,)
        Rows of the gene table, in the order wanted.
    batch_size : int
        Changes speed, not numbers.
    workers : int
        Loader processes.
    progress : bool
        Show progress.

    Raises
    ------
    ConfigError
        The dataset does not fit the run.
    """
    expression, spread, ratio = [], [], []
    for batch, outputs in iterate(
        run, dataset, rows, batch_size=batch_size, workers=workers, progress=progress
    ):
        stack_MBK = torch.stack([output.expression_BK.float() for output in outputs])
        mask_MBN = torch.stack([output.mask_BN.float() for output in outputs])
        expression.append(stack_MBK.mean(dim=0).cpu().numpy())
        spread.append(stack_MBK.std(dim=0, unbiased=False).cpu().numpy())
        ratio.append(mask_MBN.mean(dim=(0, 2)).cpu().numpy())
        del batch
    shape = (0, len(run.card.samples))
    return Prediction(
        rows=np.asarray(rows, dtype=np.int64),
        expression=np.concatenate(expression or [np.empty(shape, np.float32)]),
        spread=np.concatenate(spread or [np.empty(shape, np.float32)]),
        mask_ratio=np.concatenate(ratio or [np.empty(0, np.float32)]),
    )


def iterate(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
    forward: Callable[[nn.Module, Batch], object] = forward_batch,
) -> Iterator[tuple[Batch, list]]:  # type: ignore[type-arg]
    """Yield each batch with the outputs of all members; device and mode are put back.

    Parameters
    ----------
    forward : callable
        Applied to each member and batch; replace it to look at something else than predictions.
    """
    run.check_dataset(dataset)
    config = run.sample_config(dataset)
    loader = predict_loader(dataset, config, rows, batch_size=batch_size, workers=workers)
    with run.evaluating() as device, torch.no_grad():
        for batch in track(loader, total=len(loader), label="predict", enabled=progress):
            moved = batch.to(device)
            yield moved, [forward(model, moved) for model in run.models]


def gene_table(run: TrainedRun, dataset: Dataset, prediction: Prediction) -> pd.DataFrame:
    """Return one row per predicted gene: identity, split, label and prediction per sample."""
    columns = ["gene_id", "symbol", "contig", "tss", "strand", "split"]
    table = dataset.genes.iloc[prediction.rows][columns].reset_index(drop=True)
    known = dataset.manifest.expression.samples
    for k, name in enumerate(run.card.samples):
        if name in known:
            table[f"observed:{name}"] = dataset.expression[prediction.rows, known.index(name)]
        table[f"predicted:{name}"] = prediction.expression[:, k]
        if len(run.models) > 1:
            table[f"spread:{name}"] = prediction.spread[:, k]
    table["mask_ratio"] = prediction.mask_ratio
    return table
