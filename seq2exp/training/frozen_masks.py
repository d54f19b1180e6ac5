"""Masks of `mask: retrain`, made once before the first step instead of in every step.

The frozen mask model sees the same window in every epoch unless training shifts it, so its mask is
the same too (R10 of the removals that are exact; docs/masks.md).

Shapes: B batch, N bins.
"""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from seq2exp.dataset.datamodule import GeneDataModule, predict_loader
from seq2exp.dataset.samples import Batch
from seq2exp.models.seq2exp import Seq2Exp
from seq2exp.training.module import ExpressionModule

__all__ = ["FrozenMasks", "StoredMasks"]

logger = logging.getLogger(__name__)


class StoredMasks:
    """Masks of 0 and 1 by gene, a bit per bin."""

    def __init__(self, num_bins: int) -> None:
        self.num_bins = num_bins
        self._bits: dict[int, NDArray[np.uint8]] = {}

    def put(self, genes_B: Tensor, mask_BN: Tensor) -> None:
        """Keep the masks of some genes, which are named by their rows of the gene table."""
        packed = np.packbits(mask_BN.cpu().numpy() > 0, axis=1)
        self._bits.update(zip(genes_B.tolist(), packed, strict=True))

    def get(self, genes_B: Tensor) -> Tensor:
        """Return the masks of genes that were put, float, shape (batch, bins)."""
        packed = np.stack([self._bits[gene] for gene in genes_B.tolist()])
        mask_BN = np.unpackbits(packed, axis=1, count=self.num_bins)
        return torch.from_numpy(mask_BN).to(genes_B.device, torch.float32)


class FrozenMasks(Callback):
    """Fill the stored masks of a module when its model has arrived on its device.

    Always in the same batches, whatever epoch training begins with, so that a resumed run has the
    masks of an unbroken one to the bit.

    Parameters
    ----------
    data : GeneDataModule
        Its windows must not be shifted at random.
    """

    def __init__(self, data: GeneDataModule) -> None:
        self.data = data

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the mask model over the genes of training and validation."""
        module = cast("ExpressionModule", pl_module)
        model = cast("Seq2Exp", module.model)
        stored = StoredMasks(model.config.num_bins)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for samples in (self.data.train, self.data.valid):
                loader = predict_loader(
                    samples.dataset,
                    samples.config,
                    samples.rows,
                    batch_size=self.data.batch_size,
                    workers=self.data.workers,
                )
                for batch in loader:
                    stored.put(batch.index_B, _choose(model, batch.to(module.device)))
        module.given_masks = stored.get
        logger.info("masks of the frozen model are made, once for all epochs")


def _choose(model: Seq2Exp, batch: Batch) -> Tensor:
    return model.frozen_mask(
        batch.codes_BL,
        batch.signal_BNT,
        blacklist_BN=batch.blacklist_BN,
        valid_BN=batch.valid_BN,
    )
