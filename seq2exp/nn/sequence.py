"""Sequence tensors on the device: one-hot encoding and the reverse complement of a batch.

Shapes: B batch, L base pairs, N bins, T tracks, C the four bases A C G T.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["flip_bins", "one_hot", "reverse_complement"]

# Rows: A C G T N; the row of N is zero.
_ONE_HOT = torch.cat([torch.eye(4), torch.zeros(1, 4)])
_COMPLEMENT = torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)


def one_hot(codes_BL: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encode base codes as columns A C G T, shape (batch, length, 4); N is all zeros.

    Parameters
    ----------
    codes_BL : uint8 tensor, shape (batch, length)
        A0 C1 G2 T3 N4.
    """
    table = _ONE_HOT.to(device=codes_BL.device, dtype=dtype)
    return table[codes_BL.to(torch.int32)]


def reverse_complement(codes_BL: Tensor) -> Tensor:
    """Return the other strand of every sequence, read 5' to 3', shape (batch, length)."""
    return _COMPLEMENT.to(codes_BL.device)[codes_BL.flip(1).to(torch.int32)]


def flip_bins(values: Tensor) -> Tensor:
    """Mirror signals, masks or flags along their bins (axis 1), as seen from the other strand.

    Parameters
    ----------
    values : tensor, shape (batch, bins) or (batch, bins, tracks)
    """
    return values.flip(1)
