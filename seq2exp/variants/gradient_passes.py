"""First-order predictions for substitutions in the window of one gene, in place of passes.

Shapes: E members times views, S sequences, K outputs, N bins, L bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2exp.dataset.samples import GeneSamples
from seq2exp.models.registry import has_mask
from seq2exp.training.module import batch_call
from seq2exp.variants.contexts import Flanks
from seq2exp.variants.gradient import Taylor, taylor
from seq2exp.variants.judge import Put
from seq2exp.variants.passes import Predicted
from seq2exp.variants.views import GeneView, View, open_view

__all__ = ["GradientPasses"]


@dataclass(frozen=True, eq=False)
class _Member:
    """One model in one view: its changes, also under the mask of the reference."""

    view: GeneView
    taylor: Taylor
    fixed: Taylor | None


class GradientPasses:
    """Members of a run in all views of one gene, by their gradients at the reference.

    Parameters
    ----------
    models : sequence of Module
        On `device` and in evaluation mode.
    samples : GeneSamples
    row : int
        Row of the gene table.
    views : sequence of View
    device : str
    outputs : int
        How many values the models predict.
    fixed : bool
        Also under the mask of the reference.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        samples: GeneSamples,
        row: int,
        views: Sequence[View],
        *,
        device: str = "cpu",
        fixed: bool = True,
    ) -> None:
        self.row, self.device, self.bin_size = row, device, samples.config.bin_size
        self.views = [open_view(samples, row, view) for view in views]
        first: Any = models[0]
        self.promoter: tuple[int, int] = getattr(first, "promoter", (0, 0))
        self.masked = all(has_mask(model) for model in models)
        self.members: list[_Member] = []
        for view in self.views:
            call = batch_call(view.batch.to(device))
            for model in models:
                free = taylor(model, call)
                held = taylor(model, call, mask="fixed") if fixed and self.masked else None
                self.members.append(_Member(view, free, held))

    def reference(self) -> Predicted:
        """Return what the models say of the window as it is: one sequence."""
        value = np.stack([_numpy(member.taylor.value_K)[None] for member in self.members])
        masks = None
        if self.masked:
            masks = np.stack([self._mask(member)[None] for member in self.members])
        fixed = None if self.members[0].fixed is None else value.copy()
        return _predicted(value, fixed, masks)

    def _mask(self, member: _Member) -> NDArray[np.float32]:
        mask_N = _numpy(member.taylor.mask_N).astype(np.float32)
        return mask_N[::-1] if member.view.window.reverse else mask_N

    def predict(self, sequences: Sequence[Put], *, flanks: Flanks | None = None) -> Predicted:
        """Add the changes of all substitutions of sequences to the prediction of the reference.

        Parameters
        ----------
        sequences : sequence of tuples of Allele
            NaN for those with an insertion or deletion.
        flanks : None
            Too many bases change for a first-order prediction; settings refuse it before.
        """
        if flanks is not None:
            raise NotImplementedError
        puts = {id(view): view.put(sequences) for view in self.views}
        expression, held = [], []
        for member in self.members:
            put = puts[id(member.view)]
            codes = put.batch.codes_BL.to(self.device)
            moved = torch.from_numpy(put.moved).to(self.device)
            expression.append(_changed(member.taylor, codes, moved))
            if member.fixed is not None:
                held.append(_changed(member.fixed, codes, moved))
        masks = None
        if self.masked:
            # First-order scores are of the prediction; the mask is there for elements only.
            masks = np.stack(
                [np.repeat(self._mask(m)[None], len(sequences), axis=0) for m in self.members]
            )
        return _predicted(np.stack(expression), np.stack(held) if held else None, masks)


def _predicted(
    expression_ESK: NDArray[np.float64],
    fixed_ESK: NDArray[np.float64] | None,
    mask_ESN: NDArray[np.float32] | None,
) -> Predicted:
    num_members, num = expression_ESK.shape[:2]
    return Predicted(
        expression_ESK,
        fixed_ESK,
        mask_ESN,
        None,
        np.zeros((num_members, num, 0)),
        np.zeros(num, dtype=np.bool_),
    )


def _changed(found: Taylor, codes_SL: Tensor, moved_S: Tensor) -> NDArray[np.float64]:
    value_SK = found.value_K + found.change(codes_SL)
    return _numpy(value_SK.masked_fill(moved_S[:, None], torch.nan))


def _numpy(values: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = values.double().cpu().numpy()
    return numbers
