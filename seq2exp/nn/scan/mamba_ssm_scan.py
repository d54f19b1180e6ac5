"""The CUDA kernels of the package mamba_ssm behind our front door, for comparison.

Taken only when it is asked for by name. The package needs a CUDA compiler to install; it has no
initial state and no boundaries between packed sequences.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.scan.inputs import ScanInputs

__all__ = ["scan_mamba_ssm"]


def scan_mamba_ssm(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Run the selective scan of mamba_ssm; see `seq2exp.nn.scan.selective_scan`.

    Channels first and one dtype for everything per token, as its ``selective_scan_fn`` wants; a
    step mask is applied here, after a softplus in torch. The reverse direction turns the order of
    the inputs.

    Raises
    ------
    ConfigError
        The package is missing, or the scan has an initial state or several sequences in a row.
    """
    function = _find_function()
    _check(inputs)
    dtype = torch.promote_types(inputs.u_BLE.dtype, inputs.delta_BLE.dtype)
    fused = inputs.step_mask_BL is None
    delta_BLE = inputs.delta_BLE if fused else inputs.step_BLE()
    bias_E = inputs.delta_bias_E if fused else None

    def channels_first(tensor: Tensor) -> Tensor:
        tensor = tensor.flip(1) if inputs.reverse else tensor
        return tensor.to(dtype).transpose(1, 2).contiguous()

    y_BEL, state_BEN = function(
        channels_first(inputs.u_BLE),
        channels_first(delta_BLE),
        inputs.A_EN.float().contiguous(),
        channels_first(inputs.B_BLN),
        channels_first(inputs.C_BLN),
        D=None if inputs.D_E is None else inputs.D_E.float().contiguous(),
        z=None if inputs.z_BLE is None else channels_first(inputs.z_BLE),
        delta_bias=None if bias_E is None else bias_E.float().contiguous(),
        delta_softplus=inputs.delta_softplus and fused,
        return_last_state=True,
    )
    y_BLE = y_BEL.transpose(1, 2)
    y_BLE = y_BLE.flip(1) if inputs.reverse else y_BLE
    return y_BLE.to(inputs.u_BLE.dtype), state_BEN.float()


def _find_function() -> Callable[..., Any]:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ConfigError(
            facts(
                "scan backend 'mamba_ssm'",
                found=f"that mamba_ssm cannot be imported ({reason[0] if reason else error!r})",
                expected="the package mamba-ssm with its CUDA part",
                fix="install mamba-ssm where nvcc is (docs/gpu.md), or use backend 'auto'",
            )
        ) from error
    found: Callable[..., Any] = selective_scan_fn
    return found


def _check(inputs: ScanInputs) -> None:
    found = None
    if inputs.compute_dtype() != torch.float32:
        found = "float64 inputs"
    elif inputs.starts_BL is not None:
        found = "several sequences packed one behind the other"
    elif inputs.initial_state_BEN.requires_grad or inputs.initial_state_BEN.any():
        found = "an initial state"
    if found:
        raise ConfigError(
            facts(
                "scan backend 'mamba_ssm'",
                found=found,
                expected="float32 or half precision, one sequence per row, a start of zero",
                fix="use backend 'auto'",
            )
        )
