"""Begin training on people from a finished run: its weights, its windows, two outputs.

Both outputs begin as one label of that run, so the first prediction of a difference between people
is what the run says of their sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.module import OUTPUTS
from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.models.registry import build_model
from seq2exp.training.run import open_run

__all__ = ["start_model"]


def start_model(config: CohortConfig, samples: GeneSamples) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of ``config.start_from`` with the outputs of a cohort.

    The first member is taken where the run has several.

    Returns
    -------
    model : Module
        Parameters named by ``config.freeze`` need no gradient.
    params : dict
        Its resolved settings.

    Raises
    ------
    InputError
        There is no finished run.
    ConfigError
        It reads other windows, tracks or features; it has no such label; nothing is called as
        ``freeze`` says.
    """
    run = open_run(Path(config.start_from))
    run.check_dataset(samples.dataset)
    card = run.card
    _require_windows(config, card.data, samples)
    sample = config.start_sample or card.samples[0]
    require_known("start_sample", sample, card.samples, expected="a label of the run")
    column = card.samples.index(sample)
    params = {**card.model, "num_outputs": len(OUTPUTS)}
    model = _build(params)
    rows = _output_rows(params)
    state = {}
    for name, value in run.models[0].state_dict().items():
        if name in rows:
            # One label becomes both outputs.
            value = value[column : column + 1].expand(len(OUTPUTS), *value.shape[1:])
        state[name] = value.clone()
    model.load_state_dict(state)
    _freeze(model, config.freeze)
    return model, params


def _build(params: Mapping[str, Any]) -> nn.Module:
    return build_model(str(params["name"]), {k: v for k, v in params.items() if k != "name"})


def _output_rows(params: Mapping[str, Any]) -> set[str]:
    """Return the names of tensors that have a row per output: those that grow with their number."""
    with torch.device("meta"):
        few, more = (_build({**params, "num_outputs": number}).state_dict() for number in (1, 2))
    return {name for name in few if few[name].shape != more[name].shape}


def _require_windows(config: CohortConfig, theirs: SampleConfig, samples: GeneSamples) -> None:
    ours = {
        "window_bp": config.data.window_bp,
        "bin_size": config.data.bin_size,
        "strand": config.data.strand,
        "contacts": config.data.contacts,
        "tracks": [samples.dataset.track_names[i] for i in samples.track_index],
        "features": samples.feature_names,
        "elements": config.data.elements,
    }
    differences = [
        f"{name} {value!r} instead of {getattr(theirs, name)!r}"
        for name, value in ours.items()
        if value != getattr(theirs, name)
    ]
    if differences:
        raise ConfigError(
            facts(
                "data",
                found="other windows than the run reads that is started from",
                expected=f"what {config.start_from} was trained on",
                fix="copy section data of its config.yaml",
                count=len(differences),
                examples=differences,
            )
        )


def _freeze(model: nn.Module, beginnings: list[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            require_known("freeze", beginning, names, expected="the beginning of a parameter")
    for name, parameter in model.named_parameters():
        if any(name.startswith(beginning) for beginning in beginnings):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            facts(
                "freeze",
                found="all parameters",
                expected="some that are left to train",
                fix="freeze fewer",
            )
        )
