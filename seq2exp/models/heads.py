"""Read-out of the hidden states around the TSS, and the head that turns it into expression.

Shapes: B batch, N bins, R bins that are read, D width, F scalar features, K outputs or bands,
H heads, I inputs of the head.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ExpressionHead",
    "HeadActivation",
    "Readout",
    "ReadoutKind",
    "band_edges",
    "band_weights",
]

ReadoutKind = Literal["mean", "split", "max", "attention", "flatten", "context", "bands"]
HeadActivation = Literal["relu", "gelu"]
_ATTENTION_HEADS = 4
_FIRST_BAND = 128


def band_edges(window_bp: int) -> tuple[int, ...]:
    """Edges of bands that double in width away from the TSS and cover the window.

    >>> band_edges(2000)
    (-1000, -512, -256, -128, 0, 128, 256, 512, 1000)
    """
    half, edges, edge = window_bp // 2, [0], _FIRST_BAND
    while edge < half:
        edges.append(edge)
        edge *= 2
    edges.append(half)
    return (*(-edge for edge in reversed(edges[1:])), *edges)


def band_weights(edges: Sequence[int], *, num_bins: int, bin_size: int) -> Tensor:
    """Share of every bin that lies in every band.

    Parameters
    ----------
    edges : sequence of int
        Ascending base pairs from the TSS, which is the middle of the window; band k is the
        half-open span from edge k to edge k + 1.
    num_bins, bin_size : int
        Bins of the window and their base pairs.

    Returns
    -------
    float32 tensor, shape (bands, bins)
    """
    half = num_bins * bin_size // 2
    starts_N = torch.arange(num_bins) * bin_size - half
    low_K1, high_K1 = torch.tensor(edges[:-1])[:, None], torch.tensor(edges[1:])[:, None]
    overlap_KN = torch.minimum(starts_N + bin_size, high_K1) - torch.maximum(starts_N, low_K1)
    return overlap_KN.clamp(min=0) / bin_size


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
        away reach the head directly and a bin with mask 0 does not; "bands": the mean of every
        band of distance from the TSS, side by side.
    span : tuple of int
        Half-open span of bins that are read.
    width : int
        Channels per bin of "flatten".
    bands : float tensor, shape (bands, bins), optional
        What `band_weights` returned; needed by "bands".
    weighting : str
        "mask": a bin counts in its band with its mask; "plain": bins count alike.
    """

    def __init__(
        self,
        d_model: int,
        *,
        kind: ReadoutKind,
        span: tuple[int, int],
        width: int,
        bands: Tensor | None = None,
        weighting: Literal["mask", "plain"] = "mask",
    ) -> None:
        super().__init__()
        self.kind, self.span, self.weighting = kind, span, weighting
        self.register_buffer("bands_KN", None, persistent=False)
        if kind == "bands":
            assert bands is not None
            self.bands_KN = bands / bands.sum(1, keepdim=True)
        num_read = span[1] - span[0]
        self.weights = nn.Linear(d_model, _ATTENTION_HEADS) if kind == "attention" else None
        self.narrow = nn.Linear(d_model, width) if kind == "flatten" else None
        self.out_dim = {
            "split": 2 * d_model,
            "context": 2 * d_model,
            "flatten": num_read * width,
            "bands": 0 if bands is None else len(bands) * d_model,
        }.get(kind, d_model)

    @property
    def reads(self) -> tuple[int, int] | None:
        """Half-open span of the bins that the pooling looks at; None where it looks at all."""
        return None if self.kind in ("context", "bands") else self.span

    def forward(
        self, hidden_BND: Tensor, mask_BN: Tensor | None = None, *, first: int = 0
    ) -> Tensor:
        """Pool, shape (batch, out_dim); the mask (1 when left out) weighs "context" and "bands".

        `first` is the bin of the window that `hidden_BND` begins with, where it holds `reads` only.
        """
        if self.bands_KN is not None:
            return self._band_means(hidden_BND, mask_BN)
        read_BRD = hidden_BND[:, self.span[0] - first : self.span[1] - first]
        if self.weights is not None:
            weights_BRH = torch.softmax(self.weights(read_BRD), dim=1)
            groups = read_BRD.unflatten(-1, (_ATTENTION_HEADS, -1))
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

    def _band_means(self, hidden_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
        if mask_BN is not None and self.weighting == "mask":
            # As in "context", not divided by the sum of the mask.
            hidden_BND = hidden_BND * mask_BN[..., None].to(hidden_BND.dtype)
        return torch.matmul(self.bands_KN.to(hidden_BND.dtype), hidden_BND).flatten(1)


class ExpressionHead(nn.Module):
    """Hidden layers and a linear output on the pooled state beside the scaled scalar features.

    Features and outputs are scaled with buffers that training sets from training genes, so that
    they travel with the weights. A missing (NaN) feature counts as the training mean.

    Parameters
    ----------
    in_dim : int
        Width of the pooled state.
    num_features, num_outputs, hidden : int
        Scalar features, predicted values per gene, width of the hidden layers.
    num_layers : int
        Hidden layers; the published head has two.
    activation : str
        "relu" or "gelu".
    dropout, input_dropout : float
        Dropout after each hidden layer, and on the pooled state.
    skip : bool
        Add a linear map of the input, which starts at zero, to the output.
    rising : int
        The last so many channels of the pooled state begin, in the linear map, with the same
        positive weight. For sums of element contributions: from a random sign, one seed in two
        learns that elements lower expression, and the mask to hide them.
    feature_clip : float, optional
        Largest size of a scaled feature.
    feature_hidden : int
        Width of two hidden layers that only see the features and stand beside them in the input; 0
        for none. They combine a few numbers that dropout would tear apart.
    """

    feature_mean_F: Tensor
    feature_std_F: Tensor
    output_mean_K: Tensor
    output_std_K: Tensor

    def __init__(
        self,
        in_dim: int,
        *,
        num_features: int,
        num_outputs: int,
        hidden: int,
        num_layers: int = 2,
        activation: HeadActivation = "relu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        skip: bool = False,
        rising: int = 0,
        feature_clip: float | None = None,
        feature_hidden: int = 0,
    ) -> None:
        super().__init__()
        self.feature_clip = feature_clip
        pooled_dim = in_dim
        self.feature_layers = None
        if feature_hidden and num_features:
            self.feature_layers = nn.Sequential(
                nn.Linear(num_features, feature_hidden),
                nn.GELU(),
                nn.Linear(feature_hidden, feature_hidden),
                nn.GELU(),
            )
            in_dim += feature_hidden
        widths = [in_dim + num_features, *[hidden] * num_layers]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            act = nn.ReLU() if activation == "relu" else nn.GELU()
            layers += [nn.Linear(before, after), act, nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))
        self.input_dropout = nn.Dropout(input_dropout)
        self.skip = nn.Linear(widths[0], num_outputs) if skip or rising else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
            nn.init.zeros_(self.skip.bias)
            with torch.no_grad():
                self.skip.weight[:, pooled_dim - rising : pooled_dim] = 1 / max(rising, 1)
        self.register_buffer("feature_mean_F", torch.zeros(num_features))
        self.register_buffer("feature_std_F", torch.ones(num_features))
        self.register_buffer("output_mean_K", torch.zeros(num_outputs))
        self.register_buffer("output_std_K", torch.ones(num_outputs))

    @property
    def output_layer(self) -> nn.Module:
        """The linear map from the last hidden layer to the outputs."""
        return self.layers[-1]

    @torch.no_grad()
    def set_feature_scaling(self, mean_F: Tensor, std_F: Tensor) -> None:
        """Set mean and standard deviation of the scalar features, float, shape (features,)."""
        self.feature_mean_F.copy_(mean_F)
        self.feature_std_F.copy_(std_F)

    @torch.no_grad()
    def set_output_scaling(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Start from the moments of the training labels, float, shape (outputs,)."""
        self.output_mean_K.copy_(torch.nan_to_num(mean_K))
        usable_K = torch.isfinite(std_K) & (std_K > 0)
        self.output_std_K.copy_(torch.where(usable_K, std_K, 1.0))

    def forward(self, pooled_BD: Tensor, features_BF: Tensor | None) -> Tensor:
        """Predict expression, shape (batch, outputs), at least float32."""
        parts = [self.input_dropout(pooled_BD)]
        if features_BF is not None:
            scaled_BF = self._scale(features_BF).to(pooled_BD.dtype)
            parts.append(scaled_BF)
            if self.feature_layers is not None:
                parts.append(self.feature_layers(scaled_BF))
        read_BI = torch.cat(parts, dim=-1)
        out_BK: Tensor = self.layers(read_BI)
        if self.skip is not None:
            out_BK = out_BK + self.skip(read_BI)
        wide_BK = out_BK.to(torch.promote_types(out_BK.dtype, torch.float32))
        return wide_BK * self.output_std_K + self.output_mean_K

    def _scale(self, features_BF: Tensor) -> Tensor:
        """Centre, scale and clip; a missing feature becomes 0, the training mean."""
        scaled_BF = (features_BF.to(self.feature_mean_F) - self.feature_mean_F) / self.feature_std_F
        scaled_BF = torch.nan_to_num(scaled_BF, nan=0.0)
        limit = self.feature_clip
        return scaled_BF if limit is None else scaled_BF.clamp(-limit, limit)
