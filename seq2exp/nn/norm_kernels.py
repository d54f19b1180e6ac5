"""Compiled loops of the root-mean-square norm for the CPU.

Shapes: R rows, D channels, I spans of rows.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from seq2exp.nn.lanes import WIDTH, compiled, fma, load, splat, store, total

__all__ = ["norm_backward", "norm_forward"]

Floats = NDArray[np.float32]

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled("void(f4[:,:], f4[:], f4[:,:], f4[:], f4, i8)", parallel=True)
def norm_forward(
    x: Floats, weight: Floats, out: Floats, inverse: Floats, eps: float, span: int
) -> None:
    """Fill `out` (R, D) and the inverse root mean square of each row (R)."""
    rows, width = x.shape
    for item in prange((rows + span - 1) // span):
        for r in range(item * span, min(item * span + span, rows)):
            squares = splat(_ZERO)
            for left in range(0, width, WIDTH):
                value = load(x, (r, left))
                squares = fma(value, value, squares)
            scale = _ONE / np.sqrt(total(squares) / np.float32(width) + eps)
            inverse[r] = scale
            for left in range(0, width, WIDTH):
                store(out, (r, left), load(x, (r, left)) * scale * load(weight, (left,)))


@compiled("void(f4[:,:], f4[:], f4[:], f4[:,:], f4[:,:], f4[:,:], i8)", parallel=True)
def norm_backward(
    x: Floats,
    weight: Floats,
    inverse: Floats,
    grad: Floats,
    grad_x: Floats,
    grad_weight: Floats,
    span: int,
) -> None:
    """Fill the gradient of x (R, D) and add to that of the weight per span of rows (I, D)."""
    rows, width = x.shape
    for item in prange((rows + span - 1) // span):
        for r in range(item * span, min(item * span + span, rows)):
            along = splat(_ZERO)
            scale = inverse[r]
            for left in range(0, width, WIDTH):
                product = load(grad, (r, left)) * (load(x, (r, left)) * scale)
                along = fma(product, load(weight, (left,)), along)
                store(grad_weight, (item, left), load(grad_weight, (item, left)) + product)
            mean = total(along) / np.float32(width)
            for left in range(0, width, WIDTH):
                value = load(grad, (r, left)) * load(weight, (left,))
                value = value - load(x, (r, left)) * scale * mean
                store(grad_x, (r, left), value * scale)
