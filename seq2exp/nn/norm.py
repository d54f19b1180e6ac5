"""Root-mean-square normalisation with a short backward.

Shapes: the last axis holds D channels, all axes before it are rows R; I spans of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seq2exp.nn.numba_use import arrays, use_threads, vectorised, without_gaps

__all__ = ["RMSNorm", "rms_norm"]

# Rows that one item of a compiled loop takes; fixed, so that threads change no sum.
_SPAN = 256


def rms_norm(x: Tensor, weight_D: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Divide by the root mean square over the last axis and multiply by a weight per channel.

    The statistics are float32 or wider; the result has the dtype of `x`.

    Parameters
    ----------
    x : float tensor, shape (..., channels)
    weight_D : float tensor, shape (channels,)
    eps : float
        Added to the mean square.
    """
    kind = _CompiledNorm if vectorised(x, weight_D) else _RMSNorm
    run: Callable[..., Tensor] = kind.apply
    return run(x, weight_D, eps)


class _CompiledNorm(torch.autograd.Function):
    """Two passes over a row while it is in the cache, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x: Tensor,
        weight_D: Tensor,
        eps: float,
    ) -> Tensor:
        from seq2exp.nn.norm_kernels import norm_forward

        x_RD = without_gaps(x.reshape(-1, x.shape[-1]))
        out_RD, inverse_R = x.new_empty(x_RD.shape), x.new_empty(x_RD.shape[0])
        use_threads()
        norm_forward(*arrays(x_RD, weight_D.contiguous(), out_RD, inverse_R), eps, _SPAN)
        ctx.save_for_backward(x_RD, weight_D, inverse_R)
        return out_RD.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, None]:
        from seq2exp.nn.norm_kernels import norm_backward

        x_RD, weight_D, inverse_R = ctx.saved_tensors
        grad_RD, grad_x_RD = without_gaps(grad.reshape(x_RD.shape)), grad.new_empty(x_RD.shape)
        sums_ID = grad.new_zeros((-(-x_RD.shape[0] // _SPAN), x_RD.shape[1]))
        tensors = x_RD, weight_D.contiguous(), inverse_R, grad_RD, grad_x_RD, sums_ID
        use_threads()
        norm_backward(*arrays(*tensors), _SPAN)
        return grad_x_RD.view(grad.shape), sums_ID.sum(0), None


class _RMSNorm(torch.autograd.Function):
    """Keeps x and one number per row, and makes the gradient in four passes."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        x: Tensor,
        weight_D: Tensor,
        eps: float,
    ) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = torch.rsqrt(norms.square() / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight_D, inverse)
        return (wide * inverse).mul_(weight_D).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, None]:
        x, weight_D, inverse = ctx.saved_tensors
        normed = x.to(inverse.dtype) * inverse
        grad_wide = grad.to(inverse.dtype)
        product = grad_wide * normed
        grad_weight_D = product.flatten(0, -2).sum(0)
        along = torch.mv(product.flatten(0, -2), weight_D.to(inverse.dtype)) / x.shape[-1]
        grad_x = (grad_wide * weight_D).sub_(normed.mul_(along.view_as(inverse))).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight_D.to(weight_D.dtype), None


class RMSNorm(nn.Module):
    """Module around `rms_norm`.

    Parameters
    ----------
    width : int
        Size of the last axis.
    eps : float
        Added to the mean square.
    """

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last axis; the result has the dtype of `x`."""
        return rms_norm(x, self.weight, eps=self.eps)
