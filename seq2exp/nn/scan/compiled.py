"""The selective scan of the CPU: compiled loops with a hand-written backward.

The forward keeps the state at the start of every tile of tokens; the backward makes the states of a
tile again. Everything of `ScanInputs` happens inside the loops. Float32 on the CPU only.

Shapes: B batch, L positions, E channels, N states per channel, K tiles, G groups of channels, S
positions of a segment.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.lanes import WIDTH
from seq2exp.nn.numba_use import arrays, use_threads, without_gaps
from seq2exp.nn.scan.inputs import TILE, ScanInputs
from seq2exp.nn.scan.kernels import scan_backward, scan_forward

__all__ = ["scan_compiled"]

# Sums over channels are made by so many independent items, whatever the number of threads.
_ITEMS = 8
# Positions of the gradients of B and C that are held once per group of channels.
_SEGMENT = 2048


def scan_compiled(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Run a selective scan; the chunk is the number of tokens between two states that are kept.

    Raises
    ------
    ConfigError
        Another dtype than float32 or half precision, or another device than the CPU.
    """
    u_BLE, dtype = inputs.u_BLE, inputs.compute_dtype()
    if dtype != torch.float32 or u_BLE.device.type != "cpu":
        raise ConfigError(
            facts(
                "scan backend 'cpu'",
                found=f"{dtype} on {u_BLE.device.type}",
                expected="torch.float32 on cpu",
                fix="use backend 'torch' or 'auto'",
            )
        )
    cast, channels = inputs.cast(dtype), u_BLE.shape[2]
    gap = -channels % WIDTH
    tensors = [value for value in vars(cast).values() if isinstance(value, Tensor)]
    y_BLE, last_BNE = _CompiledScan.apply(  # type: ignore[no-untyped-call]
        _filled(cast.u_BLE, gap),
        _filled(cast.delta_BLE, gap),
        _filled(cast.A_EN.t(), gap),
        cast.B_BLN,
        cast.C_BLN,
        _filled(cast.initial_state_BEN.transpose(1, 2), gap),
        _filled(cast.delta_bias_E, gap),
        _filled(cast.D_E, gap),
        _filled(cast.z_BLE, gap),
        cast.step_mask_BL,
        cast.breaks_BL(),
        cast.delta_softplus,
        cast.reverse,
        cast.chunk or TILE,
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
    )
    return y_BLE[..., :channels].to(u_BLE.dtype), last_BNE[..., :channels].transpose(1, 2)


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
        bias_E: Tensor | None,
        D_E: Tensor | None,
        z_BLE: Tensor | None,
        mask_BL: Tensor | None,
        breaks_BL: Tensor | None,
        softened: bool,  # noqa: FBT001  torch passes the arguments of a Function by position
        reverse: bool,  # noqa: FBT001
        chunk: int,
        keeps: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        batch, length, channels = u_BLE.shape
        tile = max(1, min(chunk, length))
        # Powers of two cost less; a NaN of an odd pattern would not outlive the exponential.
        rates_NE = (A_NE / math.log(2)).masked_fill(A_NE.isnan(), torch.nan).contiguous()
        per_token = [without_gaps(x) for x in (u_BLE, delta_BLE, B_BLN, C_BLN)]
        options = [
            _given(bias_E, u_BLE, 1),
            _given(D_E, u_BLE, 1),
            _given(z_BLE, u_BLE, 3),
            _given(mask_BL, u_BLE, 2),
            u_BLE.new_empty((0, 0), dtype=torch.bool) if breaks_BL is None else breaks_BL,
        ]
        num_marks = -(-length // tile) if keeps else 0
        marks_KBNE = u_BLE.new_empty((num_marks, *initial_BNE.shape))
        last_BNE = initial_BNE.clone(memory_format=torch.contiguous_format)
        y_BLE = u_BLE.new_empty((batch, length, channels))
        saved = [per_token[0], per_token[1], rates_NE, *per_token[2:], *options]
        items = min(use_threads(), max(1, channels // WIDTH))
        scan_forward(*arrays(*saved, last_BNE, y_BLE, marks_KBNE), softened, reverse, tile, items)
        ctx.save_for_backward(*saved, A_NE, marks_KBNE)
        ctx.flags = softened, reverse, tile
        ctx.given = [x is not None for x in (bias_E, D_E, z_BLE, mask_BL)]
        return y_BLE, last_BNE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_y_BLE: Tensor,
        grad_last_BNE: Tensor,
    ) -> tuple[Tensor | None, ...]:
        *saved, A_NE, marks_KBNE = ctx.saved_tensors
        u_BLE, B_BLN, z_BLE = saved[0], saved[3], saved[7]
        (batch, length, channels), tile = u_BLE.shape, ctx.flags[2]
        blocks = channels // WIDTH
        groups = max(1, min(-(-blocks // 2), -(-_ITEMS // max(batch, 1))))
        carry_BNE = grad_last_BNE.clone(memory_format=torch.contiguous_format)
        per_channel = [u_BLE.new_empty(u_BLE.shape) for _ in range(2)] + [
            u_BLE.new_empty(z_BLE.shape)
        ]
        grad_A_BNE = u_BLE.new_zeros((batch, *A_NE.shape))
        grad_bias_BE, grad_D_BE = (u_BLE.new_zeros((batch, channels)) for _ in range(2))
        grad_B_BLN, grad_C_BLN = (u_BLE.new_empty(B_BLN.shape) for _ in range(2))
        grad_mask_BL = u_BLE.new_empty((batch, length))
        fixed = arrays(
            *saved, marks_KBNE, without_gaps(grad_y_BLE), carry_BNE, *per_channel, grad_A_BNE
        )
        use_threads()
        tiles, per_segment = marks_KBNE.shape[0], max(1, _SEGMENT // tile)
        # Held once for all segments: fresh memory costs more than the sums.
        room = (groups, batch, per_segment * tile)
        parts = [u_BLE.new_empty((*room, *x.shape[2:])) for x in (B_BLN, B_BLN, grad_mask_BL)]
        for first in reversed(range(0, tiles, per_segment)):
            last = min(first + per_segment, tiles)
            start, stop = first * tile, min(last * tile, length)
            span = slice(length - stop, length - start) if ctx.flags[1] else slice(start, stop)
            wholes = grad_B_BLN[:, span], grad_C_BLN[:, span], grad_mask_BL[:, span]
            own = [part[:, :, : stop - start].zero_() for part in parts]
            sums = arrays(*own[:2], grad_bias_BE, grad_D_BE, own[2])
            scan_backward(*fixed, *sums, *ctx.flags, first, last)
            for whole, part in zip(wholes, own, strict=True):
                torch.sum(part, 0, out=whole)
        optional = [grad_bias_BE.sum(0), grad_D_BE.sum(0), per_channel[2], grad_mask_BL]
        return (
            *per_channel[:2], grad_A_BNE.sum(0), grad_B_BLN, grad_C_BLN, carry_BNE,
            *(x if given else None for x, given in zip(optional, ctx.given, strict=True)),
            None, None, None, None, None,
        )  # fmt: skip


def _filled(tensor: Tensor | None, gap: int) -> Tensor | None:
    """Add channels of zeros, so that they fill whole vectors."""
    return tensor if tensor is None or gap == 0 else F.pad(tensor, (0, gap))


def _given(tensor: Tensor | None, like: Tensor, ndim: int) -> Tensor:
    return like.new_empty((0,) * ndim) if tensor is None else without_gaps(tensor)
