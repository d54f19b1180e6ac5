"""Trunks and encoders by registry name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from seq2exp.core.config import bind
from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "build_encoder",
    "build_trunk",
    "encoder_names",
    "register_encoder",
    "register_trunk",
    "trunk_names",
]

_TRUNKS: dict[str, Callable[..., nn.Module]] = {}
_ENCODERS: dict[str, tuple[type, Callable[..., nn.Module]]] = {}


def register_trunk(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator that enters a trunk under `name`; it is built from keywords."""

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        _TRUNKS[name] = cls
        return cls

    return enter


def register_encoder(name: str, config: type) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator that enters an encoder under `name`.

    The class is called as ``cls(config, tracks=..., window_bp=..., bin_size=...)`` with an instance
    of the dataclass `config`, the names of the tracks, the window and the bins of the data.
    """

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        _ENCODERS[name] = (config, cls)
        return cls

    return enter


def trunk_names() -> tuple[str, ...]:
    """List the registered trunks."""
    return tuple(_TRUNKS)


def encoder_names() -> tuple[str, ...]:
    """List the registered encoders."""
    return tuple(_ENCODERS)


def build_trunk(name: str, params: Mapping[str, Any]) -> nn.Module:
    """Make a trunk by its registry name.

    Raises
    ------
    ConfigError
        Unknown name; the message has the nearest match. Or a keyword that the trunk does not take.
    """
    _require_known("trunk", name, tuple(_TRUNKS))
    try:
        return _TRUNKS[name](**params)
    except TypeError as error:
        raise ConfigError(
            facts(
                f"trunk {name!r}",
                found=str(error),
                expected="keywords that it takes",
                fix="look up its settings in docs/encoders.md",
            )
        ) from error


def build_encoder(
    name: str,
    params: Mapping[str, Any],
    *,
    tracks: tuple[str, ...] = (),
    window_bp: int,
    bin_size: int,
) -> nn.Module:
    """Make an encoder by its registry name.

    Parameters
    ----------
    name : str
        One of `encoder_names()`.
    params : mapping
        Values of the encoder's configuration; what is left out has its default.
    tracks : tuple of str
        Names of the tracks it is to read.
    window_bp, bin_size : int
        Window and bins of the data.

    Raises
    ------
    ConfigError
        Unknown name or key, a wrong value, or tracks, a window or bins that the encoder cannot
        read.
    """
    _require_known("encoder", name, tuple(_ENCODERS))
    config, cls = _ENCODERS[name]
    settings: Any = bind(config, dict(params), where=f"encoder {name!r}")
    return cls(settings, tracks=tracks, window_bp=window_bp, bin_size=bin_size)


def _require_known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            facts(
                kind,
                found=repr(name),
                expected="one of " + ", ".join(known),
                fix=f"use {(near or list(known))[0]!r}",
            )
        )
