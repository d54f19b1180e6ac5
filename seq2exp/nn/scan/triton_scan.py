"""The selective scan of CUDA devices: Triton kernels with a hand-written backward.

One launch takes one scan or two scans of equal shapes, for example the two directions of a
bidirectional layer. The forward keeps the state at the start of every chunk; the backward makes
the states of a chunk again. Float32 state for half and single precision inputs. Sums over channels
and over tokens are partial sums reduced in a fixed order, so two runs give the same bits.

Shapes: S sides (scans of one launch), B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.scan.chunked import scan_chunked
from seq2exp.nn.scan.inputs import ScanInputs, unfused

__all__ = ["REGISTERS", "Layout", "group_states", "lay_out", "scan_triton", "scan_triton_pair"]

_TILE = 16
_CHUNK = 64
_WIDEST = 32
_GROUP = 4
# Twice the programs of one warp that fit on a multiprocessor at 128 registers per thread.
_PROGRAMS_PER_PROCESSOR = 32
_GRID = 65_535  # most programs along the second axis of a CUDA grid
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Most registers per thread. At 128 the compiler spills next to nothing in the innermost loops, and
# 16 warps fit on a multiprocessor; the kernel of the gradients needs all there are.
REGISTERS = {
    "scan_ends": 128,
    "scan_outputs": 128,
    "scan_marks": 128,
    "scan_adjoints": 128,
    "scan_gradients": None,
}


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
    width = min(_WIDEST, _power_of_two(max(1, channels)))
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


def group_states(num_states: int) -> dict[str, int]:
    """Return how the kernels cut the states of a channel: states in whole groups, groups, group."""
    group = min(_GROUP, _power_of_two(num_states))
    groups = -(-num_states // group)
    return {"STATES": groups * group, "GROUPS": _power_of_two(groups), "GROUP": group}


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
    """Return what two scans must have in common to share a launch."""
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


def _kernels() -> Any:  # noqa: ANN401  modules without types
    try:
        from seq2exp.nn.scan.triton_backward import scan_adjoints, scan_gradients
        from seq2exp.nn.scan.triton_forward import scan_combine, scan_ends, scan_marks, scan_outputs
    except ImportError as error:
        raise ConfigError(
            facts(
                "scan backend 'triton'",
                found=f"that triton cannot be used ({error})",
                expected="the package triton (Linux)",
                fix="pip install \"seq2exp[triton]\" -c constraints.txt, or use backend 'torch'",
            )
        ) from error
    kernels = (scan_adjoints, scan_combine, scan_ends, scan_gradients, scan_marks, scan_outputs)
    return SimpleNamespace(**{kernel.__name__: kernel for kernel in kernels})


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
    states = head.A_EN.shape[1]
    if not head.u_BLE.numel() or not states:
        return [unfused(scan_chunked)(x) for x in scans]  # nothing to launch
    layout = lay_out(
        length,
        channels,
        sequences=batch * len(scans),
        programs=_programs(head.u_BLE.device),
        chunk=head.chunk,
    )
    groups = group_states(states)
    tensors = (
        *(x.contiguous() for s in scans for x in (s.u_BLE, s.delta_BLE)),
        *(None if s.z_BLE is None else s.z_BLE.contiguous() for s in scans),
        *_Stack(scans, visits=layout.visits, states=groups["STATES"]).all(),
    )
    setup = _Setup(
        kernels,
        layout,
        groups,
        reverse=sum(bool(x.reverse) << i for i, x in enumerate(scans)),
        softplus=head.delta_softplus,
        keep=torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors),
    )
    apply: Callable[..., tuple[Tensor, ...]] = _TritonScan.apply
    *outputs, last_SBNE = apply(setup, len(scans), *tensors)
    return [(y, last_SBNE[i, :, :states].transpose(1, 2)) for i, y in enumerate(outputs)]


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


@dataclass(frozen=True)
class _Stack:
    """The small arrays of all sides, stacked: float32, states padded to whole groups.

    Arrays per token lie in visiting order, with zeros behind the last token.
    """

    scans: Sequence[ScanInputs]
    visits: int
    states: int

    def all(self) -> tuple[Tensor | None, ...]:
        """Return A, B, C, D, bias, mask, breaks and initial state."""
        scans = self.scans
        batch, length, channels = scans[0].u_BLE.shape
        breaks = [x.breaks_BL() for x in scans]
        return (
            self._padded([x.A_EN.t().float() for x in scans]),
            self._padded([self._visited(x, x.B_BLN.transpose(1, 2)) for x in scans]),
            self._padded([self._visited(x, x.C_BLN.transpose(1, 2)) for x in scans]),
            torch.stack([self._float(x.D_E, (channels,), 0.0) for x in scans]),
            torch.stack([self._float(x.delta_bias_E, (channels,), 0.0) for x in scans]),
            torch.stack(
                [self._visited(x, self._float(x.step_mask_BL, (batch, length), 1.0)) for x in scans]
            ),
            None
            if breaks[0] is None
            else torch.stack(
                [self._visited(x, b.to(torch.int8)) for x, b in zip(scans, breaks, strict=True)
                 if b is not None]
            ),
            self._padded([x.initial_state_BEN.transpose(1, 2).float() for x in scans]),
        )  # fmt: skip

    def _float(self, tensor: Tensor | None, shape: tuple[int, ...], value: float) -> Tensor:
        u_BLE = self.scans[0].u_BLE
        full = u_BLE.new_full(shape, value, dtype=torch.float32)
        return full if tensor is None else tensor.float()

    def _visited(self, inputs: ScanInputs, tensor: Tensor) -> Tensor:
        tensor = tensor.flip(-1) if inputs.reverse else tensor
        return F.pad(tensor, (0, self.visits - tensor.shape[-1]))

    def _padded(self, tensors: list[Tensor]) -> Tensor:
        """Stack arrays whose axis before the last is that of the states."""
        stacked = torch.stack(tensors)
        return F.pad(stacked, (0, 0, 0, self.states - stacked.shape[-2])).contiguous()


@dataclass(frozen=True)
class _Setup:
    """What the kernels of one launch are compiled and cut for."""

    kernels: Any
    layout: Layout
    groups: dict[str, int]
    reverse: int
    softplus: bool
    keep: bool


class _TritonScan(torch.autograd.Function):
    """Takes u and delta of every side, the gates of every side, then `_Stack.all`."""

    @staticmethod
    def forward(ctx: Any, setup: _Setup, sides: int, *tensors: Tensor | None) -> Any:  # noqa: ANN401
        *outputs, kept, last_SBNE = _Launch(setup, sides, tensors).forward()
        ctx.setup, ctx.sides = setup, sides
        ctx.save_for_backward(*tensors, kept)
        return (*outputs, last_SBNE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        *tensors, kept = ctx.saved_tensors
        *grad_y, grad_last_SBNE = (x.contiguous() for x in grads)
        launch = _Launch(ctx.setup, ctx.sides, tensors)
        return (None, None, *launch.backward(kept, grad_y, grad_last_SBNE))


class _Launch:
    """The tensors of one call and the order of its kernels."""

    def __init__(self, setup: _Setup, sides: int, tensors: Sequence[Any]) -> None:
        self.setup, self.layout, self.sides = setup, setup.layout, sides
        self.u, self.delta = tensors[0 : 2 * sides : 2], tensors[1 : 2 * sides : 2]
        self.z = tensors[2 * sides : 3 * sides]
        self.A, self.B, self.C, self.D, self.bias, self.mask, breaks, initial = tensors[3 * sides :]
        self.initial: Tensor = initial
        self.has_z, has_breaks = self.z[0] is not None, breaks is not None
        self.z = self.z if self.has_z else self.u  # a pointer that is not read
        self.small = (self.bias, self.mask, breaks if has_breaks else self.mask)
        self.batch, self.length, self.channels = self.u[0].shape
        self.states: int = self.A.shape[1]
        self.items = sides * self.batch
        self.numbers = (self.batch, self.length, self.layout.visits, self.channels)
        self.constants = {
            **setup.groups,
            "TILE": self.layout.tile,
            "WIDTH": self.layout.width,
            "REVERSE": setup.reverse,
            "SOFTPLUS": setup.softplus,
            "HAS_BREAKS": has_breaks,
            "num_warps": 1,
        }

    def launch(self, name: str, rows: int, *arguments: Any, **constants: Any) -> None:  # noqa: ANN401
        """Run a kernel for every block of channels, sequence and one of `rows` parts of it."""
        kernel = getattr(self.setup.kernels, name)
        with _on(self.initial):
            kernel[(self.items * self.layout.blocks, rows)](
                *arguments, **self.constants, **constants, maxnreg=REGISTERS[name]
            )

    def new(self, *shape: int) -> Tensor:
        return self.initial.new_empty(shape)

    def new_states(self, rows: int) -> Tensor:
        return self.new(self.items, rows, self.states, self.channels)

    def combine(self, totals: Tensor, ends: Tensor, first: Tensor, *, against: bool) -> Tensor:
        """Return the state before every segment, or its gradient behind every segment."""
        starts, numbers = torch.empty_like(ends), self.states * self.channels
        width = min(_WIDEST, _power_of_two(numbers))
        with _on(first):
            self.setup.kernels.scan_combine[(-(-numbers // width), self.items)](
                totals, ends, first, starts, self.layout.segments, numbers,
                ROWS=_TILE, WIDTH=width, AGAINST=against, num_warps=1,
            )  # fmt: skip
        return starts

    def forward(self) -> tuple[Tensor, ...]:
        """Return y of every side, the kept states and the last states."""
        cut, starts = self.layout, self.initial
        if cut.segments > 1:
            totals, ends = self.new_states(cut.segments), self.new_states(cut.segments)
            self.launch(
                "scan_ends", cut.segments, *_both(self.u), *_both(self.delta), self.A, self.B,
                *self.small, totals, ends, *self.numbers, cut.segment_tiles,
            )  # fmt: skip
            starts = self.combine(totals, ends, self.initial, against=False)
        outputs = [torch.empty_like(u) for u in self.u]
        kept = self.new_states(cut.chunks if self.setup.keep else 0)
        last = torch.empty_like(self.initial)
        self.launch(
            "scan_outputs", cut.segments, *_both(self.u), *_both(self.delta), *_both(self.z),
            *_both(outputs), self.A, self.B, self.C, self.D, *self.small, starts, kept, last,
            *self.numbers, cut.segment_tiles, CHUNK_TILES=cut.chunk_tiles, HAS_Z=self.has_z,
            KEEP=self.setup.keep,
        )  # fmt: skip
        return (*outputs, kept, last)

    def backward(
        self, kept: Tensor, grad_y: Sequence[Tensor], grad_last: Tensor
    ) -> list[Tensor | None]:
        """Return the gradients of all tensors, in the order in which they came."""
        cut, adjoints = self.layout, grad_last
        if cut.segments > 1:
            totals, ends = self.new_states(cut.segments), self.new_states(cut.segments)
            self.launch(
                "scan_adjoints", cut.segments, *_both(self.delta), *_both(self.z), *_both(grad_y),
                self.A, self.C, *self.small, totals, ends, *self.numbers, cut.segment_tiles,
                HAS_Z=self.has_z,
            )  # fmt: skip
            adjoints = self.combine(totals, ends, grad_last, against=True)
        marks = kept if cut.chunk_tiles == 1 else self.new_states(cut.tiles)
        if cut.chunk_tiles > 1:
            self.launch(
                "scan_marks", cut.chunks, *_both(self.u), *_both(self.delta), self.A, self.B,
                *self.small, kept, marks, *self.numbers, CHUNK_TILES=cut.chunk_tiles,
            )  # fmt: skip
        grad_u = [torch.empty_like(x) for x in self.u]
        grad_delta = [torch.empty_like(x) for x in self.delta]
        grad_z = [torch.empty_like(x) for x in self.z] if self.has_z else grad_u
        grad_A = self.new_states(cut.segments)
        grad_B = self.new(cut.blocks, *self.B.shape)
        grad_C, grad_mask = torch.empty_like(grad_B), self.new(cut.blocks, *self.mask.shape)
        grad_D = self.new(self.items, cut.segments, self.channels)
        grad_bias, grad_initial = torch.empty_like(grad_D), torch.empty_like(self.initial)
        self.launch(
            "scan_gradients", cut.segments, *_both(self.u), *_both(self.delta), *_both(self.z),
            *_both(grad_y), *_both(grad_u), *_both(grad_delta), *_both(grad_z),
            self.A, self.B, self.C, self.D, *self.small, marks, adjoints, grad_initial,
            grad_A, grad_B, grad_C, grad_D, grad_bias, grad_mask,
            *self.numbers, cut.segment_tiles, HAS_Z=self.has_z,
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


def _both(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the tensors of two sides; a single side stands for both."""
    return tensors[0], tensors[-1]


def _on(tensor: Tensor) -> AbstractContextManager[None]:
    """Make the device of a tensor the current one, to which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
