"""Stems: from bases and tracks to one embedding per bin.

With `bin_size` 1 the sequence embedding is the published ``Linear(4, d)``. With larger bins,
convolutions run at base resolution and are pooled inside each bin. A convolution lets a bin read
the edges of its neighbours; `SequenceStem.forward` can weigh what crosses a bin border by the
mask of the bin it comes from, so that a bin with mask 0 is invisible to all others while a bin
still reads itself in full.

Shapes: B batch, L base pairs, N bins, M = B * N, T tracks, C channels, S positions of one bin,
H positions read beyond a bin border, W taps, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.sequence import one_hot

__all__ = [
    "BorderConv",
    "ConvStem",
    "LinearStem",
    "StemConfig",
    "TrackEmbedding",
    "TrackTransform",
    "build_stem",
]

_EPS = 1e-5

Pooling = Literal["mean", "max", "attention"]
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
    """How the positions of a bin become one: mean, max or softmax attention per channel."""
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
        if self.channels < 1 or self.num_layers < 1 or self.inner_pool < 1:
            raise ConfigError(
                facts(
                    "stem",
                    found=f"channels {self.channels}, num_layers {self.num_layers}, "
                    f"inner_pool {self.inner_pool}",
                    expected="at least 1 each",
                    fix="give positive numbers",
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

    def scan_bases(self, codes_BL: Tensor) -> Tensor:
        """Embed the bases; what is computed once for every mask, shape (batch, bins, width)."""
        hidden_BND: Tensor = self.proj(one_hot(codes_BL, dtype=self.proj.weight.dtype))
        return hidden_BND

    def forward(self, scanned: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the embedding; a base reads no neighbours, so the mask changes nothing."""
        del mask_BN
        return scanned


class BorderConv(nn.Module):
    """Convolution over the positions of each bin that keeps apart what crosses a bin border.

    The output of a bin is its own part, plus what comes from the left and from the right bin, each
    times the weight of the bin it comes from. With all weights 1 this is the ordinary convolution of the whole sequence with zero padding.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    width : int
        Taps, odd; ``width // 2`` may not exceed the positions of a bin.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int) -> None:
        super().__init__()
        self.reach = width // 2
        self.conv = nn.Conv1d(in_channels, out_channels, width)

    def parts(self, x_BNCS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Own, left and right contributions.

        Returns
        -------
        own_BNCS : tensor, shape (batch, bins, channels, positions)
            The convolution inside the bin, with the bias.
        left_BNCH, right_BNCH : tensor, shape (batch, bins, channels, width // 2)
            What the bin to the left adds to the first positions of this bin, and the bin to the
            right to the last ones; zero at the ends of the window.
        """
        reach, weight = self.reach, self.conv.weight
        batch, num_bins, channels, _ = x_BNCS.shape

        def convolve(x: Tensor, pad: tuple[int, int], bias: Tensor | None) -> Tensor:
            flat = F.pad(x.reshape(batch * num_bins, channels, -1), pad)
            out: Tensor = F.conv1d(flat, weight, bias)
            return out.view(batch, num_bins, *out.shape[1:])

        own_BNCS = convolve(x_BNCS, (reach, reach), self.conv.bias)
        if reach == 0:
            empty = own_BNCS[..., :0]
            return own_BNCS, empty, empty
        # The last positions of a bin act on the first ones of the next bin, and the other way.
        rightwards = convolve(x_BNCS[..., -reach:], (0, 2 * reach), None)[..., :reach]
        leftwards = convolve(x_BNCS[..., :reach], (2 * reach, 0), None)[..., -reach:]
        left_BNCH = F.pad(rightwards[:, :-1], (0, 0, 0, 0, 1, 0))
        right_BNCH = F.pad(leftwards[:, 1:], (0, 0, 0, 0, 0, 1))
        return own_BNCS, left_BNCH, right_BNCH

    def join(self, parts: tuple[Tensor, Tensor, Tensor], mask_BN: Tensor | None = None) -> Tensor:
        """Add the parts, those from neighbours weighted by the neighbour's mask."""
        own_BNCS, left_BNCH, right_BNCH = parts
        if self.reach == 0:
            return own_BNCS
        if mask_BN is not None:
            mask_BN11 = mask_BN.to(own_BNCS.dtype)[..., None, None]
            left_BNCH = left_BNCH[:, 1:] * mask_BN11[:, :-1]
            left_BNCH = F.pad(left_BNCH, (0, 0, 0, 0, 1, 0))
            right_BNCH = right_BNCH[:, :-1] * mask_BN11[:, 1:]
            right_BNCH = F.pad(right_BNCH, (0, 0, 0, 0, 0, 1))
        inner = own_BNCS.shape[-1] - self.reach
        return own_BNCS + F.pad(left_BNCH, (0, inner)) + F.pad(right_BNCH, (inner, 0))


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
        self._check_reach()
        channels = config.channels
        self.first = BorderConv(4, channels, width=config.width)
        self.scales = nn.ParameterList(
            nn.Parameter(torch.ones(channels)) for _ in range(config.num_layers)
        )
        self.inner = nn.ModuleList(
            BorderConv(channels, channels, width=config.inner_width)
            for _ in range(config.num_layers - 1)
        )
        self.attention = (
            nn.Conv1d(channels, channels, 1, bias=False) if config.pool == "attention" else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.proj = nn.Linear(channels, d_model)

    def _check_reach(self) -> None:
        config, inner_size = self.config, self.bin_size // self.config.inner_pool
        fits = config.width // 2 <= self.bin_size and self.bin_size % config.inner_pool == 0
        if not fits or (config.num_layers > 1 and config.inner_width // 2 > inner_size):
            raise ConfigError(
                facts(
                    "stem",
                    found=f"width {config.width}, inner_width {config.inner_width}, "
                    f"inner_pool {config.inner_pool} for bins of {self.bin_size} bp",
                    expected="widths that reach at most one bin further and a pool that divides it",
                    fix="use narrower convolutions or larger bins",
                )
            )

    def scan_bases(self, codes_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the first convolution; its parts serve every mask."""
        batch, length = codes_BL.shape
        onehot_BLC = one_hot(codes_BL, dtype=self.proj.weight.dtype)
        onehot_BNSC = onehot_BLC.view(batch, length // self.bin_size, self.bin_size, 4)
        return self.first.parts(onehot_BNSC.transpose(2, 3))

    def forward(
        self, scanned: tuple[Tensor, Tensor, Tensor], mask_BN: Tensor | None = None
    ) -> Tensor:
        """Embed every bin, shape (batch, bins, width).

        Parameters
        ----------
        scanned : tuple of tensors
            What `scan_bases` returned.
        mask_BN : float tensor, shape (batch, bins), optional
            Weight of what each bin shows to its neighbours; 1 everywhere when left out.
        """
        x_BNCS = self.first.join(scanned, mask_BN)
        if self.config.inner_pool > 1:
            # Before the norm and the activation: they then run on far fewer positions.
            pooled = F.max_pool1d(x_BNCS.flatten(0, 1), self.config.inner_pool)
            x_BNCS = pooled.view(*x_BNCS.shape[:3], -1)
        x_BNCS = self._activate(x_BNCS, layer=0)
        for layer, conv in enumerate(self.inner, start=1):
            x_BNCS = x_BNCS + self._activate(_border_conv(conv, x_BNCS, mask_BN), layer=layer)
        embedding_BND: Tensor = self.proj(self.dropout(self._pool(x_BNCS)))
        return embedding_BND

    def _activate(self, x_BNCS: Tensor, *, layer: int) -> Tensor:
        wide = x_BNCS.to(torch.promote_types(x_BNCS.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-2, keepdim=True) + _EPS)
        return F.gelu((wide * scale).to(x_BNCS.dtype) * self.scales[layer][:, None])

    def _pool(self, x_BNCS: Tensor) -> Tensor:
        if self.config.pool == "mean":
            return x_BNCS.mean(-1)
        if self.attention is None:
            return x_BNCS.amax(-1)
        logits_MCS = self.attention(x_BNCS.flatten(0, 1))
        weights_BNCS = torch.softmax(logits_MCS.view_as(x_BNCS), dim=-1)
        return (weights_BNCS * x_BNCS).sum(-1)


def _border_conv(conv: nn.Module, x_BNCS: Tensor, mask_BN: Tensor | None) -> Tensor:
    assert isinstance(conv, BorderConv)
    return conv.join(conv.parts(x_BNCS), mask_BN)


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
        hidden_BND: Tensor = self.proj(scaled_BNT)
        if self.missing is not None:
            hidden_BND = hidden_BND + self.missing(missing_BNT.to(scaled_BNT.dtype))
        return hidden_BND
