"""One member of a run through Lightning: seeds, callbacks, checkpoints, going on after a kill."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from seq2exp.core.errors import InputError, facts
from seq2exp.training.callbacks import AveragedWeights, BatchSeed, Checkpoints, MetricsTable
from seq2exp.training.checkpoint import read_checkpoint
from seq2exp.training.config import FitConfig
from seq2exp.training.module import ExpressionModule

__all__ = ["best_weights", "fit_module", "settle"]

# Lightning reports its devices and tips at every start; our own lines say what matters.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def settle(fit: FitConfig, seed: int) -> None:
    """Set threads, seed and determinism of torch."""
    if fit.threads:
        torch.set_num_threads(fit.threads)
    torch.manual_seed(seed)
    if fit.deterministic:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def fit_module(
    module: ExpressionModule,
    data: pl.LightningDataModule,
    fit: FitConfig,
    folder: Path,
    *,
    seed: int,
    label: str,
    more: Sequence[pl.Callback] = (),
) -> None:
    """Train a module to its end, from the last checkpoint of the folder where there is one.

    Parameters
    ----------
    module : ExpressionModule
    data : LightningDataModule
    fit : FitConfig
    folder : Path
        Of the member: ``metrics.csv`` and ``checkpoints/`` are written there.
    seed : int
    label : str
        Beginning of the lines on the log.
    more : sequence of Callback
        Beside seeds, table, checkpoints and averaged weights.
    """
    # The table's row comes before the checkpoint: a kill between them repeats the epoch and its
    # row, and loses neither. Checkpoints see the averaged weights before they are swapped back.
    callbacks: list[pl.Callback] = [
        BatchSeed(seed),
        MetricsTable(folder / "metrics.csv", label=label),
        Checkpoints(folder / "checkpoints", patience=fit.patience),
    ]
    if fit.ema_decay:
        callbacks.append(AveragedWeights(fit.ema_decay))
    callbacks += more
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        read_checkpoint(last)
    with warnings.catch_warnings():
        # Lightning advises more loader workers and a logger; both are choices made here.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=fit.max_epochs,
            accelerator=fit.accelerator,
            devices=fit.devices,
            num_nodes=fit.num_nodes,
            precision=_precision(fit.precision),
            accumulate_grad_batches=fit.accumulate,
            gradient_clip_val=module.config.clip_norm,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
        )
        try:
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into an exit of its own; ours reports 130.
            raise KeyboardInterrupt from None


def best_weights(folder: Path) -> dict[str, Any]:
    """Return the weights of the best epoch of a member.

    Raises
    ------
    InputError
        No epoch had a finite validation loss.
    """
    best = folder / "checkpoints" / "best.pt"
    if not best.is_file():
        raise InputError(
            facts(
                str(folder),
                found="no epoch with a finite validation loss",
                expected="at least one",
                fix="lower optim.lr and look at metrics.csv",
            )
        )
    return read_checkpoint(best)


def _precision(wanted: str) -> Any:  # noqa: ANN401
    if wanted != "auto":
        return wanted
    return (
        "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
    )
