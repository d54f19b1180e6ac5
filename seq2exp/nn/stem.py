"""Stems: from bases and tracks to one embedding per bin.

With `bin_size` 1 the sequence embedding is the published ``Linear(4, d)``. With larger bins,
convolutions run at base resolution and are pooled inside each bin. A convolution lets a bin read
the edges of its neighbours; `SequenceStem.forward` can weigh what crosses a bin border by the
mask of the bin it comes from, so that a bin with mask 0 is invisible to all others while a bin
still reads itself in full.

Shapes: B batch, L base pairs, N bins, T tracks, C channels, S positions of one bin, H queries,
D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.conv import conv_max_pool, windows
from seq2exp.nn.norm import rms_norm
from seq2exp.nn.sequence import one_hot

__all__ = [
    "ConvStem",
    "LinearStem",
    "StemConfig",
    "StemLayer",
    "StemScan",
    "TrackEmbedding",
    "TrackTransform",
    "build_stem",
]

Pooling = Literal["mean", "max", "attention"]
StemScan = tuple[Tensor, ...]
"""What a stem computes once for all masks."""
TrackTransform = Literal["none", "log1p", "arcsinh"]


@dataclass(frozen=True)
class StemConfig:
    """Convolutions at base resolution and how they are pooled; without effect for bins of 1 bp."""

    channels: int = 64
    """Channels of every convolution."""
    width: int = 15
    """Taps of the first convolution, odd."""
    num_layers: int = 1
    """Convolutions: the first reads the bases, the others read what lies before them."""
    inner_width: int = 5
    """Taps of the second and later convolutions, odd."""
    inner_pool: int = 4
    """Positions that are max-pooled to one after the first convolution; divides the bin size."""
    pool: Pooling = "attention"
    """How the positions of a bin become one: mean, max, or attention with learned queries."""
    num_queries: int = 4
    """Queries of the attention pool."""
    dropout: float = 0.0
    """Dropout on the pooled channels."""

    def __post_init__(self) -> None:
        for name in ("width", "inner_width"):
            taps = getattr(self, name)
            if taps < 1 or taps % 2 == 0:
                raise ConfigError(
                    facts(
                        f"stem.{name}",
                        found=taps,
                        expected="an odd number",
                        fix="use an odd number so that the taps are centred",
                    )
                )
        for name in ("channels", "num_layers", "inner_pool", "num_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    facts(
                        f"stem.{name}",
                        found=getattr(self, name),
                        expected="at least 1",
                        fix="give a positive number",
                    )
                )
        if self.pool not in get_args(Pooling):
            raise ConfigError(
                facts(
                    "stem.pool",
                    found=self.pool,
                    expected="one of " + ", ".join(get_args(Pooling)),
                    fix="use attention",
                )
            )


def build_stem(d_model: int, *, bin_size: int, config: StemConfig) -> LinearStem | ConvStem:
    """Make the published linear stem for bins of one base, else the convolutional one."""
    if bin_size == 1:
        return LinearStem(d_model)
    return ConvStem(d_model, bin_size=bin_size, config=config)


class LinearStem(nn.Module):
    """Embedding of single bases, ``W one_hot + b``.

    Parameters
    ----------
    d_model : int
        Width of the embedding.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.proj = nn.Linear(4, d_model)

    def scan_bases(self, codes_BL: Tensor) -> StemScan:
        """Embed the bases; what is computed once for every mask."""
        return (self.proj(one_hot(codes_BL, dtype=self.proj.weight.dtype)),)

    def forward(self, scan: StemScan, mask_BN: Tensor | None = None) -> Tensor:
        """Return the embedding; a base reads no neighbours, so the mask changes nothing."""
        del mask_BN
        return scan[0]


class StemLayer(nn.Module):
    """Convolution inside bins, max pool, norm over channels and GELU.

    What crosses a bin border is computed apart: the first and last positions of a bin are the sum
    of what the bin sees of itself and, times the weight of the neighbour, of what it sees of the
    neighbour. With all weights 1 this is the ordinary convolution with zero padding.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    width : int
        Taps, odd.
    pool : int
        Positions that are max-pooled to one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int, pool: int) -> None:
        super().__init__()
        self.width, self.pool = width, pool
        self.reach = width // 2
        # Positions whose pooled value can depend on a neighbour, at each end of a bin.
        self.edge = -(-self.reach // pool) * pool
        self.conv = nn.Linear(width * in_channels, out_channels)
        self.scale = nn.Parameter(torch.ones(out_channels))

    def scan(self, x_BNSC: Tensor) -> StemScan:
        """Compute everything that does not depend on a mask.

        Returns
        -------
        tuple of tensors
            The finished middle of each bin; the own part of its left edge and what the left
            neighbour adds there; the same for the right edge.
        """
        edge, reach, size = self.edge, self.reach, x_BNSC.shape[2]
        batch, num_bins = x_BNSC.shape[:2]
        middle = conv_max_pool(
            x_BNSC[:, :, edge - reach : size - edge + reach].flatten(0, 1),
            self.conv.weight,
            self.conv.bias,
            pool=self.pool,
        )
        middle_BNSC = self._activate(middle.view(batch, num_bins, *middle.shape[1:]))
        if edge == 0:
            return (middle_BNSC,)
        left = F.pad(x_BNSC[:, :, : edge + reach], (0, 0, reach, 0))
        right = F.pad(x_BNSC[:, :, size - edge - reach :], (0, 0, 0, reach))
        # The last positions of the bin before, and the first ones of the bin after.
        before = F.pad(x_BNSC[:, :-1, size - reach :], (0, 0, 0, edge + reach, 1, 0))
        after = F.pad(x_BNSC[:, 1:, :reach], (0, 0, edge + reach, 0, 0, 1))
        weight, bias = self.conv.weight, self.conv.bias
        return (
            middle_BNSC,
            F.linear(windows(left, self.width), weight, bias),
            F.linear(windows(before, self.width), weight),
            F.linear(windows(right, self.width), weight, bias),
            F.linear(windows(after, self.width), weight),
        )

    def finish(self, scan: StemScan, mask_BN: Tensor | None = None) -> Tensor:
        """Join middle and edges, shape (batch, bins, positions / pool, channels).

        Parameters
        ----------
        scan : tuple of tensors
            What `scan` returned.
        mask_BN : float tensor, shape (batch, bins), optional
            Weight of what each bin shows to its neighbours; 1 everywhere when left out.
        """
        if len(scan) == 1:
            return scan[0]
        middle, left, before, right, after = scan
        if mask_BN is not None:
            mask_BN11 = mask_BN.to(before.dtype)[..., None, None]
            before = before * F.pad(mask_BN11[:, :-1], (0, 0, 0, 0, 1, 0))
            after = after * F.pad(mask_BN11[:, 1:], (0, 0, 0, 0, 0, 1))
        edges = [self._activate(self._max_pool(x)) for x in (left + before, right + after)]
        return torch.cat([edges[0], middle, edges[1]], dim=2)

    def _max_pool(self, x_BNSC: Tensor) -> Tensor:
        batch, num_bins, size, channels = x_BNSC.shape
        shape = (batch, num_bins, size // self.pool, self.pool, channels)
        return x_BNSC.view(shape).amax(3) if self.pool > 1 else x_BNSC

    def _activate(self, x_BNSC: Tensor) -> Tensor:
        return F.gelu(rms_norm(x_BNSC, self.scale))


class ConvStem(nn.Module):
    """Convolutions at base resolution, pooled inside each bin and projected to the model width.

    Parameters
    ----------
    d_model : int
        Width of the embedding.
    bin_size : int
        Base pairs per bin.
    config : StemConfig
        Widths, depth and pooling.
    """

    def __init__(self, d_model: int, *, bin_size: int, config: StemConfig) -> None:
        super().__init__()
        self.bin_size, self.config = bin_size, config
        channels = config.channels
        self.first = StemLayer(4, channels, width=config.width, pool=config.inner_pool)
        self.inner = nn.ModuleList(
            StemLayer(channels, channels, width=config.inner_width, pool=1)
            for _ in range(config.num_layers - 1)
        )
        num_pooled = 1
        self.queries = None
        if config.pool == "attention":
            num_pooled = config.num_queries
            self.queries = nn.Linear(channels, num_pooled, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.proj = nn.Linear(num_pooled * channels, d_model)
        self._check_reach()

    def _check_reach(self) -> None:
        config, bin_size = self.config, self.bin_size
        inner_reach = config.inner_width // 2 if config.num_layers > 1 else 0
        fits = bin_size % config.inner_pool == 0 and 2 * self.first.edge <= bin_size
        if not fits or 2 * inner_reach > bin_size // config.inner_pool:
            raise ConfigError(
                facts(
                    "stem",
                    found=f"width {config.width}, inner_width {config.inner_width}, "
                    f"inner_pool {config.inner_pool} for bins of {bin_size} bp",
                    expected="widths of at most about one bin, and a pool that divides the bin",
                    fix="use narrower convolutions or larger bins",
                )
            )

    def scan_bases(self, codes_BL: Tensor) -> StemScan:
        """Run what the first convolution shares between all masks."""
        onehot_BLC = one_hot(codes_BL, dtype=self.proj.weight.dtype)
        batch, length = codes_BL.shape
        return self.first.scan(onehot_BLC.view(batch, length // self.bin_size, self.bin_size, 4))

    def forward(self, scan: StemScan, mask_BN: Tensor | None = None) -> Tensor:
        """Embed every bin, shape (batch, bins, width).

        Parameters
        ----------
        scan : tuple of tensors
            What `scan_bases` returned.
        mask_BN : float tensor, shape (batch, bins), optional
            Weight of what each bin shows to its neighbours; 1 everywhere when left out.
        """
        x_BNSC = self.first.finish(scan, mask_BN)
        for layer in self.inner:
            assert isinstance(layer, StemLayer)
            x_BNSC = x_BNSC + layer.finish(layer.scan(x_BNSC), mask_BN)
        embedding_BND: Tensor = self.proj(self.dropout(self._pool(x_BNSC)))
        return embedding_BND

    def _pool(self, x_BNSC: Tensor) -> Tensor:
        if self.queries is not None:
            weights_BNSH = torch.softmax(self.queries(x_BNSC), dim=2)
            return torch.matmul(weights_BNSH.transpose(2, 3), x_BNSC).flatten(2)
        return x_BNSC.mean(2) if self.config.pool == "mean" else x_BNSC.amax(2)


class TrackEmbedding(nn.Module):
    """Embedding of the tracks, ``W scaled + b``; a missing track has its own learned vector.

    Raw signals are transformed, centred and scaled with buffers that training sets from training
    data (`set_scaling`), so that they travel with the weights.

    Parameters
    ----------
    num_tracks : int
        Tracks.
    d_model : int
        Width of the embedding.
    transform : str
        "none", "log1p" or "arcsinh", applied to the raw signal (negative values count as 0 under
        log1p).
    learn_missing : bool
        Add a learned vector for every track that is missing in a bin; else it adds nothing.
    """

    mean_T: Tensor
    std_T: Tensor

    def __init__(
        self,
        num_tracks: int,
        d_model: int,
        *,
        transform: TrackTransform = "none",
        learn_missing: bool = False,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.proj = nn.Linear(num_tracks, d_model)
        self.missing = nn.Linear(num_tracks, d_model, bias=False) if learn_missing else None
        if self.missing is not None:
            nn.init.zeros_(self.missing.weight)
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

    def apply_transform(self, signal_BNT: Tensor) -> Tensor:
        """Transform the raw signal; NaN stays NaN."""
        if self.transform == "log1p":
            return torch.log1p(signal_BNT.clamp(min=0))
        if self.transform == "arcsinh":
            return torch.arcsinh(signal_BNT)
        return signal_BNT

    def forward(self, signal_BNT: Tensor) -> Tensor:
        """Embed the raw signal, shape (batch, bins, width); NaN marks a missing track."""
        missing_BNT = torch.isnan(signal_BNT)
        scaled_BNT = (self.apply_transform(signal_BNT) - self.mean_T) / self.std_T
        scaled_BNT = torch.where(missing_BNT, 0.0, scaled_BNT)
        scaled_BNT = scaled_BNT.to(self.proj.weight.dtype)
        hidden_BND: Tensor = self.proj(scaled_BNT)
        if self.missing is not None:
            hidden_BND = hidden_BND + self.missing(missing_BNT.to(scaled_BNT.dtype))
        return hidden_BND
