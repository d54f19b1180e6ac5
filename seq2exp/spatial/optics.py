"""Optics of stained tissue: from colours to densities of a sample of pixels.

Beer and Lambert: light that passes is I = exp(-od), and od = c S for concentrations c of stains
with absorptions S (Ruifrok and Johnston 2001). White glass has density 0.

Shapes: B spots, P pixels of a spot, H, W pixels, 3 colours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts

__all__ = ["OpticalPixels", "foreground", "optical_density", "transmitted"]

_DARKEST = 1 / 255


def optical_density(rgb: Tensor) -> Tensor:
    """Return -ln of the light that passes, from 0 (glass) to ln 255.

    Parameters
    ----------
    rgb : float tensor
        Between 0 and 1.
    """
    # Glass may come out as -0.0 otherwise.
    return rgb.clamp(_DARKEST, 1).log().neg() + 0.0


def transmitted(density: Tensor) -> Tensor:
    """Return the light that passes, between 0 and 1: the inverse of :func:`optical_density`."""
    return density.neg().exp()


def foreground(density_BP3: Tensor, *, threshold: float, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Return which pixels are tissue, and which spots have too few of them.

    Parameters
    ----------
    density_BP3 : float tensor, shape (spots, pixels, 3)
    threshold : float
        Pixels of a lower mean density are glass.
    min_pixels : int
        Spots with fewer tissue pixels keep all of theirs.

    Returns
    -------
    kept_BP : bool tensor, shape (spots, pixels)
    flagged_B : bool tensor, shape (spots,)
        Spots that kept all for want of tissue.
    """
    kept_BP = density_BP3.mean(dim=-1) >= threshold
    flagged_B = kept_BP.sum(dim=1) < min_pixels
    return kept_BP | flagged_B[:, None], flagged_B


class OpticalPixels(nn.Module):
    """Densities of a fixed sample of pixels, in the form of an image encoder.

    Patches are averaged to a smaller square, as a lens would, and the same places of it are taken
    from every patch.

    Parameters
    ----------
    num_pixels : int
        Pixels per patch; smaller squares give all they have.
    side : int
        Side of the square; smaller patches stay as they are.
    seed : int
        Of the choice of places.
    """

    dim = 3
    token_dim = 3

    def __init__(self, *, num_pixels: int = 1024, side: int = 64, seed: int = 0) -> None:
        super().__init__()
        if num_pixels < 1 or side < 1:
            raise ConfigError(
                facts(
                    "num_pixels, side",
                    found=f"{num_pixels}, {side}",
                    expected="1 or more",
                    fix="change it",
                )
            )
        self.num_pixels, self.side, self.seed = num_pixels, side, seed

    def places(self, total: int) -> Tensor:
        """Return which of so many pixels are taken, ascending."""
        if total <= self.num_pixels:
            return torch.arange(total)
        random = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(total, generator=random)[: self.num_pixels]
        return chosen.sort().values

    def tokens(self, img_B3HW: Tensor) -> Tensor:
        """Return densities, shape (spots, pixels, 3).

        Parameters
        ----------
        img_B3HW : float tensor, shape (spots, 3, height, width)
            RGB between 0 and 1.
        """
        height, width = img_B3HW.shape[-2:]
        size = (min(self.side, height), min(self.side, width))
        small_B3Q = F.adaptive_avg_pool2d(img_B3HW, size).flatten(2)
        places_P = self.places(small_B3Q.shape[-1]).to(img_B3HW.device)
        return optical_density(small_B3Q[..., places_P]).transpose(1, 2)

    def pool(self, img_B3HW: Tensor) -> Tensor:
        """Return the mean density of each colour, shape (spots, 3)."""
        return self.tokens(img_B3HW).mean(dim=1)

    def cached(self, img_B3HW: Tensor) -> Tensor:
        """Return the densities as they are kept, float16: 6 kB per spot with 1,024 pixels."""
        return self.tokens(img_B3HW).half()
