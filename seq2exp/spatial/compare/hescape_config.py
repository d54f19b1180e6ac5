"""What `seq2exp spatial compare --suite hescape` may be told: encoders, losses, galleries."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.files import safe_name
from seq2exp.spatial.compare.config import encoder_label, protocol_of
from seq2exp.spatial.config import EncoderConfig, Protocol, SpatialConfig, SpatialFitConfig
from seq2exp.spatial.recall import GallerySize
from seq2exp.spatial.samplers import Negatives
from seq2exp.spatial.systems.registry import system_config

__all__ = ["Arm", "HescapeSuiteConfig", "arms"]

GeneEncoder = Literal["mlp", "linear", "pca"]
Objective = Literal["clip", "siglip"]


@dataclass(frozen=True)
class HescapeSuiteConfig(Protocol):
    """Every image encoder with every gene encoder, loss and choice of negatives."""

    encoders: list[EncoderConfig] = field(default_factory=lambda: [EncoderConfig()])
    """Image encoders; their features are frozen, the towers' heads are trained."""
    genes: tuple[GeneEncoder, ...] = ("mlp", "linear", "pca")
    """Gene encoders: mlp (that of the published benchmark), linear, pca (of the training labels,
    not learned)."""
    objectives: tuple[Objective, ...] = ("clip", "siglip")
    """Losses."""
    negatives: tuple[Negatives, ...] = ("any", "within_slide")
    """Where the other spots of a batch come from: any section, or that of the spot."""
    system: dict[str, Any] = field(default_factory=lambda: {"width": 64})
    """Further settings of the towers (system hescape), the same for all."""
    fit: SpatialFitConfig = field(default_factory=SpatialFitConfig)
    """How they are trained; the pass with the best recall on the validation spots is kept."""
    sizes: tuple[GallerySize, ...] = (64, 1000, "section")
    """Spots of a gallery; section takes each section whole."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Ranks that count as found."""
    probe_columns: tuple[str, ...] = ()
    """Columns of ``obs`` that a logistic regression reads from the embeddings."""
    num_seeds: int = 1
    """Trainings of every arm."""
    num_resamples: int = 1000
    """Of the bootstrap over patients and spots."""
    bootstrap_seed: int = 0
    """Seed of the bootstrap and of the galleries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = [size for size in self.sizes if isinstance(size, int)]
        lists = (self.encoders, self.genes, self.objectives, self.negatives, self.sizes, self.ks)
        counts = (*numbers, *self.ks, self.num_seeds, self.num_resamples, self.bootstrap_seed + 1)
        if not all(lists) or min(counts) < 1:
            raise ConfigError(
                facts(
                    "suite hescape",
                    found="an empty list, or a number below 1",
                    expected="at least one of encoders, genes, objectives, negatives, sizes, ks; "
                    "numbers of 1 or more, and a bootstrap_seed of 0 or more",
                    fix="change it",
                )
            )
        if self.fit.members > 1:
            raise ConfigError(
                facts(
                    "suite hescape",
                    found=f"fit.members {self.fit.members}",
                    expected="1, because embeddings of several trainings have no mean",
                    fix="use num_seeds: trainings are judged one by one and averaged",
                )
            )
        labels = [encoder_label(encoder) for encoder in self.encoders]
        if len(set(labels)) < len(labels):
            raise ConfigError(
                facts(
                    "suite hescape",
                    found=f"encoders {', '.join(labels)}",
                    expected="encoders that differ in name, weights, px or center",
                    fix="give files of weights other names",
                )
            )


@dataclass(frozen=True)
class Arm:
    """One combination."""

    encoder: str
    """Name of the image encoder (:func:`encoder_label`)."""
    gene: str
    """Gene encoder."""
    objective: str
    """Loss."""
    negatives: str
    """Where negatives come from."""

    @property
    def name(self) -> str:
        """In tables and folders."""
        return safe_name(f"{self.encoder}.{self.gene}.{self.objective}.{self.negatives}")

    def config(self, suite: HescapeSuiteConfig, seed: int) -> SpatialConfig:
        """Return what is trained."""
        system = {
            "name": "hescape",
            "gene": self.gene,
            "objective": self.objective,
            "negatives": self.negatives,
            "select": "recall",
            **suite.system,
        }
        system_config(system)
        (encoder,) = [each for each in suite.encoders if encoder_label(each) == self.encoder]
        return SpatialConfig(
            **protocol_of(suite),
            encoder=encoder,
            system=system,
            fit=dataclasses.replace(suite.fit, seed=suite.fit.seed + seed),
        )


def arms(suite: HescapeSuiteConfig) -> list[Arm]:
    """Return all combinations."""
    encoders = [encoder_label(encoder) for encoder in suite.encoders]
    parts = (encoders, suite.genes, suite.objectives, suite.negatives)
    return [Arm(*each) for each in itertools.product(*parts)]
