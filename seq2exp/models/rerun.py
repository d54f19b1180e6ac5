"""Outputs for many edits of one window, with what the edits leave as it is computed once.

A model that can share anything has a method ``share(call)``, which takes the window without edits
and returns a function of the edited windows and of the bins that differ. Every other model is run
in full.

Shapes: B edits, N bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from seq2exp.models.output import ModelCall, Seq2ExpOutput, mean_with_mirrored
from seq2exp.nn.sequence import flip_bins

__all__ = ["Shared", "Sharing", "share_window"]

Shared = Callable[[ModelCall, Tensor], Seq2ExpOutput]
"""Output of edited windows; the tensor, bool, shape (batch, bins), is true where they differ."""


class Sharing(Protocol):
    """A model that can share one window among its edits."""

    config: Any

    def share(self, call: ModelCall) -> Shared | None:
        """Return what gives the output of edits of a window; None where nothing can be shared."""
        ...


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
