"""Run a gated trunk on the rows that matter: the kept bins and, of each gap, a few closed ones.

With a mask of zeros and ones a closed row (m = 0) leaves the state of the scan as it is and gives
the convolution a zero, so a run of closed rows longer than the convolution reaches may be cut to
that length: outputs at kept rows, and the gradients of all parameters, stay the same
(specification 7.1). The published code drops every closed row, which is not the same once there
is a convolution, and selects rows by boolean indexing, which has no gradient for the mask.

Shapes: B batch, N bins, P packed rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["pack_rows", "run_packed"]


def pack_rows(mask_BN: Tensor, *, reach: int) -> tuple[Tensor, Tensor]:
    """Choose the rows that a packed trunk reads.

    Parameters
    ----------
    mask_BN : float tensor, shape (batch, bins)
        Zeros and ones.
    reach : int
        Bins that the convolution sees to one side; so many closed rows of each gap are kept.

    Returns
    -------
    index_BP : int64 tensor, shape (batch, rows)
        Bins in their order, padded at the right with other closed bins.
    used_BP : bool tensor, shape (batch, rows)
        False where padded.
    """
    num_bins = mask_BN.shape[1]
    place_N = torch.arange(num_bins, device=mask_BN.device)
    open_BN = mask_BN.detach() > 0.5
    last_open_BN = torch.where(open_BN, place_N, -1).cummax(dim=1).values
    used_BN = place_N - last_open_BN <= reach
    lengths_B = used_BN.sum(1)
    longest = max(int(lengths_B.max()), 1) if len(mask_BN) else 1
    index_BP = torch.argsort((~used_BN).to(torch.uint8), dim=1, stable=True)[:, :longest]
    rank_P = torch.arange(longest, device=mask_BN.device)
    return index_BP, rank_P < lengths_B[:, None]


def run_packed(trunk: nn.Module, hidden_BND: Tensor, mask_BN: Tensor, *, reach: int) -> Tensor:
    """Run a trunk on packed rows and put its output back to the bins.

    Parameters
    ----------
    trunk : Module
        Gated from inside by its second argument.
    hidden_BND : float tensor, shape (batch, bins, width)
        Embedded bins.
    mask_BN : float tensor, shape (batch, bins)
        Zeros and ones; its gradient (of a straight-through mask) flows through the packed rows.
    reach : int
        See `pack_rows`.

    Returns
    -------
    float tensor, shape (batch, bins, width)
        Exactly 0 in closed bins.
    """
    index_BP, used_BP = pack_rows(mask_BN, reach=reach)
    packed_mask_BP = torch.where(used_BP, mask_BN.gather(1, index_BP), 0.0)
    wide_BPD = index_BP[..., None].expand(-1, -1, hidden_BND.shape[-1])
    out_BPD = trunk(hidden_BND.gather(1, wide_BPD), packed_mask_BP)
    open_BP = packed_mask_BP.detach() > 0.5
    out_BPD = torch.where(open_BP[..., None], out_BPD, 0.0)
    whole_BND = out_BPD.new_zeros(*mask_BN.shape, out_BPD.shape[-1])
    wide_BPD = index_BP[..., None].expand(-1, -1, out_BPD.shape[-1])
    return whole_BND.scatter(1, wide_BPD, out_BPD)
