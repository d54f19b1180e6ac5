"""Moments of columns over many batches, for buffers that scale inputs and outputs.

Shapes: B batch, N bins, T tracks, F scalar features, C columns (any of the last two, or outputs).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from seq2exp.nn.tracks import TrackTransform, apply_transform

__all__ = ["ColumnMoments", "InputMoments", "input_moments"]


class ColumnMoments:
    """Running mean and standard deviation per column; NaN entries are left out.

    Parameters
    ----------
    num_columns : int
        Size of the last axis of what is added.
    """

    def __init__(self, num_columns: int) -> None:
        self.count_C = torch.zeros(num_columns, dtype=torch.float64)
        self.mean_C = torch.zeros(num_columns, dtype=torch.float64)
        self.squares_C = torch.zeros(num_columns, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Add values of shape (..., columns)."""
        flat = values.detach().to("cpu", torch.float64).reshape(-1, self.mean_C.shape[0])
        present = ~torch.isnan(flat)
        count_C = present.sum(0)
        mean_C = torch.where(present, flat, 0.0).sum(0) / count_C.clamp(min=1)
        squares_C = torch.where(present, flat - mean_C, 0.0).square().sum(0)
        # Merged by the pairwise update of Chan, Golub and LeVeque (1983): no cancellation.
        total_C = (self.count_C + count_C).clamp(min=1)
        shift_C = mean_C - self.mean_C
        self.mean_C += shift_C * count_C / total_C
        self.squares_C += squares_C + shift_C.square() * self.count_C * count_C / total_C
        self.count_C += count_C

    def mean(self) -> Tensor:
        """Mean per column, float64, shape (columns,); 0 where nothing was seen."""
        return self.mean_C.clone()

    def std(self) -> Tensor:
        """Return the standard deviation per column; 1 where it is 0 or nothing was seen."""
        std_C = (self.squares_C / self.count_C.clamp(min=1)).sqrt()
        return torch.where(std_C > 0, std_C, 1.0)


class InputMoments(NamedTuple):
    """Moments of the inputs of a model."""

    raw: ColumnMoments
    """Of the tracks as they are stored, what lies below 0 taken as 0."""
    embedded: ColumnMoments
    """Of the tracks after their transform."""
    features: ColumnMoments


def input_moments(
    batches: Iterable[tuple[Tensor | None, Tensor | None]],
    *,
    num_tracks: int,
    num_features: int,
    transform: TrackTransform,
) -> InputMoments:
    """Gather the moments of tracks and features over training windows.

    Parameters
    ----------
    batches : iterable of (signal_BNT, features_BF)
        Raw signals and features; either may be None.
    num_tracks, num_features : int
        0 leaves them out.
    transform : str
        Of the tracks, before they are embedded.
    """
    raw, embedded = ColumnMoments(num_tracks), ColumnMoments(num_tracks)
    features = ColumnMoments(num_features)
    for signal_BNT, features_BF in batches:
        if signal_BNT is not None and num_tracks:
            raw.update(signal_BNT.clamp(min=0))
            embedded.update(apply_transform(signal_BNT, transform))
        if features_BF is not None and num_features:
            features.update(features_BF)
    return InputMoments(raw, embedded, features)
