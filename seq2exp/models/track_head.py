"""Auxiliary task: the signal that the sequence of a bin makes one expect.

Shapes: B batch, N bins, T tracks of the signal, U tracks that are predicted, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seq2exp.nn.tracks import TrackScaling, TrackTransform

__all__ = ["TrackHead"]


class TrackHead(nn.Module):
    """Predicts the tracks of every bin from the hidden states of the generator.

    Gives the generator many targets per gene, where expression alone gives one.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    tracks : sequence of int
        Positions, among all tracks, of those that are predicted.
    transform : str
        Transform of the raw signal; see `TrackScaling`.
    """

    def __init__(self, d_model: int, *, tracks: Sequence[int], transform: TrackTransform) -> None:
        super().__init__()
        self.tracks = list(tracks)
        self.scaling = TrackScaling(len(self.tracks), transform=transform)
        self.proj = nn.Linear(d_model, len(self.tracks))

    def forward(
        self, hidden_BND: Tensor, signal_BNT: Tensor, valid_BN: Tensor | None = None
    ) -> Tensor:
        """Mean squared error per gene over bins and tracks with data, shape (batch,).

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, bins, width)
        signal_BNT : float tensor, shape (batch, bins, tracks)
            Raw signal of all tracks; NaN where one is missing.
        valid_BN : bool tensor, shape (batch, bins), optional
            False for bins outside the contig, whose signal is no measurement.

        Returns
        -------
        float tensor, shape (batch,)
            In units of the variance of the transformed signal; 0 without any data.
        """
        predicted_BNU = self._scaled(hidden_BND)
        target_BNU = self.scaling.scaled(signal_BNT[..., self.tracks]).to(predicted_BNU.dtype)
        known_BNU = ~torch.isnan(target_BNU)
        if valid_BN is not None:
            known_BNU = known_BNU & valid_BN[..., None]
        # Zero before squaring: a NaN that is only masked afterwards would spoil the gradient.
        error_BNU = torch.where(known_BNU, predicted_BNU - target_BNU.nan_to_num(), 0.0)
        return error_BNU.square().sum((1, 2)) / known_BNU.sum((1, 2)).clamp(min=1)

    def predict(self, hidden_BND: Tensor) -> Tensor:
        """Raw signal of the tracks that are predicted, float, shape (batch, bins, tracks)."""
        return self.scaling.raw(self._scaled(hidden_BND))

    def _scaled(self, hidden_BND: Tensor) -> Tensor:
        predicted_BNU: Tensor = self.proj(hidden_BND)
        return predicted_BNU.to(torch.promote_types(predicted_BNU.dtype, torch.float32))
