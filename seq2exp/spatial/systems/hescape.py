"""HESCAPE: image and gene towers of choice, aligned by CLIP or SigLIP (Gindra et al. 2025).

arXiv 2508.01490. A benchmark more than a model: what is asked is how well the towers align
(:mod:`seq2exp.spatial.recall`), what that does to frozen features (:mod:`seq2exp.spatial.probes`),
and how much of it is the section. Embeddings are always divided by their lengths.

Axes: B spots of a batch, S spots, G genes, D width of the embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from seq2exp.spatial.batch import SpotBatch, SystemInfo
from seq2exp.spatial.contrastive_losses import info_nce, siglip
from seq2exp.spatial.gene_towers import GeneTowerKind, PcaGenes, make_gene_tower
from seq2exp.spatial.genes import GeneInputs, GeneTokenEncoder, TokenMode
from seq2exp.spatial.image_tower import ImageTower, PatchEncoder
from seq2exp.spatial.retrieval import RetrievalConfig
from seq2exp.spatial.samplers import Negatives
from seq2exp.spatial.towers import TwoTowers

__all__ = ["Hescape", "HescapeConfig"]


@dataclass(frozen=True)
class HescapeConfig:
    """Settings of HESCAPE."""

    width: int = 128
    """Of the embeddings."""
    image_head: Literal["mlp", "projection", "linear"] = "mlp"
    """On the features of a patch."""
    image_hidden: int = 256
    """Hidden width of the perceptron."""
    image_neighbours: bool = False
    """The image tower also reads the mean of the features of the tiles around the patch."""
    gene: GeneTowerKind = "mlp"
    """mlp (that of the published benchmark), linear, pca (of the training labels, a control),
    priorpool (sum of gene tokens times labels) or tokens (attention over gene tokens)."""
    gene_width: int = 128
    """Of the gene tower, or of a gene token."""
    token_mode: TokenMode = "prior"
    """Gene tokens (docs of GeneTokenEncoder)."""
    token_use: tuple[str, ...] = ("z",)
    """Parts of the prior that they read."""
    dropout: float = 0.1
    """In the image head and the gene tower."""
    objective: Literal["clip", "siglip"] = "clip"
    """Cross-entropy over the batch, or a sigmoid per pair."""
    temperature: float = 0.07
    """Of the logits at the start; learned, the scale stays within 1 and 100."""
    sigmoid_bias: float = -10.0
    """Bias of the sigmoid at the start; learned."""
    negatives: Negatives = "any"
    """Where the other spots of a batch come from: any, or within_slide."""
    select: Literal["pearson", "recall"] = "pearson"
    """Which pass is kept: the one whose retrieved expression correlates best, or the one with the
    best recall at 5 on a fixed gallery of validation spots."""
    standardise: bool = True
    """Standardise the features of patches over the training spots."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """How the bank answers."""


class Hescape(TwoTowers):
    """The system.

    Parameters
    ----------
    config : HescapeConfig
    info : SystemInfo
    genes : GeneInputs, optional
        The panel, for gene tokens.
    encoder : module, optional
        Trained with the image tower; without one, features come from the cache.

    Raises
    ------
    ConfigError
        No features, or gene tokens without the genes.
    """

    def __init__(
        self,
        config: HescapeConfig,
        info: SystemInfo,
        *,
        genes: GeneInputs | None = None,
        encoder: PatchEncoder | None = None,
    ) -> None:
        image = ImageTower(
            info,
            width=config.width,
            head=config.image_head,
            hidden=config.image_hidden,
            dropout=config.dropout,
            standardise=config.standardise,
            neighbours=config.image_neighbours,
            encoder=encoder,
        )
        super().__init__(
            "hescape", image=image, retrieval=config.retrieval, temperature=config.temperature
        )
        self.config = config
        self.batches = config.negatives
        tokens = None
        if config.gene in ("priorpool", "tokens") and genes is not None:
            tokens = GeneTokenEncoder(
                config.token_mode, config.gene_width, config.token_use, genes=genes
            )
        self.genes = make_gene_tower(
            config.gene,
            info.num_genes,
            width=config.gene_width,
            dropout=config.dropout,
            tokens=tokens,
        )
        # The pooled tokens of priorpool stay a linear function of the labels.
        self.project = nn.Linear(self.genes.width, config.width, bias=config.gene != "priorpool")
        if config.objective == "siglip":
            self.bias = nn.Parameter(torch.tensor(config.sigmoid_bias))
            self.watch = None

    def prepare(self, batches: Iterable[SpotBatch]) -> None:
        """Take from training spots what is not learned: the components of ``gene: pca``."""
        if isinstance(self.genes, PcaGenes):
            self.genes.fit(torch.cat([self.labels_of(batch) for batch in batches]))

    def encode_genes(self, batch: SpotBatch) -> Tensor:
        """Return the embedding of every spot's expression, shape (batch, width)."""
        embedding_BD: Tensor = self.project(self.genes(self.labels_of(batch)))
        return embedding_BD

    def contrast(self, image_BD: Tensor, gene_BD: Tensor, batch: SpotBatch) -> Tensor:
        """Return the contrastive loss of the embeddings of a batch, a scalar."""
        del batch
        if self.config.objective == "siglip":
            return siglip(image_BD, gene_BD, scale=self.logit_scale, bias=self.bias)
        return info_nce(image_BD, gene_BD, scale=self.logit_scale)

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return ``total`` and its parts; ``ln_b`` is the loss of guessing.

        Of the sigmoid loss that is the least loss of a constant logit: one of B pairs is true.
        """
        parts = super().loss(batch, step)
        if self.config.objective == "siglip":
            size = len(batch)
            rate = 1 / size
            guess = -math.log(rate) - (size - 1) * math.log1p(-rate) if size > 1 else 0.0
            parts["ln_b"] = torch.full_like(parts["ln_b"], guess)
        return parts

    def _use_genes(self, genes: GeneInputs, y_SG: Tensor) -> None:
        self.genes.use_genes(genes, y_SG)
