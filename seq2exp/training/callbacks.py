"""What happens between epochs: checkpoints, the metrics table, averaged weights, progress."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from seq2exp.core.files import atomic_file
from seq2exp.training.module import ExpressionModule

__all__ = ["AveragedWeights", "BatchSeed", "Checkpoints", "MetricsTable"]

logger = logging.getLogger(__name__)


class BatchSeed(Callback):
    """Seed torch at every batch, so that a resumed run draws what an unbroken one would have.

    Once per epoch is not enough: loaders draw from the same generator, at other moments when a run
    resumes.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Seed this batch."""
        place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))


class AveragedWeights(Callback):
    """Exponential moving average of the weights; it validates, is saved, and predicts.

    Early steps use ``min(decay, (1 + step) / (10 + step))`` so that the average forgets the
    initial weights quickly.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}
        self._raw: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Move the average towards the new weights."""
        state = _weights(pl_module)
        if not self.average:
            self.average = {name: value.detach().clone() for name, value in state.items()}
            return
        decay = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        for name, value in state.items():
            self.average[name].lerp_(value.detach().to(self.average[name].device), 1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in place."""
        if self.average:
            self._raw = {k: v.detach().clone() for k, v in _weights(pl_module).items()}
            _copy_into(pl_module, self.average)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the trained weights back."""
        if self._raw:
            _copy_into(pl_module, self._raw)
            self._raw = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average for the checkpoint."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average from a checkpoint."""
        self.average = state_dict["average"]


class Checkpoints(Callback):
    """Write ``last.ckpt`` after every epoch and ``best.ckpt`` when validation improves.

    Each file is written beside its final name and renamed, so a kill at any moment leaves the
    previous one readable. An epoch whose validation loss is NaN is never the best.

    Parameters
    ----------
    folder : Path
        Where the checkpoints go.
    patience : int
        Stop after this many epochs without improvement; 0 never stops.
    """

    def __init__(self, folder: Path, *, patience: int = 0) -> None:
        self.folder = folder
        self.patience = patience
        self.best = math.inf
        self.best_epoch = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and stop when patience has run out. Runs before averaged weights are swapped."""
        if trainer.sanity_checking or not isinstance(pl_module, ExpressionModule):
            return
        loss = pl_module.history["valid_loss"]
        improved = math.isfinite(loss) and loss < self.best
        if improved:
            self.best, self.best_epoch = loss, trainer.current_epoch
            if trainer.is_global_zero:
                self._save_best(pl_module)
        if self.patience and trainer.current_epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a resumed run needs."""
        partial = self.folder / ".last.partial.ckpt"
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                partial.replace(self.folder / "last.ckpt")
        finally:
            if trainer.is_global_zero:
                partial.unlink(missing_ok=True)

    def _save_best(self, module: ExpressionModule) -> None:
        # Through memory: torch's own file writer reports a full disk as a RuntimeError.
        content = io.BytesIO()
        torch.save(module.model.state_dict(), content)
        with atomic_file(self.folder / "best.pt", overwrite=True) as partial:
            partial.write_bytes(content.getbuffer())

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far for the checkpoint."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best value so far from a checkpoint."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class MetricsTable(Callback):
    """One row per epoch in ``metrics.csv`` and one line on the log.

    A resumed run first removes rows of epochs it will repeat.
    """

    def __init__(self, path: Path, *, label: str = "train") -> None:
        self.path = path
        self.label = label
        self._start = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of epochs that come again."""
        if trainer.is_global_zero and self.path.is_file():
            with self.path.open(newline="") as handle:
                rows = list(csv.DictReader(handle))
            # A full disk may have cut the last row.
            whole = [row for row in rows if None not in row.values() and row["epoch"].isdigit()]
            self._write([row for row in whole if int(row["epoch"]) < trainer.current_epoch])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append this epoch."""
        if not trainer.is_global_zero or not isinstance(pl_module, ExpressionModule):
            return
        history = {name: f"{value:.6g}" for name, value in pl_module.history.items()}
        row = {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step), **history}
        new = not self.path.is_file() or not self.path.stat().st_size
        with self.path.open("a", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
            handle.flush()
            os.fsync(handle.fileno())
        people = history.get("valid_people_pearson")
        logger.info(
            "%s: epoch %d of %s, valid mse %s, pearson %s%s, mask %s (%.0f s)",
            self.label,
            trainer.current_epoch + 1,
            trainer.max_epochs,
            history["valid_mse"],
            history["valid_pearson"],
            f", across people {people}" if people else "",
            history["mask_ratio"],
            time.monotonic() - self._start,
        )

    def _write(self, rows: list[dict[str, str]]) -> None:
        with (
            atomic_file(self.path, overwrite=True) as partial,
            partial.open("w", newline="") as out,
        ):
            if rows:
                writer = csv.DictWriter(out, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


def _weights(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _copy_into(module: pl.LightningModule, values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _weights(module).items():
            parameter.copy_(values[name])
