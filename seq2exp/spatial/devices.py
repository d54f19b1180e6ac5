"""Where systems and encoders compute."""

from __future__ import annotations

from itertools import chain
from typing import Literal

import torch
from torch import nn

from seq2exp.core.errors import ConfigError, facts

__all__ = ["DeviceName", "device_of", "pick_device"]

DeviceName = Literal["auto", "cpu", "cuda"]


def pick_device(name: DeviceName = "auto") -> torch.device:
    """Return the device of a name; ``auto`` is a GPU where there is one.

    Raises
    ------
    ConfigError
        A GPU was asked for and there is none.
    """
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise ConfigError(
            facts(
                "fit.device",
                found="cuda, and no GPU that torch can use",
                expected="a GPU and torch built for it",
                fix="set it to auto or cpu; `seq2exp doctor` says what is there",
            )
        )
    return torch.device("cuda" if here and name != "cpu" else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """Return where a module computes."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device
