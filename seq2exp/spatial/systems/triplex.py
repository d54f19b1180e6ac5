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

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo, require_fields
from seq2exp.spatial.blocks import Apeg2d, CrossBlock, SelfBlock
from seq2exp.spatial.heads import GeneQueryHead, GeneTokens, LinearHead
from seq2exp.spatial.losses import distill, mse

__all__ = [
    "TRIBRANCH_PRESETS",
    "BranchFeatures",
    "BranchPredictions",
    "TokenEncoder",
    "TriBranch",
    "TriBranchConfig",
    "spatial_blocks",
    "tribranch_preset",
]


class TokenEncoder(Protocol):
    """An image encoder that is trained with the system."""

    token_dim: int

    def tokens(self, img_B3HW: Tensor) -> Tensor:
        """Return tokens of patches, shape (B, T, token_dim)."""


@dataclass(frozen=True)
class TriBranchConfig:
    """Sizes of TRIPLEX; triples are in the order fusion, global, neighbour."""

    width: int = 512
    """Width of all tokens; features of another width are projected."""
    depths: tuple[int, int, int] = (1, 5, 4)
    """Blocks."""
    heads: tuple[int, int, int] = (4, 8, 4)
    """Heads of attention."""
    mlp_ratios: tuple[float, float, float] = (4.0, 4.0, 4.0)
    """Inner width of the MLPs by the width."""
    dropouts: tuple[float, float, float] = (0.4, 0.3, 0.3)
    """Dropout."""
    distill: float = 0.3
    """Share of the fused prediction, against the labels, in the loss of each branch."""
    detach_teacher: bool = False
    """Keep the gradient of the branches from the fused prediction; the published loss does not."""
    clip_at_zero: bool = False
    """Raise negative predictions to 0; in predictions only, never in training."""
    max_global_spots: int = 0
    """Sections with more spots attend within spatial blocks of at most so many; 0 never splits."""
    neighbour_side: int = 5
    """Tiles around a spot are a square of this side."""
    gene_rank: int = 64
    """Rank of the heads where genes come as tokens."""

    def __post_init__(self) -> None:
        triples = {name: getattr(self, name) for name in ("depths", "heads", "mlp_ratios")}
        checks = {
            **{name: (min(triple) > 0, "above 0") for name, triple in triples.items()},
            "dropouts": (all(0 <= rate < 1 for rate in self.dropouts), "from 0 to below 1"),
            "distill": (0 <= self.distill <= 1, "between 0 and 1"),
            "max_global_spots": (self.max_global_spots >= 0, "0 or more"),
            "neighbour_side": (self.neighbour_side % 2 == 1, "an odd number"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise ConfigError(
                    facts(
                        f"triplex.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change it",
                    )
                )


TRIBRANCH_PRESETS: Mapping[str, TriBranchConfig] = {
    "her2_old": TriBranchConfig(),
    "her2_new": TriBranchConfig(
        depths=(1, 3, 3), heads=(4, 16, 16), mlp_ratios=(4.0, 4.0, 1.0), dropouts=(0.2, 0.1, 0.3)
    ),
    "skin_old": TriBranchConfig(
        depths=(2, 2, 4), heads=(8, 16, 16), mlp_ratios=(4.0, 1.0, 1.0), dropouts=(0.1, 0.1, 0.3)
    ),
    "stnet_old": TriBranchConfig(
        depths=(3, 3, 4), heads=(16, 8, 8), mlp_ratios=(4.0, 2.0, 4.0), dropouts=(0.4, 0.1, 0.3)
    ),
    "tiny": TriBranchConfig(
        width=64,
        depths=(1, 1, 1),
        heads=(2, 2, 2),
        mlp_ratios=(2.0, 2.0, 2.0),
        dropouts=(0.1, 0.1, 0.1),
    ),
}
"""Published sets of the first code for HER2+, cSCC (skin) and ST-Net data, of the refactored code
for HER2+, and a small one."""


def tribranch_preset(name: str) -> TriBranchConfig:
    """Return a configuration of :data:`TRIBRANCH_PRESETS`.

    Raises
    ------
    ConfigError
        No such preset.
    """
    require_known("preset", name, list(TRIBRANCH_PRESETS), expected="a preset of TRIPLEX")
    return TRIBRANCH_PRESETS[name]


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
        self.encoder = encoder
        self.gene_tokens = gene_tokens
        given = "tokens" if encoder is None else "img"
        self.requires = frozenset({given, "nbr", "nbr_mask", "sections"})
        token_dim = info.token_dim if encoder is None else cast("TokenEncoder", encoder).token_dim
        self.target_in = _project(token_dim, config.width, "tokens")
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


class NeighbourEncoder(nn.Module):
    """Self-attention over the tiles around a spot, with a bias by their distance.

    Parameters
    ----------
    config : TriBranchConfig
    feat_dim : int
    """

    def __init__(self, config: TriBranchConfig, feat_dim: int) -> None:
        super().__init__()
        self.project = _project(feat_dim, config.width, "feat")
        self.blocks = nn.ModuleList(
            SelfBlock(
                config.width,
                num_heads=config.heads[2],
                mlp_ratio=config.mlp_ratios[2],
                dropout=config.dropouts[2],
                side=config.neighbour_side,
            )
            for _ in range(config.depths[2])
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, nbr_BKF: Tensor, mask_BK: Tensor) -> Tensor:
        """Return the tiles, shape (spots, tiles, width)."""
        x_BKD = self.project(nbr_BKF)
        for block in self.blocks:
            x_BKD = block(x_BKD, mask_BK)
        out: Tensor = self.norm(x_BKD)
        return out


class GlobalEncoder(nn.Module):
    """Self-attention over all spots of a section; positions enter after the first block.

    Parameters
    ----------
    config : TriBranchConfig
    feat_dim : int
    """

    def __init__(self, config: TriBranchConfig, feat_dim: int) -> None:
        super().__init__()
        self.limit = config.max_global_spots
        self.project = _project(feat_dim, config.width, "feat")
        self.blocks = nn.ModuleList(
            SelfBlock(
                config.width,
                num_heads=config.heads[1],
                mlp_ratio=config.mlp_ratios[1],
                dropout=config.dropouts[1],
            )
            for _ in range(config.depths[1])
        )
        self.positions = Apeg2d(config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, feat_NF: Tensor, grid_N2: Tensor) -> Tensor:
        """Return the spots of one section, shape (spots, width)."""
        parts = spatial_blocks(grid_N2, self.limit)
        x_ND = self.project(feat_NF)
        for number, block in enumerate(self.blocks):
            if len(parts) == 1:
                x_ND = block(x_ND[None])[0]
            else:
                done = torch.cat([block(x_ND[part][None])[0] for part in parts])
                x_ND = torch.empty_like(done).index_copy(0, torch.cat(parts), done)
            if number == 0:
                x_ND = self.positions(x_ND, grid_N2)
        out: Tensor = self.norm(x_ND)
        return out


class FusionEncoder(nn.Module):
    """The global token asks patch and tiles; one stack serves both.

    f = LN( CE(g, patch) + CE(g, tiles) )

    Parameters
    ----------
    config : TriBranchConfig
    """

    def __init__(self, config: TriBranchConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CrossBlock(
                config.width,
                num_heads=config.heads[0],
                mlp_ratio=config.mlp_ratios[0],
                dropout=config.dropouts[0],
            )
            for _ in range(config.depths[0])
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, global_BD: Tensor, target_BTD: Tensor, neighbour_BKD: Tensor, mask_BK: Tensor
    ) -> Tensor:
        """Return the fused token, shape (spots, width)."""
        asked = self._ask(global_BD, target_BTD, None) + self._ask(
            global_BD, neighbour_BKD, mask_BK
        )
        out: Tensor = self.norm(asked)
        return out

    def _ask(self, query_BD: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        query = query_BD[:, None]
        for block in self.blocks:
            query = block(query, context, mask)
        return query[:, 0]


def masked_mean(x_BKD: Tensor, mask_BK: Tensor) -> Tensor:
    """Return the mean over the tokens that are there, 0 where there are none, shape (B, D)."""
    kept_BKD = torch.where(mask_BK[..., None], x_BKD, 0.0)
    return kept_BKD.sum(dim=1) / mask_BK.sum(dim=1, keepdim=True).clamp(min=1)


def spatial_blocks(grid_N2: Tensor, limit: int) -> list[Tensor]:
    """Return the spots of a section in blocks of neighbours.

    Blocks are halved along their longer side until none is too large, so they do not depend on the
    order of the spots.

    Parameters
    ----------
    grid_N2 : int64 tensor, shape (spots, 2)
    limit : int
        Most spots of a block; 0 for one block.

    Returns
    -------
    list of int64 tensors
        Rows of ``grid_N2``.
    """
    todo = [torch.arange(len(grid_N2), device=grid_N2.device)]
    done = []
    while todo:
        part = todo.pop()
        if not limit or len(part) <= limit:
            done.append(part)
            continue
        place = grid_N2[part]
        extent = place.amax(dim=0) - place.amin(dim=0)
        axis = int(extent[1] > extent[0])
        # Cells are unique, so this order is too.
        span = int(extent[1 - axis]) + 1
        code = place[:, axis] * span + (place[:, 1 - axis] - place[:, 1 - axis].min())
        ordered = part[code.argsort()]
        half = len(part) // 2
        todo += [ordered[half:], ordered[:half]]
    return done


def _project(given: int, width: int, what: str) -> nn.Module:
    if given < 1:
        raise ConfigError(
            facts(
                "system triplex",
                found=f"no width of {what}",
                expected="an image encoder that gives them",
                fix="choose an image encoder",
            )
        )
    return nn.Identity() if given == width else nn.Linear(given, width)


def _rows_of(encoded: Mapping[int, Tensor], section_B: Tensor, spot_B: Tensor) -> Tensor:
    """Pick the batch's spots out of their sections, shape (B, D)."""
    names = list(encoded)
    first, starts = 0, {}
    for name in names:
        starts[name] = first
        first += len(encoded[name])
    start_B = torch.tensor([starts[int(name)] for name in section_B], device=spot_B.device)
    return torch.cat([encoded[name] for name in names])[start_B + spot_B]
