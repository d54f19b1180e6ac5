"""Models by registry name, and their configuration as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from seq2exp.core.config import bind, nearest, to_dict
from seq2exp.core.errors import ConfigError, facts
from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.seq2exp import Seq2Exp, Seq2ExpConfig

__all__ = ["build_model", "config_dict", "has_mask", "model_names"]


class _Entry(NamedTuple):
    model: type[nn.Module]
    config: type


_MODELS = {
    "seq2exp": _Entry(Seq2Exp, Seq2ExpConfig),
    "baseline": _Entry(Baseline, BaselineConfig),
}


def model_names() -> tuple[str, ...]:
    """List the registered names."""
    return tuple(_MODELS)


def build_model(name: str, params: Mapping[str, Any] | Seq2ExpConfig | BaselineConfig) -> nn.Module:
    """Make a model by its registry name.

    Parameters
    ----------
    name : str
        One of `model_names()`.
    params : mapping or configuration dataclass
        Values of the model's configuration; what is left out has its default.

    Raises
    ------
    ConfigError
        Unknown name or key (the message has the nearest match), or a wrong value.
    """
    if name not in _MODELS:
        raise ConfigError(
            facts(
                f"model {name!r}",
                found="no such model",
                expected="one of " + ", ".join(_MODELS),
                fix=nearest(name, list(_MODELS)),
            )
        )
    entry = _MODELS[name]
    if isinstance(params, Mapping):
        params = bind(entry.config, params, where=f"model {name!r}")
    return entry.model(params)


def has_mask(model: nn.Module) -> bool:
    """Tell whether a model reads its window through a mask; baselines have no such setting."""
    return bool(getattr(model.config, "mask", "none") != "none")


def config_dict(model: nn.Module) -> dict[str, Any]:
    """Describe a model as ``{"name": ..., "params": ...}``, which `build_model` takes back.

    Raises
    ------
    ConfigError
        A module that is not of a registered class.
    """
    for name, entry in _MODELS.items():
        if type(model) is entry.model:
            return {"name": name, "params": to_dict(model.config)}
    raise ConfigError(
        facts(
            f"model of class {type(model).__name__}",
            found="not registered",
            expected="one of " + ", ".join(_MODELS),
            fix="make the model with build_model",
        )
    )
