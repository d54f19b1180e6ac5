"""The parts of TRIPLEX: sizes, encoders of tiles and sections, fusion.

Shapes: B spots of a batch, N spots of a section, T tokens of a patch, K tiles around a spot, F
width of given features, D width of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.blocks import Apeg2d, CrossBlock, SelfBlock
from seq2exp.spatial.samplers import Negatives

__all__ = [
    "TRIBRANCH_PRESETS",
    "FusionEncoder",
    "GlobalEncoder",
    "NeighbourEncoder",
    "TriBranchConfig",
    "masked_mean",
    "project",
    "spatial_blocks",
    "tribranch_preset",
]


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
    batches: Negatives = "any"
    """Spots of a training step: any, as published, or within_slide, which encodes one section per
    step in place of all."""

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


class NeighbourEncoder(nn.Module):
    """Self-attention over the tiles around a spot, with a bias by their distance.

    Parameters
    ----------
    config : TriBranchConfig
    feat_dim : int
    """

    def __init__(self, config: TriBranchConfig, feat_dim: int) -> None:
        super().__init__()
        self.project = project(feat_dim, config.width, "feat")
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
        self.project = project(feat_dim, config.width, "feat")
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


def project(given: int, width: int, what: str) -> nn.Module:
    """Return a linear map between two widths, nothing where they agree.

    Raises
    ------
    ConfigError
        The width of what is given is not known.
    """
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
