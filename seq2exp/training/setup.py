"""What every training does around its model: settings from the dataset, input scales, the card."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

import seq2exp
from seq2exp.core.errors import ConfigError, facts
from seq2exp.dataset.samples import GeneSamples, SampleConfig, collate
from seq2exp.training.checkpoint import ModelCard

__all__ = ["filled_params", "make_card", "scale_inputs"]

# Enough genes for stable means and deviations of the tracks.
_SCALING_GENES = 1024


def filled_params(
    settings: Mapping[str, Any], data: SampleConfig, samples: GeneSamples, num_outputs: int
) -> dict[str, Any]:
    """Return a model's settings with what the dataset decides filled in.

    Parameters
    ----------
    settings : mapping
        Section ``model`` of a configuration.
    data : SampleConfig
    samples : GeneSamples
    num_outputs : int

    Raises
    ------
    ConfigError
        The settings have one of those themselves, with another value.
    """
    decided: dict[str, Any] = {
        "window_bp": data.window_bp,
        "bin_size": data.bin_size,
        "tracks": samples.track_names,
        "num_features": len(samples.feature_names),
        "num_outputs": num_outputs,
    }
    for key, value in decided.items():
        if settings.get(key, value) != value:
            raise ConfigError(
                facts(
                    f"model.{key}",
                    found=settings[key],
                    expected=f"{value}, from the dataset and the data section",
                    fix=f"leave model.{key} out",
                )
            )
    return {**settings, "name": settings.get("name", "seq2exp"), **decided}


def scale_inputs(model: nn.Module, samples: GeneSamples) -> None:
    """Standardise tracks and features by the genes of ``samples``, which are those of training."""
    rows = np.linspace(0, len(samples) - 1, min(len(samples), _SCALING_GENES)).astype(int)
    blocks = np.array_split(rows, math.ceil(len(rows) / 64))
    batches = (collate([samples[int(row)] for row in block]) for block in blocks)
    model.fit_scaling(  # type: ignore[operator]
        (batch.signal_BNT, batch.features_BF) for batch in batches
    )


def make_card(
    params: dict[str, Any],
    data: SampleConfig,
    samples: GeneSamples,
    *,
    outputs: Sequence[str],
    unit: str,
    transform: str,
) -> ModelCard:
    """Describe a trained model.

    Parameters
    ----------
    params : dict
        Resolved settings of the model.
    data : SampleConfig
    samples : GeneSamples
        Of the training genes.
    outputs : sequence of str
        Names of what is predicted.
    unit, transform : str
        Of the labels.
    """
    manifest = samples.dataset.manifest
    contigs = samples.dataset.genes["contig"].iloc[samples.rows]
    return ModelCard(
        model=params,
        data=dataclasses.replace(
            data,
            tracks=[samples.dataset.track_names[i] for i in samples.track_index],
            samples=list(outputs),
            features=samples.feature_names,
        ),
        tracks=samples.track_names,
        features=samples.feature_names,
        samples=list(outputs),
        assembly=manifest.assembly,
        expression_unit=unit,
        expression_transform=transform,
        dataset_checksum=manifest.checksum,
        train_contigs=sorted(set(contigs.astype(str))),
        dataset_bin_size=manifest.bin_size,
        track_transforms={track.name: track.transform for track in manifest.tracks},
        package_version=seq2exp.__version__,
    )
