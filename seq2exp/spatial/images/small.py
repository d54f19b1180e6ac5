"""Encoders without published weights: a tiny network, colour statistics, densities of pixels.

Axes: B patches, H, W pixels, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.colour import NUM_FEATURES, colour_stats
from seq2exp.spatial.images.encoder import Encoder, flat_places
from seq2exp.spatial.optics import OpticalPixels

__all__ = ["ColourStats", "PixelDensities", "TinyCNN"]


class TinyCNN(Encoder):
    """Three convolutions with stride 2, for small patches and for tests.

    Norms are over groups of channels, so a patch does not depend on its batch in training either.
    """

    def __init__(self) -> None:
        super().__init__(dim=64, token_dim=64, input_px=32, min_px=8)
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 64)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(4, after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""
        return flat_places(self.layers(x_B3HW))


class ColourStats(Encoder):
    """The 137 numbers of :func:`seq2exp.spatial.colour.colour_stats`; no weights, no places.

    They are counted and sorted pixels, so no gradient goes through them.
    """

    def __init__(self) -> None:
        super().__init__(dim=NUM_FEATURES, token_dim=0, input_px=224, min_px=16)
        self.set_colour((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def tokens(self, x_B3HW: Tensor) -> Tensor:
        """Refuse: there are none.

        Raises
        ------
        ConfigError
        """
        raise ConfigError(
            facts(
                "encoder colour_stats",
                found="features of whole patches only",
                expected="tokens",
                fix="choose resnet18, resnet50, densenet121, vit_* or tinycnn",
            )
        )

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return no tokens, and the numbers of every patch."""
        bytes_BHW3 = (x_B3HW.detach() * 255).round().clamp(0, 255).to(torch.uint8)
        patches = bytes_BHW3.permute(0, 2, 3, 1).cpu().numpy()
        pooled = np.empty((len(patches), self.dim), np.float32)
        for row, patch in enumerate(patches):
            pooled[row] = colour_stats(patch)
        pooled_BD = torch.from_numpy(pooled).to(x_B3HW.device)
        return pooled_BD.new_zeros(len(pooled_BD), 0, 0), pooled_BD


class PixelDensities(Encoder):
    """Optical densities of 1,024 pixels of a patch: what neural stain learning reads.

    Places are those of :class:`~seq2exp.spatial.optics.OpticalPixels`; features of a patch are the
    mean densities of red, green and blue. There are no weights.
    """

    def __init__(self) -> None:
        super().__init__(dim=3, token_dim=3, input_px=224, min_px=8)
        self.set_colour((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.pixels = OpticalPixels()

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the densities of pixels, and their mean."""
        tokens_BTD = self.pixels.tokens(x_B3HW)
        return tokens_BTD, tokens_BTD.mean(dim=1)
