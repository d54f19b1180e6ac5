"""The frozen mask model of `mask: retrain`: taken from a finished run, kept in the new one.

The new run copies the model folders of the mask run before it starts, so that it can be resumed
when the other is gone. Its own model folder holds settings and weights of the mask model too.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.files import atomic_directory
from seq2exp.dataset.samples import GeneSamples
from seq2exp.models.masking import LEARNED_MODES
from seq2exp.training.checkpoint import ModelCard, load_model
from seq2exp.training.config import TrainConfig
from seq2exp.training.run import model_folders, open_run

__all__ = ["MaskSource", "copy_mask_run", "mask_settings"]

_PLACE = "mask_model"


def copy_mask_run(config: TrainConfig, folder: Path) -> None:
    """Copy the mask model of a configuration into a run folder, unless it is there already.

    Raises
    ------
    InputError
        `mask_from` is no finished run.
    ConfigError
        Its models do not learn a mask.
    """
    target = folder / _PLACE
    if not config.mask_from or target.is_dir():
        return
    source = open_run(Path(config.mask_from))
    mode = source.card.model.get("mask", "soft")
    if mode not in LEARNED_MODES:
        raise ConfigError(
            facts(
                "mask_from",
                found=f"{config.mask_from}, a run with mask: {mode}",
                expected="a run that learns its mask: " + " or ".join(LEARNED_MODES),
                fix="train one with mask: soft first",
            )
        )
    with atomic_directory(target) as partial:
        for number, place in enumerate(model_folders(Path(config.mask_from))):
            shutil.copytree(place, partial / str(number))


def mask_settings(config: TrainConfig, folder: Path | None) -> dict[str, Any]:
    """Return the settings that the mask model adds to a model's; empty without one.

    Parameters
    ----------
    config : TrainConfig
    folder : Path, optional
        Run folder, which holds a copy of the mask model once it has started.
    """
    if not config.mask_from:
        return {}
    copied = folder / _PLACE if folder is not None else None
    places = model_folders(Path(config.mask_from))
    if copied is not None and copied.is_dir():
        places = sorted(copied.iterdir())
    else:
        open_run(Path(config.mask_from))
    _, card = load_model(places[0])
    return _settings(card, len(places))


def _settings(card: ModelCard, num_members: int) -> dict[str, Any]:
    settings = {key: value for key, value in card.model.items() if key != "name"}
    return {"mask_model": settings, "mask_members": num_members}


class MaskSource:
    """The copied mask model of a run.

    Parameters
    ----------
    folder : Path
        Run folder into which `copy_mask_run` wrote.
    """

    def __init__(self, folder: Path) -> None:
        places = sorted((folder / _PLACE).iterdir(), key=lambda place: int(place.name))
        loaded = [load_model(place) for place in places]
        self.models = [model for model, _ in loaded]
        self.card: ModelCard = loaded[0][1]

    def params(self, samples: GeneSamples) -> dict[str, Any]:
        """Return the settings that a model with this mask model needs.

        Raises
        ------
        ConfigError
            The mask model reads other windows, bins or tracks; every difference is named.
        """
        self._refuse_other_inputs(samples)
        return _settings(self.card, len(self.models))

    def fill(self, model: nn.Module) -> None:
        """Give a new model the weights of the mask model."""
        members = cast("nn.ModuleList", model.mask_model)
        for member, source in zip(members, self.models, strict=True):
            member.load_state_dict(source.state_dict())

    def _refuse_other_inputs(self, samples: GeneSamples) -> None:
        mine, theirs = samples.config, self.card.data
        manifest = samples.dataset.manifest
        pairs = {
            "window_bp": (theirs.window_bp, mine.window_bp),
            "bin_size": (theirs.bin_size, mine.bin_size),
            "strand": (theirs.strand, mine.strand),
            "tracks": (self.card.tracks, samples.track_names),
            "assembly": (self.card.assembly, manifest.assembly),
            "bin_size of the dataset": (self.card.dataset_bin_size, manifest.bin_size),
        }
        stored = {track.name: track.transform for track in manifest.tracks}
        for name in self.card.tracks:
            if name in stored:
                transforms = self.card.track_transforms.get(name, stored[name]), stored[name]
                pairs[f"transform of track {name}"] = transforms
        differences = [f"{key} {a!r} instead of {b!r}" for key, (a, b) in pairs.items() if a != b]
        if differences:
            raise ConfigError(
                facts(
                    "mask_from",
                    found="a mask model that reads something else",
                    expected="the windows, bins and tracks of this run",
                    fix="use the data section of the mask run, or train a mask model for this one",
                    count=len(differences),
                    examples=["; ".join(differences)],
                )
            )
