"""The training step on groups of people.

Shapes: U sequences of a batch, Q groups, D people of a group, P haplotypes of a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2exp.cohort.losses import GroupPrediction, GroupTargets, LossConfig, group_loss
from seq2exp.cohort.samples import GroupBatch
from seq2exp.dataset.samples import Batch
from seq2exp.models.seq2exp import Seq2Exp
from seq2exp.training.config import OptimConfig
from seq2exp.training.module import ExpressionModule, forward_batch, learning_rate

__all__ = ["DIFFERENCE", "LEVEL", "OUTPUTS", "CohortModule", "people_outputs"]

OUTPUTS = ("level", "difference")
LEVEL, DIFFERENCE = range(2)


def people_outputs(output_UK: Tensor, batch: GroupBatch) -> GroupPrediction:
    """Average the outputs of sequences over the haplotypes of each person.

    Parameters
    ----------
    output_UK : Tensor, shape (sequences, 2)
        Level and difference of each sequence.
    batch : GroupBatch
    """
    people_QDK = output_UK[batch.row_QDP].mean(dim=2)
    reference_QK = output_UK[batch.reference_Q]
    return GroupPrediction(
        people_QDK[..., LEVEL],
        people_QDK[..., DIFFERENCE],
        reference_QK[:, LEVEL],
        reference_QK[:, DIFFERENCE],
    )


class CohortModule(ExpressionModule):
    """Train a model on people.

    Parameters
    ----------
    model : Module
        With two outputs, :data:`OUTPUTS`.
    config : OptimConfig
    loss : LossConfig
    total_steps : int
    gene_ids : sequence of str
        Of the rows of the gene table, for messages.
    sample_masks : bool
        Draw masks in training, where the model has any.
    sequences_at_once : int
        Most sequences that validation runs at a time; changes memory, not numbers. A validation
        group is all validation people of a gene, however many there are.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        loss: LossConfig,
        *,
        total_steps: int,
        gene_ids: list[str],
        sample_masks: bool,
        sequences_at_once: int = 256,
    ) -> None:
        super().__init__(model, config, total_steps=total_steps, gene_ids=gene_ids)
        self.loss = loss
        self.sequences_at_once = sequences_at_once
        self.options: dict[str, Any] = (
            {"sample": sample_masks} if isinstance(model, Seq2Exp) else {}
        )
        self.people: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def training_step(self, batch: GroupBatch, batch_idx: int) -> Tensor:  # type: ignore[override]
        """Return the loss of groups of people, and the weighted KL of the masks."""
        output = forward_batch(self.model, batch.sequences, **self.options)
        parts = group_loss(self.loss, people_outputs(output.expression_BK, batch), batch.targets)
        kl = output.kl_B.mean()
        settings: Any = self.model.config
        total: Tensor = parts.total + settings.kl_weight * kl
        size = len(batch)
        if not torch.isfinite(total):
            self._refuse(batch.sequences, float(parts.total.detach()), float(kl.detach()))
        self._sums["genes"] += size
        self._add("train_loss", parts.total, size)
        self._add("train_kl", kl, size)
        return total

    def on_validation_epoch_start(self) -> None:
        """Forget the people of the epoch before."""
        self._held: dict[tuple[bool, int], _Held] = {}
        self._mask_sum, self._mask_genes = 0.0, 0

    def validation_step(self, batch: GroupBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Collect predictions for validation people, by gene."""
        size, step = len(batch.sequences), self.sequences_at_once
        outputs = [
            forward_batch(self.model, _some(batch.sequences, first, first + step))
            for first in range(0, size, step)
        ]
        found_UK = torch.cat([output.expression_BK.float() for output in outputs])
        predicted = people_outputs(found_UK, batch)
        for row, gene in enumerate(batch.gene_Q.tolist()):
            self._held[bool(batch.unseen_Q[row]), gene] = _Held(
                GroupPrediction(*(part[row : row + 1].cpu() for part in predicted)),
                GroupTargets(*(part[row : row + 1].cpu() for part in batch.targets)),
            )
        for output in outputs:
            self._mask_sum += float(output.mask_BN.float().mean(dim=1).sum())
        self._mask_genes += len(batch.sequences)

    def on_validation_epoch_end(self) -> None:
        """Compute the loss on validation people, and both correlations."""
        held = self._held
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, held)
            held = {key: value for part in parts for key, value in part.items()}
        seen = [held[key] for key in sorted(held) if not key[0]]
        unseen = [held[key] for key in sorted(held) if key[0]]
        # A loss that only knows levels is judged on genes that it did not train on.
        judged = unseen if self.loss.name == "reference" and unseen else seen
        count = max(self._sums.get("genes", 0.0), 1.0)
        trained = {name: total / count for name, total in self._sums.items() if name != "genes"}
        self.history = {
            **trained,
            "valid_loss": self._mean_loss(judged),
            **_level_scores(unseen or seen),
            "valid_people_pearson": self._people_pearson(seen),
            "mask_ratio": self._mask_sum / max(self._mask_genes, 1),
            "lr": learning_rate(self.global_step, self.total_steps, self.config),
        }

    def _mean_loss(self, groups: list[_Held]) -> float:
        losses = [
            float(group_loss(self.loss, item.predicted, item.targets).total) for item in groups
        ]
        return math.fsum(losses) / len(losses) if losses else math.nan

    def _people_pearson(self, groups: list[_Held]) -> float:
        """Return the mean over genes of the correlation across people; undefined counts as 0."""
        values = []
        for item in groups:
            levels = self.loss.kind.people == "level"
            ranked = item.predicted.level_QD if levels else item.predicted.difference_QD
            known = torch.isfinite(item.targets.z_QD[0])
            if known.sum() > 2:
                pair = torch.stack([ranked[0][known], item.targets.z_QD[0][known]]).double()
                values.append(float(torch.nan_to_num(torch.corrcoef(pair)[0, 1])))
        return math.fsum(values) / len(values) if values else math.nan


def _some(batch: Batch, first: int, last: int) -> Batch:
    return Batch(**{part.name: getattr(batch, part.name)[first:last] for part in fields(batch)})


class _Held:
    """Prediction and targets of one gene."""

    def __init__(self, predicted: GroupPrediction, targets: GroupTargets) -> None:
        self.predicted = predicted
        self.targets = targets


def _level_scores(groups: list[_Held]) -> Mapping[str, float]:
    """Return error and correlation across genes of the level of the reference sequence."""
    predicted = torch.cat([item.predicted.level_Q for item in groups])
    observed = torch.cat([item.targets.mean_Q for item in groups])
    known = torch.isfinite(observed)
    error = float(((predicted - observed)[known] ** 2).mean())
    pair = torch.stack([predicted[known], observed[known]]).double()
    pearson = float(torch.corrcoef(pair)[0, 1]) if known.sum() > 1 else math.nan
    return {"valid_mse": error, "valid_pearson": pearson}
