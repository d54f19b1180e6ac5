"""Standardised inputs and the heads that project them.

Axes: B spots of a batch, F features, D width of an embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["HeadKind", "ProjectionHead", "RunningStandard", "make_head"]

HeadKind = Literal["projection", "mlp", "linear"]
_MOST = 50_000.0
_WIDEST = 10.0


class RunningStandard(nn.Module):
    """Subtract the mean of a feature and divide by its deviation, over the training spots so far.

    Features of different encoders, and labels of different recipes, differ in scale by orders. The
    running moments are used in training too, so what becomes of a spot hangs on no other spot of
    its batch but through them. Missing values (NaN) become 0, the mean. Results are cut at 10
    deviations.

    Parameters
    ----------
    num_features : int
    """

    count_F: Tensor
    mean_F: Tensor
    square_F: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        for name in ("count_F", "mean_F", "square_F"):
            self.register_buffer(name, torch.zeros(num_features))

    def forward(self, x_BF: Tensor) -> Tensor:
        """Return standardised features, shape (batch, features); in training, learn from them."""
        if self.training:
            self._update(x_BF.detach())
        return self.scaled(x_BF)

    def scaled(self, x_BF: Tensor) -> Tensor:
        """Return standardised features by the moments so far."""
        known_BF = torch.isfinite(x_BF)
        variance_F = self.square_F / self.count_F.clamp(min=1)
        width_F = torch.where(variance_F > 1e-12, variance_F, 1.0).sqrt()
        scaled_BF = (torch.where(known_BF, x_BF, self.mean_F) - self.mean_F) / width_F
        return scaled_BF.clamp(-_WIDEST, _WIDEST)

    @torch.no_grad()
    def _update(self, x_BF: Tensor) -> None:
        """Join the moments of the batch with those so far (Chan et al. 1979)."""
        known_BF = torch.isfinite(x_BF)
        x_BF = torch.where(known_BF, x_BF, 0.0)
        weight_BF = known_BF.to(x_BF.dtype)
        count_F = weight_BF.sum(0)
        mean_F = (x_BF * weight_BF).sum(0) / count_F.clamp(min=1)
        square_F = ((x_BF - mean_F).square() * weight_BF).sum(0)
        total_F = self.count_F + count_F
        shift_F = mean_F - self.mean_F
        share_F = count_F / total_F.clamp(min=1)
        self.mean_F += shift_F * share_F
        self.square_F += square_F + shift_F.square() * self.count_F * share_F
        self.count_F += count_F
        # A bounded memory follows an encoder that is trained at the same time.
        shrink_F = (_MOST / self.count_F.clamp(min=1)).clamp(max=1.0)
        self.count_F *= shrink_F
        self.square_F *= shrink_F


class ProjectionHead(nn.Module):
    """Projection with a residual: p = W1 h + b1, z = LN(p + dropout(W2 gelu(p) + b2)).

    The head of BLEEP (Xie et al. 2023) and mclSTExp (Min et al. 2024).

    Parameters
    ----------
    num_features, width : int
    dropout : float
    """

    def __init__(self, num_features: int, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(num_features, width), nn.Linear(width, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, h_BF: Tensor) -> Tensor:
        """Return embeddings, shape (batch, width)."""
        p_BD = self.first(h_BF)
        embedding_BD: Tensor = self.norm(p_BD + self.dropout(self.second(nn.functional.gelu(p_BD))))
        return embedding_BD


def make_head(
    kind: HeadKind, num_features: int, width: int, *, hidden: int = 256, dropout: float = 0.0
) -> nn.Module:
    """Make a projection, a perceptron with one hidden layer (hidden wide), or a linear map."""
    if kind == "projection":
        return ProjectionHead(num_features, width, dropout=dropout)
    if kind == "linear":
        return nn.Linear(num_features, width)
    return nn.Sequential(
        nn.Linear(num_features, hidden),
        nn.GELU(),
        nn.LayerNorm(hidden),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
    )
