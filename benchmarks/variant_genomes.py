"""Simulated genomes whose variants have known effects, and the models that score them.

Two genomes, made with what is shipped, so that a seed makes everything again:

- ``people``: `configs/cohort/simulation.yaml`, 300 + 80 donors. ``pairs`` is trained on differences
  between people (`configs/cohort/simulated.yaml`), ``reference`` is the same network trained on
  levels of the reference sequence alone, as published models are.
- ``demo``: the genome of `seq2exp demo` with 200 donors. ``shipped`` has the settings of
  `configs/train/demo.yaml`, ``sequence_only`` the same without tracks.

``untrained`` is the network of ``pairs`` or ``shipped`` with a learning rate of almost nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.build import prepare
from data_prep.config import DataConfig
from data_prep.simulate import SimulationConfig, simulate
from data_prep.simulate.donor_config import DonorConfig
from seq2exp.cohort.benchmark_config import BenchmarkConfig, model_config
from seq2exp.cohort.train import train_cohort
from seq2exp.core.config import load_config
from seq2exp.training.config import OptimConfig, TrainConfig
from seq2exp.training.trainer import train

__all__ = ["GENOMES", "Genome", "make"]

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Genome:
    """A simulated genome and its models.

    Attributes
    ----------
    name : str
    valid, test : str
        Contigs: choices are made on one, results come from the other; no model trained on either.
    models : dict
        Name to folder of the run below the folder of the genome, and the label that is scored.
    main : str
        Model that others and controls are compared with.
    folder : Path, optional
        Where it was made.
    """

    name: str
    valid: str
    test: str
    models: dict[str, tuple[str, str]]
    main: str
    folder: Path = Path()

    def run(self, model: str) -> Path:
        """Return the folder of a run."""
        return self.folder / self.models[model][0]


GENOMES = {
    "people": Genome(
        "people",
        "chr3",
        "chr4",
        {
            "pairs": ("runs/pairs", "difference"),
            "reference": ("runs/reference", "level"),
            "untrained": ("runs/untrained", "difference"),
        },
        "pairs",
    ),
    "demo": Genome(
        "demo",
        "chr5",
        "chr6",
        {
            "shipped": ("runs/shipped", "blood"),
            "sequence_only": ("runs/shipped/controls/sequence_only", "blood"),
            "untrained": ("runs/untrained", "blood"),
        },
        "shipped",
    ),
}


def make(name: str, work: Path, *, seed: int, quick: bool) -> Genome:
    """Make a genome, its dataset and its models in a folder, or go on where it was left.

    Parameters
    ----------
    name : str
        One of ``GENOMES``.
    work : Path
    seed : int
        Of the genome; models have their configurations' seeds.
    quick : bool
        One epoch of one member: shows that everything runs.
    """
    genome = dataclasses.replace(GENOMES[name], folder=work / name)
    source, data = genome.folder / "simulated", genome.folder / "dataset"
    if not source.is_dir():
        genome.folder.mkdir(parents=True, exist_ok=True)
        simulate(_simulation(name, seed), source, progress=True)
    if not data.is_dir():
        shipped = "simulated_cohort" if name == "people" else "simulated"
        config = load_config(DataConfig, [CONFIGS / "data" / f"{shipped}.yaml"])
        prepare(config, source=source, out=data)
    {"people": _train_people, "demo": _train_demo}[name](genome, data, quick=quick)
    return genome


def _simulation(name: str, seed: int) -> SimulationConfig:
    if name == "people":
        path = CONFIGS / "cohort" / "simulation.yaml"
        return load_config(SimulationConfig, [path], overrides={"seed": seed})
    # Donors are added without moving a base of the demo's genome.
    return SimulationConfig(seed=seed, donors=DonorConfig(num_donors=200))


def _blank(optim: OptimConfig) -> OptimConfig:
    return dataclasses.replace(optim, lr=1e-12, start_lr=1e-13, final_lr=1e-13)


def _train_people(genome: Genome, data: Path, *, quick: bool) -> None:
    protocol = load_config(BenchmarkConfig, [CONFIGS / "cohort" / "simulated.yaml"])
    known = list(protocol.models)
    for name in ("pairs", "reference", "untrained"):
        config = model_config(protocol, "pairs" if name == "untrained" else name, known=known)
        seeds = 1 if quick or name == "reference" else 3
        changes: dict[str, Any] = {"seeds": seeds}
        if quick or name == "untrained":
            changes["max_epochs"] = 1
        if name == "untrained":
            config = dataclasses.replace(config, optim=_blank(config.optim), people_share=0.1)
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, **changes))
        train_cohort(config, data, genome.run(name))


def _train_demo(genome: Genome, data: Path, *, quick: bool) -> None:
    config = load_config(TrainConfig, [CONFIGS / "train" / "demo.yaml"])
    changes: dict[str, Any] = {"max_epochs": 1, "seeds": 1} if quick else {}
    config = dataclasses.replace(
        config,
        controls=["sequence_only"],
        fit=dataclasses.replace(config.fit, parallel=1, **changes),
    )
    train(config, data, genome.run("shipped"))
    blank = dataclasses.replace(
        config,
        controls=[],
        optim=_blank(config.optim),
        fit=dataclasses.replace(config.fit, max_epochs=1),
    )
    train(blank, data, genome.run("untrained"))
