"""Configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.dataset.samples import SampleConfig
from seq2exp.training.losses import LOSSES

__all__ = ["FitConfig", "OptimConfig", "TrainConfig"]

CONTROLS = ("sequence_only", "shuffled_tracks")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
MOMENTS = ("column", "element")
_AT_LEAST_ONE = (
    "max_epochs", "batch_size", "accumulate", "devices", "num_nodes", "seeds", "parallel",
)  # fmt: skip


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay (Seq2Exp, section 4 of the published setup)."""

    lr: float = 5e-4
    """Highest learning rate, reached after the warm-up."""
    start_lr: float = 1e-5
    """Learning rate of step 0."""
    final_lr: float = 1e-4
    """Learning rate of the last step."""
    warmup_fraction: float = 0.1
    """Share of all steps spent in the warm-up."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    weight_decay: float = 1e-6
    """Decoupled weight decay; biases, norms, A_log and D are exempt."""
    embedding_decay: float | None = None
    """Weight decay of lookup tables (the words of a k-mer stem); weight_decay when not given."""
    embedding_moment: str = "column"
    """Second moment of lookup tables. column: one for all rows of a column, so that a rare word
    moves less than a telling one; element: one per weight, as in plain AdamW."""
    clip_norm: float = 1.0
    """Gradients are clipped to this norm."""
    loss: str = "smooth_l1"
    """smooth_l1 (beta 1) or mse."""

    def __post_init__(self) -> None:
        require_known("optim.loss", self.loss, LOSSES, expected="a loss")
        require_known(
            "optim.embedding_moment", self.embedding_moment, MOMENTS, expected=" or ".join(MOMENTS)
        )
        if not 0 <= self.warmup_fraction < 1:
            raise ConfigError(
                facts(
                    "optim.warmup_fraction",
                    found=self.warmup_fraction,
                    expected="0 <= value < 1",
                    fix="use 0.1",
                )
            )


@dataclass(frozen=True)
class FitConfig:
    """How long, on what, and how it is checked."""

    max_epochs: int = 20
    """Passes over the training genes."""
    batch_size: int = 8
    """Genes per step and device."""
    accumulate: int = 1
    """Steps whose gradients are summed before an update."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss; 0 never stops early."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights, used for validation and
    prediction; 0 turns it off."""
    precision: str = "auto"
    """auto (bf16 on GPUs that have it, else fp32), 32-true or bf16-mixed."""
    accelerator: str = "auto"
    """auto, cpu, gpu or mps."""
    devices: int = 1
    """Devices per node."""
    num_nodes: int = 1
    """Nodes."""
    workers: int = 0
    """Loader processes."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    seeds: int = 1
    """Ensemble members, trained from seed, seed + 1, ...; predictions are averaged."""
    parallel: int = 1
    """Members and controls trained at the same time, each in a process of its own. Best with
    threads times parallel equal to the cores; the results are the same."""
    store_masks: bool = True
    """Make the masks of model.mask: retrain once before the first step, where windows are not
    shifted, instead of in every step; the results are the same."""
    deterministic: bool = True
    """Refuse operations that give different results in two runs."""

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(
                    facts(
                        f"fit.{name}",
                        found=getattr(self, name),
                        expected=">= 1",
                        fix="use 1 or more",
                    )
                )
        among = f"one of {', '.join(ACCELERATORS)}"
        require_known("fit.accelerator", self.accelerator, ACCELERATORS, expected=among)
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(
                facts(
                    "fit.ema_decay", found=self.ema_decay, expected="0 <= value < 1", fix="use 0.99"
                )
            )
        if self.precision not in ("auto", "32-true", "bf16-mixed"):
            raise ConfigError(
                facts(
                    "fit.precision",
                    found=self.precision,
                    expected="auto, 32-true or bf16-mixed",
                    fix="use auto",
                )
            )


@dataclass(frozen=True)
class TrainConfig:
    """Everything `seq2exp train` needs beside the dataset."""

    data: SampleConfig = field(default_factory=SampleConfig)
    """Windows, tracks and labels."""
    model: dict[str, Any] = field(default_factory=lambda: {"name": "seq2exp"})
    """`name` (registry) and the keys of that model's configuration. What the dataset decides
    (window, bins, tracks, number of features and labels) is filled in and need not stand here."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Loss, optimiser and schedule."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Epochs, batches and devices."""
    mask_from: str = ""
    """Finished run whose mask model.mask: retrain freezes; it must read the same windows, bins and
    tracks. Its members' mean masks are averaged. The model is copied into the new run."""
    controls: list[str] = field(default_factory=list)
    """Controls to train with the same settings: sequence_only, shuffled_tracks."""
    seed: int = 0
    """Seed of weights, order, shifts and mask samples."""

    def __post_init__(self) -> None:
        retrain = self.model.get("mask") == "retrain"
        if retrain != bool(self.mask_from):
            raise ConfigError(
                facts(
                    "mask_from",
                    found=repr(self.mask_from),
                    expected="the folder of a run with model.mask: retrain, else nothing",
                    fix="set both or neither",
                )
            )
        if self.model.get("mask") in ("peaks", "abc") and not self.data.elements:
            raise ConfigError(
                facts(
                    "data.elements",
                    found="nothing",
                    expected=f"a set of candidate elements for model.mask: {self.model['mask']}",
                    fix="name a set that the dataset was prepared with",
                )
            )
        for name in self.controls:
            require_known("controls", name, CONTROLS, expected="a control")
