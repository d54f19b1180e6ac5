"""What every image encoder offers: features of a patch, and of the places in it.

Axes: B patches, 3 channels, H, W pixels, T places of a patch (tokens), row by row, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Colour", "Encoder", "flat_places"]

Colour: TypeAlias = tuple[float, float, float]
IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)


class Encoder(nn.Module, ABC):
    """From patches to features; names of parameters are those of the published weights.

    Attributes
    ----------
    name : str
        What :func:`~seq2exp.spatial.images.registry.make_encoder` was asked for.
    dim : int
        Features of a patch.
    token_dim : int
        Features of a place; 0 for encoders without places.
    input_px : int
        Side of the patches it was made for. Others work where `step` allows them.
    px : int
        Side to which patches are brought first; 0 leaves them as they are.
    step : int
        Sides of patches are multiples of it.
    weight_hash : str
        SHA-256 of the file of weights, or of the weights themselves where there is no file.
    pretrained : bool
        The weights are of a file; otherwise they are random, or there are none.
    """

    _shift: Tensor
    _scale: Tensor
    name: str = ""
    weight_hash: str = ""
    pretrained: bool = False
    px: int = 0
    heads: tuple[str, ...] = ("fc.", "classifier.", "head.")
    """Starts of the names of weights that only classify."""

    def __init__(
        self, *, dim: int, token_dim: int, input_px: int, step: int = 1, min_px: int = 1
    ) -> None:
        super().__init__()
        self.dim, self.token_dim, self.input_px = dim, token_dim, input_px
        self.step, self.min_px = step, min_px
        self._frozen = False
        # Not persistent: a file of weights holds weights only.
        self.register_buffer("_shift", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("_scale", torch.ones(1, 3, 1, 1), persistent=False)
        self.set_colour(IMAGENET_MEAN, IMAGENET_STD)

    def set_colour(self, mean: Colour, std: Colour) -> None:
        """Set the mean and the deviation that the weights expect.

        Raises
        ------
        ConfigError
            They are not three numbers each, or a deviation is not above 0.
        """
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                facts(
                    f"encoder {self.name or type(self).__name__}",
                    found=f"mean {mean}, std {std}",
                    expected="three numbers each, deviations above 0",
                    fix="give the numbers that were published with the weights",
                )
            )
        self._mean, self._std = tuple(map(float, mean)), tuple(map(float, std))
        device = self.device
        self._shift = torch.tensor(self._mean, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(self._std, device=device).view(1, 3, 1, 1)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._shift.device

    @property
    def mean(self) -> Colour:
        """Mean that is taken off RGB between 0 and 1."""
        return self._mean  # type: ignore[return-value]

    @property
    def std(self) -> Colour:
        """Deviation by which it is divided."""
        return self._std  # type: ignore[return-value]

    def freeze(self) -> Encoder:
        """Keep the weights and the statistics of batch norms as they are, also in training."""
        self._frozen = True
        self.requires_grad_(requires_grad=False)
        return self.train(mode=False)

    def train(self, mode: bool = True) -> Encoder:  # noqa: FBT001, FBT002 - as in torch
        """Switch to training; a frozen encoder stays in evaluation.

        Otherwise the training of a system would change the batch norms of its frozen encoder.
        """
        super().train(mode and not self._frozen)
        return self

    def tokens(self, x_B3HW: Tensor) -> Tensor:
        """Return the features of every place.

        Parameters
        ----------
        x_B3HW : float tensor, shape (batch, 3, height, width)
            RGB between 0 and 1.

        Returns
        -------
        float tensor, shape (batch, places, token_dim)

        Raises
        ------
        ConfigError
            The encoder has none, or cannot take patches of this size.
        """
        return self.both(x_B3HW)[0]

    def pool(self, x_B3HW: Tensor) -> Tensor:
        """Return the features of whole patches, shape (batch, dim)."""
        return self.both(x_B3HW)[1]

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return the features of whole patches: the same as :meth:`pool`."""
        return self.pool(x_B3HW)

    def both(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`tokens` and :meth:`pool` of one pass."""
        if self.px and x_B3HW.shape[-2:] != (self.px, self.px):
            x_B3HW = F.interpolate(x_B3HW, (self.px, self.px), mode="bilinear", antialias=True)
        self.check(x_B3HW.shape)
        return self.encode((x_B3HW - self._shift) / self._scale)

    @abstractmethod
    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""

    def check(self, shape: torch.Size) -> None:
        """Refuse patches of a shape that the encoder cannot take.

        Raises
        ------
        ConfigError
        """
        good = len(shape) == 4 and shape[1] == 3
        if not good or any(side < self.min_px or side % self.step for side in shape[2:]):
            sides = f"at least {self.min_px} pixels a side"
            raise ConfigError(
                facts(
                    f"encoder {self.name or type(self).__name__}",
                    found=f"patches of shape {tuple(shape)}",
                    expected="(batch, 3, height, width), "
                    + (f"{sides}, multiples of {self.step}" if self.step > 1 else sides),
                    fix="set patch.px of the cohort, or choose another encoder",
                )
            )


def flat_places(map_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return a map of features as tokens, row by row, and their mean."""
    tokens_BTD = map_BDHW.flatten(2).transpose(1, 2)
    return tokens_BTD, tokens_BTD.mean(dim=1)
