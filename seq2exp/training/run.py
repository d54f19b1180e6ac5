"""The run folder: what was asked, what it was done with, and the trained members.

::

    RUN/config.yaml     resolved configuration
    RUN/manifest.json   versions, dataset and its checksum, device, state
    RUN/metrics.csv     one row per epoch
    RUN/checkpoints/    last.ckpt (resume), best.pt
    RUN/model/          config.yaml + model.safetensors
    RUN/members/seed_S/ the three above for each member, when ``fit.seeds`` is larger than one
    RUN/controls/NAME/  a run folder for each trained control
    RUN/mask_model/N/   config.yaml + model.safetensors of member N of ``mask_from``
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import seq2exp
from seq2exp.core.config import load_yaml
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import read_json
from seq2exp.dataset.samples import CONTACT, SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.training.checkpoint import ModelCard, load_model

__all__ = ["TrainedRun", "describe_machine", "model_folders", "open_run"]


class TrainedRun:
    """A finished run: its members share one card and are averaged.

    Attributes
    ----------
    folder : Path
    models : list of Module
        Members in evaluation mode.
    card : ModelCard
        What the members read and predict.
    """

    def __init__(self, folder: Path, models: list[nn.Module], card: ModelCard) -> None:
        self.folder = folder
        self.models = models
        self.card = card

    def dataset_path(self) -> Path:
        """Return the dataset the run was trained on, as recorded in its manifest."""
        return Path(read_json(self.folder / "manifest.json")["dataset"]["path"])

    def open_dataset(self, data: Path | None = None) -> Dataset:
        """Open a dataset, that of the training when none is given; it must fit the models.

        Raises
        ------
        InputError
            The dataset of the training is no longer where it was.
        FormatError
            The folder is no dataset, or is damaged.
        ConfigError
            As :meth:`check_dataset`.
        """
        root = Path(data) if data else self.dataset_path()
        if data is None and not root.exists():
            raise InputError(
                facts(
                    f"run {self.folder}",
                    found=f"no dataset at {root}, where it was in training",
                    expected="the dataset of the training, or one that fits the run",
                    fix="name it with --data",
                )
            )
        dataset = Dataset(root)
        self.check_dataset(dataset)
        return dataset

    def sample_config(self, dataset: Dataset) -> SampleConfig:
        """Return what to read of a gene: a dataset to predict on or to explain needs no labels."""
        known = dataset.manifest.expression.samples
        labels = [name for name in self.card.samples if name in known]
        return replace(self.card.data, samples=labels)

    @contextmanager
    def evaluating(self, device: str | None = None) -> Iterator[str]:
        """Put all members on a device, in evaluation mode; mode and place are put back.

        Parameters
        ----------
        device : str, optional
            The GPU where there is one, when not given.

        Yields
        ------
        str
            The device.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        modes = [model.training for model in self.models]
        try:
            for model in self.models:
                model.eval().to(place)
            yield place
        finally:
            for model, mode in zip(self.models, modes, strict=True):
                model.train(mode).to("cpu")

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise unless the models can read this dataset.

        Raises
        ------
        ConfigError
            Assembly, tracks, features, labels or transforms differ; all differences are listed.
        """
        manifest = dataset.manifest
        known = {track.name: track for track in manifest.tracks}
        differences = []
        if manifest.assembly != self.card.assembly:
            differences.append(f"assembly {manifest.assembly} instead of {self.card.assembly}")
        for name in self.card.tracks:
            if name != CONTACT and name not in known:
                differences.append(f"no track {name}")
            elif name in self.card.track_transforms:
                stored, wanted = known[name].transform, self.card.track_transforms[name]
                if stored != wanted:
                    differences.append(f"track {name} stored as {stored} instead of {wanted}")
        if self.card.data.contacts and not manifest.contacts.num_bins:
            differences.append("no contacts")
        features = {feature.name for feature in manifest.features}
        differences += [f"no feature {name}" for name in self.card.features if name not in features]
        wanted_set = self.card.data.elements
        if wanted_set is not None and wanted_set not in dataset.elements:
            differences.append(f"no set of elements {wanted_set}")
        if manifest.bin_size != self.card.dataset_bin_size:
            differences.append(
                f"bin_size {manifest.bin_size} instead of {self.card.dataset_bin_size}"
            )
        if differences:
            raise ConfigError(
                facts(
                    f"dataset {dataset.root}",
                    found="another layout than the model was trained on",
                    expected=f"what {self.folder / 'model'} reads",
                    fix="prepare the dataset with the configuration of the training data",
                    count=len(differences),
                    examples=["; ".join(differences)],
                )
            )


def open_run(folder: Path) -> TrainedRun:
    """Load every member of a finished run.

    Raises
    ------
    InputError
        The folder holds no finished run.
    """
    folder = Path(folder)
    places = model_folders(folder)
    found = "no trained model" if folder.is_dir() else "no such folder"
    if (folder / "genes.parquet").is_file():
        found = "a dataset"
    if not (folder / "manifest.json").is_file() or not all(
        (place / "config.yaml").is_file() for place in places
    ):
        raise InputError(
            facts(
                str(folder),
                found=found,
                expected="the folder of a finished `seq2exp train` or `seq2exp cohort train`",
                fix="check the path, or give the same command again to finish it",
            )
        )
    loaded = [load_model(place) for place in places]
    return TrainedRun(folder, [model for model, _ in loaded], loaded[0][1])


def model_folders(folder: Path) -> list[Path]:
    """Return the model folders of all members, also of those that training has not reached."""
    config = folder / "config.yaml"
    settings = load_yaml(config) if config.is_file() else {}
    num_seeds = settings.get("fit", {}).get("seeds", 1)
    seeds = [settings["seed"] + i for i in range(num_seeds)] if num_seeds > 1 else []
    wanted = {folder / "members" / f"seed_{seed}" / "model" for seed in seeds}
    return sorted({*folder.glob("members/*/model"), *wanted}) or [folder / "model"]


def describe_machine() -> dict[str, Any]:
    """Return versions and hardware for the run manifest."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "seq2exp": seq2exp.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """Return the git commit when the package runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
