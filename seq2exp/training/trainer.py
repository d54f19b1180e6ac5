"""`seq2exp train`: from a configuration and a dataset to a run folder, resumable at any moment."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

import seq2exp
from seq2exp.core.config import bind, dump_yaml, load_yaml, to_dict
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import file_lock, read_json, write_json
from seq2exp.core.pool import run_tasks
from seq2exp.dataset.datamodule import GeneDataModule
from seq2exp.dataset.samples import GeneSamples, collate
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import build_model
from seq2exp.training.callbacks import AveragedWeights, BatchSeed, Checkpoints, MetricsTable
from seq2exp.training.checkpoint import ModelCard, read_checkpoint, save_model
from seq2exp.training.config import TrainConfig
from seq2exp.training.devices import is_leader, memory_errors, require_devices
from seq2exp.training.frozen_masks import FrozenMasks
from seq2exp.training.mask_source import MaskSource, copy_mask_run, mask_settings
from seq2exp.training.module import ExpressionModule
from seq2exp.training.plan import Plan, make_plan, needs_plan, require_room, with_recompute
from seq2exp.training.run import describe_machine

__all__ = ["control_config", "dry_run", "train"]

logger = logging.getLogger(__name__)
# Lightning reports its devices and tips at every start; our own lines say what matters.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)

# Model settings that only make sense with tracks.
_ABOUT_TRACKS = ("track_betas", "track_weights", "track_loss_weight")
_GIVEN_MASKS = ("retrain", "peaks", "abc")
_ABOUT_GIVEN_MASKS = ("mask_budget", "abc_distance_bp", "abc_max_elements", "abc_element_bp")
# Settings that change how fast an interrupted run goes on, and nothing else.
_FREE_TO_CHANGE = ("fit.parallel ", "fit.workers ", "fit.store_masks ")
# Enough genes for stable means and deviations of the tracks.
_SCALING_GENES = 1024


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
    occupied = out.is_dir() and any(path.name != ".lock" for path in out.iterdir())
    if resume == "never" and occupied:
        raise InputError(
            facts(
                str(out),
                found="an existing folder",
                expected="a free path with --resume never",
                fix="choose another --out, delete the folder, or use --resume auto",
            )
        )
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
            _finish(out / "controls" / name)
        _finish(out)


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
            _claim(settings, dataset, folder)
            copy_mask_run(settings, folder)
        several = settings.fit.seeds > 1
        for seed in range(settings.seed, settings.seed + settings.fit.seeds):
            place = folder / "members" / f"seed_{seed}" if several else folder
            name = f"{label}, seed {seed}" if several else label
            jobs.append(_Member(settings, dataset.root, place, seed, name, folder, recompute))
    return jobs


def _claim(config: TrainConfig, dataset: Dataset, out: Path) -> None:
    """Write config and manifest into a new run; refuse a folder of another run."""
    _sweep(out)
    values = to_dict(config)
    manifest = out / "manifest.json"
    if manifest.is_file():
        old, state = _with_defaults(load_yaml(out / "config.yaml")), read_json(manifest)
        differences = [
            line for line in _differences(old, values) if not line.startswith(_FREE_TO_CHANGE)
        ]
        if state["dataset"]["checksum"] != dataset.manifest.checksum:
            differences.append("dataset checksum")
        if differences:
            raise InputError(
                facts(
                    str(out),
                    found="a run of another configuration or dataset",
                    expected="the same one to continue, or a free folder",
                    fix="choose another --out, or delete the folder",
                    count=len(differences),
                    examples=differences,
                )
            )
        return
    dump_yaml(values, out / "config.yaml")
    write_json(
        {
            "state": "running",
            "dataset": {"path": str(dataset.root), "checksum": dataset.manifest.checksum},
            "seed": config.seed,
            "machine": describe_machine(),
        },
        manifest,
    )


def _with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an earlier version with the default of every setting it did not have."""
    try:
        return to_dict(bind(TrainConfig, values, where="config.yaml"))
    except ConfigError:
        # It holds what this version does not know; the differences will say so.
        return values


def _finish(out: Path) -> None:
    state = read_json(out / "manifest.json")
    write_json({**state, "state": "finished"}, out / "manifest.json")


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:  # noqa: ANN401
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    return [] if old == new else [f"{prefix.rstrip('.')} {old!r} -> {new!r}"]


def _train_member(job: _Member) -> None:
    config, folder = job.config, job.folder
    if (folder / "model" / "config.yaml").is_file():
        logger.info("%s: %s is already finished", job.label, folder)
        return
    _settle(config, job.seed)
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
        _sweep(folder)
    with memory_errors(config):
        _fit(config, model, module_data, folder, seed=job.seed, label=job.label)
    if not is_leader(config):
        return
    best = checkpoints / "best.pt"
    if not best.is_file():
        raise InputError(
            facts(
                str(folder),
                found="no epoch with a finite validation loss",
                expected="at least one",
                fix="lower optim.lr and look at metrics.csv",
            )
        )
    model.load_state_dict(read_checkpoint(best))
    save_model(model, _card(config, params, module_data.train), folder / "model")


def _sweep(folder: Path) -> None:
    """Delete what a killed process left half written; the caller holds the run's lock."""
    for orphan in [*folder.glob("checkpoints/.*"), *folder.glob(".*.partial.*")]:
        if orphan.is_dir():
            shutil.rmtree(orphan)
        else:
            orphan.unlink()


def _settle(config: TrainConfig, seed: int) -> None:
    if config.fit.threads:
        torch.set_num_threads(config.fit.threads)
    torch.manual_seed(seed)
    if config.fit.deterministic:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def model_params(config: TrainConfig, samples: GeneSamples) -> dict[str, Any]:
    """Return the model's settings with what the dataset decides filled in.

    Raises
    ------
    ConfigError
        The configuration sets one of those itself, to another value.
    """
    decided: dict[str, Any] = {
        "window_bp": config.data.window_bp,
        "bin_size": config.data.bin_size,
        "tracks": samples.track_names,
        "num_features": len(samples.feature_names),
        "num_outputs": len(samples.sample_names),
    }
    for key, value in decided.items():
        if config.model.get(key, value) != value:
            raise ConfigError(
                facts(
                    f"model.{key}",
                    found=config.model[key],
                    expected=f"{value}, from the dataset and the data section",
                    fix=f"leave model.{key} out",
                )
            )
    return {**config.model, "name": config.model.get("name", "seq2exp"), **decided}


def _set_scaling(model: nn.Module, samples: GeneSamples) -> None:
    """Standardise tracks, features and labels by the training genes only."""
    rows = np.linspace(0, len(samples) - 1, min(len(samples), _SCALING_GENES)).astype(int)
    blocks = np.array_split(rows, math.ceil(len(rows) / 64))
    batches = (collate([samples[int(row)] for row in block]) for block in blocks)
    model.fit_scaling(  # type: ignore[operator]
        (batch.signal_BNT, batch.features_BF) for batch in batches
    )
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
    # The table's row comes before the checkpoint: a kill between them repeats the epoch and its
    # row, and loses neither. Checkpoints see the averaged weights before they are swapped back.
    callbacks: list[pl.Callback] = [
        BatchSeed(seed),
        MetricsTable(folder / "metrics.csv", label=label),
        Checkpoints(folder / "checkpoints", patience=fit.patience),
    ]
    if fit.ema_decay:
        callbacks.append(AveragedWeights(fit.ema_decay))
    if _masks_can_be_stored(config):
        callbacks.append(FrozenMasks(data))
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        read_checkpoint(last)
    with warnings.catch_warnings():
        # Lightning advises more loader workers and a logger; both are choices made here.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=fit.max_epochs,
            accelerator=fit.accelerator,
            devices=fit.devices,
            num_nodes=fit.num_nodes,
            precision=_precision(fit.precision),
            accumulate_grad_batches=fit.accumulate,
            gradient_clip_val=config.optim.clip_norm,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
        )
        try:
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into an exit of its own; ours reports 130.
            raise KeyboardInterrupt from None


def _masks_can_be_stored(config: TrainConfig) -> bool:
    # A mirrored window has a mask of its own, and so has a shifted one.
    other_windows = config.data.jitter_bp or config.model.get("rc_average")
    return bool(config.mask_from and config.fit.store_masks and not other_windows)


def _precision(wanted: str) -> Any:  # noqa: ANN401
    if wanted != "auto":
        return wanted
    return (
        "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
    )


def _card(config: TrainConfig, params: dict[str, Any], samples: GeneSamples) -> ModelCard:
    manifest = samples.dataset.manifest
    contigs = samples.dataset.genes["contig"].iloc[samples.rows]
    return ModelCard(
        model=params,
        data=dataclasses.replace(
            config.data,
            tracks=[samples.dataset.track_names[i] for i in samples.track_index],
            samples=samples.sample_names,
            features=samples.feature_names,
        ),
        tracks=samples.track_names,
        features=samples.feature_names,
        samples=samples.sample_names,
        assembly=manifest.assembly,
        expression_unit=manifest.expression.unit,
        expression_transform=manifest.expression.transform,
        dataset_checksum=manifest.checksum,
        train_contigs=sorted(set(contigs.astype(str))),
        dataset_bin_size=manifest.bin_size,
        track_transforms={track.name: track.transform for track in manifest.tracks},
        package_version=seq2exp.__version__,
    )
