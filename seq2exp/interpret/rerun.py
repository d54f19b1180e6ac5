"""Predictions of many edits of one window: batched, and no more than an edit can change.

Every member of a run sees each edit once; the reference is seen once per gene. A model that offers
``share`` computes once what the edits leave as it is (see :mod:`seq2exp.models.rerun`); any other
gets whole windows.

Shapes: J edits, M members, K outputs, N bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2exp.interpret.edits import Edit, GeneWindow, make_batch
from seq2exp.models.registry import has_mask
from seq2exp.models.rerun import Shared, changed_bins, share_window
from seq2exp.training.module import batch_call, forward_batch

__all__ = ["GeneRunner"]


class GeneRunner:
    """Predicts edits of one gene with every member of a run.

    Parameters
    ----------
    models : list of Module
        On `device` and in evaluation mode (`TrainedRun.evaluating`), without gradients.
    gene : GeneWindow
    device : str
    batch_size : int
        Windows per forward pass; it bounds the memory and changes no number.
    share : bool
        Use what models offer to share; False runs every window in full.

    Attributes
    ----------
    expression_MK : float64 array, shape (members, outputs)
        Prediction of the window as it is.
    mask_MN : float64 array, shape (members, bins), or None
        Mean of the posterior before anything is forced; None for models without a mask.
    """

    def __init__(
        self,
        models: list[nn.Module],
        gene: GeneWindow,
        *,
        device: str = "cpu",
        batch_size: int = 16,
        share: bool = True,
    ) -> None:
        self.models, self.gene, self.device = models, gene, device
        self.batch_size, self.share = batch_size, share
        self.batch = gene.batch.to(device)
        outputs = [forward_batch(model, self.batch) for model in models]
        self.expression_MK = _numbers(outputs, "expression_BK")[:, 0]
        self.mask_MN = _numbers(outputs, "mean_BN")[:, 0] if all(map(has_mask, models)) else None
        self.masks = [output.mask_BN for output in outputs]
        self.base: Edit | None = None
        self.shared: list[Shared | None] = [None] * len(models)

    def predict(self, edits: Iterable[Edit], *, base: Edit | None = None) -> NDArray[np.float64]:
        """Return the predictions of edits, shape (edits, members, outputs).

        Parameters
        ----------
        edits : iterable of Edit
        base : Edit, optional
            What they have most in common with; the window as it is when left out.
        """
        self._look_at(base or self.gene.reference)
        found = [np.empty((0, *self.expression_MK.shape))]
        stream = iter(edits)
        while chunk := list(itertools.islice(stream, self.batch_size)):
            groups = itertools.groupby(chunk, _is_closed)
            found += [self._run(list(group)) for _, group in groups]
        predictions: NDArray[np.float64] = np.concatenate(found)
        return predictions

    def closed_reference(self) -> NDArray[np.float64]:
        """Return the predictions of the window under its own mask, held fixed: (members, outputs).

        They differ from the reference only where both strands are averaged, whose masks differ.
        """
        none = np.zeros(self.gene.reference.valid.shape, dtype=np.bool_)
        edit = Edit(**{**vars(self.gene.reference), "closed": none})
        alone_MK: NDArray[np.float64] = self.predict([edit])[0]
        return alone_MK

    def _look_at(self, base: Edit) -> None:
        """Let every member share what edits of this window have in common with it."""
        if base is self.base:
            return
        self.base = base
        self.base_batch = make_batch(self.gene, [base]).to(self.device)
        if self.share:
            call = batch_call(self.base_batch)
            self.shared = [share_window(model, call) for model in self.models]

    def _run(self, edits: list[Edit]) -> NDArray[np.float64]:
        batch = make_batch(self.gene, edits).to(self.device)
        base = batch_call(self.base_batch)
        changed_BN = changed_bins(batch_call(batch), base, bin_size=self.gene.bin_size)
        outputs = []
        members = zip(self.models, self.masks, self.shared, strict=True)
        for model, mask_1N, shared in members:
            mask_BN = None
            closed = [edit.closed for edit in edits if edit.closed is not None]
            if closed:
                closed_BN = torch.from_numpy(np.stack(closed))
                mask_BN = _shut(mask_1N, closed_BN.to(self.device))
            if shared is not None:
                outputs.append(shared(batch_call(batch, mask_BN), changed_BN))
            elif mask_BN is None:
                outputs.append(forward_batch(model, batch))
            else:
                outputs.append(forward_batch(model, batch, mask_BN=mask_BN))
        found: NDArray[np.float64] = _numbers(outputs, "expression_BK").swapaxes(0, 1)
        return found


def _is_closed(edit: Edit) -> bool:
    return edit.closed is not None


def _shut(mask_1N: Tensor, closed_BN: Tensor) -> Tensor:
    return torch.where(closed_BN, 0.0, mask_1N)


def _numbers(outputs: list[Any], name: str) -> NDArray[np.float64]:
    stacked = torch.stack([getattr(output, name).double() for output in outputs])
    numbers: NDArray[np.float64] = stacked.cpu().numpy()
    return numbers
