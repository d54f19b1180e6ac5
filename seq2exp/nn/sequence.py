"""Sequence tensors on the device: one-hot encoding and the reverse complement of a batch.

Every model reads its bases through `one_hot`, so base codes may be replaced by one-hot columns
everywhere: this is where gradients with respect to the bases come out.

Shapes: B batch, L base pairs, N bins, T tracks, C the four bases A C G T.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["flip_bins", "one_hot", "reverse_complement"]

# Rows: A C G T N; the row of N is zero.
_ONE_HOT = torch.cat([torch.eye(4), torch.zeros(1, 4)])
_COMPLEMENT = torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)


def one_hot(bases: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encode base codes as columns A C G T, shape (batch, length, 4); N is all zeros.

    Parameters
    ----------
    bases : uint8 tensor, shape (batch, length), or float tensor, shape (batch, length, 4)
        Codes A0 C1 G2 T3 N4; columns A C G T are passed on as they are.
    """
    if bases.ndim == 3:
        return bases.to(dtype)
    table = _ONE_HOT.to(device=bases.device, dtype=dtype)
    return table[bases.to(torch.int32)]


def reverse_complement(bases: Tensor) -> Tensor:
    """Return the other strand of every sequence, read 5' to 3', in the form that was given.

    Parameters
    ----------
    bases : uint8 tensor, shape (batch, length), or float tensor, shape (batch, length, 4)
        Codes A0 C1 G2 T3 N4, or columns A C G T.
    """
    if bases.ndim == 3:
        return bases.flip(1, 2)
    return _COMPLEMENT.to(bases.device)[bases.flip(1).to(torch.int32)]


def flip_bins(values: Tensor) -> Tensor:
    """Mirror signals, masks or flags along their bins (axis 1), as seen from the other strand.

    Parameters
    ----------
    values : tensor, shape (batch, bins) or (batch, bins, tracks)
    """
    return values.flip(1)
