"""Systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from seq2exp.core.config import bind, require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.images.encoder import Encoder
from seq2exp.spatial.systems.bleep import Bleep, BleepConfig
from seq2exp.spatial.systems.hescape import Hescape, HescapeConfig
from seq2exp.spatial.systems.mclstexp import MclSTExp, MclSTExpConfig
from seq2exp.spatial.systems.nsl import Nsl, NslConfig
from seq2exp.spatial.systems.ridge import RidgeConfig
from seq2exp.spatial.systems.stnet import StNet, StNetConfig
from seq2exp.spatial.systems.tri_encoders import TriBranchConfig
from seq2exp.spatial.systems.triplex import TriBranch

__all__ = [
    "CLOSED",
    "MODULES",
    "SYSTEMS",
    "build_module",
    "require_trainable",
    "system_config",
]

CLOSED = {"ridge": RidgeConfig}
"""Configuration of systems that are solved, not trained."""

MODULES: dict[str, tuple[type, Callable[..., nn.Module]]] = {
    "stnet": (StNetConfig, StNet),
    "bleep": (BleepConfig, Bleep),
    "mclstexp": (MclSTExpConfig, MclSTExp),
    "hescape": (HescapeConfig, Hescape),
    "nsl": (NslConfig, Nsl),
    "triplex": (TriBranchConfig, TriBranch),
}
"""Configuration and class of systems that learn by gradients."""

_WITHOUT_ENCODER = {
    "nsl": "it reads the colours of pixels",
    "ridge": "it is solved, and reads the features of encoder",
}

SYSTEMS: dict[str, type] = {**CLOSED, **{name: pair[0] for name, pair in MODULES.items()}}


def system_config(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the configuration of the system that ``settings`` names.

    Raises
    ------
    ConfigError
        No such system, or an unknown or wrong setting.
    """
    name = str(settings["name"])
    require_known("system.name", name, list(SYSTEMS), expected="a system")
    rest = {key: value for key, value in settings.items() if key != "name"}
    return bind(SYSTEMS[name], rest, where=f"system {name}")


def build_module(
    settings: Mapping[str, Any], info: SystemInfo, *, encoder: Encoder | None = None
) -> nn.Module:
    """Return a system that learns by gradients, with fresh weights.

    Parameters
    ----------
    settings : mapping
    info : SystemInfo
    encoder : Encoder, optional
        Trained with the system on patches; without one it reads cached features.

    Raises
    ------
    ConfigError
        The system takes no encoder.
    """
    name = str(settings["name"])
    config, build = system_config(settings), MODULES[name][1]
    if encoder is None:
        return build(config, info)
    require_trainable(settings)
    return build(config, info, encoder=encoder)


def require_trainable(settings: Mapping[str, Any]) -> None:
    """Refuse systems that no image encoder can be trained with.

    Raises
    ------
    ConfigError
    """
    name = str(settings["name"])
    if name in _WITHOUT_ENCODER:
        raise ConfigError(
            facts(
                f"system {name}",
                found="a trained_encoder",
                expected=f"none: {_WITHOUT_ENCODER[name]}",
                fix="leave trained_encoder out",
            )
        )
