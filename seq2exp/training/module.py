"""The training step: loss, optimiser and schedule around any model of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import nn

from seq2exp.core.errors import Seq2ExpError, facts
from seq2exp.dataset.samples import Batch
from seq2exp.models.output import ModelCall
from seq2exp.training.config import OptimConfig
from seq2exp.training.losses import masked_loss
from seq2exp.training.optimizer import TableAdamW

__all__ = [
    "ExpressionModule",
    "NumericsError",
    "StepLoss",
    "batch_call",
    "batch_loss",
    "forward_batch",
    "learning_rate",
    "parameter_groups",
]

# Parameters that weight decay would pull towards a meaningless zero.
_NO_DECAY = ("bias", "A_log", "D", "D_E", "norm", "position", "implicit_filter")


class NumericsError(Seq2ExpError):
    """Training produced a loss or gradient that is not a number."""


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay.

    With the published settings (1e-5 -> 5e-4 over 5,000 of 50,000 steps, then to 1e-4) the values
    at steps 0, 2,500, 5,000, 27,500 and 50,000 are 1e-5, 2.55e-4, 5e-4, 3e-4 and 1e-4.
    """
    warmup = round(total_steps * config.warmup_fraction)
    if step < warmup:
        return config.start_lr + (config.lr - config.start_lr) * step / warmup
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr + (config.lr - config.final_lr) * cosine


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    embedding_decay: float | None = None,
    embedding_moment: str = "column",
) -> list[dict[str, Any]]:
    """Split trainable parameters into matrices, lookup tables, and those that do not decay.

    Parameters
    ----------
    model : Module
    weight_decay, embedding_decay, embedding_moment
        See :class:`~seq2exp.training.config.OptimConfig`.

    Returns
    -------
    list of dict
        Groups for :class:`~seq2exp.training.optimizer.TableAdamW`; none is empty.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    lookups: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tables:
            lookups.append(parameter)
        else:
            (exempt if _is_exempt(name, parameter) else matrices).append(parameter)
    decay = weight_decay if embedding_decay is None else embedding_decay
    shared = embedding_moment == "column"
    groups = ((matrices, weight_decay, False), (lookups, decay, shared), (exempt, 0.0, False))
    return [
        {"params": params, "weight_decay": value, "shared_moment": flag}
        for params, value, flag in groups
        if params
    ]


def _is_exempt(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or any(
        part.startswith(word) if len(word) > 2 else part == word
        for part in name.split(".")
        for word in _NO_DECAY
    )


def batch_call(batch: Batch, mask_BN: torch.Tensor | None = None) -> ModelCall:
    """Return the tensors of a forward pass of a batch, under a given mask or the models' own."""
    return ModelCall(
        batch.codes_BL,
        batch.signal_BNT,
        batch.features_BF,
        batch.blacklist_BN,
        batch.valid_BN,
        mask_BN,
        force_promoter=True,
        elements_BR2=batch.elements_BR2,
    )


def forward_batch(model: nn.Module, batch: Batch, **options: Any) -> Any:  # noqa: ANN401
    """Run a model on a batch; ``options`` go to the model."""
    return model(
        batch.codes_BL,
        batch.signal_BNT,
        batch.features_BF,
        blacklist_BN=batch.blacklist_BN,
        valid_BN=batch.valid_BN,
        elements_BR2=batch.elements_BR2,
        **options,
    )


class StepLoss(NamedTuple):
    """Loss of a batch and its parts; `tracks` is None without the auxiliary loss."""

    total: torch.Tensor
    loss: torch.Tensor
    kl: torch.Tensor
    tracks: torch.Tensor | None


def batch_loss(
    model: nn.Module,
    batch: Batch,
    config: OptimConfig,
    **options: Any,  # noqa: ANN401
) -> StepLoss:
    """Return prediction loss + weighted KL and auxiliary loss of one batch.

    ``options`` go to the model.
    """
    output = forward_batch(model, batch, **options)
    loss = masked_loss(output.expression_BK, batch.expression_BK, kind=config.loss)
    kl = output.kl_B.mean()
    settings: Any = model.config
    total, tracks = loss + settings.kl_weight * kl, None
    if settings.track_loss_weight:
        tracks = output.track_loss_B.mean()
        total = total + settings.track_loss_weight * tracks
    return StepLoss(total, loss, kl, tracks)


class ExpressionModule(pl.LightningModule):
    """Train a model of the registry on expression.

    Parameters
    ----------
    model : Module
        Returns ``expression_BK``, ``mask_BN`` and ``kl_B``; ``model.config.kl_weight`` weighs the
        information bottleneck.
    config : OptimConfig
    total_steps : int
        Number of optimiser steps of the whole run.
    gene_ids : sequence of str, optional
        Of the rows of the gene table, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        *,
        total_steps: int,
        gene_ids: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.gene_ids = gene_ids
        self.given_masks: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.history: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def on_train_epoch_start(self) -> None:
        """Reset the running means."""
        self._sums = {"genes": 0.0, "train_loss": 0.0, "train_kl": 0.0}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return prediction loss + weighted KL and auxiliary loss of one batch."""
        total, loss, kl, tracks = batch_loss(self.model, batch, self.config, **self._given(batch))
        if tracks is not None:
            self._add("train_track_loss", tracks, len(batch))
        if not torch.isfinite(total):
            self._refuse(batch, float(loss.detach()), float(kl.detach()))
        size = len(batch)
        self._sums["genes"] += size
        self._add("train_loss", loss, size)
        self._add("train_kl", kl, size)
        return total

    def _given(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Masks that were made before training (:mod:`seq2exp.training.frozen_masks`)."""
        return {} if self.given_masks is None else {"mask_BN": self.given_masks(batch.index_B)}

    def _add(self, name: str, value: torch.Tensor, size: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(value.detach()) * size

    def on_validation_epoch_start(self) -> None:
        """Forget the previous epoch's predictions."""
        self._seen = {}
        self._mask_sum, self._mask_genes = 0.0, 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect predictions by gene, so that a gene seen twice (DDP padding) counts once."""
        output = forward_batch(self.model, batch, **self._given(batch))
        for row, gene in enumerate(batch.index_B.tolist()):
            self._seen[gene] = (output.expression_BK[row].float(), batch.expression_BK[row].float())
        self._mask_sum += float(output.mask_BN.float().mean(dim=1).sum())
        self._mask_genes += len(batch)

    def on_validation_epoch_end(self) -> None:
        """Compute loss, MSE, Pearson across genes and the mask ratio."""
        predicted, observed = self._gathered()
        known = torch.isfinite(observed)
        difference = (predicted - torch.where(known, observed, predicted))[known]
        losses = masked_loss(predicted, observed, kind=self.config.loss)
        genes = max(self._sums.get("genes", 0.0), 1.0)
        trained = {name: total / genes for name, total in self._sums.items() if name != "genes"}
        self.history = {
            **trained,
            "valid_loss": float(losses),
            "valid_mse": float((difference**2).mean()),
            "valid_pearson": _mean_pearson(predicted, observed),
            "mask_ratio": self._mask_sum / max(self._mask_genes, 1),
            "lr": learning_rate(self.global_step, self.total_steps, self.config),
        }

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Return AdamW and the per-step schedule."""
        groups = parameter_groups(
            self.model,
            self.config.weight_decay,
            embedding_decay=self.config.embedding_decay,
            embedding_moment=self.config.embedding_moment,
        )
        optimizer = TableAdamW(groups, lr=1.0, betas=self.config.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(step, self.total_steps, self.config)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _gathered(self) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self._seen
        if self.trainer.world_size > 1:
            parts: list[dict[int, tuple[torch.Tensor, torch.Tensor]]] = [
                {}
            ] * self.trainer.world_size
            cpu = {gene: (a.cpu(), b.cpu()) for gene, (a, b) in seen.items()}
            torch.distributed.all_gather_object(parts, cpu)
            seen = {gene: pair for part in parts for gene, pair in part.items()}
        pairs = [seen[gene] for gene in sorted(seen)]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])

    def _refuse(self, batch: Batch, loss: float, kl: float) -> None:
        place = self.trainer.default_root_dir
        path = f"{place}/debug_batch_step_{self.global_step}.pt"
        torch.save({name: getattr(batch, name) for name in batch.__dataclass_fields__}, path)
        raise NumericsError(
            facts(
                f"training step {self.global_step}",
                found=f"loss {loss}, KL {kl}",
                expected="finite numbers",
                fix=f"lower optim.lr or optim.clip_norm; the batch is saved as {path}",
                count=len(batch),
                examples=[self._gene(row) for row in batch.index_B.tolist()],
            )
        )

    def _gene(self, row: int) -> str:
        return self.gene_ids[row] if self.gene_ids else f"gene row {row}"


def _mean_pearson(predicted_GK: torch.Tensor, observed_GK: torch.Tensor) -> float:
    """Return the Pearson correlation across genes, averaged over labels where it is defined."""
    from seq2exp.training.metrics import pearson

    values = []
    for k in range(observed_GK.shape[1]):
        known = torch.isfinite(observed_GK[:, k])
        if known.sum() > 1:
            pair = observed_GK[known, k], predicted_GK[known, k]
            values.append(pearson(*(side.double().cpu().numpy() for side in pair)))
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
