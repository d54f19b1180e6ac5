"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929), with the names that timm gives.

Axes: B patches of tissue, T places (squares of `patch_px` pixels), D width, H heads, E channels of
a head. With `layer_scale` every branch is multiplied by a learned vector (Touvron et al., arXiv
2103.17239), as in encoders trained by DINOv2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.images.encoder import Encoder

__all__ = ["VITS", "VisionTransformer", "VitConfig"]

_EPS = 1e-6


@dataclass(frozen=True)
class VitConfig:
    """Sizes of a vision transformer."""

    patch_px: int = 16
    """Side of a square that becomes a token."""
    width: int = 768
    """Features of a token."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 12
    """Heads of a block; they divide the width."""
    img_px: int = 224
    """Side of the images that the position table was learned on."""
    mlp_ratio: float = 4.0
    """Inner width of the MLP over the width."""
    layer_scale: float | None = None
    """Start of the learned factors of the branches; none where not given."""

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.img_px % self.patch_px:
            raise ConfigError(
                facts(
                    "vit",
                    found=f"width {self.width} with {self.num_heads} heads, "
                    f"{self.img_px} pixels in squares of {self.patch_px}",
                    expected="whole numbers of channels per head and of squares per side",
                    fix="change the sizes",
                )
            )


VITS = {
    "vit_s16": VitConfig(16, 384, 12, 6),
    "vit_b16": VitConfig(16, 768, 12, 12),
    "vit_b32": VitConfig(32, 768, 12, 12),
    "vit_l16": VitConfig(16, 1024, 24, 16),
    "vit_s16_ls": VitConfig(16, 384, 12, 6, layer_scale=1e-5),
    "vit_b16_ls": VitConfig(16, 768, 12, 12, layer_scale=1e-5),
    "vit_l16_ls": VitConfig(16, 1024, 24, 16, layer_scale=1e-5),
}


class VisionTransformer(Encoder):
    """A vision transformer; the class token stands for the patch.

    Images of other sizes than `img_px` get the position table resampled to their grid (bicubic,
    antialiased).

    Parameters
    ----------
    config : VitConfig, optional
    """

    heads = (*Encoder.heads, "heads.", "pre_logits.")

    def __init__(self, config: VitConfig | None = None) -> None:
        config = config or VitConfig()
        side = config.patch_px
        super().__init__(
            dim=config.width, token_dim=config.width, input_px=config.img_px, step=side, min_px=side
        )
        self.config = config
        num_places = (config.img_px // side) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.randn(1, num_places + 1, config.width) * 0.02)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, config.width, side, stride=side)})
        self.blocks = nn.Sequential(*(_Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=_EPS)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""
        map_BDHW = self.patch_embed["proj"](x_B3HW)
        rows, columns = map_BDHW.shape[-2:]
        hidden_BTD = map_BDHW.flatten(2).transpose(1, 2)
        first_B1D = self.cls_token.expand(len(x_B3HW), -1, -1)
        hidden_BTD = torch.cat([first_B1D, hidden_BTD], dim=1) + self.positions(rows, columns)
        hidden_BTD = self.norm(self.blocks(hidden_BTD))
        return hidden_BTD[:, 1:], hidden_BTD[:, 0]

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position table for a grid of places, shape (1, 1 + rows * columns, width)."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (rows, columns) == (side, side):
            return self.pos_embed
        table_1DHW = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        table_1DHW = F.interpolate(
            table_1DHW, (rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([self.pos_embed[:, :1], table_1DHW.flatten(2).transpose(1, 2)], dim=1)


class _Block(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = _Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        inner = int(config.width * config.mlp_ratio)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(config.width, inner), "fc2": nn.Linear(inner, config.width)}
        )
        self.ls1, self.ls2 = (_scale(config) for _ in range(2))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.ls1(self.attn(self.norm1(x_BTD)))
        inner_BTF = F.gelu(self.mlp["fc1"](self.norm2(x_BTD)))
        out_BTD: Tensor = x_BTD + self.ls2(self.mlp["fc2"](inner_BTF))
        return out_BTD


class _Attention(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        parts = self.qkv(x_BTD).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed_BHTE = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed_BHTE.transpose(1, 2).flatten(2))
        return out


class _LayerScale(nn.Module):
    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.gamma


def _scale(config: VitConfig) -> nn.Module:
    if config.layer_scale is None:
        return nn.Identity()
    return _LayerScale(config.width, config.layer_scale)
