"""Model files: a text configuration and safetensors, nothing that can run code.

``model/config.yaml`` names the registry model, its settings, what it was trained on, and the
SHA-256 of ``model/model.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from seq2exp.core.config import bind, dump_yaml, load_yaml
from seq2exp.core.errors import ConfigError, FormatError, facts
from seq2exp.core.files import atomic_directory, sha256
from seq2exp.dataset.samples import SampleConfig
from seq2exp.models.registry import build_model

__all__ = ["ModelCard", "load_model", "read_checkpoint", "save_model"]

MODEL_FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """What a trained model is, and which data it understands."""

    model: dict[str, Any]
    """Registry name and resolved settings."""
    data: SampleConfig
    """Windows the model reads."""
    tracks: list[str]
    """Track order, the contact profile included."""
    features: list[str]
    """Scalar feature order."""
    samples: list[str]
    """Label order."""
    assembly: str
    """Assembly of the training dataset."""
    expression_unit: str
    """Unit of the labels before their transform."""
    expression_transform: str
    """Transform of the labels."""
    dataset_checksum: str
    """Checksum of the training dataset."""
    train_contigs: list[str]
    """Contigs with training genes."""
    dataset_bin_size: int = 0
    """Bin size of the training dataset's tracks."""
    track_transforms: dict[str, str] = field(default_factory=dict)
    """Transform with which each track was stored."""
    weights_sha256: str = ""
    """Checksum of model.safetensors."""
    package_version: str = ""
    """seq2exp version that wrote the model."""
    model_format: int = MODEL_FORMAT
    """Layout version of the model folder."""


def save_model(model: nn.Module, card: ModelCard, folder: Path) -> None:
    """Write ``config.yaml`` and ``model.safetensors``; the folder appears whole or not at all."""
    with atomic_directory(folder, overwrite=True) as partial:
        weights = partial / "model.safetensors"
        state = {
            name: value.detach().cpu().clone().contiguous()
            for name, value in model.state_dict().items()
        }
        try:
            save_file(state, weights)
        except SafetensorError as error:
            # Its I/O errors are no OSError.
            raise OSError(f"{folder}: the weights cannot be written: {error}") from error
        dump_yaml(replace(card, weights_sha256=sha256(weights)), partial / "config.yaml")


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Rebuild a saved model in evaluation mode.

    Raises
    ------
    FormatError
        A file is missing, damaged or altered, or holds other parameters than the configuration
        says.
    ConfigError
        The configuration is not one this package understands.
    """
    folder = Path(folder)
    card = bind(ModelCard, load_yaml(folder / "config.yaml"), where=str(folder / "config.yaml"))
    if card.model_format > MODEL_FORMAT:
        raise ConfigError(
            facts(
                str(folder),
                found=f"model_format {card.model_format}",
                expected=f"at most {MODEL_FORMAT}",
                fix="update seq2exp",
            )
        )
    state = _read_weights(folder / "model.safetensors", card.weights_sha256)
    _refuse_mismatch(card, state, folder)
    model = _build(card)
    model.load_state_dict(state)
    return model.eval(), card


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this package's own training: tensors and plain values, no code.

    Raises
    ------
    FormatError
        The file is damaged, or holds objects that unpickling would have to run code for.
    """
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            facts(
                str(path),
                found=f"no readable checkpoint ({reason})",
                expected="the file that `seq2exp train` wrote",
                fix="delete the checkpoints folder to train from the start",
            )
        ) from None
    return values


def _build(card: ModelCard) -> nn.Module:
    settings = {name: value for name, value in card.model.items() if name != "name"}
    return build_model(str(card.model.get("name")), settings)


def _refuse_mismatch(card: ModelCard, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Compare names and shapes on torch's meta device: sizes cost nothing there."""
    nested = card.model.get("mask_model")
    inner = nested if isinstance(nested, dict) else {}
    settings = card.model | {f"mask_model.{name}": value for name, value in inner.items()}
    layers = [name for name, value in settings.items() if _too_many(name, value, len(state))]
    if layers:
        raise FormatError(
            facts(
                str(folder / "config.yaml"),
                found=", ".join(f"{name} {settings[name]}" for name in layers),
                expected=f"layers of the {len(state)} tensors beside it",
                fix="use the config.yaml that was saved with these weights",
            )
        )
    try:
        with torch.device("meta"):
            model = _build(card)
    except (RuntimeError, OverflowError) as error:
        sizes = {name: value for name, value in card.model.items() if isinstance(value, int)}
        raise FormatError(
            facts(
                str(folder / "config.yaml"),
                found=f"sizes that no machine holds ({error})",
                expected="the sizes of the weights beside it",
                fix="use the config.yaml that was saved with these weights",
                examples=[
                    f"{name} {sizes[name]}"
                    for name in sorted(sizes, key=lambda key: sizes[key])[-1:]
                ],
            )
        ) from None
    _compare(model, state, folder)


def _too_many(name: str, value: object, num_tensors: int) -> bool:
    return (
        name.endswith(("_layers", "mask_members"))
        and isinstance(value, int)
        and value > num_tensors
    )


def _read_weights(path: Path, checksum: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FormatError(
            facts(str(path), found="no such file", expected="weights", fix="copy the whole folder")
        )
    found = sha256(path)
    if checksum and found != checksum:
        raise FormatError(
            facts(
                str(path),
                found=f"sha256 {found[:12]}...",
                expected=f"{checksum[:12]}...",
                fix="the file was damaged or changed; copy it again",
            )
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="safetensors", fix="copy it again")
        ) from error


def _compare(model: nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    extra = sorted(set(state) - set(own))
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    infinite = [name for name, value in state.items() if not torch.isfinite(value.float()).all()]
    problems = (
        [f"missing {name}" for name in missing]
        + [f"unexpected {name}" for name in extra]
        + shapes
        + [f"{name} holds NaN or Inf" for name in infinite]
    )
    if problems:
        raise FormatError(
            facts(
                str(folder),
                found="weights of another architecture, or damaged ones",
                expected="the parameters that config.yaml describes",
                fix="use the config.yaml that was saved with these weights",
                count=len(problems),
                examples=problems,
            )
        )
