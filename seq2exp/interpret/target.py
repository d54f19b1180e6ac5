"""The function that is explained: predicted expression of one gene as a function of its inputs.

Shapes: B batch, L base pairs, C the four bases A C G T, N bins, T tracks, K outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2exp.core.config import nearest
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.sequence import NUM_BASES
from seq2exp.dataset.samples import Batch, GeneSamples, collate
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import has_mask
from seq2exp.training.run import TrainedRun

__all__ = [
    "MaskUse",
    "Target",
    "columns_of",
    "make_target",
    "output_of",
    "quiet_models",
]

MaskUse = Literal["recomputed", "fixed"]
"""recomputed: the mask follows the bases and tracks. fixed: it stays that of the real window."""


class Target:
    """Mean over the members of a run of one predicted value of one gene.

    Parameters
    ----------
    models : sequence of Module
        Members, in evaluation mode.
    batch : Batch
        The gene alone: what the models read beside bases and tracks is taken from it.
    output : int, optional
        Which of the predicted values; their mean when left out.
    mask : str
        See `MaskUse`.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        batch: Batch,
        *,
        output: int | None = None,
        mask: MaskUse = "recomputed",
    ) -> None:
        self.models, self.batch, self.output = list(models), batch, output
        self.masks: list[Tensor] | None = None
        if mask == "fixed":
            with torch.no_grad():
                outs = [self._run(model, batch.codes_BL, batch.signal_BNT) for model in models]
            self.masks = [out.mask_BN for out in outs]

    def with_codes(self, codes_BL: Tensor) -> Target:
        """Return the same function of a gene with other bases; a fixed mask stays as it is."""
        other = Target(
            self.models, dataclasses.replace(self.batch, codes_BL=codes_BL), output=self.output
        )
        other.masks = self.masks
        return other

    def __call__(self, bases: Tensor, signal_BNT: Tensor) -> Tensor:
        """Predicted value of every row, shape (batch,).

        Parameters
        ----------
        bases : uint8 tensor, shape (batch, length), or float tensor, shape (batch, length, 4)
            Codes, or columns A C G T.
        signal_BNT : float tensor, shape (batch, bins, tracks)
        """
        return self.members(bases, signal_BNT).mean(0)

    def members(self, bases: Tensor, signal_BNT: Tensor) -> Tensor:
        """Predicted value of every member and row, shape (members, batch)."""
        values = []
        for index, model in enumerate(self.models):
            mask_BN = None if self.masks is None else self.masks[index]
            expression_BK = self._run(model, bases, signal_BNT, mask_BN).expression_BK
            one = expression_BK.mean(1) if self.output is None else expression_BK[:, self.output]
            values.append(one)
        return torch.stack(values)

    def _run(
        self, model: nn.Module, bases: Tensor, signal_BNT: Tensor, mask_BN: Tensor | None = None
    ) -> Any:  # noqa: ANN401  the output of any model
        rows, batch = len(bases), self.batch

        def repeat(values: Tensor) -> Tensor:
            return values.expand(rows, *values.shape[1:])

        more = {} if mask_BN is None else {"mask_BN": repeat(mask_BN)}
        return model(
            bases,
            signal_BNT,
            repeat(batch.features_BF),
            blacklist_BN=repeat(batch.blacklist_BN),
            valid_BN=repeat(batch.valid_BN),
            elements_BR2=repeat(batch.elements_BR2),
            **more,
        )


def make_target(
    run: TrainedRun,
    dataset: Dataset,
    row: int,
    *,
    output: int | None = None,
    mask: MaskUse = "recomputed",
) -> Target:
    """Make the function of one gene of a dataset; see `Target`.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    row : int
        Row of the gene table.
    output, mask
        As for `Target`.

    Raises
    ------
    ConfigError
        The models have no mask that could be held fixed.
    """
    if mask == "fixed" and not all(has_mask(model) for model in run.models):
        raise ConfigError(
            facts(
                "--mask fixed",
                found=f"{run.folder}, a model without a mask",
                expected="a model that reads the window through a mask",
                fix="leave --mask out",
            )
        )
    samples = GeneSamples(dataset, run.sample_config(dataset), [row])
    device = next(run.models[0].parameters()).device
    return Target(run.models, collate([samples[0]]).to(device), output=output, mask=mask)


def output_of(run: TrainedRun, sample: str | None) -> int | None:
    """Return the position of a label among the outputs; None, for their mean, when not given.

    Raises
    ------
    InputError
        The models do not predict it.
    """
    if sample is None:
        return None
    if sample not in run.card.samples:
        raise InputError(
            facts(
                f"--sample {sample}",
                found="no such label",
                expected="one of " + ", ".join(run.card.samples),
                fix=nearest(sample, run.card.samples),
            )
        )
    return run.card.samples.index(sample)


def columns_of(codes_BL: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Encode base codes as columns A C G T, shape (batch, length, 4); N is all zeros."""
    return functional.one_hot(codes_BL.long(), NUM_BASES + 1)[..., :NUM_BASES].to(dtype)


@contextmanager
def quiet_models(run: TrainedRun) -> Iterator[str]:
    """Put the members into evaluation mode on the device, without gradients of their weights.

    Yields
    ------
    str
        The device. Mode, device and gradients are put back afterwards.
    """
    wanted = [p for model in run.models for p in model.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad = False
        with run.evaluating() as device:
            yield device
    finally:
        for parameter in wanted:
            parameter.requires_grad = True
