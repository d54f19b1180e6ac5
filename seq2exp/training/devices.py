"""Devices to train on: refused clearly where they are not there, and which process leads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.dataset.samples import SampleConfig
from seq2exp.training.config import FitConfig

__all__ = ["Trained", "is_leader", "memory_errors", "require_devices"]

# Set by Lightning for the processes it starts, by torchrun, and by SLURM.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


class Trained(Protocol):
    """A configuration of any training; `controls` may be absent."""

    @property
    def fit(self) -> FitConfig:
        """How long, on what."""

    @property
    def data(self) -> SampleConfig:
        """Which windows."""


def is_leader(config: Trained) -> bool:
    """Return whether this process owns the run folder, as one of several ranks only the first does.

    The ranks of a batch system mean nothing to a run on one device.
    """
    if config.fit.devices * config.fit.num_nodes == 1:
        return True
    ranks = [os.environ[name] for name in _RANKS if name in os.environ]
    return not ranks or ranks[0] == "0"


def require_devices(config: Trained) -> None:
    """Raise ConfigError where the machine lacks the devices that a configuration asks for."""
    fit = config.fit
    here = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if here.get(fit.accelerator) == 0:
        raise ConfigError(
            facts(
                "fit.accelerator",
                found=f"{fit.accelerator}, but torch {torch.__version__} sees no such device",
                expected="a device that torch can use",
                fix="use auto or cpu, or install the torch build and the driver for it "
                "(`seq2exp doctor`)",
            )
        )
    if fit.accelerator in here and fit.devices > here[fit.accelerator]:
        raise ConfigError(
            facts(
                "fit.devices",
                found=fit.devices,
                expected=f"at most {here[fit.accelerator]}, the devices of this machine",
                fix="ask for fewer",
            )
        )
    if fit.devices * fit.num_nodes > 1 and (fit.seeds > 1 or getattr(config, "controls", None)):
        raise ConfigError(
            facts(
                "fit.devices",
                found=f"{fit.devices * fit.num_nodes} devices for several models",
                expected="one model at a time on several devices",
                fix="train with fit.seeds: 1 and controls: [], once per --seed",
            )
        )


@contextmanager
def memory_errors(config: Trained) -> Iterator[None]:
    """Say what to change when a device runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, window = config.fit.batch_size, config.data.window_bp
        raise InputError(
            facts(
                "device memory",
                found=f"too little for fit.batch_size {size} with windows of {window:,} bases",
                expected="room for a batch",
                fix="lower fit.batch_size and raise fit.accumulate by the same factor, "
                "set model.recompute: true, or use larger bins; then run the command again",
            )
        ) from error
