"""The selective scan written as its definition: one token at a time, in plain torch.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["scan_reference"]


def scan_reference(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    initial_state_BEN: Tensor,
    breaks_BL: Tensor | None = None,
    reverse: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan by a loop over tokens: slow, differentiable by autograd, used as the oracle.

    ``s_t = exp(delta_t A) s_{t-1} + delta_t B_t u_t`` and ``y_t = C_t . s_t``, with t running from
    the right end when `reverse` is set. Formula: Gu and Dao, arXiv 2312.00752, algorithm 2.

    Parameters
    ----------
    u_BLE, delta_BLE : float tensor, shape (batch, length, channels)
        Input and step size.
    A_EN : float tensor, shape (channels, states)
        Decay rates, negative for a stable scan.
    B_BLN, C_BLN : float tensor, shape (batch, length, states)
        Input and output projections of each token.
    initial_state_BEN : float tensor, shape (batch, channels, states)
        State before the first token visited.
    breaks_BL : bool tensor, shape (batch, length), optional
        True at tokens before whose visit the state is dropped.
    reverse : bool
        Visit tokens from the last to the first.
    chunk : int, optional
        Without effect: a loop over tokens has no chunks.

    Returns
    -------
    y_BLE : float tensor, shape (batch, length, channels)
    state_BEN : float tensor, shape (batch, channels, states)
        State after the last token visited.
    """
    del chunk
    length = u_BLE.shape[1]
    state_BEN = initial_state_BEN
    outputs: list[Tensor] = [u_BLE] * length  # replaced one by one
    for t in range(length - 1, -1, -1) if reverse else range(length):
        if breaks_BL is not None:
            state_BEN = state_BEN.masked_fill(breaks_BL[:, t, None, None], 0.0)
        decay_BEN = torch.exp(delta_BLE[:, t, :, None] * A_EN)
        inject_BEN = (delta_BLE[:, t] * u_BLE[:, t])[..., None] * B_BLN[:, t, None, :]
        state_BEN = decay_BEN * state_BEN + inject_BEN
        outputs[t] = (state_BEN * C_BLN[:, t, None, :]).sum(-1)
    y_BLE = torch.stack(outputs, dim=1) if length else torch.empty_like(u_BLE)
    return y_BLE, state_BEN
