"""Train a system by gradients on the spots of a fold, resumable at the end of every pass.

Order, augmentation and dropout of a pass depend on seed and pass only, so a run that is killed and
started again ends with the same weights on the same machine. The weights kept are those of the pass
with the best mean Pearson correlation across the validation spots, or another score of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seq2exp.core.errors import InputError, facts
from seq2exp.core.files import atomic_file
from seq2exp.spatial.batch import SpotBatch, require_fields
from seq2exp.spatial.config import SpatialFitConfig
from seq2exp.spatial.data import SpotTable
from seq2exp.spatial.devices import device_of, pick_device
from seq2exp.spatial.images.augment import paired_dihedral
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.samplers import Negatives, SpotSampler
from seq2exp.spatial.systems.triplex import TriBranch

__all__ = ["FitHistory", "fit_module", "needs_of", "parameter_groups", "predict_table"]

logger = logging.getLogger(__name__)
_PREDICT_BATCH = 256


@dataclass
class FitHistory:
    """What a training run went through.

    Attributes
    ----------
    rows : list of dict
        epoch, train_loss, valid_loss, valid_pearson and the parts of the loss.
    best_epoch : int
        Pass whose weights were kept, -1 before the first.
    best_score : float
    """

    rows: list[dict[str, float]]
    best_epoch: int = -1
    best_score: float = -math.inf


def fit_module(
    module: nn.Module,
    train: SpotTable,
    valid: SpotTable | None,
    config: SpatialFitConfig,
    *,
    checkpoint: Path | None = None,
    on_valid: Callable[[nn.Module], None] | None = None,
    score: Callable[[nn.Module, SpotTable], float] | None = None,
) -> FitHistory:
    """Train a system; it holds the best weights afterwards, or the last without validation.

    Parameters
    ----------
    module : nn.Module
        A :class:`seq2exp.spatial.batch.SpatialSystem`.
    train : SpotTable
    valid : SpotTable or None
        Spots that choose the pass.
    config : SpatialFitConfig
    checkpoint : Path, optional
        File to continue from and to write after every pass.
    on_valid : callable, optional
        Called with the module before each validation, such as to fill a bank of references.
    score : callable, optional
        What the best pass is best in; the mean Pearson correlation by default.

    Raises
    ------
    ConfigError
        The spots lack what the system requires.
    InputError
        The loss is not a number.
    """
    device = pick_device(config.device)
    module.to(device)
    groups = parameter_groups(module, weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    history = FitHistory([])
    best = _copy(module)
    first = 0
    if checkpoint is not None and checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        best, first = saved["best"], int(saved["epoch"]) + 1
        history = FitHistory(saved["rows"], int(saved["best_epoch"]), float(saved["best_score"]))
    for epoch in range(first, config.max_epochs):
        if _finished(history, epoch, config):
            break
        row = _one_pass(module, train, optimizer, config, epoch)
        if valid is not None:
            if on_valid is not None:
                on_valid(module)
            row |= _validate(module, valid)
            if score is not None:
                row["valid_score"] = score(module, valid)
        history.rows.append({"epoch": float(epoch), **row})
        reached = row.get("valid_score", row.get("valid_pearson", -math.inf))
        if valid is None or reached > history.best_score:
            history.best_score, history.best_epoch = reached, epoch
            best = _copy(module)
        if checkpoint is not None:
            with atomic_file(checkpoint, overwrite=True) as partial:
                torch.save(
                    {
                        "module": module.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "best": best,
                        "epoch": epoch,
                        "rows": history.rows,
                        "best_epoch": history.best_epoch,
                        "best_score": history.best_score,
                    },
                    partial,
                )
    module.load_state_dict(best)
    if on_valid is not None:
        on_valid(module)
    module.eval()
    return history


def _finished(history: FitHistory, epoch: int, config: SpatialFitConfig) -> bool:
    waited = epoch - 1 - history.best_epoch
    return bool(config.patience and history.best_epoch >= 0 and waited >= config.patience)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for an optimiser; only matrices decay.

    Biases, norms and the scale of logits have a meaning at their size.
    """
    trained = [value for value in module.parameters() if value.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _one_pass(
    module: nn.Module,
    table: SpotTable,
    optimizer: torch.optim.Optimizer,
    config: SpatialFitConfig,
    epoch: int,
) -> dict[str, float]:
    module.train()
    torch.manual_seed(config.seed * 1_000_003 + epoch)
    drawn: Negatives = getattr(module, "batches", "any")
    sampler = SpotSampler(
        table.section_N, batch_size=config.batch_size, negatives=drawn, seed=config.seed
    )
    sampler.set_epoch(epoch)
    num_steps = len(sampler)
    sums: dict[str, float] = {}
    for step, places in enumerate(sampler):
        number = epoch * num_steps + step
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (number + 1) / max(1, config.warmup_steps))
        batch = table.batch(np.asarray(places), needs=needs_of(module))
        if config.augment == "dihedral" and batch.img is not None:
            batch = _turned(batch, batch.img, (config.seed, epoch))
        loss = _loss(module, batch.to(device_of(module)), number)
        optimizer.zero_grad(set_to_none=True)
        loss["total"].backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
        optimizer.step()
        after = getattr(module, "after_step", None)
        if after is not None:
            after()
        for key, value in loss.items():
            sums[f"train_{key}"] = sums.get(f"train_{key}", 0.0) + float(value.detach()) / num_steps
    return sums


def _turned(batch: SpotBatch, img_B3HW: Tensor, seed: tuple[int, int]) -> SpotBatch:
    """Turn and mirror each patch in a way that follows from seed, pass and spot."""
    spots = zip(batch.section.tolist(), batch.spot.tolist(), strict=True)
    base = (seed[0] * 100_003 + seed[1]) * 4_099
    img, maps = paired_dihedral(
        img_B3HW, batch.maps, [(base + section) * 1_000_003 + row for section, row in spots]
    )
    return replace(batch, img=img, maps=maps or None)


def needs_of(module: nn.Module) -> frozenset[str]:
    """Return the fields of the batch that a system reads."""
    found: frozenset[str] = module.requires  # type: ignore[assignment]
    return found


def _loss(module: nn.Module, batch: SpotBatch, step: int) -> dict[str, Tensor]:
    require_fields(needs_of(module), batch, system=type(module).__name__)
    loss: dict[str, Tensor] = module.loss(batch, step)  # type: ignore[operator]
    if not torch.isfinite(loss["total"]):
        raise InputError(
            facts(
                f"system {type(module).__name__}, step {step}",
                found=f"a loss of {float(loss['total'].detach())}",
                expected="a number",
                fix="lower fit.lr, or look for labels or features that are not finite",
            )
        )
    return loss


@torch.no_grad()
def _validate(module: nn.Module, table: SpotTable) -> dict[str, float]:
    predicted = predict_table(module, table)
    scores, errors = [], []
    for _, places in table.by_section():
        truth = table.y_NG[places].astype(np.float64)
        known = np.isfinite(truth).all(axis=0)
        found = columns_pearson(truth[:, known], predicted[places][:, known])
        scores.append(np.nan_to_num(found).mean())
        errors.append(np.mean((truth[:, known] - predicted[places][:, known]) ** 2))
    return {"valid_pearson": float(np.mean(scores)), "valid_mse": float(np.mean(errors))}


@torch.no_grad()
def predict_table(module: nn.Module, table: SpotTable) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return predicted labels of all spots, shape (num_spots, num_genes).

    Parameters
    ----------
    module : nn.Module
        A system; it is left in the mode it was in.
    table : SpotTable
    """
    was_training = module.training
    module.eval()
    predict: Callable[[SpotBatch], Tensor] = module.predict  # type: ignore[assignment]
    device = device_of(module)
    if isinstance(module, TriBranch):
        # Sections are encoded once, not once per batch.
        whole = {
            number: (feat_ND.to(device), grid_N2.to(device))
            for number, (feat_ND, grid_N2) in table.whole_sections.items()
        }
        predict = partial(module.predict, encoded=module.encode_sections(whole))
    parts = []
    for batch in table.batches(_PREDICT_BATCH, needs=needs_of(module)):
        require_fields(needs_of(module), batch, system=type(module).__name__)
        parts.append(predict(batch.to(device)).double().cpu().numpy())
    module.train(was_training)
    return np.concatenate(parts)
