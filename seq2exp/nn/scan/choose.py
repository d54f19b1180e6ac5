"""Which backend "auto" takes: what the user named, else the fastest that is right on this device.

A backend is trusted after a trial: a small scan with every option, forward and backward, whose
numbers are compared with those of the loop over tokens. Trials run once per process, backend,
device and dtype; a trial that fails leaves its reason and costs nothing but speed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import Seq2ExpError
from seq2exp.nn.scan.inputs import ScanBackend, ScanInputs, unfused
from seq2exp.nn.scan.reference import scan_reference

__all__ = [
    "FALLBACK",
    "VARIABLE",
    "Choice",
    "Trials",
    "candidates",
    "devices_of",
    "try_backend",
    "wish",
]

VARIABLE = "SEQ2EXP_SCAN"
FALLBACK = "torch"
# Compiled backends in the order in which they are tried; all of them keep a float32 state.
_COMPILED = {"cuda": ("triton",), "cpu": ("cpu",)}
# Where the backends run that do not run everywhere.
_DEVICES = {"cpu": ("cpu",), "triton": ("cuda",), "mamba_ssm": ("cuda",)}
# Backends without initial states and packed sequences; never taken by "auto".
_PLAIN = ("mamba_ssm",)
# Largest error allowed, relative to the largest number of the same tensor.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
# A length and numbers of channels and states that no block divides.
_LENGTH, _CHANNELS, _STATES = 37, 5, 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A backend and why it was taken."""

    backend: str
    reason: str


def wish() -> str:
    """Return the backend that the environment variable SEQ2EXP_SCAN names, "auto" without it."""
    return os.environ.get(VARIABLE, "").strip() or "auto"


def candidates(device_type: str, dtype: torch.dtype) -> tuple[str, ...]:
    """Compiled backends to try for a device type and the dtype of the arithmetic."""
    return _COMPILED.get(device_type, ()) if dtype == torch.float32 else ()


def devices_of(name: str) -> tuple[str, ...]:
    """Return the device types that a backend is made for."""
    return _DEVICES.get(name, ("cpu", "cuda"))


class Trials:
    """Trials and choices of one process.

    Parameters
    ----------
    backends : mapping
        The registry; read when a choice is made, so that later registrations count.
    """

    def __init__(self, backends: Mapping[str, ScanBackend]) -> None:
        self._backends = backends
        self._results: dict[tuple[str, torch.device, torch.dtype], str | None] = {}
        self._choices: dict[tuple[torch.device, torch.dtype, torch.dtype], Choice] = {}

    def failure(self, name: str, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why a backend cannot be used for inputs of a device and dtype; None if it can."""
        key = (name, device, dtype)
        if key not in self._results:
            full = name not in _PLAIN
            self._results[key] = try_backend(self._backends[name], device, dtype, full=full)
        return self._results[key]

    def choose(self, inputs: ScanInputs) -> str:
        """Return the backend for some inputs; the first choice of a kind is logged."""
        device, dtype = inputs.u_BLE.device, inputs.u_BLE.dtype
        key = (device, dtype, inputs.compute_dtype())
        if key not in self._choices:
            self._choices[key] = choice = self.explain(*key)
            logger.info(
                "selective scan on %s, %s: backend %s (%s)",
                device, str(dtype).removeprefix("torch."), choice.backend, choice.reason,
            )  # fmt: skip
        return self._choices[key].backend

    def explain(
        self, device: torch.device, dtype: torch.dtype, compute_dtype: torch.dtype
    ) -> Choice:
        """Choose for a device, the dtype of the inputs and that of the arithmetic."""
        reasons = []
        for name in candidates(device.type, compute_dtype):
            reason = self.failure(name, device, dtype)
            if reason is None:
                return Choice(name, "passed its trial")
            reasons.append(f"not {name}: {reason}")
        return Choice(FALLBACK, "; ".join(reasons) or f"no compiled backend for {compute_dtype}")


def try_backend(
    run: ScanBackend, device: torch.device, dtype: torch.dtype, *, full: bool = True
) -> str | None:
    """Run a small scan both ways and compare; return why the backend is unusable, else None.

    With `full` the scan has an initial state and packed sequences besides all other options.

    Every exception counts as a failure: a missing package, a driver that is too old and a
    compiler that gives up all mean that another backend must do the work.
    """
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            for reverse in (False, True):
                if reason := _compare(run, _example(device, dtype, reverse=reverse, full=full)):
                    return reason
    except Seq2ExpError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  see the docstring
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return None


def _compare(run: ScanBackend, inputs: ScanInputs) -> str | None:
    exact = _as_leaves(inputs.cast(torch.float32), _leaves(inputs))
    names = ("y", "last state", *(f"gradient of {name}" for name in _leaves(inputs)))
    found, wanted = _numbers(run, inputs), _numbers(unfused(scan_reference), exact)
    limit = _TOLERANCE.get(inputs.u_BLE.dtype, 1e-4)
    for name, ours, theirs in zip(names, found, wanted, strict=True):
        error = (ours.float() - theirs.float()).abs().max() / theirs.abs().max()
        if not error.item() <= limit:
            return f"its {name} is wrong by {error.item():.1e} of the largest value"
    return None


def _numbers(run: ScanBackend, inputs: ScanInputs) -> list[Tensor]:
    y_BLE, state_BEN = run(inputs)
    leaves = list(_leaves(inputs).values())
    total = (y_BLE.float().square().sum() + state_BEN.float().square().sum()) / 2
    grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [y_BLE.detach(), state_BEN.detach(), *grads]


def _example(device: torch.device, dtype: torch.dtype, *, reverse: bool, full: bool) -> ScanInputs:
    """One sequence of numbers that needs no random generator, as the inputs of a scan."""

    def waves(*shape: int, scale: float = 1.0) -> Tensor:
        count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        return (scale * torch.sin(1.7 * count + len(shape))).view(shape).to(device)

    tokens, rows = (2, _LENGTH, _CHANNELS), (2, _LENGTH, _STATES)
    inputs = ScanInputs(
        waves(*tokens).to(dtype),
        waves(*tokens).to(dtype),
        (-waves(_CHANNELS, _STATES).exp()).float(),
        waves(*rows).to(dtype),
        waves(*rows, scale=0.7).to(dtype),
        torch.zeros(2, _CHANNELS, _STATES, device=device),
        D_E=waves(_CHANNELS).float(),
        z_BLE=waves(*tokens, scale=0.9).to(dtype),
        delta_bias_E=waves(_CHANNELS, scale=0.5).float(),
        delta_softplus=True,
        step_mask_BL=waves(2, _LENGTH).square().float(),
        reverse=reverse,
        chunk=16,
    )
    if not full:
        return _as_leaves(inputs, _leaves(inputs, floats=True).keys() - {"initial_state_BEN"})
    starts_BL = torch.zeros(2, _LENGTH, dtype=torch.bool, device=device)
    starts_BL[:, 0], starts_BL[0, 11], starts_BL[1, 30] = True, True, True
    inputs = replace(
        inputs, starts_BL=starts_BL, initial_state_BEN=waves(2, _CHANNELS, _STATES).float()
    )
    return _as_leaves(inputs, _leaves(inputs, floats=True))


def _leaves(inputs: ScanInputs, *, floats: bool = False) -> dict[str, Tensor]:
    """Tensors that need a gradient, by name; with `floats` all that could have one."""
    pairs = [(item.name, getattr(inputs, item.name)) for item in fields(inputs)]
    tensors = {key: value for key, value in pairs if isinstance(value, Tensor)}
    return {
        k: x for k, x in tensors.items() if x.requires_grad or (floats and x.is_floating_point())
    }


def _as_leaves(inputs: ScanInputs, names: Iterable[str]) -> ScanInputs:
    changes: dict[str, Any] = {k: getattr(inputs, k).detach().requires_grad_() for k in names}
    return replace(inputs, **changes)
