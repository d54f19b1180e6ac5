"""The registry of encoders, and the protocol they share.

Shapes: B batch, N positions (bins of bin_size bp), D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts

__all__ = ["Encoder", "build_encoder", "encoder_names", "register_encoder"]


class Encoder(Protocol):
    """Mixes embedded positions: ``encoder(hidden_BND, mask_BN) -> hidden_BND``.

    Attributes
    ----------
    out_dim : int
        Width of the output.
    causal : bool
        Whether a position sees only what lies left of it.
    supports_gate : bool
        Whether `mask_BN` gates the mixing itself, so that a position with mask 0 has no
        influence on the others.
    """

    out_dim: int
    causal: bool
    supports_gate: bool

    def __call__(self, hidden_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Hidden states of every position, shape (batch, positions, out_dim)."""
        ...


_ENCODERS: dict[str, Callable[..., nn.Module]] = {}


def register_encoder(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator that enters an encoder under `name`."""

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        _ENCODERS[name] = cls
        return cls

    return enter


def encoder_names() -> tuple[str, ...]:
    """List the registered names."""
    return tuple(_ENCODERS)


def build_encoder(name: str, params: dict[str, Any]) -> nn.Module:
    """Make an encoder by its registry name.

    Raises
    ------
    ConfigError
        Unknown name; the message has the nearest match.
    """
    if name not in _ENCODERS:
        near = difflib.get_close_matches(name, _ENCODERS, n=1)
        raise ConfigError(
            facts(
                "encoder",
                found=repr(name),
                expected="one of " + ", ".join(_ENCODERS),
                fix=f"use {(near or list(_ENCODERS))[0]!r}",
            )
        )
    return _ENCODERS[name](**params)
