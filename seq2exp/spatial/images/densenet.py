"""DenseNet-121 (Huang et al. 2017, CVPR:4700), with the names that torchvision gives.

Axes: B patches, C channels, H, W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.spatial.images.encoder import Encoder, flat_places

__all__ = ["DenseNet", "DenseNetConfig"]


@dataclass(frozen=True)
class DenseNetConfig:
    """Sizes of a DenseNet; the defaults are DenseNet-121."""

    blocks: tuple[int, ...] = (6, 12, 24, 16)
    """Layers of each dense block."""
    growth: int = 32
    """Channels that a layer adds."""
    bottleneck: int = 4
    """Inner channels of a layer over what it adds."""
    width: int = 64
    """Channels of the first convolution."""


class DenseNet(Encoder):
    """A DenseNet without its classifier; its places are rectified, as those that it would pool.

    Parameters
    ----------
    config : DenseNetConfig, optional
    """

    def __init__(self, config: DenseNetConfig | None = None) -> None:
        config = config or DenseNetConfig()
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(config.width),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = config.width
        for index, count in enumerate(config.blocks, start=1):
            parts[f"denseblock{index}"] = _DenseBlock(channels, count, config)
            channels += count * config.growth
            if index < len(config.blocks):
                parts[f"transition{index}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        super().__init__(dim=channels, token_dim=channels, input_px=224, min_px=32)
        self.features = nn.Sequential(parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""
        return flat_places(F.relu(self.features(x_B3HW)))


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, config: DenseNetConfig) -> None:
        super().__init__()
        inner = config.bottleneck * config.growth
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, config.growth, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden_BCHW = self.conv1(F.relu(self.norm1(x_BCHW)))
        out: Tensor = self.conv2(F.relu(self.norm2(hidden_BCHW)))
        return out


class _DenseBlock(nn.Module):
    """Layers that see the outputs of all layers before them."""

    def __init__(self, channels: int, count: int, config: DenseNetConfig) -> None:
        super().__init__()
        for index in range(count):
            layer = _DenseLayer(channels + index * config.growth, config)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for layer in self.children():
            x_BCHW = torch.cat([x_BCHW, layer(x_BCHW)], dim=1)
        return x_BCHW


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, stride=2),
        )
    )
