"""Fit, save and load any system: those that are solved, and those that learn by gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import nn

from seq2exp.core.config import bind
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import read_json, write_json
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.config import SpatialFitConfig
from seq2exp.spatial.data import SpotTable
from seq2exp.spatial.systems.registry import CLOSED, build_module, system_config
from seq2exp.spatial.systems.ridge import Ridge
from seq2exp.spatial.trainer import fit_module, predict_table

__all__ = ["FittedSystem", "fit_system", "load_system", "save_system"]


class FittedSystem(Protocol):
    """What can predict the labels of spots."""

    def predict(self, table: SpotTable) -> NDArray[np.float64]:
        """Return predicted labels, shape (num_spots, num_genes)."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModule:
    """A system that learned by gradients.

    Attributes
    ----------
    module : nn.Module
    info : SystemInfo
        What it was built for.
    history : list of dict
        One row per pass; empty when it was loaded.
    """

    module: nn.Module
    info: SystemInfo
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def predict(self, table: SpotTable) -> NDArray[np.float64]:
        """Return predicted labels, shape (num_spots, num_genes)."""
        return predict_table(self.module, table)


def fit_system(
    settings: Mapping[str, Any],
    train: SpotTable,
    valid: SpotTable | None,
    config: SpatialFitConfig,
    *,
    info: SystemInfo,
    checkpoint: Path | None = None,
) -> FittedSystem:
    """Fit a system.

    Parameters
    ----------
    settings : mapping
        ``name`` of the system and its settings.
    train : SpotTable
    valid : SpotTable or None
        Spots that choose the pass; a system that is solved takes them as training spots.
    config : SpatialFitConfig
    info : SystemInfo
    checkpoint : Path, optional
        File to continue from.

    Raises
    ------
    ConfigError
        An unknown system or setting, or a field that the spots lack.
    """
    if settings["name"] in CLOSED:
        together = train if valid is None else train.joined(valid)
        return Ridge(system_config(settings)).fit(together)
    torch.manual_seed(config.seed)
    module = build_module(settings, info)
    history = fit_module(module, train, valid or train, config, checkpoint=checkpoint)
    return TrainedModule(module, info, history.rows)


def save_system(system: FittedSystem, folder: Path) -> None:
    """Write ``model.safetensors`` and, for a module, ``info.json`` and ``metrics.json``."""
    path = str(folder / "model.safetensors")
    if isinstance(system, Ridge):
        save_arrays({k: np.ascontiguousarray(v) for k, v in system.state().items()}, path)
        return
    assert isinstance(system, TrainedModule)
    save_tensors({k: v.contiguous() for k, v in system.module.state_dict().items()}, path)
    write_json(dataclasses.asdict(system.info), folder / "info.json")
    write_json(system.history, folder / "metrics.json")


def load_system(settings: Mapping[str, Any], folder: Path) -> FittedSystem:
    """Load what :func:`save_system` wrote.

    Raises
    ------
    FormatError
        The weights are missing, damaged, or of another system.
    """
    path = folder / "model.safetensors"
    try:
        if settings["name"] in CLOSED:
            return Ridge.from_state(system_config(settings), load_arrays(str(path)))
        info = bind(SystemInfo, read_json(folder / "info.json"), where=str(folder / "info.json"))
        module = build_module(settings, info)
        module.load_state_dict(load_tensors(str(path)))
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error).split("\n")[0],
                expected=f"the weights of system {settings['name']}",
                fix="train again",
            )
        ) from error
    return TrainedModule(module.eval(), info)
