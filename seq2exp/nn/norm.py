"""Root-mean-square normalisation with a short backward.

Shapes: the last axis holds D channels, all axes before it are rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RMSNorm", "rms_norm"]


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
    run: Callable[..., Tensor] = _RMSNorm.apply
    return run(x, weight_D, eps)


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
