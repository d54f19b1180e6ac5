"""Losses over labels of which some are unknown (NaN)."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["LOSSES", "masked_loss"]

LOSSES = ("smooth_l1", "mse")


def masked_loss(
    predicted_BK: torch.Tensor, expression_BK: torch.Tensor, *, kind: str = "smooth_l1"
) -> torch.Tensor:
    """Return the mean loss over known labels; 0, with a gradient of 0, when none is known.

    Parameters
    ----------
    predicted_BK : Tensor, shape (batch, num_labels)
    expression_BK : Tensor, shape (batch, num_labels)
        Transformed expression; NaN where unknown.
    kind : {"smooth_l1", "mse"}
        ``smooth_l1`` with beta 1 is the published choice (Seq2Exp, ICLR 2025).
    """
    known = torch.isfinite(expression_BK)
    target = torch.where(known, expression_BK, predicted_BK.detach())
    function = functional.smooth_l1_loss if kind == "smooth_l1" else functional.mse_loss
    loss_BK = function(predicted_BK.float(), target.float(), reduction="none")
    return (loss_BK * known).sum() / known.sum().clamp(min=1)
