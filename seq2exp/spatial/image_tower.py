"""From a patch, or its cached features, to an embedding.

Axes: B spots of a batch, F features, K tiles around a spot, D width of the embeddings.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo
from seq2exp.spatial.standard import HeadKind, RunningStandard, make_head

__all__ = ["ImageTower", "PatchEncoder"]


class PatchEncoder(Protocol):
    """What an image tower asks of an encoder that is trained with it; a ``torch.nn.Module``."""

    dim: int
    """Features of a patch."""

    def pool(self, x: Tensor) -> Tensor:
        """Return features (B, dim) of patches (B, 3, H, W) between 0 and 1."""


class ImageTower(nn.Module):
    """From a patch to an embedding.

    Parameters
    ----------
    info : SystemInfo
    width : int
        Of the embedding.
    head : str
        projection, mlp or linear.
    dropout : float
    standardise : bool
        Standardise features over the training spots.
    neighbours : bool
        Put the mean of the features of the tiles around beside those of the patch.
    encoder : module, optional
        Encodes patches and is trained with the tower; without one, features come from the cache.

    Raises
    ------
    ConfigError
        Neither an encoder nor cached features.
    """

    def __init__(
        self,
        info: SystemInfo,
        *,
        width: int,
        head: HeadKind = "projection",
        hidden: int = 256,
        dropout: float = 0.0,
        standardise: bool = True,
        neighbours: bool = False,
        encoder: PatchEncoder | None = None,
    ) -> None:
        super().__init__()
        num_features = info.feat_dim if encoder is None else int(encoder.dim)
        if num_features < 1 or (neighbours and info.feat_dim < 1):
            raise ConfigError(
                facts(
                    "image tower",
                    found="neither cached features nor an encoder",
                    expected="one of them, and cached features for the tiles around",
                    fix="choose an image encoder",
                )
            )
        self.encoder, self.neighbours = encoder, neighbours
        num_features += info.feat_dim if neighbours else 0
        self.standard = RunningStandard(num_features) if standardise else nn.Identity()
        self.head = make_head(head, num_features, width, hidden=hidden, dropout=dropout)

    @property
    def requires(self) -> frozenset[str]:
        """Fields of the batch that are read."""
        own = {"feat" if self.encoder is None else "img"}
        return frozenset(own | ({"nbr", "nbr_mask"} if self.neighbours else set()))

    def forward(self, batch: SpotBatch) -> Tensor:
        """Return embeddings, shape (batch, width)."""
        x_BF = batch.feat
        if self.encoder is not None and batch.img is not None:
            x_BF = self.encoder.pool(batch.img)
        if self.neighbours and batch.nbr is not None and batch.nbr_mask is not None:
            seen_BK1 = batch.nbr_mask[..., None]
            total_BF = (batch.nbr * seen_BK1).sum(1)
            around_BF = total_BF / seen_BK1.sum(1).clamp(min=1)
            x_BF = around_BF if x_BF is None else torch.cat([x_BF, around_BF], dim=-1)
        embedding_BD: Tensor = self.head(self.standard(x_BF))
        return embedding_BD
