"""Outputs for many edits of one window, with what the edits leave as it is computed once.

A model that can share anything has a method ``share(call)``, which takes the window without edits
and returns a function of the edited windows and of the bins that differ. Every other model is run
in full. A window that does not differ has the numbers of the window without edits, bit for bit.

Shapes: B edits, N bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seq2exp.models.output import ModelCall, Seq2ExpOutput, mean_with_mirrored
from seq2exp.nn.sequence import flip_bins

__all__ = ["Shared", "Sharing", "changed_bins", "keep_reference", "share_window"]

Shared = Callable[[ModelCall, Tensor], Seq2ExpOutput]
"""Output of edited windows; the tensor, bool, shape (batch, bins), is true where they differ."""

Hides = Callable[[Tensor, Tensor], Tensor]


class Sharing(Protocol):
    """A model that can share one window among its edits."""

    config: Any

    def share(self, call: ModelCall) -> Shared | None:
        """Return what gives the output of edits of a window; None where nothing can be shared."""
        ...


def changed_bins(edited: ModelCall, base: ModelCall, *, bin_size: int) -> Tensor:
    """Tell in which bins windows differ from one window, bool, shape (batch, bins).

    Parameters
    ----------
    edited : ModelCall
    base : ModelCall
        A batch of one; its bases are codes.
    bin_size : int
        Bases per bin.
    """
    differ_BL = edited.codes_BL != base.codes_BL
    changed_BN: Tensor = differ_BL.reshape(len(differ_BL), -1, bin_size).any(2)
    ours, theirs = edited.signal_BNT, base.signal_BNT
    if ours is not None and theirs is not None:
        same_BNT = (ours == theirs) | (ours.isnan() & theirs.isnan())
        changed_BN = changed_BN | ~same_BNT.all(2)
    return changed_BN


def share_window(model: nn.Module | Sharing, call: ModelCall) -> Shared | None:
    """Look at one window and return what gives the outputs of its edits, equal to whole passes.

    Parameters
    ----------
    model : Module
        In evaluation mode. With `rc_average` both strands are shared.
    call : ModelCall
        The window without edits, a batch of one.

    Returns
    -------
    callable or None
        None for a model that shares nothing; run the edited windows in full.
    """
    share = getattr(model, "share", None)
    if share is None:
        return None
    forward = share(call)
    if forward is None or not getattr(model.config, "rc_average", False):
        shared: Shared | None = forward
        return shared
    mirrored = share(call.mirrored())

    def both(edited: ModelCall, changed_BN: Tensor) -> Seq2ExpOutput:
        other = mirrored(edited.mirrored(), flip_bins(changed_BN))
        return mean_with_mirrored(forward(edited, changed_BN), other)

    return both


def keep_reference(
    run: Shared, call: ModelCall, reference: Seq2ExpOutput, hides: Hides | None = None
) -> Shared:
    """Run only the windows that differ; the others have the numbers of the window without edits.

    Parameters
    ----------
    run : callable
        Gives the output of windows that may differ.
    call : ModelCall
        The window without edits, a batch of one.
    reference : Seq2ExpOutput
        Its output.
    hides : callable, optional
        Tells which rows differ only where a mask, shape (1, bins), hides it, bool, shape (batch,).
        It counts for edits under the mask of the window without edits.
    """

    def shared(edited: ModelCall, changed_BN: Tensor) -> Seq2ExpOutput:
        own, base = reference, call
        still_B = ~changed_BN.any(1)
        if edited.mask_BN is not None and call.mask_BN is None:
            own, base = reference.under_its_mask(), call._replace(mask_BN=reference.mask_BN)
            if hides is not None:
                still_B = still_B | hides(changed_BN, reference.mask_BN)
        fresh = (~(still_B & _same(edited, base))).nonzero()[:, 0]
        if len(fresh) == len(changed_BN):
            return run(edited, changed_BN)
        output = own.rows(torch.zeros_like(changed_BN[:, 0], dtype=torch.long))
        if len(fresh):
            output.put(fresh, run(edited.rows(fresh), changed_BN[fresh]))
        return output

    return shared


def _same(edited: ModelCall, call: ModelCall) -> Tensor:
    """Tell where all but bases and tracks is that of the window without edits, bool, (batch,)."""
    same_B = torch.ones(len(edited.codes_BL), dtype=torch.bool, device=edited.codes_BL.device)
    for name in ("features_BF", "blacklist_BN", "valid_BN", "mask_BN", "elements_BR2"):
        ours, base = getattr(edited, name), getattr(call, name)
        if ours is None or base is None or ours.shape[1:] != base.shape[1:]:
            same_B &= ours is base
        elif ours.numel():
            equal = (ours == base) | ((ours != ours) & (base != base))
            same_B &= equal.flatten(1).all(1)
    return same_B & (edited.force_promoter == call.force_promoter)
