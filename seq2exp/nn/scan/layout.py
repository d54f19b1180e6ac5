"""The layout that backends with a hand-written backward share: channels innermost.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["apply_channels_innermost"]


def apply_channels_innermost(
    function: type[torch.autograd.Function],
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    initial_state_BEN: Tensor,
    breaks_BL: Tensor | None,
    reverse: bool,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Apply a scan that takes rates (N, E) and states (B, N, E), and turn its last state back.

    Parameters
    ----------
    function : type of autograd Function
        Takes u, delta, rates, B, C, first state, breaks, reverse and chunk; returns y and the
        last state.
    u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, initial_state_BEN, breaks_BL, reverse, chunk
        As in `scan_reference` and `selective_scan`.

    Returns
    -------
    y_BLE : float tensor, shape (batch, length, channels)
    state_BEN : float tensor, shape (batch, channels, states)
    """
    run: Callable[..., tuple[Tensor, Tensor]] = function.apply
    A_NE = A_EN.t().contiguous()
    initial_BNE = initial_state_BEN.transpose(1, 2).contiguous()
    y_BLE, final_BNE = run(
        u_BLE, delta_BLE, A_NE, B_BLN, C_BLN, initial_BNE, breaks_BL, reverse, chunk
    )
    return y_BLE, final_BNE.transpose(1, 2)
