"""Tracks as the networks see them: transformed, standardised, embedded.

Shapes: B batch, N bins, T tracks, D model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["TrackEmbedding", "TrackScaling", "TrackTransform", "apply_transform", "undo_transform"]

TrackTransform = Literal["none", "log1p", "arcsinh", "sqrt"]


def apply_transform(signal_BNT: Tensor, transform: TrackTransform) -> Tensor:
    """Transform raw signals; NaN stays NaN. Negatives count as 0 under "log1p" and "sqrt"."""
    if transform == "log1p":
        return torch.log1p(signal_BNT.clamp(min=0))
    if transform == "arcsinh":
        return torch.arcsinh(signal_BNT)
    if transform == "sqrt":
        return signal_BNT.clamp(min=0).sqrt()
    return signal_BNT


def undo_transform(values_BNT: Tensor, transform: TrackTransform) -> Tensor:
    """Return raw signals of transformed ones; what no raw signal gives counts as that of 0."""
    if transform == "log1p":
        return torch.expm1(values_BNT.clamp(min=0))
    if transform == "arcsinh":
        return torch.sinh(values_BNT)
    if transform == "sqrt":
        return values_BNT.clamp(min=0).square()
    return values_BNT


class TrackScaling(nn.Module):
    """Transforms raw signals, then centres and scales them.

    Mean and standard deviation are buffers that training sets from training data (`set_scaling`),
    so that they travel with the weights.

    Parameters
    ----------
    num_tracks : int
        Tracks.
    transform : str
        "none", "log1p", "arcsinh" or "sqrt" (for counts); see `apply_transform`.
    """

    mean_T: Tensor
    std_T: Tensor

    def __init__(self, num_tracks: int, *, transform: TrackTransform = "none") -> None:
        super().__init__()
        self.transform = transform
        self.register_buffer("mean_T", torch.zeros(num_tracks))
        self.register_buffer("std_T", torch.ones(num_tracks))

    @torch.no_grad()
    def set_scaling(self, mean_T: Tensor, std_T: Tensor) -> None:
        """Set mean and standard deviation of the transformed signal, float, shape (tracks,).

        A standard deviation of 0 or NaN (a constant or absent track) counts as 1, a NaN mean as 0.
        """
        usable_T = torch.isfinite(std_T) & (std_T > 0)
        self.mean_T.copy_(torch.nan_to_num(mean_T))
        self.std_T.copy_(torch.where(usable_T, std_T, 1.0))

    def scaled(self, signal_BNT: Tensor) -> Tensor:
        """Transform and standardise the raw signal; NaN stays NaN."""
        return (apply_transform(signal_BNT, self.transform) - self.mean_T) / self.std_T

    def raw(self, scaled_BNT: Tensor) -> Tensor:
        """Return the raw signal of what `scaled` gives."""
        return undo_transform(scaled_BNT * self.std_T + self.mean_T, self.transform)


class TrackEmbedding(TrackScaling):
    """Embedding of the tracks, ``W scaled + b``; a missing track has its own learned vector.

    Parameters
    ----------
    num_tracks : int
        Tracks.
    d_model : int
        Width of the embedding.
    transform : str
        See `TrackScaling`.
    learn_missing : bool
        Add a learned vector for every track that is missing in a bin; else it adds nothing.
    """

    def __init__(
        self,
        num_tracks: int,
        d_model: int,
        *,
        transform: TrackTransform = "none",
        learn_missing: bool = False,
    ) -> None:
        super().__init__(num_tracks, transform=transform)
        self.proj = nn.Linear(num_tracks, d_model)
        self.missing = nn.Linear(num_tracks, d_model, bias=False) if learn_missing else None
        if self.missing is not None:
            nn.init.zeros_(self.missing.weight)

    def forward(self, signal_BNT: Tensor) -> Tensor:
        """Embed the raw signal, shape (batch, bins, width); NaN marks a missing track."""
        missing_BNT = torch.isnan(signal_BNT)
        scaled_BNT = torch.where(missing_BNT, 0.0, self.scaled(signal_BNT))
        scaled_BNT = scaled_BNT.to(self.proj.weight.dtype)
        hidden_BND: Tensor = self.proj(scaled_BNT)
        if self.missing is not None:
            hidden_BND = hidden_BND + self.missing(missing_BNT.to(scaled_BNT.dtype))
        return hidden_BND
