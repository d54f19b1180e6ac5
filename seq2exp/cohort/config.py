"""Configuration of training on people: what `configs/cohort/*.yaml` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seq2exp.cohort.expression import ExpressionConfig
from seq2exp.cohort.groups import GroupConfig
from seq2exp.cohort.losses import LossConfig
from seq2exp.cohort.splits import CohortSplitConfig
from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.dataset.samples import SampleConfig
from seq2exp.training.config import FitConfig, OptimConfig
from seq2exp.variation.policies import GenotypePolicy

__all__ = ["CohortConfig", "GeneConfig"]

RANKINGS = ("none", "h2", "p")


@dataclass(frozen=True)
class GeneConfig:
    """Which genes are trained on and judged; chosen with training people only."""

    rank: str = "none"
    """none: all genes with expression. h2: those of the largest cis-heritability in the window. p:
    those in which it is surest, by its likelihood-ratio p."""
    num_seen: int = 0
    """Seen genes to keep, the best by `rank`; 0 keeps all."""
    num_unseen: int = 0
    """Unseen genes to keep, the best by `rank`; 0 keeps all."""

    def __post_init__(self) -> None:
        require_known("genes.rank", self.rank, RANKINGS, expected="a ranking")
        for name in ("num_seen", "num_unseen"):
            if getattr(self, name) < 0 or (getattr(self, name) and self.rank == "none"):
                raise ConfigError(
                    facts(
                        f"genes.{name}",
                        found=f"{getattr(self, name)} with genes.rank {self.rank}",
                        expected="0, or a number of genes with a ranking",
                        fix="set genes.rank to h2 or p",
                    )
                )


@dataclass(frozen=True)
class CohortConfig:
    """Everything `seq2exp cohort train` needs beside the dataset."""

    data: SampleConfig = field(default_factory=SampleConfig)
    """Windows and tracks; data.samples is not read."""
    genotypes: GenotypePolicy = field(default_factory=GenotypePolicy)
    """Which variants reach the sequences, and what becomes of calls that are not plain."""
    expression: ExpressionConfig = field(default_factory=ExpressionConfig)
    """From the table of the donors to the targets."""
    covariates: list[str] = field(default_factory=list)
    """Columns of the donor table that are regressed out of the expression, such as sex."""
    splits: CohortSplitConfig = field(default_factory=CohortSplitConfig)
    """Who is trained on and who is judged."""
    people_share: float = 1.0
    """Share of the training people that the model is trained on, for learning curves; a smaller
    share is part of a larger one. Expression is processed with all of them."""
    genes: GeneConfig = field(default_factory=GeneConfig)
    """Which genes."""
    groups: GroupConfig = field(default_factory=GroupConfig)
    """How people of a gene come together."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is compared."""
    model: dict[str, Any] = field(default_factory=lambda: {"name": "seq2exp"})
    """`name` (registry) and the keys of that model's configuration."""
    start_from: str = ""
    """Finished run whose weights the model begins with: one of `seq2exp train` or of
    `seq2exp cohort train`. Its model and windows are taken over; settings of model are not given
    then."""
    start_sample: str = ""
    """Label of that run which both outputs begin with; its first when empty."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that stay as they are: beginnings of their names, such as predictor.stem."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule; optim.loss is not read."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Epochs, batches and devices; fit.batch_size counts groups."""
    sample_masks: bool = False
    """Draw masks in training. Without, people of a gene are compared under the mean mask, and what
    differs between them is their sequence alone."""
    seed: int = 0
    """Seed of weights, groups, shifts and mask samples."""

    def __post_init__(self) -> None:
        if not 0 < self.people_share <= 1:
            raise ConfigError(
                facts(
                    "people_share",
                    found=self.people_share,
                    expected="above 0, at most 1",
                    fix="use 1",
                )
            )
        if self.start_from and set(self.model) - {"name"}:
            raise ConfigError(
                facts(
                    "model",
                    found=f"settings ({', '.join(sorted(set(self.model) - {'name'}))}) beside "
                    "start_from",
                    expected="none: the model is that of the run it starts from",
                    fix="leave model out",
                )
            )
        if self.freeze and not self.start_from:
            raise ConfigError(
                facts(
                    "freeze",
                    found="frozen parameters of a new model",
                    expected="a run they come from",
                    fix="set start_from, or leave freeze out",
                )
            )
