"""Symmetries of the square, applied to a patch and its maps together, and colour changes.

Axes: B patches, C channels, H = W pixels. The eight symmetries are numbered k = 0 to 7: k % 4
quarter turns counterclockwise, after a mirror of left and right where k >= 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "NUM_SYMMETRIES",
    "ColourJitter",
    "dihedral",
    "paired_dihedral",
    "symmetry_mean",
    "symmetry_of",
]

NUM_SYMMETRIES = 8
_GREY = (0.2125, 0.7154, 0.0721)
_MASK = (1 << 64) - 1


def dihedral(x_BCHW: Tensor, kind: int) -> Tensor:
    """Return images under one of the eight symmetries of the square.

    Parameters
    ----------
    x_BCHW : tensor, shape (..., height, width)
    kind : int
        0 is the image itself.

    Raises
    ------
    ConfigError
        There is no such symmetry.
    """
    if not 0 <= kind < NUM_SYMMETRIES:
        raise ConfigError(
            facts("symmetry", found=kind, expected="0 to 7", fix="choose one of the eight")
        )
    turned = x_BCHW.flip(-1) if kind >= 4 else x_BCHW
    return turned.rot90(kind % 4, dims=(-2, -1))


def symmetry_of(seeds: Sequence[int] | Tensor) -> list[int]:
    """Return the symmetry that every seed stands for; near seeds give unrelated ones."""
    return [_mix(int(seed)) >> 61 for seed in seeds]


def paired_dihedral(
    img_B3HW: Tensor,
    maps: Mapping[str, Tensor] | None,
    seed: Sequence[int] | Tensor | int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return patches and their maps, each sample under a symmetry of its own.

    The symmetry of a sample follows from its seed alone, so it does not depend on the batch.

    Parameters
    ----------
    img_B3HW : tensor, shape (batch, 3, side, side)
        Or one patch, shape (3, side, side).
    maps : mapping of str to tensor, shape (batch, channels, side, side)
        Boundary maps and the like, moved with the patch. Their sides may differ from the patch's.
    seed : int or one int per sample
        One int stands for ``seed + index in the batch``; give one per sample, made of epoch and
        spot, where batches are shuffled.

    Raises
    ------
    ConfigError
        Patches or maps are not square, or numbers of samples differ.
    """
    alone = img_B3HW.ndim == 3
    given = {"img": img_B3HW, **(maps or {})}
    if alone:
        given = {name: value[None] for name, value in given.items()}
    count = len(given["img"])
    seeds = [seed + i for i in range(count)] if isinstance(seed, int) else list(seed)
    _require_paired(given, len(seeds))
    kinds = symmetry_of(seeds)
    moved = {
        name: torch.stack([dihedral(one, kind) for one, kind in zip(value, kinds, strict=True)])
        if count
        else value
        for name, value in given.items()
    }
    if alone:
        moved = {name: value[0] for name, value in moved.items()}
    return moved.pop("img"), moved


def symmetry_mean(function: Callable[[Tensor], Tensor], x_B3HW: Tensor) -> Tensor:
    """Return the mean of a function of patches over the eight symmetries, for predictions.

    Parameters
    ----------
    function : callable
        From patches (B, 3, H, H) to a tensor whose meaning does not turn with the patch, such as
        pooled features or predicted expression; not tokens.
    x_B3HW : tensor, shape (batch, 3, side, side)
    """
    total = function(x_B3HW)
    for kind in range(1, NUM_SYMMETRIES):
        total = total + function(dihedral(x_B3HW, kind))
    return total / NUM_SYMMETRIES


@dataclass(frozen=True)
class ColourJitter:
    """Changes of colour for training, drawn per sample.

    Values are multiplied by a factor (brightness), moved from the mean grey of the patch (contrast)
    and from the grey of each pixel (saturation), each factor uniform in 1 - s to 1 + s, in this
    order, and cut to 0 to 1. Patches are RGB between 0 and 1, before the encoder normalises them.
    """

    brightness: float = 0.2
    """s of the brightness."""
    contrast: float = 0.2
    """s of the contrast."""
    saturation: float = 0.2
    """s of the saturation."""

    def __post_init__(self) -> None:
        if not all(0 <= s < 1 for s in (self.brightness, self.contrast, self.saturation)):
            raise ConfigError(
                facts(
                    "colour jitter",
                    found=f"{self.brightness:g}, {self.contrast:g}, {self.saturation:g}",
                    expected="strengths from 0 to below 1",
                    fix="change them",
                )
            )

    def __call__(self, x_B3HW: Tensor, seed: Sequence[int] | Tensor | int) -> Tensor:
        """Return changed patches.

        Parameters
        ----------
        x_B3HW : float tensor, shape (batch, 3, height, width)
        seed : int or one int per sample
            As for :func:`paired_dihedral`.
        """
        count = len(x_B3HW)
        seeds = [seed + i for i in range(count)] if isinstance(seed, int) else list(seed)
        _require_paired({"img": x_B3HW}, len(seeds), square=False)
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [
            [1 + s * (2 * _unit(int(one), part) - 1) for part, s in enumerate(strengths, start=1)]
            for one in seeds
        ]
        factor_B3 = x_B3HW.new_tensor(factors).reshape(count, 3)
        bright, contrast, colour = (factor_B3[:, i, None, None, None] for i in range(3))
        weight_3 = x_B3HW.new_tensor(_GREY)[:, None, None]
        out_B3HW = x_B3HW * bright
        mean_B111 = (out_B3HW * weight_3).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
        out_B3HW = mean_B111 + (out_B3HW - mean_B111) * contrast
        grey_B1HW = (out_B3HW * weight_3).sum(dim=1, keepdim=True)
        return (grey_B1HW + (out_B3HW - grey_B1HW) * colour).clamp(0, 1)


def _unit(seed: int, part: int) -> float:
    """Return a number in [0, 1) that follows from a seed and which of its draws it is."""
    return (_mix(_mix(seed) + part) >> 11) / (1 << 53)


def _mix(seed: int) -> int:
    """Return 64 bits that follow from a seed (splitmix64; Steele et al. 2014, OOPSLA:453)."""
    value = (seed + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _require_paired(given: Mapping[str, Tensor], num_seeds: int, *, square: bool = True) -> None:
    counts = {len(value) for value in given.values()} | {num_seeds}
    crooked = [name for name, value in given.items() if value.shape[-1] != value.shape[-2]]
    if len(counts) > 1 or (square and crooked):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in given.items())
        raise ConfigError(
            facts(
                "augmentation",
                found=f"{shapes}, {num_seeds} seeds",
                expected="square images, and as many maps and seeds as patches",
                fix="give patches and maps of the same spots",
            )
        )
