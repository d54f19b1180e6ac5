"""mclSTExp: contrastive alignment of patch and spot, prediction by retrieval (Min et al. 2024).

Brief. Bioinform. 25(6) bbae551. The image tower sees the patch, the spot tower the expression and
the position of the spot. What differs from the published code by default, and what
``reference_compat`` brings back:

=================  =======================================  ======================================
                   here                                     reference_compat
=================  =======================================  ======================================
similarity         cosine, learned temperature              product of embeddings, temperature 1
inputs             standardised over the training spots     as they are
position           smooth, of deviation 0.02                tables of the array's size, normal(0,1)
context            none, or neighbours of the same section  the mini-batch as a sentence
false negatives    soft targets or masked, if wanted        identity
bank               other patients only                      other sections, flagged leaky
=================  =======================================  ======================================

The image tower of the published system never sees position or context; with ``image_neighbours``
this one sees the features of the tiles around.

Axes: B spots of a batch, G genes, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo
from seq2exp.spatial.contrastive_losses import info_nce, soft_clip
from seq2exp.spatial.gene_towers import TokenPool
from seq2exp.spatial.genes import GeneInputs, GeneTokenEncoder, TokenMode
from seq2exp.spatial.image_tower import PatchEncoder
from seq2exp.spatial.retrieval import RetrievalConfig
from seq2exp.spatial.samplers import Negatives
from seq2exp.spatial.spot_blocks import SpotBlock, grid_encoding, nearest_spots
from seq2exp.spatial.standard import ProjectionHead, RunningStandard
from seq2exp.spatial.towers import TwoTowers, evaluating, join_spots, shared_parts, spot_order

__all__ = ["MclSTExp", "MclSTExpConfig", "SpotTower"]


@dataclass(frozen=True)
class MclSTExpConfig:
    """Settings of mclSTExp."""

    width: int = 256
    """Of the embeddings."""
    temperature: float = 0.07
    """Of the logits at the start; learned, the scale stays within 1 and 100."""
    position: Literal["sinusoidal", "mlp", "none"] = "sinusoidal"
    """What the spot tower knows of the place on the array."""
    context: Literal["none", "neighbours"] = "none"
    """Whether the spot tower attends to the nearest spots of the same section that are in the
    batch; train with batches of one section then."""
    num_neighbours: int = 8
    """Spots that it attends to."""
    num_blocks: int = 2
    """Blocks of the spot tower."""
    num_heads: int = 8
    """Heads of 64 channels, where there is context."""
    dropout: float = 0.0
    """In the blocks and both projections."""
    image_neighbours: bool = False
    """The image tower also reads the mean of the features of the tiles around the patch."""
    false_negatives: Literal["identity", "soft", "mask"] = "identity"
    """Targets: one's own partner; shared among spots that are alike (BLEEP); or one's own, with
    spots of like expression left out of the negatives."""
    target_temperature: float = 0.07
    """Of the soft targets."""
    mask_above: float = 0.9
    """Correlation of the standardised labels above which a spot is no negative."""
    negatives: Negatives = "any"
    """Where the other spots of a batch come from: any, or within_slide."""
    spot: Literal["dense", "tokens"] = "dense"
    """The spot tower knows genes by column, or by gene tokens; then a bank of another panel may
    serve, and position and context are not read."""
    token_mode: TokenMode = "table"
    """Gene tokens (docs of GeneTokenEncoder)."""
    token_use: tuple[str, ...] = ("z",)
    """Parts of the prior that they read."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """How the bank answers."""
    reference_compat: bool = False
    """Behave as the published code."""

    def __post_init__(self) -> None:
        clash = {
            "context": self.context != "none",
            "spot": self.spot != "dense",
            "false_negatives": self.false_negatives != "identity",
            "image_neighbours": self.image_neighbours,
        }
        wrong = [name for name, differs in clash.items() if differs]
        if self.reference_compat and wrong:
            raise ConfigError(
                facts(
                    "reference_compat",
                    found=f"together with {', '.join(wrong)}",
                    expected="the published behaviour alone",
                    fix="leave them at their defaults",
                )
            )


class SpotTower(nn.Module):
    """Expression, position and context of a spot, to a vector as wide as the panel.

    Parameters
    ----------
    config : MclSTExpConfig
    info : SystemInfo
    """

    def __init__(self, config: MclSTExpConfig, info: SystemInfo) -> None:
        super().__init__()
        self.config = config
        self.num_genes = width = info.num_genes
        compat = config.reference_compat
        self.extent = (max(info.grid_rows, 1), max(info.grid_cols, 1))
        self.standard = nn.Identity() if compat else RunningStandard(width)
        if compat:
            self.rows = nn.Embedding(self.extent[0], width)
            self.columns = nn.Embedding(self.extent[1], width)
        elif config.position == "mlp":
            last = nn.Linear(64, width)
            nn.init.normal_(last.weight, std=0.02 / 8)
            nn.init.normal_(last.bias, std=0.02)
            self.place = nn.Sequential(nn.Linear(2, 64), nn.GELU(), last)
        heads = config.num_heads if compat or config.context == "neighbours" else 0
        self.blocks = nn.ModuleList(
            SpotBlock(width, num_heads=heads, dropout=config.dropout)
            for _ in range(config.num_blocks)
        )

    def forward(self, y_BG: Tensor, batch: SpotBatch) -> Tensor:
        """Return the encoded spots, shape (batch, genes)."""
        s_BG = self.standard(y_BG).nan_to_num(0.0) + self._position(batch)
        near = None
        if not self.config.reference_compat and self.config.context == "neighbours":
            near = nearest_spots(
                batch.grid, batch.section, batch.spot, num_neighbours=self.config.num_neighbours
            )
        for block in self.blocks:
            s_BG = block(s_BG, near)
        encoded_BG: Tensor = s_BG
        return encoded_BG

    def _position(self, batch: SpotBatch) -> Tensor | float:
        if self.config.reference_compat:
            self._require_inside(batch.grid)
            row_BG: Tensor = self.rows(batch.grid[:, 0])
            column_BG: Tensor = self.columns(batch.grid[:, 1])
            return row_BG + column_BG
        if self.config.position == "none":
            return 0.0
        extent_2 = torch.tensor(self.extent, device=batch.grid.device)
        place_B2 = batch.grid / (extent_2 - 1).clamp(min=1)
        if self.config.position == "sinusoidal":
            return grid_encoding(place_B2, self.num_genes)
        smooth_BG: Tensor = self.place(2 * place_B2 - 1)
        return smooth_BG

    def _require_inside(self, grid_B2: Tensor) -> None:
        lowest, highest = grid_B2.amin(0).tolist(), grid_B2.amax(0).tolist()
        if min(lowest) < 0 or any(
            at >= size for at, size in zip(highest, self.extent, strict=True)
        ):
            raise ConfigError(
                facts(
                    "position tables",
                    found=f"rows and columns up to {highest}",
                    expected=f"below {list(self.extent)}, the array of the training sections",
                    fix="use the default position in place of reference_compat",
                )
            )


class MclSTExp(TwoTowers):
    """The system.

    Parameters
    ----------
    config : MclSTExpConfig
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
        config: MclSTExpConfig,
        info: SystemInfo,
        *,
        genes: GeneInputs | None = None,
        encoder: PatchEncoder | None = None,
    ) -> None:
        super().__init__("mclstexp", **shared_parts(config, info, encoder=encoder))
        self.config = config
        self.batches = config.negatives
        self.spots: TokenPool | SpotTower
        if config.spot == "tokens":
            self.spots = TokenPool(self._tokens(genes, info.num_genes))
        else:
            self.spots = SpotTower(config, info)
        encoded = config.width if config.spot == "tokens" else info.num_genes
        self.project = ProjectionHead(encoded, config.width, dropout=config.dropout)

    def _tokens(self, genes: GeneInputs | None, num_genes: int) -> GeneTokenEncoder:
        config = self.config
        if genes is None or len(genes) != num_genes:
            raise ConfigError(
                facts(
                    "mclstexp.spot",
                    found="tokens, without the genes of the panel",
                    expected=f"the {num_genes} genes (GeneInputs)",
                    fix="give them, or use spot dense",
                )
            )
        return GeneTokenEncoder(config.token_mode, config.width, config.token_use, genes=genes)

    def encode_genes(self, batch: SpotBatch) -> Tensor:
        """Return the embedding of every spot's expression, shape (batch, width)."""
        y_BG = self.labels_of(batch)
        spots = self.spots
        encoded = spots(y_BG) if isinstance(spots, TokenPool) else spots(y_BG, batch)
        embedding_BD: Tensor = self.project(encoded)
        return embedding_BD

    def contrast(self, image_BD: Tensor, gene_BD: Tensor, batch: SpotBatch) -> Tensor:
        """Return the contrastive loss of the embeddings of a batch, a scalar."""
        config = self.config
        unit = not config.reference_compat
        if config.false_negatives == "soft":
            return soft_clip(
                image_BD,
                gene_BD,
                scale=self.logit_scale,
                target_temperature=config.target_temperature,
            )
        alike_BB = None
        if config.false_negatives == "mask":
            alike_BB = self._alike(self.labels_of(batch))
        return info_nce(
            image_BD,
            gene_BD,
            scale=self.logit_scale,
            normalise=unit,
            ignore_BB=alike_BB,
        )

    @torch.no_grad()
    def _alike(self, y_BG: Tensor) -> Tensor:
        """Pairs whose labels, standardised within the batch, correlate."""
        known_BG = torch.isfinite(y_BG)
        y_BG = y_BG.nan_to_num(0.0)
        scaled_BG = (y_BG - y_BG.mean(0)) / y_BG.std(0).clamp(min=1e-6) * known_BG
        unit_BG = F.normalize(scaled_BG - scaled_BG.mean(1, keepdim=True), dim=-1)
        return unit_BG @ unit_BG.T > self.config.mask_above

    def _reference_keys(self, batches: Sequence[SpotBatch]) -> tuple[Tensor, SpotBatch]:
        config = self.config
        if config.reference_compat:
            # The published code encodes the reference by the batches of its loader.
            with evaluating(self):
                keys = torch.cat([self.encode_genes(batch) for batch in batches])
            return keys[spot_order(batches).to(keys.device)], join_spots(batches)
        if config.context == "none":
            return super()._reference_keys(batches)
        # Whole sections, so that every spot has all its neighbours.
        spots = join_spots(batches)
        codes = sorted(set(spots.section.tolist()))
        parts = [self._section(spots, code) for code in codes]
        with evaluating(self):
            return torch.cat([self.encode_genes(part) for part in parts]), spots

    @staticmethod
    def _section(spots: SpotBatch, code: int) -> SpotBatch:
        chosen = spots.section == code
        names = ("section", "patient", "spot", "grid", "xy_um", "total", "y", "gene_mask")
        parts: dict[str, Any] = {
            name: None if (x := getattr(spots, name)) is None else x[chosen] for name in names
        }
        return SpotBatch(**parts)

    def _use_genes(self, genes: GeneInputs, y_SG: Tensor) -> None:
        if not isinstance(self.spots, TokenPool):
            raise ConfigError(
                facts(
                    "mclstexp",
                    found=f"another panel, of {len(genes)} genes",
                    expected="the panel of the training, because the spot tower is dense",
                    fix="train with spot: tokens and a prior or text",
                )
            )
        self.spots.use_genes(genes, y_SG)
