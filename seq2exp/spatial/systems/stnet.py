"""ST-Net: one linear read-out of an image encoder (He et al., Nat. Biomed. Eng. 2020).

Published with DenseNet-121 trained end to end; here on cached features, or on patches with any
encoder, trained with it.

Shapes: B spots, D features, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo, require_fields
from seq2exp.spatial.heads import GeneQueryHead, GeneTokens, LinearHead
from seq2exp.spatial.losses import mse, pearson

__all__ = ["PoolEncoder", "StNet", "StNetConfig"]


class PoolEncoder(Protocol):
    """An image encoder that is trained with the system."""

    dim: int

    def pool(self, img_B3HW: Tensor) -> Tensor:
        """Return one feature vector per patch, shape (B, dim)."""


@dataclass(frozen=True)
class StNetConfig:
    """The loss and read-out of ST-Net."""

    dropout: float = 0.0
    """Dropout of the features."""
    pearson_weight: float = 0.0
    """Weight of 1 - r across the spots of a batch beside the squared error; published: 0."""
    clip_at_zero: bool = False
    """Raise negative predictions to 0; in predictions only."""
    gene_rank: int = 64
    """Rank of the head where genes come as tokens."""

    def __post_init__(self) -> None:
        if not (0 <= self.dropout < 1 and self.pearson_weight >= 0 and self.gene_rank >= 1):
            raise ConfigError(
                facts(
                    "stnet",
                    found=f"dropout {self.dropout:g}, pearson_weight {self.pearson_weight:g}, "
                    f"gene_rank {self.gene_rank}",
                    expected="dropout from 0 to below 1, no negative weight, a rank of 1 or more",
                    fix="change it",
                )
            )


class StNet(nn.Module):
    """Encoder and linear head.

    Parameters
    ----------
    config : StNetConfig
    info : SystemInfo
    encoder : module with ``dim`` and ``pool(img)``, optional
        Trained on patches; without one the system reads cached features.
    gene_tokens : module, optional
        Called without arguments, returns tokens of the genes, shape (genes, width); its attribute
        ``dim`` is the width. The head is then :class:`GeneQueryHead`.
    """

    requires: frozenset[str]

    def __init__(
        self,
        config: StNetConfig,
        info: SystemInfo,
        *,
        encoder: nn.Module | None = None,
        gene_tokens: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.gene_tokens = gene_tokens
        self.requires = frozenset({"feat" if encoder is None else "img"})
        width = info.feat_dim if encoder is None else cast("PoolEncoder", encoder).dim
        if width < 1:
            raise ConfigError(
                facts(
                    "system stnet",
                    found="no width of feat",
                    expected="an image encoder",
                    fix="choose an image encoder",
                )
            )
        self.dropout = nn.Dropout(config.dropout)
        self.head: nn.Module = (
            LinearHead(width, info.num_genes)
            if gene_tokens is None
            else GeneQueryHead(width, cast("GeneTokens", gene_tokens).dim, rank=config.gene_rank)
        )

    @torch.no_grad()
    def start_at(self, mean_G: Tensor) -> None:
        """Begin at the mean training labels, shape (G,): what is learned is the difference."""
        if isinstance(self.head, LinearHead):
            self.head.start_at(mean_G)

    def forward(self, batch: SpotBatch) -> Tensor:
        """Return the read-out, shape (B, G)."""
        require_fields(self.requires, batch, system="stnet")
        feat = (
            batch.feat
            if self.encoder is None
            else cast("PoolEncoder", self.encoder).pool(cast("Tensor", batch.img))
        )
        genes = () if self.gene_tokens is None else (self.gene_tokens(),)
        out: Tensor = self.head(self.dropout(feat), *genes)
        return out

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return the squared error and, where asked for, 1 - r.

        Parameters
        ----------
        batch : SpotBatch
        step : int
            Not used.
        """
        del step
        require_fields(frozenset({"y"}), batch, system="stnet")
        found, y_BG = self(batch), cast("Tensor", batch.y)
        parts = {"mse": mse(found, y_BG)}
        total = parts["mse"]
        if self.config.pearson_weight > 0:
            parts["pearson"] = pearson(found, y_BG)
            total = total + self.config.pearson_weight * parts["pearson"]
        return {"total": total, **parts}

    def predict(self, batch: SpotBatch) -> Tensor:
        """Return predicted labels, shape (B, G)."""
        out: Tensor = self(batch)
        return torch.clamp(out, min=0) if self.config.clip_at_zero else out
