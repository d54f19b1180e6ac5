"""Compiled loop of :func:`~seq2exp.spatial.systems.pixel_pool.pooled_moments` for the CPU.

The pixels of a spot stay in the nearest cache while every column is worked on, 16 pixels at a time;
bend and slope come out of one exponential.

Shapes: B spots, P pixels (whole vectors), K columns, M moments, V lanes of a vector.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from seq2exp.nn.lanes import WIDTH, compiled, fma, load, softplus, splat, total

__all__ = ["pool_softplus"]

Floats = NDArray[np.float32]
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_POOL = "void(f4[:,:,:], f4[:,:], f4, f4[:,:,:], f4[:,:,:,:])"


@compiled(_POOL, parallel=True)
def pool_softplus(
    pixels: Floats, weight: Floats, beta: float, moments: Floats, jacobian: Floats
) -> None:
    """Fill moments (M, B, K) and, where it has columns, their derivatives (M, B, 4, K).

    `pixels` (B, 4, P) holds three densities and the weight of every pixel, 0 in the padding;
    `weight` (4, K) three weights and a shift per column.
    """
    num_spots, num_pixels = pixels.shape[0], pixels.shape[2]
    num_columns, squares = weight.shape[1], moments.shape[0] == 2
    slopes = jacobian.shape[3] > 0
    unit = _ONE / beta
    for b in prange(num_spots):
        for k in range(num_columns):
            # Per lane; the exponential takes beta x.
            w0, w1 = splat(weight[0, k] * beta), splat(weight[1, k] * beta)
            w2, w3 = splat(weight[2, k] * beta), splat(weight[3, k] * beta)
            sum1, sum2 = splat(_ZERO), splat(_ZERO)
            a0, a1, a2, a3 = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
            c0, c1, c2, c3 = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
            for p in range(0, num_pixels, WIDTH):
                x0, x1 = load(pixels, (b, 0, p)), load(pixels, (b, 1, p))
                x2, share = load(pixels, (b, 2, p)), load(pixels, (b, 3, p))
                value, slope = softplus(fma(x0, w0, fma(x1, w1, fma(x2, w2, w3))))
                value = value * unit
                sum1 = fma(share, value, sum1)
                if slopes:
                    part = share * slope
                    a0, a1 = fma(part, x0, a0), fma(part, x1, a1)
                    a2, a3 = fma(part, x2, a2), a3 + part
                if squares:
                    sum2 = fma(share * value, value, sum2)
                    if slopes:
                        twice = share * slope * value * _TWO
                        c0, c1 = fma(twice, x0, c0), fma(twice, x1, c1)
                        c2, c3 = fma(twice, x2, c2), c3 + twice
            moments[0, b, k] = total(sum1)
            if squares:
                moments[1, b, k] = total(sum2)
            if slopes:
                jacobian[0, b, 0, k], jacobian[0, b, 1, k] = total(a0), total(a1)
                jacobian[0, b, 2, k], jacobian[0, b, 3, k] = total(a2), total(a3)
                if squares:
                    jacobian[1, b, 0, k], jacobian[1, b, 1, k] = total(c0), total(c1)
                    jacobian[1, b, 2, k], jacobian[1, b, 3, k] = total(c2), total(c3)
