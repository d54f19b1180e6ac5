"""TRIPLEX, corrected: a spot from its own patch, the tiles around it, and the whole section.

Chung et al., CVPR 2024 (code NEXGEM/TRIPLEX). What differs from the code on purpose: attention has
no state that goes stale, positions keep order and number of spots, masks act on the tiles they
name, nothing is clamped in training, and spots of a section are encoded once per call.

Shapes: B spots of a batch, N spots of a section, T tokens of a patch, K tiles around a spot, F
width of given features, D width of the model, G genes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from seq2exp.spatial.batch import SpotBatch, SystemInfo, require_fields
from seq2exp.spatial.heads import GeneQueryHead, GeneTokens, LinearHead
from seq2exp.spatial.losses import distill, mse
from seq2exp.spatial.systems.tri_encoders import (
    FusionEncoder,
    GlobalEncoder,
    NeighbourEncoder,
    TriBranchConfig,
    masked_mean,
    project,
    spatial_blocks,
)

__all__ = [
    "BranchFeatures",
    "BranchPredictions",
    "TokenEncoder",
    "TriBranch",
    "branch_loss",
]


class TokenEncoder(Protocol):
    """An image encoder that is trained with the system."""

    token_dim: int

    def tokens(self, img_B3HW: Tensor) -> Tensor:
        """Return tokens of patches, shape (B, T, token_dim)."""


@dataclass(frozen=True, eq=False)
class BranchFeatures:
    """What the branches know of some spots.

    Attributes
    ----------
    target_BTD : float tensor, shape (spots, tokens, width)
    neighbour_BKD, neighbour_mask_BK : float and bool tensors
        Tiles around the spots; False outside the image.
    global_BD : float tensor, shape (spots, width)
    fused_BD : float tensor, shape (spots, width)
    """

    target_BTD: Tensor
    neighbour_BKD: Tensor
    neighbour_mask_BK: Tensor
    global_BD: Tensor
    fused_BD: Tensor


@dataclass(frozen=True, eq=False)
class BranchPredictions:
    """Predictions of the whole and of its branches, each of shape (spots, genes)."""

    fused_BG: Tensor
    target_BG: Tensor
    neighbour_BG: Tensor
    global_BG: Tensor


class TriBranch(nn.Module):
    """Target, neighbour and global branch, joined by cross-attention.

    Parameters
    ----------
    config : TriBranchConfig
    info : SystemInfo
    encoder : module with ``token_dim`` and ``tokens(img)``, optional
        Trained on patches; without one the system reads cached tokens.
    gene_tokens : module, optional
        Called without arguments, returns tokens of the genes, shape (genes, width); its attribute
        ``dim`` is the width. Heads are then :class:`GeneQueryHead`.
    """

    requires: frozenset[str]

    def __init__(
        self,
        config: TriBranchConfig,
        info: SystemInfo,
        *,
        encoder: nn.Module | None = None,
        gene_tokens: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.batches = config.batches
        self.encoder = encoder
        self.gene_tokens = gene_tokens
        given = "tokens" if encoder is None else "img"
        self.requires = frozenset({given, "nbr", "nbr_mask", "sections"})
        token_dim = info.token_dim if encoder is None else cast("TokenEncoder", encoder).token_dim
        self.target_in = project(token_dim, config.width, "tokens")
        self.neighbours = NeighbourEncoder(config, info.feat_dim)
        self.whole = GlobalEncoder(config, info.feat_dim)
        self.fusion = FusionEncoder(config)
        names = ("fused", "target", "neighbour", "global")
        self.heads = nn.ModuleDict({name: self._head(info) for name in names})

    def _head(self, info: SystemInfo) -> nn.Module:
        if self.gene_tokens is None:
            return LinearHead(self.config.width, info.num_genes)
        dim = cast("GeneTokens", self.gene_tokens).dim
        return GeneQueryHead(self.config.width, dim, rank=self.config.gene_rank)

    def encode_sections(self, sections: Mapping[int, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        """Return the global tokens of every spot of whole sections, each of shape (N, D).

        Parameters
        ----------
        sections : mapping of int to (feat (N, F), grid (N, 2))
        """
        return {name: self.whole(*section) for name, section in sections.items()}

    def features(
        self, batch: SpotBatch, *, encoded: Mapping[int, Tensor] | None = None
    ) -> BranchFeatures:
        """Return what the branches know of the spots of a batch.

        Parameters
        ----------
        batch : SpotBatch
        encoded : mapping of int to float tensor, shape (N, D), optional
            What :meth:`encode_sections` returned, to predict many batches of the same sections.
        """
        require_fields(self.requires, batch, system="triplex")
        if self.encoder is None:
            target = self.target_in(batch.tokens)
        else:
            target = self.target_in(
                cast("TokenEncoder", self.encoder).tokens(cast("Tensor", batch.img))
            )
        neighbour = self.neighbours(batch.nbr, batch.nbr_mask)
        if encoded is None:
            encoded = self.encode_sections(batch.sections or {})
        whole = _rows_of(encoded, batch.section, batch.spot)
        mask = cast("Tensor", batch.nbr_mask)
        fused = self.fusion(whole, target, neighbour, mask)
        return BranchFeatures(target, neighbour, mask, whole, fused)

    def forward(
        self, batch: SpotBatch, *, encoded: Mapping[int, Tensor] | None = None
    ) -> BranchPredictions:
        """Return predictions of the whole and of each branch.

        Parameters
        ----------
        batch, encoded
            As in :meth:`features`.
        """
        known = self.features(batch, encoded=encoded)
        tiles = masked_mean(known.neighbour_BKD, known.neighbour_mask_BK)
        inputs = {
            "fused": known.fused_BD,
            "target": known.target_BTD.mean(dim=1),
            "neighbour": tiles,
            "global": known.global_BD,
        }
        genes = () if self.gene_tokens is None else (self.gene_tokens(),)
        found = {name: self.heads[name](value, *genes) for name, value in inputs.items()}
        return BranchPredictions(*(found[name] for name in inputs))

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return the errors of the fused prediction and of each branch.

        L = MSE(fused, y) + sum over branches of (1 - a) MSE(branch, y) + a MSE(branch, fused).

        Parameters
        ----------
        batch : SpotBatch
        step : int
            Not used.
        """
        del step
        require_fields(frozenset({"y"}), batch, system="triplex")
        y_BG = cast("Tensor", batch.y)
        return branch_loss(
            self(batch), y_BG, weight=self.config.distill, detach=self.config.detach_teacher
        )

    def predict(self, batch: SpotBatch, *, encoded: Mapping[int, Tensor] | None = None) -> Tensor:
        """Return predicted labels, shape (B, G).

        Parameters
        ----------
        batch, encoded
            As in :meth:`features`.
        """
        out: Tensor = self(batch, encoded=encoded).fused_BG
        return out.clamp(min=0) if self.config.clip_at_zero else out

    def notes(self, sections: Mapping[int, tuple[Tensor, Tensor]]) -> list[str]:
        """Return what a result must say of sections whose attention was split into blocks."""
        limit = self.config.max_global_spots
        counts = {name: len(spatial_blocks(grid, limit)) for name, (_, grid) in sections.items()}
        return [
            f"section {name}: {len(sections[name][1])} spots, global attention within {count} "
            "spatial blocks"
            for name, count in counts.items()
            if count > 1
        ]


def branch_loss(
    found: BranchPredictions, y_BG: Tensor, *, weight: float, detach: bool
) -> dict[str, Tensor]:
    """Return the loss of :meth:`TriBranch.loss` and its parts.

    Parameters
    ----------
    found : BranchPredictions
    y_BG : float tensor, shape (spots, genes)
    weight : float
        a, the share of the fused prediction.
    detach : bool
        The fused prediction gets no gradient from the branches.
    """
    parts = {"fused": mse(found.fused_BG, y_BG)}
    for name in ("target", "neighbour", "global"):
        branch: Tensor = getattr(found, f"{name}_BG")
        parts[name] = distill(branch, found.fused_BG, y_BG, weight=weight, detach=detach)
    return {"total": torch.stack(list(parts.values())).sum(), **parts}


def _rows_of(encoded: Mapping[int, Tensor], section_B: Tensor, spot_B: Tensor) -> Tensor:
    """Pick the batch's spots out of their sections, shape (B, D)."""
    names = list(encoded)
    first, starts = 0, {}
    for name in names:
        starts[name] = first
        first += len(encoded[name])
    start_B = torch.tensor([starts[int(name)] for name in section_B], device=spot_B.device)
    return torch.cat([encoded[name] for name in names])[start_B + spot_B]
