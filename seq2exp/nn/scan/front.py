"""The one front door to the selective scan, and the registry of the backends behind it.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, overload

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.nn.numba_use import numba_refuses
from seq2exp.nn.scan.choose import VARIABLE, Choice, Trials, devices_of, wish
from seq2exp.nn.scan.chunked import scan_chunked
from seq2exp.nn.scan.inputs import ScanBackend, ScanInputs, unfused
from seq2exp.nn.scan.mamba_ssm_scan import scan_mamba_ssm
from seq2exp.nn.scan.reference import scan_reference
from seq2exp.nn.scan.triton_scan import scan_triton, scan_triton_pair

__all__ = [
    "ScanBackend",
    "backend_names",
    "backend_states",
    "bidirectional_scan",
    "register_backend",
    "run_scan",
    "selective_scan",
]


def _compiled(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    if reason := numba_refuses():
        raise ConfigError(
            facts(
                "scan backend 'cpu'",
                found=f"that numba cannot be used ({reason})",
                expected="the package numba",
                fix="install numba, or use backend 'torch'",
            )
        )
    from seq2exp.nn.scan.compiled import scan_compiled

    return scan_compiled(inputs)


_BACKENDS: dict[str, ScanBackend] = {
    "torch": unfused(scan_chunked),
    "cpu": _compiled,
    "triton": scan_triton,
    "mamba_ssm": scan_mamba_ssm,
    "reference": unfused(scan_reference),
}
# Backends that take two scans at once; the others run them one after the other.
_PAIRS: dict[str, Callable[[ScanInputs, ScanInputs], tuple[Tensor, Tensor]]] = {
    "triton": scan_triton_pair
}
_TRIALS = Trials(_BACKENDS)


def backend_names() -> tuple[str, ...]:
    """Names that `selective_scan` accepts as `backend`, besides "auto"."""
    return tuple(_BACKENDS)


def register_backend(name: str, backend: ScanBackend) -> None:
    """Add a backend under a new name; a name that is taken raises ConfigError."""
    if name == "auto" or name in _BACKENDS:
        raise ConfigError(
            facts(
                f"scan backend {name!r}",
                found="the name is taken",
                expected="a new name",
                fix="register under another name",
            )
        )
    _BACKENDS[name] = backend


@overload
def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    D_E: Tensor | None = ...,
    z_BLE: Tensor | None = ...,
    delta_bias_E: Tensor | None = ...,
    delta_softplus: bool = ...,
    step_mask_BL: Tensor | None = ...,
    starts_BL: Tensor | None = ...,
    reverse: bool = ...,
    initial_state_BEN: Tensor | None = ...,
    chunk: int | None = ...,
    backend: str = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    D_E: Tensor | None = ...,
    z_BLE: Tensor | None = ...,
    delta_bias_E: Tensor | None = ...,
    delta_softplus: bool = ...,
    step_mask_BL: Tensor | None = ...,
    starts_BL: Tensor | None = ...,
    reverse: bool = ...,
    initial_state_BEN: Tensor | None = ...,
    chunk: int | None = ...,
    backend: str = ...,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    D_E: Tensor | None = None,
    z_BLE: Tensor | None = None,
    delta_bias_E: Tensor | None = None,
    delta_softplus: bool = False,
    step_mask_BL: Tensor | None = None,
    starts_BL: Tensor | None = None,
    reverse: bool = False,
    initial_state_BEN: Tensor | None = None,
    chunk: int | None = None,
    backend: str = "auto",
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective scan over every sequence of a batch.

    ``s_t = exp(d_t A) s_{t-1} + d_t B_t u_t`` and ``y_t = (C_t . s_t + D u_t) silu(z_t)`` with the
    step ``d_t = mask_t softplus(delta_t + bias)``; what is left out of mask, softplus, bias, D and
    z is left out of the formula. Exact for every length, differentiable once in every float
    argument. A step of 0 passes the state through unchanged. Formula: Gu and Dao, arXiv 2312.00752.

    Parameters
    ----------
    u_BLE, delta_BLE : float tensor, shape (batch, length, channels)
        Input and step size, before bias, softplus and mask.
    A_EN : float tensor, shape (channels, states)
        Decay rates, negative for a stable scan.
    B_BLN, C_BLN : float tensor, shape (batch, length, states)
        Input and output projections of each token.
    D_E : float tensor, shape (channels,), optional
        Skip connection.
    z_BLE : float tensor, shape (batch, length, channels), optional
        Gate, before its silu.
    delta_bias_E : float tensor, shape (channels,), optional
        Added to the step size.
    delta_softplus : bool
        Take the softplus of the step size, after the bias.
    step_mask_BL : float tensor, shape (batch, length), optional
        Multiplies the step size, after the softplus.
    starts_BL : bool tensor, shape (batch, length), optional
        True at the first token, in the order of the tensors, of each of several sequences packed
        one behind the other. The state does not cross from one into the next, in either direction;
        `initial_state_BEN` belongs to the sequence that is visited first.
    reverse : bool
        Scan from the last token to the first.
    initial_state_BEN : float tensor, shape (batch, channels, states), optional
        State before the first token visited; zeros when left out.
    chunk : int, optional
        Tokens per chunk for backends that work in chunks; chosen from the shapes when left out.
    backend : str
        "auto" or one of `backend_names()`. "auto" is what the environment variable SEQ2EXP_SCAN
        names, else the compiled backend of the device if it passed its trial, else "torch".
    return_state : bool
        Also return the state after the last token visited.

    Returns
    -------
    y_BLE : tensor of the dtype of `u_BLE`, shape (batch, length, channels)
    state_BEN : float32 or float64 tensor, shape (batch, channels, states)
        Only with `return_state`.

    Raises
    ------
    InputError
        Shapes that do not fit together, or a chunk below one.
    ConfigError
        An unknown backend.

    Notes
    -----
    The state is float32 for half-precision inputs and float64 if any input is float64.
    """
    inputs = ScanInputs.make(
        u_BLE,
        delta_BLE,
        A_EN,
        B_BLN,
        C_BLN,
        initial_state_BEN=initial_state_BEN,
        D_E=D_E,
        z_BLE=z_BLE,
        delta_bias_E=delta_bias_E,
        delta_softplus=delta_softplus,
        step_mask_BL=step_mask_BL,
        starts_BL=starts_BL,
        reverse=reverse,
        chunk=chunk,
    )
    y_BLE, state_BEN = run_scan(inputs, backend=backend)
    return (y_BLE, state_BEN) if return_state else y_BLE


def run_scan(inputs: ScanInputs, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Run a scan whose arguments are already together; as `selective_scan` with `return_state`."""
    _check_shapes(inputs)
    run = _BACKENDS[_find_backend(backend, inputs)]
    with torch.autocast(device_type=inputs.u_BLE.device.type, enabled=False):
        return run(inputs)


def bidirectional_scan(
    forward: ScanInputs, backward: ScanInputs, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Scan one set of inputs from the left and one from the right, in one launch where possible.

    Equals two calls of `selective_scan`. On a GPU a sequence has few channels to share out, and
    one launch for both directions gives the device twice the work at a time.

    Parameters
    ----------
    forward, backward : ScanInputs
        Inputs of the two directions; the direction is that of the argument, whatever `reverse` is.
    backend : str
        "auto" or one of `backend_names()`; one backend for both.

    Returns
    -------
    y_forward_BLE, y_backward_BLE : tensors of the dtypes of the two u, shape as u
    """
    sides = replace(forward, reverse=False), replace(backward, reverse=True)
    for inputs in sides:
        _check_shapes(inputs)
    name = _find_backend(backend, sides[0])
    with torch.autocast(device_type=sides[0].u_BLE.device.type, enabled=False):
        if name in _PAIRS:
            return _PAIRS[name](*sides)
        run = _BACKENDS[name]
        return run(sides[0])[0], run(sides[1])[0]


def backend_states(device: torch.device) -> tuple[dict[str, str | None], Choice]:
    """Try every backend that is made for a device there, with float32 inputs.

    Returns
    -------
    failures : dict
        For each backend why it cannot be used there, None if it can.
    choice : Choice
        What "auto" takes there, the environment variable not counted.
    """
    names = [name for name in _BACKENDS if device.type in devices_of(name)]
    failures = {name: _TRIALS.failure(name, device, torch.float32) for name in names}
    return failures, _TRIALS.explain(device, torch.float32, torch.float32)


def _find_backend(name: str, inputs: ScanInputs) -> str:
    place = "scan backend"
    if name == "auto":
        name, place = wish(), f"environment variable {VARIABLE}"
    if name == "auto":
        return _TRIALS.choose(inputs)
    if name in _BACKENDS:
        return name
    near = difflib.get_close_matches(name, _BACKENDS, n=1)
    raise ConfigError(
        facts(
            place,
            found=repr(name),
            expected="one of auto, " + ", ".join(_BACKENDS),
            fix=f"use {near[0]!r}" if near else "use 'auto'",
        )
    )


def _check_shapes(inputs: ScanInputs) -> None:
    u_BLE, A_EN, chunk = inputs.u_BLE, inputs.A_EN, inputs.chunk
    if u_BLE.ndim != 3 or A_EN.ndim != 2:
        raise _shape_error("u and A", (tuple(u_BLE.shape), tuple(A_EN.shape)), "(B, L, E), (E, N)")
    batch, length, channels = u_BLE.shape
    states = A_EN.shape[1]
    wanted = {
        "delta": (inputs.delta_BLE, (batch, length, channels)),
        "A": (A_EN, (channels, states)),
        "B": (inputs.B_BLN, (batch, length, states)),
        "C": (inputs.C_BLN, (batch, length, states)),
        "D": (inputs.D_E, (channels,)),
        "z": (inputs.z_BLE, (batch, length, channels)),
        "delta_bias": (inputs.delta_bias_E, (channels,)),
        "step_mask": (inputs.step_mask_BL, (batch, length)),
        "starts": (inputs.starts_BL, (batch, length)),
        "initial_state": (inputs.initial_state_BEN, (batch, channels, states)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise _shape_error(name, tuple(tensor.shape), str(shape))
    if chunk is not None and chunk < 1:
        raise InputError(
            facts("scan chunk", found=str(chunk), expected="at least 1", fix="leave it out")
        )


def _shape_error(name: str, found: object, expected: str) -> InputError:
    return InputError(
        facts(
            f"selective scan, shape of {name}",
            found=str(found),
            expected=expected,
            fix="give all arguments the same batch, length, channels and states",
        )
    )
