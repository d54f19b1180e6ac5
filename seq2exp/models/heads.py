"""Read-out of the hidden states around the TSS, and the head that turns it into expression.

Shapes: B batch, N bins, R bins that are read, D width, F scalar features, K outputs, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ExpressionHead", "Readout", "ReadoutKind"]

ReadoutKind = Literal["mean", "split", "max", "attention", "flatten", "context"]
_ATTENTION_HEADS = 4


class Readout(nn.Module):
    """Pools the bins around the TSS into one vector per gene.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    kind : str
        "mean" over the bins; "split": mean of the upstream half and of the downstream half, side by
        side; "max"; "attention": learned softmax weights over the bins, for four groups of
        channels; "flatten": every bin keeps its place, narrowed to `width` channels; "context":
        the mean, and beside it the mask-weighted mean over the whole window, so that elements far
        away reach the head directly and a bin with mask 0 does not.
    span : tuple of int
        Half-open span of bins that are read.
    width : int
        Channels per bin of "flatten".
    """

    def __init__(
        self, d_model: int, *, kind: ReadoutKind, span: tuple[int, int], width: int
    ) -> None:
        super().__init__()
        self.kind, self.span = kind, span
        num_read = span[1] - span[0]
        self.weights = nn.Linear(d_model, _ATTENTION_HEADS) if kind == "attention" else None
        self.narrow = nn.Linear(d_model, width) if kind == "flatten" else None
        self.out_dim = {
            "split": 2 * d_model,
            "context": 2 * d_model,
            "flatten": num_read * width,
        }.get(kind, d_model)

    def forward(self, hidden_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Pool, shape (batch, out_dim); the mask (1 when left out) only weighs "context"."""
        read_BRD = hidden_BND[:, self.span[0] : self.span[1]]
        if self.weights is not None:
            weights_BRH = torch.softmax(self.weights(read_BRD), dim=1)
            groups = read_BRD.unflatten(-1, (_ATTENTION_HEADS, -1))  # type: ignore[no-untyped-call]
            pooled: Tensor = (groups * weights_BRH[..., None]).sum(1).flatten(1)
            return pooled
        if self.narrow is not None:
            return F.gelu(self.narrow(read_BRD)).flatten(1)
        if self.kind == "context":
            # Not divided by the sum of the mask: a mask that shrinks everywhere must hide more.
            weighted_BND = hidden_BND
            if mask_BN is not None:
                weighted_BND = hidden_BND * mask_BN[..., None].to(hidden_BND.dtype)
            return torch.cat([read_BRD.mean(1), weighted_BND.mean(1)], dim=-1)
        if self.kind == "split":
            # With an odd number of bins the middle one belongs to both halves.
            num_read = read_BRD.shape[1]
            upstream_BRD, downstream_BRD = (
                read_BRD[:, : (num_read + 1) // 2],
                read_BRD[:, num_read // 2 :],
            )
            return torch.cat([upstream_BRD.mean(1), downstream_BRD.mean(1)], dim=-1)
        return read_BRD.amax(1) if self.kind == "max" else read_BRD.mean(1)


class ExpressionHead(nn.Module):
    """Linear, ReLU, Linear, ReLU, Linear on the pooled state beside the scaled scalar features.

    Features and outputs are scaled with buffers that training sets from training genes, so that
    they travel with the weights. A missing (NaN) feature counts as the training mean.

    Parameters
    ----------
    in_dim : int
        Width of the pooled state.
    num_features, num_outputs, hidden : int
        Scalar features, predicted values per gene, width of the two hidden layers.
    dropout : float
        Dropout after each hidden layer.
    """

    feature_mean_F: Tensor
    feature_std_F: Tensor
    output_mean_K: Tensor
    output_std_K: Tensor

    def __init__(
        self, in_dim: int, *, num_features: int, num_outputs: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim + num_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_outputs),
        )
        self.register_buffer("feature_mean_F", torch.zeros(num_features))
        self.register_buffer("feature_std_F", torch.ones(num_features))
        self.register_buffer("output_mean_K", torch.zeros(num_outputs))
        self.register_buffer("output_std_K", torch.ones(num_outputs))

    def forward(self, pooled_BD: Tensor, features_BF: Tensor | None) -> Tensor:
        """Predict expression, shape (batch, outputs), at least float32."""
        parts = [pooled_BD]
        if features_BF is not None:
            scaled_BF = (
                features_BF.to(self.feature_mean_F) - self.feature_mean_F
            ) / self.feature_std_F
            parts.append(torch.nan_to_num(scaled_BF, nan=0.0).to(pooled_BD.dtype))
        out_BK: Tensor = self.layers(torch.cat(parts, dim=-1))
        wide_BK = out_BK.to(torch.promote_types(out_BK.dtype, torch.float32))
        return wide_BK * self.output_std_K + self.output_mean_K
