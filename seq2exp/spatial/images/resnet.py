"""ResNet-18 and ResNet-50 (He et al. 2016, CVPR:770), with the names that torchvision gives.

The stride of a bottleneck lies in its 3 x 3 convolution, as in the published ImageNet weights.
Axes: B patches, C channels, H, W pixels, T places, D features.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.spatial.images.encoder import Encoder, flat_places

__all__ = ["RESNETS", "ResNet", "ResNetConfig"]


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet."""

    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Blocks of each of the four stages."""
    bottleneck: bool = False
    """Blocks of three convolutions whose output is four times as wide, instead of two."""
    width: int = 64
    """Channels of the first stage; doubled by every later one."""


RESNETS = {
    "resnet18": ResNetConfig(),
    "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
}


class ResNet(Encoder):
    """A ResNet without its classifier.

    Parameters
    ----------
    config : ResNetConfig, optional
    """

    def __init__(self, config: ResNetConfig | None = None) -> None:
        config = config or ResNetConfig()
        growth = 4 if config.bottleneck else 1
        dim = config.width * 8 * growth
        super().__init__(dim=dim, token_dim=dim, input_px=224, min_px=32)
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        channels = config.width
        for stage, count in enumerate(config.blocks):
            inner = config.width * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(_Block(channels, inner, stride=stride, bottleneck=config.bottleneck))
                channels = inner * growth
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""
        hidden_BCHW = F.relu(self.bn1(self.conv1(x_B3HW)))
        hidden_BCHW = F.max_pool2d(hidden_BCHW, 3, stride=2, padding=1)
        for stage in range(1, 5):
            hidden_BCHW = getattr(self, f"layer{stage}")(hidden_BCHW)
        return flat_places(hidden_BCHW)


class _Block(nn.Module):
    """Convolutions beside a shortcut; the shortcut is a convolution where the shape changes."""

    def __init__(self, channels: int, inner: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = inner * 4 if bottleneck else inner
        shapes = (
            [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
            if bottleneck
            else [(channels, inner, 3, stride), (inner, out, 3, 1)]
        )
        self.num_convs = len(shapes)
        for index, (before, after, kernel, step) in enumerate(shapes, start=1):
            conv = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            setattr(self, f"conv{index}", conv)
            setattr(self, f"bn{index}", nn.BatchNorm2d(after))
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != out:
            parts = {
                "0": nn.Conv2d(channels, out, 1, stride, bias=False),
                "1": nn.BatchNorm2d(out),
            }
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden_BCHW = x_BCHW
        for index in range(1, self.num_convs + 1):
            if index > 1:
                hidden_BCHW = F.relu(hidden_BCHW)
            hidden_BCHW = getattr(self, f"conv{index}")(hidden_BCHW)
            hidden_BCHW = getattr(self, f"bn{index}")(hidden_BCHW)
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return F.relu(hidden_BCHW + shortcut)
