"""Mean over pixels of a bent linear map of their densities, for many genes at once.

Keeping every pixel of every gene for the backward pass would take gigabytes. The mean depends on
four weights per column only, so the forward pass also takes the mean of the slope times each input,
and these four numbers are all the backward pass needs. On the CPU softplus goes through a compiled
loop; everything else through torch.

Shapes: B spots, P pixels, K columns (genes times stains), M moments.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.nn.numba_use import arrays, numba_refuses, use_threads

__all__ = ["Phi", "bend", "pooled_moments"]

Phi = Literal["softplus", "relu", "identity"]
_WIDTH = 16


def bend(x: Tensor, phi: Phi, beta: float) -> Tensor:
    """Return softplus(beta x) / beta, max(x, 0), or x."""
    if phi == "softplus":
        return F.softplus(x, beta=beta)
    return x.relu() if phi == "relu" else x


def _slope(x: Tensor, phi: Phi, beta: float) -> Tensor:
    if phi == "softplus":
        return (x * beta).sigmoid_()
    return (x > 0).to(x.dtype) if phi == "relu" else torch.ones_like(x)


def pooled_moments(
    density_BP3: Tensor,
    share_BP: Tensor,
    weight_4K: Tensor,
    *,
    phi: Phi,
    beta: float,
    num_moments: int = 1,
    chunk: int = 64,
) -> Tensor:
    """Return sum_p share_bp phi(od_bp W_k + b_k)^m for m = 1 .. num_moments.

    Parameters
    ----------
    density_BP3 : float tensor, shape (spots, pixels, 3)
        Gets no gradient.
    share_BP : float tensor, shape (spots, pixels)
        Weights of the pixels; each spot's sum to 1. Get no gradient.
    weight_4K : float tensor, shape (4, columns)
        Three weights and a shift per column.
    phi, beta
        As in :func:`bend`.
    num_moments : int
        1 or 2.
    chunk : int
        Columns worked on at a time.

    Returns
    -------
    float tensor, shape (num_moments, spots, columns)
    """
    slopes = weight_4K.requires_grad and torch.is_grad_enabled()
    how = (phi, beta, num_moments, chunk, slopes)
    found: Tensor = _Pool.apply(density_BP3, share_BP, weight_4K, how)  # type: ignore[no-untyped-call]
    return found


def _compiled(*tensors: Tensor) -> bool:
    plain = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
    return plain and numba_refuses() is None


def _in_numba(
    density_BP3: Tensor,
    share_BP: Tensor,
    weight_4K: Tensor,
    beta: float,
    num_moments: int,
    slopes: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    from seq2exp.spatial.systems.pixel_kernels import pool_softplus

    num_spots, num_pixels = share_BP.shape
    num_columns = weight_4K.shape[1]
    # Whole vectors of pixels; those beyond the last have no weight.
    pixels = density_BP3.new_zeros(num_spots, 4, -(-num_pixels // _WIDTH) * _WIDTH)
    pixels[:, :3, :num_pixels] = density_BP3.transpose(1, 2)
    pixels[:, 3, :num_pixels] = share_BP
    moments = density_BP3.new_empty(num_moments, num_spots, num_columns)
    jacobian = density_BP3.new_empty(num_moments, num_spots, 4, num_columns if slopes else 0)
    use_threads()
    given = arrays(pixels, weight_4K.contiguous())
    pool_softplus(*given, np.float32(beta), *arrays(moments, jacobian))
    return moments, jacobian


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        density_BP3: Tensor,
        share_BP: Tensor,
        weight_4K: Tensor,
        how: tuple[Phi, float, int, int, bool],
    ) -> Tensor:
        phi, beta, num_moments, chunk, slopes = how
        if phi == "softplus" and _compiled(density_BP3, share_BP, weight_4K):
            moments, jacobian = _in_numba(
                density_BP3, share_BP, weight_4K, beta, num_moments, slopes
            )
            ctx.save_for_backward(jacobian)
            return moments
        ones_BP1 = density_BP3.new_ones(*density_BP3.shape[:2], 1)
        input_BP4 = torch.cat([density_BP3, ones_BP1], dim=-1)
        share_B1P = share_BP[:, None]
        shared_B4P = (input_BP4 * share_BP[..., None]).transpose(1, 2).contiguous()
        num_spots, num_columns = len(density_BP3), weight_4K.shape[1]
        moments = density_BP3.new_empty(num_moments, num_spots, num_columns)
        jacobian = density_BP3.new_empty(num_moments, num_spots, 4, num_columns if slopes else 0)
        for first in range(0, num_columns, chunk):
            part = slice(first, first + chunk)
            linear_BPK = input_BP4 @ weight_4K[:, part]
            value_BPK = bend(linear_BPK, phi, beta)
            moments[0, :, part] = (share_B1P @ value_BPK)[:, 0]
            if num_moments == 2:
                moments[1, :, part] = (share_B1P @ value_BPK.square())[:, 0]
            if slopes:
                slope_BPK = _slope(linear_BPK, phi, beta)
                jacobian[0, :, :, part] = shared_B4P @ slope_BPK
                if num_moments == 2:
                    jacobian[1, :, :, part] = shared_B4P @ (2 * value_BPK * slope_BPK)
        ctx.save_for_backward(jacobian)
        return moments

    @staticmethod
    def backward(ctx: Any, grad_MBK: Tensor) -> tuple[None, None, Tensor, None]:  # noqa: ANN401
        (jacobian_MB4K,) = ctx.saved_tensors
        return None, None, torch.einsum("mbk,mbik->ik", grad_MBK, jacobian_MB4K), None
