"""The one front door to the selective scan, and the registry of the backends behind it.

Shapes: B batch, L positions, E channels, N states per channel.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, Protocol, overload

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.nn.scan.chunked import scan_chunked
from seq2exp.nn.scan.reference import scan_reference

__all__ = ["ScanBackend", "backend_names", "register_backend", "selective_scan"]


class ScanBackend(Protocol):
    """What a backend computes; see `selective_scan` for the shapes."""

    def __call__(
        self,
        u_BLE: Tensor,
        delta_BLE: Tensor,
        A_EN: Tensor,
        B_BLN: Tensor,
        C_BLN: Tensor,
        *,
        initial_state_BEN: Tensor,
        reverse: bool,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs (batch, length, channels) and the last state."""
        ...


def _per_token(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    *,
    initial_state_BEN: Tensor,
    reverse: bool,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    del chunk  # a loop over tokens has no chunks
    return scan_reference(
        u_BLE,
        delta_BLE,
        A_EN,
        B_BLN,
        C_BLN,
        initial_state_BEN=initial_state_BEN,
        reverse=reverse,
    )


def _compiled(*tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    try:
        from seq2exp.nn.scan.compiled import scan_compiled
    except ImportError as error:
        raise ConfigError(
            facts(
                "scan backend 'cpu'",
                found=f"that numba cannot be used ({error})",
                expected="the package numba",
                fix="install numba, or use backend 'torch'",
            )
        ) from error
    return scan_compiled(*tensors, **options)


_BACKENDS: dict[str, ScanBackend] = {
    "torch": scan_chunked,
    "cpu": _compiled,
    "reference": _per_token,
}
_AUTO = "torch"


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
    reverse: bool = False,
    initial_state_BEN: Tensor | None = None,
    chunk: int | None = None,
    backend: str = "auto",
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective scan over every sequence of a batch.

    ``s_t = exp(delta_t A) s_{t-1} + delta_t B_t u_t`` and ``y_t = C_t . s_t + D u_t``. Exact
    for every length, differentiable once in every tensor argument. ``delta_t = 0`` passes the
    state through unchanged. Formula: Gu and Dao, arXiv 2312.00752.

    Parameters
    ----------
    u_BLE, delta_BLE : float tensor, shape (batch, length, channels)
        Input and step size (after the softplus).
    A_EN : float tensor, shape (channels, states)
        Decay rates, negative for a stable scan.
    B_BLN, C_BLN : float tensor, shape (batch, length, states)
        Input and output projections of each token.
    D_E : float tensor, shape (channels,), optional
        Skip connection.
    reverse : bool
        Scan from the last token to the first.
    initial_state_BEN : float tensor, shape (batch, channels, states), optional
        State before the first token visited; zeros when left out.
    chunk : int, optional
        Tokens per chunk for backends that work in chunks; chosen from the shapes when left out.
    backend : str
        "auto" or one of `backend_names()`.
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
    _check_shapes(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, initial_state_BEN, chunk)
    run = _find_backend(backend)
    dtype = torch.float32
    for tensor in (u_BLE, delta_BLE, A_EN):
        dtype = torch.promote_types(dtype, tensor.dtype)
    with torch.autocast(device_type=u_BLE.device.type, enabled=False):
        u_compute_BLE = u_BLE.to(dtype)
        if initial_state_BEN is None:
            initial_state_BEN = u_compute_BLE.new_zeros((u_BLE.shape[0], *A_EN.shape))
        y_BLE, state_BEN = run(
            u_compute_BLE,
            delta_BLE.to(dtype),
            A_EN.to(dtype),
            B_BLN.to(dtype),
            C_BLN.to(dtype),
            initial_state_BEN=initial_state_BEN.to(dtype),
            reverse=reverse,
            chunk=chunk,
        )
        if D_E is not None:
            y_BLE = torch.addcmul(y_BLE, u_compute_BLE, D_E.to(dtype))
        y_BLE = y_BLE.to(u_BLE.dtype)
    return (y_BLE, state_BEN) if return_state else y_BLE


def _find_backend(name: str) -> ScanBackend:
    key = _AUTO if name == "auto" else name
    if key in _BACKENDS:
        return _BACKENDS[key]
    near = difflib.get_close_matches(name, _BACKENDS, n=1)
    raise ConfigError(
        facts(
            "scan backend",
            found=repr(name),
            expected="one of auto, " + ", ".join(_BACKENDS),
            fix=f"use {near[0]!r}" if near else "use 'auto'",
        )
    )


def _check_shapes(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_E: Tensor | None,
    initial_state_BEN: Tensor | None,
    chunk: int | None,
) -> None:
    if u_BLE.ndim != 3 or A_EN.ndim != 2:
        raise _shape_error("u and A", (tuple(u_BLE.shape), tuple(A_EN.shape)), "(B, L, E), (E, N)")
    batch, length, num_channels = u_BLE.shape
    num_states = A_EN.shape[1]
    wanted = {
        "delta": (delta_BLE, (batch, length, num_channels)),
        "A": (A_EN, (num_channels, num_states)),
        "B": (B_BLN, (batch, length, num_states)),
        "C": (C_BLN, (batch, length, num_states)),
        "D": (D_E, (num_channels,)),
        "initial_state": (initial_state_BEN, (batch, num_channels, num_states)),
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
