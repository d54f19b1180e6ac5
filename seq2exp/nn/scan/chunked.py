"""The selective scan in plain torch, a chunk at a time, with a hand-written backward.

Inside a chunk the decays ``exp(delta A)`` and the injections ``delta B u`` of all tokens are made
by a few large vectorised operations; only the recurrence itself is a loop, of one fused in-place
operation per token. The forward keeps nothing but the state at the start of every chunk, and the
backward makes the states of a chunk again and runs the adjoint recurrence the other way. The work
arrays hold channels innermost, so that every broadcast is a vector times a scalar.

Shapes: B batch, L positions, T positions of one chunk, E channels, N states per channel, K chunks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seq2exp.nn.scan.layout import apply_channels_innermost

__all__ = ["choose_chunk", "scan_chunked"]

# Work arrays of about this many numbers stay in the second-level cache of one core.
_WORK_NUMBERS = 1 << 19
_MIN_CHUNK = 8
_MAX_CHUNK = 256


def choose_chunk(batch: int, num_channels: int, num_states: int) -> int:
    """Chunk length whose work arrays fit the cache, between 8 and 256 tokens.

    At 8 tokens the stored chunk states are at most ``num_states / 8`` times the size of the input.
    """
    per_token = max(1, batch * num_channels * num_states)
    return min(_MAX_CHUNK, max(_MIN_CHUNK, _WORK_NUMBERS // per_token))


def scan_chunked(
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
    """Run the selective scan; arguments and results are those of `scan_reference`.

    Parameters
    ----------
    chunk : int, optional
        Tokens per chunk. Every value gives the same result up to rounding.
    """
    batch, _, num_channels = u_BLE.shape
    size = chunk or choose_chunk(batch, num_channels, A_EN.shape[1])
    return apply_channels_innermost(
        _ChunkedScan,
        u_BLE,
        delta_BLE,
        A_EN,
        B_BLN,
        C_BLN,
        initial_state_BEN=initial_state_BEN,
        breaks_BL=breaks_BL,
        reverse=reverse,
        chunk=size,
    )


class _ChunkedScan(torch.autograd.Function):
    """Forward and adjoint recurrence with recomputation of the states of each chunk."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        u_BLE: Tensor,
        delta_BLE: Tensor,
        A_NE: Tensor,
        B_BLN: Tensor,
        C_BLN: Tensor,
        initial_BNE: Tensor,
        breaks_BL: Tensor | None,
        reverse: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        spans = _spans(u_BLE.shape[1], chunk, reverse=reverse)
        work = _Work.allocate(initial_BNE, min(chunk, u_BLE.shape[1]), num_buffers=2)
        starts_KBNE = initial_BNE.new_empty((len(spans), *initial_BNE.shape))
        y_BLE = torch.empty_like(u_BLE, memory_format=torch.contiguous_format)
        state_BNE = initial_BNE
        for k, (start, stop) in enumerate(spans):
            starts_KBNE[k].copy_(state_BNE)
            operands = _Operands.cut(u_BLE, delta_BLE, B_BLN, C_BLN, breaks_BL, start, stop)
            _, states_TBNE = work.states(operands, A_NE, starts_KBNE[k], reverse=reverse)
            y_BLE[:, start:stop] = _contract_states(operands.C_TBN, states_TBNE).transpose(0, 1)
            state_BNE = states_TBNE[0 if reverse else -1]
        ctx.save_for_backward(u_BLE, delta_BLE, A_NE, B_BLN, C_BLN, starts_KBNE, breaks_BL)
        ctx.reverse, ctx.chunk = reverse, chunk
        return y_BLE, state_BNE.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_y_BLE: Tensor,
        grad_final_BNE: Tensor,
    ) -> tuple[Tensor | None, ...]:
        u_BLE, delta_BLE, A_NE, B_BLN, C_BLN, starts_KBNE, breaks_BL = ctx.saved_tensors
        reverse, length = ctx.reverse, u_BLE.shape[1]
        spans = _spans(length, ctx.chunk, reverse=reverse)
        carry_BNE = grad_final_BNE.clone()
        work = _Work.allocate(carry_BNE, min(ctx.chunk, length), num_buffers=3)
        grad_u_BLE, grad_delta_BLE = torch.empty_like(u_BLE), torch.empty_like(delta_BLE)
        grad_B_BLN, grad_C_BLN = torch.empty_like(B_BLN), torch.empty_like(C_BLN)
        grad_A_NE = torch.zeros_like(A_NE)
        for k in range(len(spans) - 1, -1, -1):
            start, stop = spans[k]
            operands = _Operands.cut(u_BLE, delta_BLE, B_BLN, C_BLN, breaks_BL, start, stop)
            grad_y_TBE = grad_y_BLE[:, start:stop].transpose(0, 1).contiguous()
            grads = work.gradients(
                operands, A_NE, starts_KBNE[k], grad_y_TBE, carry_BNE, reverse=reverse
            )
            for whole, part in zip(
                (grad_u_BLE, grad_delta_BLE, grad_B_BLN, grad_C_BLN), grads[:4], strict=True
            ):
                whole[:, start:stop] = part.transpose(0, 1)
            grad_A_NE += grads[4]
        return (
            grad_u_BLE,
            grad_delta_BLE,
            grad_A_NE,
            grad_B_BLN,
            grad_C_BLN,
            carry_BNE,
            None,
            None,
            None,
        )


def _spans(length: int, chunk: int, *, reverse: bool) -> list[tuple[int, int]]:
    """Half-open spans of the chunks in the order in which the scan visits them."""
    spans = [(start, min(start + chunk, length)) for start in range(0, length, chunk)]
    return spans[::-1] if reverse else spans


class _Operands:
    """One chunk of the inputs, time first; `step_u` is delta * u."""

    def __init__(
        self,
        u_TBE: Tensor,
        delta_TBE: Tensor,
        B_TBN: Tensor,
        C_TBN: Tensor,
        breaks_TB: Tensor | None,
    ) -> None:
        self.u_TBE, self.delta_TBE, self.B_TBN, self.C_TBN = u_TBE, delta_TBE, B_TBN, C_TBN
        self.breaks_TB = breaks_TB
        self.step_u_TBE = delta_TBE * u_TBE

    @classmethod
    def cut(
        cls,
        u: Tensor,
        delta: Tensor,
        B: Tensor,
        C: Tensor,
        breaks: Tensor | None,
        start: int,
        stop: int,
    ) -> _Operands:
        """Cut [start, stop) out of arrays of shape (batch, length, ...)."""
        u, delta, B, C = (x[:, start:stop].transpose(0, 1).contiguous() for x in (u, delta, B, C))
        return cls(u, delta, B, C, None if breaks is None else breaks[:, start:stop].t())


class _Work:
    """Reusable arrays of shape (chunk, batch, states, channels)."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers

    @classmethod
    def allocate(cls, like_BNE: Tensor, chunk: int, *, num_buffers: int) -> _Work:
        """Make `num_buffers` arrays for chunks of at most `chunk` tokens."""
        return cls([like_BNE.new_empty((chunk, *like_BNE.shape)) for _ in range(num_buffers)])

    def states(
        self, operands: _Operands, A_NE: Tensor, start_BNE: Tensor, *, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """Decays and states of every token of the chunk, each (chunk, batch, states, channels)."""
        length = operands.u_TBE.shape[0]
        decay_TBNE, states_TBNE = (buffer[:length] for buffer in self.buffers[:2])
        torch.mul(operands.delta_TBE[:, :, None], A_NE, out=decay_TBNE).exp_()
        if operands.breaks_TB is not None:
            decay_TBNE.masked_fill_(operands.breaks_TB[..., None, None], 0.0)
        torch.mul(operands.step_u_TBE[:, :, None], operands.B_TBN[..., None], out=states_TBNE)
        _recur(states_TBNE.unbind(0), decay_TBNE.unbind(0), start_BNE, reverse=reverse)
        return decay_TBNE, states_TBNE

    def gradients(
        self,
        operands: _Operands,
        A_NE: Tensor,
        start_BNE: Tensor,
        grad_y_TBE: Tensor,
        carry_BNE: Tensor,
        *,
        reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of u, delta, B, C (time first) and A; `carry_BNE` is replaced in place.

        The carry is the gradient of the state at the end of the chunk on entry, and at its start
        on return.
        """
        decay_TBNE, states_TBNE = self.states(operands, A_NE, start_BNE, reverse=reverse)
        adjoint_TBNE = self.buffers[2][: decay_TBNE.shape[0]]
        torch.mul(grad_y_TBE[:, :, None], operands.C_TBN[..., None], out=adjoint_TBNE)
        decays, adjoints = decay_TBNE.unbind(0), adjoint_TBNE.unbind(0)
        first, last = (-1, 0) if reverse else (0, -1)
        adjoints[last].add_(carry_BNE)
        _recur_adjoint(adjoints, decays, reverse=reverse)
        torch.mul(decays[first], adjoints[first], out=carry_BNE)

        grad_C_TBN = _contract_channels(states_TBNE, grad_y_TBE)
        grad_B_TBN = _contract_channels(adjoint_TBNE, operands.step_u_TBE)
        grad_step_u_TBE = _contract_states(operands.B_TBN, adjoint_TBNE)
        # From here on `decay` holds d loss / d (delta A) = adjoint * decay * previous state.
        decay_TBNE.mul_(adjoint_TBNE)
        if reverse:
            decay_TBNE[:-1].mul_(states_TBNE[1:])
        else:
            decay_TBNE[1:].mul_(states_TBNE[:-1])
        decay_TBNE[first].mul_(start_BNE)
        grad_A_NE = torch.mul(decay_TBNE, operands.delta_TBE[:, :, None], out=adjoint_TBNE)
        grad_delta_TBE = decay_TBNE.mul_(A_NE).sum(2)
        grad_delta_TBE.addcmul_(grad_step_u_TBE, operands.u_TBE)
        grad_u_TBE = grad_step_u_TBE.mul_(operands.delta_TBE)
        return grad_u_TBE, grad_delta_TBE, grad_B_TBN, grad_C_TBN, grad_A_NE.sum((0, 1))


def _recur(
    states: tuple[Tensor, ...], decays: tuple[Tensor, ...], start_BNE: Tensor, *, reverse: bool
) -> None:
    """Turn injections into states in place: states[t] += decays[t] * states[t - 1]."""
    state_BNE = start_BNE
    pairs = zip(reversed(states), reversed(decays)) if reverse else zip(states, decays)  # noqa: B905
    for next_BNE, decay_BNE in pairs:
        state_BNE = next_BNE.addcmul_(decay_BNE, state_BNE)


def _recur_adjoint(
    adjoints: tuple[Tensor, ...], decays: tuple[Tensor, ...], *, reverse: bool
) -> None:
    """Adjoint recurrence in place, against the visiting order of the scan."""
    order = range(len(adjoints)) if reverse else range(len(adjoints) - 1, -1, -1)
    later = order[0]
    for t in order[1:]:
        adjoints[t].addcmul_(decays[later], adjoints[later])
        later = t


def _contract_states(weights_TBN: Tensor, values_TBNE: Tensor) -> Tensor:
    """Sum over states of weights * values, shape (chunk, batch, channels)."""
    length, batch, num_states, num_channels = values_TBNE.shape
    rows = torch.bmm(
        weights_TBN.reshape(length * batch, 1, num_states),
        values_TBNE.view(length * batch, num_states, num_channels),
    )
    return rows.view(length, batch, num_channels)


def _contract_channels(values_TBNE: Tensor, weights_TBE: Tensor) -> Tensor:
    """Sum over channels of values * weights, shape (chunk, batch, states)."""
    length, batch, num_states, num_channels = values_TBNE.shape
    rows = torch.bmm(
        values_TBNE.view(length * batch, num_states, num_channels),
        weights_TBE.reshape(length * batch, num_channels, 1),
    )
    return rows.view(length, batch, num_states)
