"""The selective scan of the CPU: compiled loops with a hand-written backward.

The forward keeps the state at the start of every chunk; the backward makes the states of a chunk
again. Float32 on the CPU only.

Shapes: B batch, L positions, E channels, N states per channel, K chunks, G groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.scan.kernels import scan_backward, scan_forward
from seq2exp.nn.scan.layout import apply_channels_innermost

__all__ = ["scan_compiled"]

_CHUNK = 32
# Independent pieces of work of the backward; fixed, so that threads change no sum over channels.
_ITEMS = 8
_LANES, _WIDEST = 16, 128
_FORWARD: Callable[..., None] = scan_forward
_BACKWARD: Callable[..., None] = scan_backward


def scan_compiled(
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
        Tokens between two states that are kept for the backward.

    Raises
    ------
    ConfigError
        Another dtype than float32, or another device than the CPU.
    """
    if u_BLE.dtype != torch.float32 or u_BLE.device.type != "cpu":
        raise ConfigError(
            facts(
                "scan backend 'cpu'",
                found=f"{u_BLE.dtype} on {u_BLE.device.type}",
                expected="torch.float32 on cpu",
                fix="use backend 'torch' or 'auto'",
            )
        )
    if breaks_BL is not None:
        raise ConfigError(
            facts(
                "scan backend 'cpu'",
                found="packed sequences",
                expected="one sequence per row",
                fix="use backend 'torch'",
            )
        )
    return apply_channels_innermost(
        _CompiledScan,
        u_BLE,
        delta_BLE,
        A_EN,
        B_BLN,
        C_BLN,
        initial_state_BEN=initial_state_BEN,
        breaks_BL=breaks_BL,
        reverse=reverse,
        chunk=chunk or _CHUNK,
    )


class _CompiledScan(torch.autograd.Function):
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
        inputs = [x.contiguous() for x in (u_BLE, delta_BLE, A_NE, B_BLN, C_BLN)]
        length = u_BLE.shape[1]
        y_BLE = torch.empty_like(inputs[0])
        marks_KBNE = initial_BNE.new_empty((-(-length // chunk), *initial_BNE.shape))
        last_BNE = torch.empty_like(initial_BNE)
        arrays = _arrays(*inputs, initial_BNE, y_BLE, marks_KBNE, last_BNE)
        # No channel reads another here, so blocks as wide as the threads allow change no bit.
        _FORWARD(*arrays, reverse, chunk, _width(u_BLE, items=_use_threads()))
        ctx.save_for_backward(*inputs, marks_KBNE)
        ctx.reverse, ctx.chunk = reverse, chunk
        return y_BLE, last_BNE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_y_BLE: Tensor,
        grad_last_BNE: Tensor,
    ) -> tuple[Tensor | None, ...]:
        u_BLE, delta_BLE, A_NE, B_BLN, C_BLN, marks_KBNE = ctx.saved_tensors
        batch, _, channels = u_BLE.shape
        width = _width(u_BLE, items=_ITEMS)
        groups = min(-(-channels // width), -(-_ITEMS // max(batch, 1)))
        carry_BNE = grad_last_BNE.clone(memory_format=torch.contiguous_format)
        grad_u_BLE, grad_delta_BLE = torch.empty_like(u_BLE), torch.empty_like(delta_BLE)
        grad_A_BNE = A_NE.new_empty((batch, *A_NE.shape))
        grad_B_GBLN = B_BLN.new_zeros((groups, *B_BLN.shape))
        grad_C_GBLN = C_BLN.new_zeros((groups, *C_BLN.shape))
        arrays = _arrays(
            u_BLE, delta_BLE, A_NE, B_BLN, C_BLN, marks_KBNE, grad_y_BLE.contiguous(), carry_BNE,
            grad_u_BLE, grad_delta_BLE, grad_A_BNE, grad_B_GBLN, grad_C_GBLN,
        )  # fmt: skip
        _use_threads()
        _BACKWARD(*arrays, ctx.reverse, ctx.chunk, width)
        sums = grad_A_BNE.sum(0), grad_B_GBLN.sum(0), grad_C_GBLN.sum(0)
        return grad_u_BLE, grad_delta_BLE, *sums, carry_BNE, None, None, None


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _width(u_BLE: Tensor, *, items: int) -> int:
    """Channels per block, whole vectors, so that a scan is cut into about so many items."""
    batch, _, channels = u_BLE.shape
    share = channels * max(batch, 1) // items
    return max(_LANES, min(_WIDEST, share // _LANES * _LANES))


def _use_threads() -> int:
    """Take as many threads as torch does, and return their number."""
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = min(torch.get_num_threads(), most)
    numba.set_num_threads(threads)
    return threads
