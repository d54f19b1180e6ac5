"""`seq2exp train`: from a configuration and a dataset to a run folder, resumable at any moment."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seq2exp.core.files import file_lock
from seq2exp.core.pool import run_tasks
from seq2exp.dataset.datamodule import GeneDataModule
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import build_model
from seq2exp.training.checkpoint import ModelCard, save_model
from seq2exp.training.config import TrainConfig
from seq2exp.training.devices import is_leader, memory_errors, require_devices
from seq2exp.training.fitting import best_weights, fit_module, settle
from seq2exp.training.frozen_masks import FrozenMasks
from seq2exp.training.mask_source import MaskSource, copy_mask_run, mask_settings
from seq2exp.training.module import ExpressionModule
from seq2exp.training.plan import Plan, make_plan, needs_plan, require_room, with_recompute
from seq2exp.training.run_folder import (
    claim_folder,
    finish_folder,
    refuse_occupied,
    sweep_folder,
)
from seq2exp.training.setup import filled_params, make_card, scale_inputs

__all__ = ["control_config", "dry_run", "train"]

logger = logging.getLogger(__name__)

# Model settings that only make sense with tracks.
_ABOUT_TRACKS = ("track_betas", "track_weights", "track_loss_weight")
_GIVEN_MASKS = ("retrain", "peaks", "abc")
_ABOUT_GIVEN_MASKS = ("mask_budget", "abc_distance_bp", "abc_max_elements", "abc_element_bp")


def train(config: TrainConfig, data: Path, out: Path, *, resume: str = "auto") -> None:
    """Train every member and control of a configuration; continue where a killed run stopped.

    Parameters
    ----------
    config : TrainConfig
    data : Path
        Dataset directory.
    out : Path
        Run folder.
    resume : {"auto", "never"}
        ``auto`` continues an unfinished run of the same configuration and dataset; ``never``
        refuses a folder that holds anything.

    Raises
    ------
    InputError
        The folder holds another run, is in use, or the dataset has no labelled genes.
    ConfigError
        The configuration does not fit the dataset or the machine.
    """
    require_devices(config)
    dataset = Dataset(data)
    out = Path(out).absolute()
    if not is_leader(config):
        # Another rank of the same run; the first one owns the folder.
        for job in _jobs(config, dataset, out):
            job.run()
        return
    refuse_occupied(out, resume)
    recompute = False
    if needs_plan(config):
        plan = _planned(config, dataset, folder=out)
        require_room(plan)
        recompute = plan.recompute
        if recompute:
            logger.info(
                "blocks are run again in the backward pass: a batch would not fit otherwise"
            )
    with file_lock(out / ".lock", what=f"run {out}"):
        jobs = _jobs(config, dataset, out, recompute=recompute)
        for _ in run_tasks(jobs, config.fit.parallel):
            pass
        for name in config.controls:
            finish_folder(out / "controls" / name)
        finish_folder(out)


def dry_run(config: TrainConfig, data: Path) -> Plan:
    """Say what training would need, without training or writing anything.

    Parameters
    ----------
    config : TrainConfig
    data : Path
        Dataset directory.

    Raises
    ------
    ConfigError
        The configuration does not fit the dataset or the machine's devices.
    """
    require_devices(config)
    return _planned(config, Dataset(data), folder=None)


def _planned(config: TrainConfig, dataset: Dataset, *, folder: Path | None) -> Plan:
    samples = _data(config, dataset, seed=config.seed).train
    if config.fit.threads:
        torch.set_num_threads(config.fit.threads)
    params = model_params(config, samples) | mask_settings(config, folder)
    return make_plan(config, params, samples)


def _data(config: TrainConfig, dataset: Dataset, *, seed: int) -> GeneDataModule:
    return GeneDataModule(
        dataset,
        config.data,
        batch_size=config.fit.batch_size,
        workers=config.fit.workers,
        seed=seed,
    )


def control_config(config: TrainConfig, dataset: Dataset, name: str) -> TrainConfig:
    """Return the configuration of a trained control: same model, same steps, less information.

    ``sequence_only`` sees no track, no track-derived feature and no candidate elements, which come
    from tracks; a mask that is not learned is left out. ``shuffled_tracks`` sees the tracks,
    contacts, track-derived features and elements of another gene of its split.
    """
    if name == "shuffled_tracks":
        data = dataclasses.replace(config.data, shuffle_tracks=True)
        return dataclasses.replace(config, data=data, controls=[])
    chosen = config.data.features
    features = [
        feature.name
        for feature in dataset.manifest.features
        if feature.source != "track" and (chosen is None or feature.name in chosen)
    ]
    data = dataclasses.replace(
        config.data, tracks=[], contacts=False, features=features, elements=None
    )
    model = {key: value for key, value in config.model.items() if key not in _ABOUT_TRACKS}
    if model.get("mask") in _GIVEN_MASKS:
        # Peaks, activity and a mask model that read tracks would bring them back.
        model = {key: value for key, value in model.items() if key not in _ABOUT_GIVEN_MASKS}
        model["mask"] = "none"
    return dataclasses.replace(config, data=data, model=model, mask_from="", controls=[])


@dataclasses.dataclass(frozen=True)
class _Member:
    """One model to train: a member of the run or of one of its controls."""

    config: TrainConfig
    dataset: Path
    folder: Path
    seed: int
    label: str
    run_folder: Path
    recompute: bool = False

    def run(self) -> None:
        _train_member(self)


def _jobs(
    config: TrainConfig, dataset: Dataset, out: Path, *, recompute: bool = False
) -> list[_Member]:
    """Claim the folders of the run and its controls, and list what is to be trained there."""
    runs = [("train", config, out)] + [
        (f"control {name}", control_config(config, dataset, name), out / "controls" / name)
        for name in config.controls
    ]
    jobs = []
    for label, settings, folder in runs:
        if is_leader(config):
            folder.mkdir(parents=True, exist_ok=True)
            claim_folder(settings, settings.seed, dataset, folder)
            copy_mask_run(settings, folder)
        several = settings.fit.seeds > 1
        for seed in range(settings.seed, settings.seed + settings.fit.seeds):
            place = folder / "members" / f"seed_{seed}" if several else folder
            name = f"{label}, seed {seed}" if several else label
            jobs.append(_Member(settings, dataset.root, place, seed, name, folder, recompute))
    return jobs


def _train_member(job: _Member) -> None:
    config, folder = job.config, job.folder
    if (folder / "model" / "config.yaml").is_file():
        logger.info("%s: %s is already finished", job.label, folder)
        return
    settle(config.fit, job.seed)
    module_data = _data(config, Dataset(job.dataset), seed=job.seed)
    params = model_params(config, module_data.train)
    if job.recompute:
        params = with_recompute(params) or params
    mask_source = MaskSource(job.run_folder) if config.mask_from else None
    if mask_source is not None:
        params |= mask_source.params(module_data.train)
    model = build_model(str(params["name"]), {k: v for k, v in params.items() if k != "name"})
    if mask_source is not None:
        mask_source.fill(model)
    _set_scaling(model, module_data.train)
    checkpoints = folder / "checkpoints"
    if is_leader(config):
        checkpoints.mkdir(parents=True, exist_ok=True)
        sweep_folder(folder)
    with memory_errors(config):
        _fit(config, model, module_data, folder, seed=job.seed, label=job.label)
    if not is_leader(config):
        return
    model.load_state_dict(best_weights(folder))
    save_model(model, _card(config, params, module_data.train), folder / "model")


def model_params(config: TrainConfig, samples: GeneSamples) -> dict[str, Any]:
    """Return the model's settings with what the dataset decides filled in.

    Raises
    ------
    ConfigError
        The configuration sets one of those itself, to another value.
    """
    return filled_params(config.model, config.data, samples, len(samples.sample_names))


def _set_scaling(model: nn.Module, samples: GeneSamples) -> None:
    """Standardise tracks, features and labels by the training genes only."""
    scale_inputs(model, samples)
    labels = samples.dataset.expression[samples.rows][:, samples.label_index]
    with warnings.catch_warnings():
        # A label column without any training gene is all NaN; the model keeps mean 0, std 1.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, std = np.nanmean(labels, axis=0), np.nanstd(labels, axis=0)
    model.set_output_scaling(torch.from_numpy(mean), torch.from_numpy(std))  # type: ignore[operator]


def _fit(
    config: TrainConfig,
    model: nn.Module,
    data: GeneDataModule,
    folder: Path,
    *,
    seed: int,
    label: str,
) -> None:
    fit = config.fit
    per_epoch = math.ceil(len(data.train) / (fit.batch_size * fit.devices * fit.num_nodes))
    total_steps = math.ceil(per_epoch / fit.accumulate) * fit.max_epochs
    names = data.dataset.genes["gene_id"].astype(str).tolist()
    module = ExpressionModule(model, config.optim, total_steps=total_steps, gene_ids=names)
    more = [FrozenMasks(data)] if _masks_can_be_stored(config) else []
    fit_module(module, data, fit, folder, seed=seed, label=label, more=more)


def _masks_can_be_stored(config: TrainConfig) -> bool:
    # A mirrored window has a mask of its own, and so has a shifted one.
    other_windows = config.data.jitter_bp or config.model.get("rc_average")
    return bool(config.mask_from and config.fit.store_masks and not other_windows)


def _card(config: TrainConfig, params: dict[str, Any], samples: GeneSamples) -> ModelCard:
    manifest = samples.dataset.manifest
    return make_card(
        params,
        config.data,
        samples,
        outputs=samples.sample_names,
        unit=manifest.expression.unit,
        transform=manifest.expression.transform,
    )
