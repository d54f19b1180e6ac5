"""BLEEP: two towers with soft targets, prediction by retrieval (Xie et al., NeurIPS 2023).

Both towers are projections, of the patch's features and of the labels themselves. Here embeddings
are divided by their lengths, the temperature is learned, the targets are normalised in both
directions and take no gradient; ``reference_compat`` brings back plain products, temperature 1 and
the gradient through the targets (not the column loss, whose targets do not sum to 1).

Axes: B spots of a batch, G genes, D width of the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo
from seq2exp.spatial.contrastive_losses import soft_clip
from seq2exp.spatial.genes import GeneInputs
from seq2exp.spatial.image_tower import PatchEncoder
from seq2exp.spatial.retrieval import RetrievalConfig
from seq2exp.spatial.samplers import Negatives
from seq2exp.spatial.standard import ProjectionHead, RunningStandard
from seq2exp.spatial.towers import TwoTowers, shared_parts

__all__ = ["Bleep", "BleepConfig"]


def _default_retrieval() -> RetrievalConfig:
    return RetrievalConfig(k=50, weights="uniform")


@dataclass(frozen=True)
class BleepConfig:
    """Settings of BLEEP."""

    width: int = 256
    """Of the embeddings."""
    dropout: float = 0.1
    """In both projections."""
    temperature: float = 0.07
    """Of the logits at the start; learned, the scale stays within 1 and 100."""
    target_temperature: float = 0.07
    """Of the soft targets: small values approach one's own partner alone."""
    image_neighbours: bool = False
    """The image tower also reads the mean of the features of the tiles around the patch."""
    negatives: Negatives = "any"
    """Where the other spots of a batch come from: any, or within_slide."""
    retrieval: RetrievalConfig = field(default_factory=_default_retrieval)
    """How the bank answers: the plain mean of 50 spots, as published."""
    reference_compat: bool = False
    """Behave as the published code."""


class Bleep(TwoTowers):
    """The system.

    Parameters
    ----------
    config : BleepConfig
    info : SystemInfo
    encoder : module, optional
        Trained with the image tower; without one, features come from the cache.
    """

    def __init__(
        self,
        config: BleepConfig,
        info: SystemInfo,
        *,
        encoder: PatchEncoder | None = None,
    ) -> None:
        super().__init__("bleep", **shared_parts(config, info, encoder=encoder))
        self.config = config
        self.batches = config.negatives
        plain = config.reference_compat
        self.standard = nn.Identity() if plain else RunningStandard(info.num_genes)
        self.project = ProjectionHead(info.num_genes, config.width, dropout=config.dropout)

    def encode_genes(self, batch: SpotBatch) -> Tensor:
        """Return the embedding of every spot's expression, shape (batch, width)."""
        scaled_BG = self.standard(self.labels_of(batch)).nan_to_num(0.0)
        embedding_BD: Tensor = self.project(scaled_BG)
        return embedding_BD

    def contrast(self, image_BD: Tensor, gene_BD: Tensor, batch: SpotBatch) -> Tensor:
        """Return the contrastive loss of the embeddings of a batch, a scalar."""
        del batch
        compat = self.config.reference_compat
        return soft_clip(
            image_BD,
            gene_BD,
            scale=self.logit_scale,
            target_temperature=1.0 if compat else self.config.target_temperature,
            normalise=not compat,
            detach=not compat,
        )

    def _use_genes(self, genes: GeneInputs, y_SG: Tensor) -> None:
        del y_SG
        raise ConfigError(
            facts(
                "bleep",
                found=f"another panel, of {len(genes)} genes",
                expected="the panel of the training, because it knows genes by column",
                fix="use hescape with priorpool, or mclstexp with spot: tokens",
            )
        )
