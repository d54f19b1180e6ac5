"""Systems by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seq2exp.core.config import bind, require_known
from seq2exp.spatial.systems.ridge import Ridge, RidgeConfig

__all__ = ["SYSTEMS", "build_closed", "system_config"]

SYSTEMS: dict[str, type] = {"ridge": RidgeConfig}
"""Configuration of every system."""

CLOSED = {"ridge": Ridge}
"""Systems that are solved, not trained."""


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


def build_closed(settings: Mapping[str, Any]) -> Ridge:
    """Return a system that is solved, not yet fitted."""
    return CLOSED[str(settings["name"])](system_config(settings))
