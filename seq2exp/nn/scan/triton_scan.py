"""The selective scan of CUDA devices: Triton kernels with a hand-written backward.

One launch takes one scan or two scans of equal shapes, for example the two directions of a
bidirectional layer. The forward keeps the state at the start of every chunk; the backward makes
the states of a chunk again. Float32 state for half and single precision inputs. Sums over channels
and over tokens are partial sums reduced in a fixed order, so two runs give the same bits.

Shapes: S sides (scans of one launch), B batch, L positions, V visits (positions in visiting order,
padded to whole tiles), E channels, N states per channel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.scan.inputs import ScanInputs

__all__ = ["Layout", "lay_out", "scan_triton", "scan_triton_pair"]

_TILE = 16
_CHUNK = 64
_WIDEST = 32
# Programs of one warp that fill one multiprocessor twice over at 128 registers per thread.
_PROGRAMS_PER_PROCESSOR = 32
_GRID = 65_535  # most programs along the second axis of a CUDA grid
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Layout:
    """How the tokens and channels of one launch are cut.

    A tile is what a program holds in registers, a chunk lies between two kept states, a segment is
    the part of a sequence that one program walks over.
    """

    tile: int
    width: int
    chunk_tiles: int
    segment_tiles: int
    segments: int
    blocks: int

    @property
    def tiles(self) -> int:
        """Tiles of a sequence, the empty ones behind its end included."""
        return self.segments * self.segment_tiles

    @property
    def visits(self) -> int:
        """Length of a sequence in whole segments."""
        return self.tiles * self.tile

    @property
    def chunks(self) -> int:
        """Chunks of a sequence."""
        return self.tiles // self.chunk_tiles


def lay_out(
    length: int, channels: int, *, sequences: int, programs: int, chunk: int | None = None
) -> Layout:
    """Cut sequences so that about `programs` programs have work.

    Parameters
    ----------
    length, channels : int
        Tokens and channels of a sequence.
    sequences : int
        Sequences of the launch, both sides counted.
    programs : int
        Programs that the device should be given at least, if the sequences are long enough.
    chunk : int, optional
        Tokens between two kept states, rounded up to whole tiles; 64 when left out.
    """
    tiles = max(1, math.ceil(length / _TILE))
    width = min(_WIDEST, 1 << max(0, channels - 1).bit_length())
    blocks = max(1, math.ceil(channels / width))
    chunk_tiles = min(tiles, math.ceil((chunk or _CHUNK) / _TILE))
    chunk_tiles = max(chunk_tiles, math.ceil(tiles / _GRID))
    chunks = math.ceil(tiles / chunk_tiles)
    wanted = min(chunks, math.ceil(programs / max(1, sequences * blocks)))
    segment_chunks = math.ceil(chunks / wanted)
    return Layout(
        tile=_TILE,
        width=width,
        chunk_tiles=chunk_tiles,
        segment_tiles=segment_chunks * chunk_tiles,
        segments=math.ceil(chunks / segment_chunks),
        blocks=blocks,
    )


def scan_triton(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Run one selective scan; see `seq2exp.nn.scan.selective_scan`.

    Raises
    ------
    ConfigError
        No triton, tensors that are not on a CUDA device, or float64.
    """
    return _run((inputs,))[0]


def scan_triton_pair(first: ScanInputs, second: ScanInputs) -> tuple[Tensor, Tensor]:
    """Run two scans in one launch where their shapes, dtypes and options agree; return both y."""
    if _kind(first) == _kind(second):
        (y_first, _), (y_second, _) = _run((first, second))
        return y_first, y_second
    return scan_triton(first)[0], scan_triton(second)[0]


def _kind(inputs: ScanInputs) -> tuple[object, ...]:
    """What two scans must have in common to share a launch."""
    tensors = (inputs.u_BLE, inputs.delta_BLE, inputs.A_EN, inputs.B_BLN, inputs.C_BLN,
               inputs.z_BLE)  # fmt: skip
    looks = [None if x is None else (x.shape, x.dtype, x.device) for x in tensors]
    return (*looks, inputs.delta_softplus, inputs.starts_BL is None, inputs.chunk)


def _check(inputs: ScanInputs) -> None:
    u_BLE, dtype = inputs.u_BLE, inputs.compute_dtype()
    if dtype != torch.float32 or u_BLE.dtype not in _DTYPES:
        found, fix = f"{dtype} arithmetic for {u_BLE.dtype} inputs", "use backend 'torch'"
    elif not u_BLE.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        found, fix = f"tensors on {u_BLE.device.type}", "use backend 'auto'"
    else:
        return
    raise ConfigError(
        facts(
            "scan backend 'triton'",
            found=found,
            expected="float32, bfloat16 or float16 on a CUDA device",
            fix=fix,
        )
    )


def _kernels() -> Any:  # noqa: ANN401  a module without types
    try:
        from seq2exp.nn.scan import triton_kernels
    except ImportError as error:
        raise ConfigError(
            facts(
                "scan backend 'triton'",
                found=f"that triton cannot be used ({error})",
                expected="the package triton (Linux)",
                fix="pip install \"seq2exp[triton]\" -c constraints.txt, or use backend 'torch'",
            )
        ) from error
    return triton_kernels


def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return 8  # the interpreter runs them one after the other
    processors: int = torch.cuda.get_device_properties(device).multi_processor_count
    return processors * _PROGRAMS_PER_PROCESSOR


def _run(scans: Sequence[ScanInputs]) -> list[tuple[Tensor, Tensor]]:
    for inputs in scans:
        _check(inputs)
    kernels, head = _kernels(), scans[0]
    batch, length, channels = head.u_BLE.shape
    initials = [x.initial_state_BEN.float() for x in scans]
    if not head.u_BLE.numel() or not head.A_EN.shape[1]:
        return [(_without_states(x), s) for x, s in zip(scans, initials, strict=True)]
    layout = lay_out(
        length,
        channels,
        sequences=batch * len(scans),
        programs=_programs(head.u_BLE.device),
        chunk=head.chunk,
    )
    pad = layout.visits - length

    def visited(tensors: list[Tensor]) -> Tensor:
        """Stack per-token rows in visiting order, zeros behind the last: (sides, B, ..., V)."""
        turned = [x.flip(-1) if s.reverse else x for x, s in zip(tensors, scans, strict=True)]
        return torch.nn.functional.pad(torch.stack(turned), (0, pad)).contiguous()

    def stacked(tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors).float().contiguous()

    def or_constant(tensor: Tensor | None, shape: tuple[int, ...], value: float) -> Tensor:
        full = head.u_BLE.new_full(shape, value, dtype=torch.float32)
        return full if tensor is None else tensor.float()

    breaks = [x.breaks_BL() for x in scans]
    large = [
        *((x.u_BLE.contiguous(), x.delta_BLE.contiguous()) for x in scans),
    ]
    gates = [None if x.z_BLE is None else x.z_BLE.contiguous() for x in scans]
    setup = _Setup(
        kernels,
        layout,
        reverse=sum(bool(x.reverse) << i for i, x in enumerate(scans)),
        softplus=head.delta_softplus,
        keep=torch.is_grad_enabled(),
    )
    apply: Callable[..., tuple[Tensor, ...]] = _TritonScan.apply
    *outputs, last_SBNE = apply(
        setup,
        len(scans),
        *(x for pair in large for x in pair),
        *gates,
        stacked([x.A_EN.t() for x in scans]),
        visited([x.B_BLN.transpose(1, 2) for x in scans]),
        visited([x.C_BLN.transpose(1, 2) for x in scans]),
        stacked([or_constant(x.D_E, (channels,), 0.0) for x in scans]),
        stacked([or_constant(x.delta_bias_E, (channels,), 0.0) for x in scans]),
        visited([or_constant(x.step_mask_BL, (batch, length), 1.0) for x in scans]),
        None if breaks[0] is None else visited([x.to(torch.int8) for x in breaks if x is not None]),
        stacked([x.transpose(1, 2) for x in initials]),
    )
    return [(y, last_SBNE[i].transpose(1, 2)) for i, y in enumerate(outputs)]


def _without_states(inputs: ScanInputs) -> Tensor:
    """Return y of a scan that has no token, no channel or no state to carry."""
    return inputs.finish(torch.zeros_like(inputs.u_BLE)).to(inputs.u_BLE.dtype)


@dataclass(frozen=True)
class _Setup:
    """What the kernels of one launch are compiled and cut for."""

    kernels: Any
    layout: Layout
    reverse: int
    softplus: bool
    keep: bool

    def constants(self, num_states: int) -> dict[str, Any]:
        return {
            "STATES": num_states,
            "PADDED": 1 << (num_states - 1).bit_length(),
            "TILE": self.layout.tile,
            "WIDTH": self.layout.width,
            "REVERSE": self.reverse,
            "SOFTPLUS": self.softplus,
            "num_warps": 1,
        }


class _TritonScan(torch.autograd.Function):
    """Sides in pairs of u and delta, then the gates, then what the sides share, stacked."""

    @staticmethod
    def forward(ctx: Any, setup: _Setup, sides: int, *tensors: Tensor | None) -> Any:  # noqa: ANN401
        launch = _Launch(setup, sides, tensors)
        outputs, kept, last_SBNE = launch.forward()
        ctx.setup, ctx.sides = setup, sides
        ctx.save_for_backward(*tensors, kept)
        return (*outputs, last_SBNE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        *tensors, kept = ctx.saved_tensors
        launch = _Launch(ctx.setup, ctx.sides, tensors)
        *grad_y, grad_last_SBNE = grads
        return (None, None, *launch.backward(kept, grad_y, grad_last_SBNE))


class _Launch:
    """The tensors of one call and the order of its kernels."""

    def __init__(self, setup: _Setup, sides: int, tensors: Sequence[Tensor | None]) -> None:
        self.setup, self.layout, self.sides = setup, setup.layout, sides
        self.u = _both([tensors[2 * i] for i in range(sides)])
        self.delta = _both([tensors[2 * i + 1] for i in range(sides)])
        gates = tensors[2 * sides : 3 * sides]
        self.has_z = gates[0] is not None
        self.z = _both(list(gates)) if self.has_z else self.u
        (self.A, self.B, self.C, self.D, self.bias, self.mask, breaks,
         self.initial) = tensors[3 * sides :]  # fmt: skip
        self.has_breaks = breaks is not None
        self.breaks = breaks if self.has_breaks else self.mask
        self.batch, self.length, self.channels = self.u[0].shape
        self.states = self.A.shape[1]
        self.items = sides * self.batch
        self.constants = setup.constants(self.states)
        self.numbers = (self.batch, self.length, self.layout.visits, self.channels)

    def launch(self, name: str, rows: int, *arguments: Any, **constants: Any) -> None:  # noqa: ANN401
        kernel = getattr(self.setup.kernels, name)
        grid = (self.items * self.layout.blocks, rows)
        with torch.cuda.device_of(self.u[0]):
            kernel[grid](*arguments, **self.constants, HAS_BREAKS=self.has_breaks, **constants)

    def new(self, *shape: int) -> Tensor:
        return self.u[0].new_empty(shape, dtype=torch.float32)

    def new_states(self, rows: int) -> Tensor:
        return self.new(self.items, rows, self.states, self.channels)

    def combine(self, decays: Tensor, ends: Tensor, first: Tensor, *, backwards: bool) -> Tensor:
        """Return the state at the start of every segment, or its gradient behind every one."""
        starts = torch.empty_like(ends)
        numbers = self.states * self.channels
        width = min(32, 1 << (numbers - 1).bit_length())
        grid = (-(-numbers // width), self.items)
        with torch.cuda.device_of(first):
            self.setup.kernels.scan_combine[grid](
                decays, ends, first, starts, self.layout.segments, numbers,
                ROWS=16, WIDTH=width, BACKWARDS=backwards, num_warps=1,
            )  # fmt: skip
        return starts

    def forward(self) -> tuple[list[Tensor], Tensor, Tensor]:
        cut = self.layout
        starts = self.initial
        if cut.segments > 1:
            decays, ends = self.new_states(cut.segments), self.new_states(cut.segments)
            self.launch(
                "scan_ends", cut.segments, *self.u, *self.delta, self.A, self.B, self.bias,
                self.mask, self.breaks, decays, ends, *self.numbers, cut.segment_tiles,
            )  # fmt: skip
            starts = self.combine(decays, ends, self.initial, backwards=False)
        outputs = [torch.empty_like(u) for u in self.u[: self.sides]]
        kept = self.new_states(cut.chunks if self.setup.keep else 0)
        last = torch.empty_like(self.initial)
        self.launch(
            "scan_outputs", cut.segments, *self.u, *self.delta, *self.z, *_both(outputs),
            self.A, self.B, self.C, self.D, self.bias, self.mask, self.breaks, starts, kept, last,
            *self.numbers, cut.segment_tiles, cut.chunks,
            CHUNK_TILES=cut.chunk_tiles, HAS_Z=self.has_z, KEEP=self.setup.keep,
        )  # fmt: skip
        return outputs, kept, last

    def backward(
        self, kept: Tensor, grad_y: Sequence[Tensor], grad_last: Tensor
    ) -> list[Tensor | None]:
        cut = self.layout
        out = _both([x.contiguous() for x in grad_y])
        adjoints = grad_last = grad_last.contiguous()
        if cut.segments > 1:
            decays, ends = self.new_states(cut.segments), self.new_states(cut.segments)
            self.launch(
                "scan_adjoints", cut.segments, *self.delta, *self.z, *out, self.A, self.C,
                self.bias, self.mask, self.breaks, decays, ends, *self.numbers, cut.segment_tiles,
                HAS_Z=self.has_z,
            )  # fmt: skip
            adjoints = self.combine(decays, ends, grad_last, backwards=True)
        marks = kept
        if cut.chunk_tiles > 1:
            marks = self.new_states(cut.tiles)
            self.launch(
                "scan_marks", cut.chunks, *self.u, *self.delta, self.A, self.B, self.bias,
                self.mask, self.breaks, kept, marks, *self.numbers, cut.tiles,
                CHUNK_TILES=cut.chunk_tiles,
            )  # fmt: skip
        grad_u = [torch.empty_like(x) for x in self.u[: self.sides]]
        grad_delta = [torch.empty_like(x) for x in self.delta[: self.sides]]
        grad_z = [torch.empty_like(x) for x in self.z[: self.sides]] if self.has_z else grad_u
        grad_A = self.new_states(cut.segments)
        per_visit = (cut.blocks, self.sides, self.batch)
        grad_B = self.new(*per_visit, self.states, cut.visits)
        grad_C = torch.empty_like(grad_B)
        grad_mask = self.new(*per_visit, cut.visits)
        grad_D = self.new(self.items, cut.segments, self.channels)
        grad_bias = torch.empty_like(grad_D)
        grad_initial = torch.empty_like(self.initial)
        self.launch(
            "scan_gradients", cut.segments, *self.u, *self.delta, *self.z, *out,
            *_both(grad_u), *_both(grad_delta), *_both(grad_z),
            self.A, self.B, self.C, self.D, self.bias, self.mask, self.breaks,
            marks, adjoints, grad_initial, grad_A, grad_B, grad_C, grad_D, grad_bias, grad_mask,
            *self.numbers, cut.segment_tiles, cut.tiles, HAS_Z=self.has_z,
        )  # fmt: skip
        split = (self.sides, self.batch * cut.segments)
        return [
            *(x for pair in zip(grad_u, grad_delta, strict=True) for x in pair),
            *(grad_z if self.has_z else [None] * self.sides),
            grad_A.view(*split, self.states, self.channels).sum(1),
            grad_B.sum(0).to(self.B.dtype),
            grad_C.sum(0).to(self.C.dtype),
            grad_D.view(*split, self.channels).sum(1),
            grad_bias.view(*split, self.channels).sum(1),
            grad_mask.sum(0),
            None,
            grad_initial,
        ]


def _both(tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """The tensors of two sides; one side stands for both."""
    first, last = tensors[0], tensors[-1]
    if first is None or last is None:
        raise ValueError("a side without its tensor")
    return first, last
