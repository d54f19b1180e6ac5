"""Sum of what the elements of a window contribute: activity by contact, read from the mask.

Expression depends on distal elements about as log(1 + sum over elements of contact x activity)
(the activity-by-contact model, Fulco et al., Nature Genetics 2019). A mean over the window cannot
say how many elements there are; a sum can, and a bin whose mask is 0 adds exactly nothing.

Shapes: B batch, N bins, D width, V channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ElementSum"]

# Starts contributions low, so that a window of empty bins does not begin with a large sum.
_START = -3.0


class ElementSum(nn.Module):
    """``log1p(sum over distal bins of mask x contact x softplus(W h + b))`` per channel.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    channels : int
        Kinds of contribution that are summed apart.
    promoter : tuple of int
        Half-open span of bins that are left out: the promoter's mask is forced, and the read-out
        around the TSS already sees it.
    """

    def __init__(self, d_model: int, *, channels: int, promoter: tuple[int, int]) -> None:
        super().__init__()
        self.activity = nn.Linear(d_model, channels)
        self.promoter = promoter

    def forward(self, hidden_BND: Tensor, mask_BN: Tensor | None, contact_BN: Tensor) -> Tensor:
        """Sum the contributions.

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, bins, width)
            Predictor states.
        mask_BN : float tensor, shape (batch, bins), optional
            1 everywhere when left out.
        contact_BN : float tensor, shape (batch, bins)
            Contact with the TSS over its training mean; ones where the data have none.

        Returns
        -------
        float tensor, shape (batch, channels)
        """
        activity_BNV = F.softplus(self.activity(hidden_BND).float() + _START)
        weight_BN = contact_BN.to(activity_BNV.dtype).clone()
        weight_BN[:, self.promoter[0] : self.promoter[1]] = 0
        if mask_BN is not None:
            weight_BN = weight_BN * mask_BN.to(weight_BN.dtype)
        return torch.log1p((activity_BNV * weight_BN[..., None]).sum(1)).to(hidden_BND.dtype)
