"""Runs without training: fresh weights in a folder as `train` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from seq2exp.core.files import write_json
from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import build_model, config_dict
from seq2exp.training.checkpoint import ModelCard, save_model
from seq2exp.training.run import TrainedRun, open_run
from tests.runs import MODEL


def untrained_run(
    dataset: Dataset,
    folder: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    data: dict[str, Any] | None = None,
    **model: Any,
) -> TrainedRun:
    """Save and open members with fresh weights that read windows of 512 bases in bins of 32."""
    config = SampleConfig(**({"window_bp": 512, "bin_size": 32} | (data or {})))
    samples = GeneSamples(dataset, config, [0])
    settings = model if "name" in model else MODEL | {"prior_mean": 0.4} | model
    settings |= {
        "tracks": samples.track_names,
        "num_features": len(samples.feature_names),
        "num_outputs": len(samples.sample_names),
        "window_bp": config.window_bp,
        "bin_size": config.bin_size,
    }
    for seed in seeds:
        torch.manual_seed(seed)
        built = build_model(
            settings["name"], {key: value for key, value in settings.items() if key != "name"}
        )
        with torch.no_grad():
            # Fresh heads that start at zero would hide what the test looks for.
            for parameter in built.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        described = config_dict(built)
        card = ModelCard(
            model={"name": described["name"], **described["params"]},
            data=config,
            tracks=samples.track_names,
            features=samples.feature_names,
            samples=samples.sample_names,
            assembly=dataset.manifest.assembly,
            expression_unit="TPM",
            expression_transform="log10p1",
            dataset_checksum=dataset.manifest.checksum,
            train_contigs=["chr1"],
            dataset_bin_size=dataset.manifest.bin_size,
            package_version="0.1.0",
        )
        save_model(built, card, folder / "members" / f"seed_{seed}" / "model")
    write_json({"dataset": {"path": str(dataset.root)}}, folder / "manifest.json")
    return open_run(folder)
