"""What a backend of the selective scan gets, and the parts that not every backend fuses.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TILE", "Core", "ScanBackend", "ScanInputs", "unfused"]

TILE = 64
"""Tokens between two states that the compiled backends keep for the backward."""


@dataclass(frozen=True)
class ScanInputs:
    """One selective scan; see `seq2exp.nn.scan.selective_scan` for shapes and meaning."""

    u_BLE: Tensor
    delta_BLE: Tensor
    A_EN: Tensor
    B_BLN: Tensor
    C_BLN: Tensor
    initial_state_BEN: Tensor
    D_E: Tensor | None = None
    z_BLE: Tensor | None = None
    delta_bias_E: Tensor | None = None
    delta_softplus: bool = False
    step_mask_BL: Tensor | None = None
    starts_BL: Tensor | None = None
    reverse: bool = False
    chunk: int | None = None

    @classmethod
    def make(
        cls,
        u_BLE: Tensor,
        delta_BLE: Tensor,
        A_EN: Tensor,
        B_BLN: Tensor,
        C_BLN: Tensor,
        *,
        initial_state_BEN: Tensor | None = None,
        **options: Any,  # noqa: ANN401
    ) -> ScanInputs:
        """Make inputs whose first state is zero where it is left out."""
        if initial_state_BEN is None:
            dtype = torch.promote_types(u_BLE.dtype, torch.float32)
            initial_state_BEN = u_BLE.new_zeros((u_BLE.shape[0], *A_EN.shape), dtype=dtype)
        return cls(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, initial_state_BEN, **options)

    def compute_dtype(self) -> torch.dtype:
        """Dtype of the state: float32, or float64 if any input is float64."""
        dtype = torch.float32
        for tensor in (self.u_BLE, self.delta_BLE, self.A_EN):
            dtype = torch.promote_types(dtype, tensor.dtype)
        return dtype

    def cast(self, dtype: torch.dtype) -> ScanInputs:
        """Return the same scan with every float tensor in one dtype."""
        changes: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                changes[item.name] = value.to(dtype)
        return replace(self, **changes)

    def step_BLE(self) -> Tensor:
        """Step sizes after bias, softplus and mask."""
        step_BLE = self.delta_BLE
        if self.delta_bias_E is not None:
            step_BLE = step_BLE + self.delta_bias_E
        if self.delta_softplus:
            step_BLE = F.softplus(step_BLE)
        if self.step_mask_BL is not None:
            step_BLE = step_BLE * self.step_mask_BL[..., None]
        return step_BLE

    def breaks_BL(self) -> Tensor | None:
        """Bool, true at tokens before whose visit the state is dropped; None without `starts_BL`.

        The first token visited keeps the initial state. Against the order, a sequence is entered at
        its last token, which lies before the start of the next one.
        """
        if self.starts_BL is None:
            return None
        breaks_BL = torch.zeros_like(self.starts_BL, dtype=torch.bool)
        if self.reverse:
            breaks_BL[:, :-1] = self.starts_BL[:, 1:]
        else:
            breaks_BL[:, 1:] = self.starts_BL[:, 1:]
        return breaks_BL

    def finish(self, y_BLE: Tensor) -> Tensor:
        """Add the skip connection and apply the gate."""
        if self.D_E is not None:
            y_BLE = torch.addcmul(y_BLE, self.u_BLE, self.D_E)
        return y_BLE if self.z_BLE is None else y_BLE * F.silu(self.z_BLE)


ScanBackend = Callable[[ScanInputs], tuple[Tensor, Tensor]]
"""Takes inputs as the caller gave them; returns y (batch, length, channels) in the dtype of u, and
the last state (batch, channels, states) in the compute dtype."""

Core = Callable[..., tuple[Tensor, Tensor]]
"""The bare recurrence: takes u, delta, A, B and C of one dtype, and by keyword initial_state_BEN,
breaks_BL, reverse and chunk."""


def unfused(core: Core) -> ScanBackend:
    """Make a backend of a bare recurrence: casts, step sizes, skip and gate in plain torch."""

    def run(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        cast = inputs.cast(inputs.compute_dtype())
        y_BLE, state_BEN = core(
            cast.u_BLE,
            cast.step_BLE(),
            cast.A_EN,
            cast.B_BLN,
            cast.C_BLN,
            initial_state_BEN=cast.initial_state_BEN,
            breaks_BL=cast.breaks_BL(),
            reverse=cast.reverse,
            chunk=cast.chunk,
        )
        return cast.finish(y_BLE).to(inputs.u_BLE.dtype), state_BEN

    return run
