"""The files of a fitted system: its weights, what it was built for, and the genes of its columns.

::

    model.safetensors       weights; the ids of the genes in its metadata
    features.safetensors    mean and deviation of the features, where they are scaled
    bank/                   reference spots of a system that predicts by example
    info.json, metrics.json sizes, and a row per pass of the training
    member-<n>/             the same of further members
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from seq2exp.core.config import bind
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import read_json, write_json
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.data import FeatureScale
from seq2exp.spatial.devices import DeviceName, pick_device
from seq2exp.spatial.fitting import Ensemble, FittedSystem, MakeEncoder, TrainedModule
from seq2exp.spatial.panels import GenePanel
from seq2exp.spatial.retrieval import RetrievalBank
from seq2exp.spatial.systems.registry import CLOSED, build_module, system_config
from seq2exp.spatial.systems.ridge import Ridge
from seq2exp.spatial.towers import TwoTowers

__all__ = ["load_system", "save_system"]


def save_system(system: FittedSystem, folder: Path, *, genes: Sequence[str]) -> None:
    """Write a system; of an ensemble the first member stands in the folder itself.

    Parameters
    ----------
    system : FittedSystem
    folder : Path
        That exists.
    genes : sequence of str
        Ids of the columns that it predicts.
    """
    if isinstance(system, Ensemble):
        save_system(system.members[0], folder, genes=genes)
        for number, member in enumerate(system.members[1:], start=1):
            (folder / f"member-{number}").mkdir()
            save_system(member, folder / f"member-{number}", genes=genes)
        return
    path = str(folder / "model.safetensors")
    about = {"genes": json.dumps(list(genes))}
    if isinstance(system, Ridge):
        arrays = {key: np.ascontiguousarray(value) for key, value in system.state().items()}
        save_arrays(arrays, path, metadata=about)
        return
    assert isinstance(system, TrainedModule)
    tensors = {key: value.contiguous() for key, value in system.module.state_dict().items()}
    save_tensors(tensors, path, metadata=about)
    if system.scale is not None:
        scale = {"mean": system.scale.mean_D, "scale": system.scale.scale_D}
        save_arrays(scale, str(folder / "features.safetensors"))
    if isinstance(system.module, TwoTowers) and system.module.bank is not None:
        bank = dataclasses.replace(system.module.bank, genes=tuple(genes))
        bank.save(folder / "bank")
    write_json(dataclasses.asdict(system.info), folder / "info.json")
    write_json(system.history, folder / "metrics.json")


def load_system(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    panel: GenePanel,
    encoder: MakeEncoder | None = None,
    device: DeviceName = "auto",
) -> FittedSystem:
    """Load what :func:`save_system` wrote.

    Parameters
    ----------
    settings : mapping
    folder : Path
    panel : GenePanel
        Genes that its columns must be, in this order.
    encoder : callable, optional
        Returns an encoder of the kind that was trained with the system, for its weights.
    device : str
        Where it predicts: auto, cpu or cuda.

    Raises
    ------
    FormatError
        The weights are missing, damaged, or of another system or panel.
    """
    place = pick_device(device)
    if (folder / "member-1").is_dir():
        others = sorted(folder.glob("member-*"), key=lambda each: int(each.name.split("-")[1]))
        members = [_load_one(settings, each, panel, encoder, place) for each in (folder, *others)]
        return Ensemble(members)
    return _load_one(settings, folder, panel, encoder, place)


def _load_one(
    settings: Mapping[str, Any],
    folder: Path,
    panel: GenePanel,
    encoder: MakeEncoder | None,
    device: torch.device,
) -> FittedSystem:
    path = folder / "model.safetensors"
    try:
        _require_genes(path, panel)
        if settings["name"] in CLOSED:
            return Ridge.from_state(system_config(settings), load_arrays(str(path)))
        info = bind(SystemInfo, read_json(folder / "info.json"), where=str(folder / "info.json"))
        module = build_module(settings, info, encoder=encoder and encoder())
        module.load_state_dict(load_tensors(str(path)))
        scale = None
        if (folder / "features.safetensors").is_file():
            kept = load_arrays(str(folder / "features.safetensors"))
            scale = FeatureScale(kept["mean"], kept["scale"])
        if isinstance(module, TwoTowers):
            bank = RetrievalBank.load(folder / "bank")
            if bank.genes:
                panel.require_same(bank.genes, what=str(folder / "bank"))
            module.set_bank(bank)
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error).split("\n")[0],
                expected=f"the weights of system {settings['name']}",
                fix="train again",
            )
        ) from error
    return TrainedModule(module.eval().to(device), info, scale)


def _require_genes(path: Path, panel: GenePanel) -> None:
    """Refuse weights whose columns are other genes; files of older versions do not say."""
    with safe_open(path, framework="numpy") as handle:
        known = (handle.metadata() or {}).get("genes")
    if known is not None:
        panel.require_same(json.loads(known), what=str(path))
