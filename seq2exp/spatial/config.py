"""The configuration of a spatial run: what ``configs/spatial/*.yaml`` may say of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.devices import DeviceName
from seq2exp.spatial.folds import FoldConfig
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recipes import LabelRecipe, named_recipe

__all__ = ["UNTRAINABLE", "EncoderConfig", "Protocol", "SpatialConfig", "SpatialFitConfig"]


UNTRAINABLE = ("colour_stats", "pixel_densities")
"""Encoders without weights."""

_MOST_PX = 4096


@dataclass(frozen=True)
class EncoderConfig:
    """An image encoder; nothing is downloaded."""

    name: str = "colour_stats"
    """colour_stats, pixel_densities, tinycnn, resnet18, resnet50, densenet121, vit_*, or
    ``timm:<name>`` with the extra ``vision``."""
    weights: str = ""
    """Local file of weights (safetensors, or tensors that torch wrote); random when empty."""
    px: int = 0
    """Side to which patches are brought before; 0 leaves them as they are stored."""
    mean: tuple[float, float, float] | None = None
    """Mean of RGB between 0 and 1 that the weights expect; that of ImageNet when not given."""
    std: tuple[float, float, float] | None = None
    """Deviation of RGB that the weights expect."""
    center: Literal["none", "section"] = "none"
    """section: the mean over all spots of a section is taken off its features. That takes away what
    differs between sections in colour alone, and whole sections are needed to predict."""
    embeddings: str = ""
    """Features that another program computed, in place of an encoder: a path with ``{section}``
    (docs/spatial.md)."""

    def __post_init__(self) -> None:
        if not 0 <= self.px <= _MOST_PX or (self.embeddings and "{section}" not in self.embeddings):
            raise ConfigError(
                facts(
                    "encoder",
                    found=f"px {self.px}, embeddings {self.embeddings!r}",
                    expected=f"px of 0 to {_MOST_PX:,}; a path that holds {{section}}",
                    fix="change it",
                )
            )


@dataclass(frozen=True)
class SpatialFitConfig:
    """How a system that learns by gradients is trained."""

    max_epochs: int = 100
    """Largest number of passes over the training spots."""
    patience: int = 15
    """Passes without a better validation score before training stops; 0 never stops early."""
    batch_size: int = 64
    """Most spots per step, at least 2."""
    lr: float = 1.0e-3
    """Learning rate (AdamW)."""
    weight_decay: float = 1.0e-2
    """Weight decay of matrices; biases, norms and temperatures have none."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0."""
    clip_norm: float = 5.0
    """Largest norm of the gradient; 0 for no limit."""
    augment: Literal["none", "dihedral"] = "none"
    """dihedral: patches of training spots are turned and mirrored anew in every pass."""
    device: DeviceName = "auto"
    """Where it is trained and predicts; auto: on a GPU where there is one, otherwise on the CPU."""
    seed: int = 0
    """Of weights, order and augmentation."""
    refit: bool = False
    """Train once more, on the validation spots too, for as many passes as were best."""
    members: int = 1
    """Systems trained from seeds of their own, whose predictions are averaged."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ConfigError(
                facts("fit.members", found=self.members, expected="1 or more", fix="change it")
            )
        if self.seed < 0:
            raise ConfigError(
                facts("fit.seed", found=self.seed, expected="0 or more", fix="change it")
            )
        if self.max_epochs < 1 or self.batch_size < 2 or not self.lr > 0 or self.patience < 0:
            raise ConfigError(
                facts(
                    "fit",
                    found=f"max_epochs {self.max_epochs}, batch_size {self.batch_size}, "
                    f"lr {self.lr}, patience {self.patience}",
                    expected="max_epochs >= 1, batch_size >= 2, lr > 0, patience >= 0",
                    fix="change it",
                )
            )


@dataclass(frozen=True)
class Protocol:
    """What is predicted and who is held out: the same for everything that is compared."""

    recipe: str = "default"
    """Name of a label recipe, or ``custom`` with ``labels``."""
    labels: LabelRecipe | None = None
    """A recipe of your own."""
    panel: PanelConfig = field(default_factory=PanelConfig)
    """Which genes are predicted."""
    folds: FoldConfig = field(default_factory=FoldConfig)
    """Who is held out."""

    def __post_init__(self) -> None:
        if (self.recipe == "custom") != (self.labels is not None):
            raise ConfigError(
                facts(
                    "recipe",
                    found=f"{self.recipe} {'with' if self.labels else 'without'} labels",
                    expected="a named recipe, or custom with labels",
                    fix="use one of the two",
                )
            )

    @property
    def label_recipe(self) -> LabelRecipe:
        """The recipe, looked up."""
        return self.labels if self.labels is not None else named_recipe(self.recipe)


@dataclass(frozen=True)
class SpatialConfig(Protocol):
    """A system and the protocol it is judged under."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """What makes features of patches; they are computed once."""
    trained_encoder: EncoderConfig | None = None
    """Encoder that is trained with the system on the patches themselves, for systems that take
    one."""
    system: dict[str, Any] = field(default_factory=lambda: {"name": "ridge"})
    """``name`` of the system and its settings (docs/spatial)."""
    fit: SpatialFitConfig = field(default_factory=SpatialFitConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        trained = self.trained_encoder
        if trained is not None and (
            trained.name in UNTRAINABLE or trained.embeddings or trained.center != "none"
        ):
            raise ConfigError(
                facts(
                    "trained_encoder",
                    found=f"{trained.name}, center {trained.center}, "
                    f"embeddings {trained.embeddings!r}",
                    expected="a network that sees the patches, without center and embeddings",
                    fix="name one such as tinycnn, or use encoder",
                )
            )
        if "name" not in self.system:
            raise ConfigError(
                facts("system", found="no name", expected="name: ridge", fix="name a system")
            )

    @property
    def picture_px(self) -> int:
        """Side of the pictures that the trained encoder sees; 0 as they are stored."""
        return 0 if self.trained_encoder is None else self.trained_encoder.px
