"""Stems: from bases to one embedding per bin.

With `bin_size` 1 the sequence embedding is the published ``Linear(4, d)``. With larger bins,
convolutions run at base resolution and are pooled inside each bin. A convolution lets a bin read
the edges of its neighbours; `ConvStem.forward` can weigh what crosses a bin border by the
mask of the bin it comes from, so that a bin with mask 0 is invisible to all others while a bin
still reads itself in full.

With a stride the first convolution is evaluated at every stride-th base only, counted from the TSS:
in genomes whose TSS is a start codon, stride 3 keeps the reading phase.

Shapes: B batch, L base pairs, N bins, C channels, S positions of one bin, H queries, D model
width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict, cast, get_args

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.kmers import KmerStem
from seq2exp.nn.sequence import one_hot
from seq2exp.nn.stem_layer import Activation, StemLayer, StemScan

__all__ = [
    "ConvStem",
    "LinearStem",
    "StemConfig",
    "build_stem",
]

Pooling = Literal["mean", "sum", "max", "attention"]


@dataclass(frozen=True)
class StemConfig:
    """Convolutions at base resolution and how they are pooled; without effect for bins of 1 bp."""

    channels: int = 64
    """Channels of every convolution."""
    width: int = 15
    """Taps of the first convolution, centred on its base; of an even number, one more lies before
    the base than after it."""
    stride: int = 1
    """Bases from one evaluated position of the first convolution to the next, counted from the TSS;
    divides the bin size. Windows with jitter and mirrored windows lose the phase."""
    num_layers: int = 1
    """Convolutions: the first reads the bases, the others read what lies before them."""
    inner_width: int = 5
    """Taps of the second and later convolutions, odd."""
    inner_pool: int = 4
    """Evaluated positions that are max-pooled to one after the first convolution; divides their
    number per bin."""
    norm: bool = True
    """Divide every position by the root mean square of its channels before the activation."""
    activation: Activation = "gelu"
    """gelu or relu."""
    pool: Pooling = "attention"
    """How the positions of a bin become one: mean, max, attention with learned queries, or sum: the
    sum over the root of their number, which keeps the size of independent counts."""
    num_queries: int = 4
    """Queries of the attention pool."""
    kmer: int = 0
    """Letters of the words that are counted instead of a convolution (6 is a good start); 0 for the
    convolution. Of the other keys only channels and dropout then matter."""
    word_dropout: float = 0.0
    """Share of the words left out at random in training."""
    dropout: float = 0.0
    """Dropout on the pooled channels."""

    def __post_init__(self) -> None:
        if self.inner_width < 1 or self.inner_width % 2 == 0:
            raise ConfigError(
                facts(
                    "stem.inner_width",
                    found=self.inner_width,
                    expected="an odd number",
                    fix="use an odd number so that the taps are centred",
                )
            )
        for name in ("channels", "width", "stride", "num_layers", "inner_pool", "num_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    facts(
                        f"stem.{name}",
                        found=getattr(self, name),
                        expected="at least 1",
                        fix="give a positive number",
                    )
                )
        for name, choices in (("pool", get_args(Pooling)), ("activation", get_args(Activation))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    facts(
                        f"stem.{name}",
                        found=getattr(self, name),
                        expected="one of " + ", ".join(choices),
                        fix=f"use {choices[-1]}",
                    )
                )


def build_stem(
    d_model: int, *, bin_size: int, config: StemConfig, tss: int = 0
) -> LinearStem | ConvStem | KmerStem:
    """Make the published linear stem for bins of one base, else one that pools inside bins.

    Parameters
    ----------
    d_model : int
        Width of the embedding.
    bin_size : int
        Base pairs per bin.
    config : StemConfig
        Widths, depth and pooling.
    tss : int
        Index of the TSS in the window, from which `config.stride` counts.

    Raises
    ------
    ConfigError
        The stride does not divide the bin, or the convolutions do not fit into it.
    """
    if bin_size % config.stride:
        raise ConfigError(
            facts(
                "stem.stride",
                found=f"{config.stride} for bins of {bin_size} bp",
                expected="a divisor of bin_size, so that all bins hold as many positions",
                fix=f"use bins of {config.stride * max(1, bin_size // config.stride)} bp "
                "or stride 1",
            )
        )
    if bin_size == 1:
        return LinearStem(d_model)
    if config.kmer:
        return KmerStem(
            d_model,
            bin_size=bin_size,
            length=config.kmer,
            channels=config.channels,
            word_dropout=config.word_dropout,
            dropout=config.dropout,
        )
    return ConvStem(d_model, bin_size=bin_size, config=config, tss=tss)


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

    def margins(self) -> tuple[int, int]:
        """Count the base pairs before and after a bin that its embedding reads: none."""
        return 0, 0

    def flops(self, num_bins: int) -> int:
        """Count the floating-point operations of so many bins."""
        return 2 * num_bins * self.proj.weight.numel()

    def kept_numbers(self, num_bins: int) -> int:
        """Count the numbers kept for the backward: the one-hot bases."""
        return 4 * num_bins


class _Style(TypedDict):
    norm: bool
    activation: Activation


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
    tss : int
        Index of the TSS in the window, from which `config.stride` counts.
    """

    def __init__(self, d_model: int, *, bin_size: int, config: StemConfig, tss: int = 0) -> None:
        super().__init__()
        self.bin_size, self.config = bin_size, config
        channels = config.channels
        style: _Style = {"norm": config.norm, "activation": config.activation}
        self.first = StemLayer(
            4,
            channels,
            width=config.width,
            pool=config.inner_pool,
            stride=config.stride,
            offset=tss % config.stride,
            **style,
        )
        self.inner = nn.ModuleList(
            StemLayer(channels, channels, width=config.inner_width, pool=1, **style)
            for _ in range(config.num_layers - 1)
        )
        self.num_positions = bin_size // config.stride // config.inner_pool
        # A single layer that is summed needs no room for all its positions.
        self.sums_early = config.num_layers == 1 and config.pool in ("mean", "sum")
        num_pooled = 1
        self.queries = None
        if config.pool == "attention":
            num_pooled = config.num_queries
            self.queries = nn.Linear(channels, num_pooled, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.proj = nn.Linear(num_pooled * channels, d_model)
        self._check_reach()

    def _check_reach(self) -> None:
        config = self.config
        count = self.bin_size // config.stride
        inner_reach = config.inner_width // 2 if config.num_layers > 1 else 0
        fits = count % config.inner_pool == 0 and sum(self.first.edges(self.bin_size)) <= count
        if not fits or 2 * inner_reach > count // config.inner_pool:
            raise ConfigError(
                facts(
                    "stem",
                    found=f"width {config.width}, inner_width {config.inner_width}, "
                    f"inner_pool {config.inner_pool} for bins of {self.bin_size} bp with "
                    f"{count} positions",
                    expected="widths of at most about one bin, and a pool that divides the "
                    "positions",
                    fix="use narrower convolutions, inner_pool 1 or larger bins",
                )
            )

    def scan_bases(self, codes_BL: Tensor) -> StemScan:
        """Run what the first convolution shares between all masks."""
        onehot_BLC = one_hot(codes_BL, dtype=self.proj.weight.dtype)
        batch, length = codes_BL.shape[:2]
        bases_BNSC = onehot_BLC.reshape(batch, length // self.bin_size, self.bin_size, 4)
        if self.sums_early:
            return self.first.scan_summed(bases_BNSC)
        return self.first.scan(bases_BNSC)

    def forward(self, scan: StemScan, mask_BN: Tensor | None = None) -> Tensor:
        """Embed every bin, shape (batch, bins, width).

        Parameters
        ----------
        scan : tuple of tensors
            What `scan_bases` returned.
        mask_BN : float tensor, shape (batch, bins), optional
            Weight of what each bin shows to its neighbours; 1 everywhere when left out.
        """
        if self.sums_early:
            pooled = self.first.finish(scan, mask_BN).sum(2) / self._divisor(self.num_positions)
        else:
            x_BNSC = self.first.finish(scan, mask_BN)
            for layer in self._inner():
                x_BNSC = x_BNSC + layer.finish(layer.scan(x_BNSC), mask_BN)
            pooled = self._pool(x_BNSC)
        embedding_BND: Tensor = self.proj(self.dropout(pooled))
        return embedding_BND

    def _pool(self, x_BNSC: Tensor) -> Tensor:
        if self.queries is not None:
            weights_BNSH = torch.softmax(self.queries(x_BNSC), dim=2)
            return torch.matmul(weights_BNSH.transpose(2, 3), x_BNSC).flatten(2)
        if self.config.pool == "max":
            return x_BNSC.amax(2)
        return x_BNSC.sum(2) / self._divisor(x_BNSC.shape[2])

    def _divisor(self, num_positions: int) -> float:
        """Return the number by which a sum over positions is divided."""
        return num_positions if self.config.pool == "mean" else math.sqrt(num_positions)

    def margins(self) -> tuple[int, int]:
        """Count the base pairs before and after a bin that its convolutions read."""
        config, first = self.config, self.first
        inner = (config.num_layers - 1) * (config.inner_width // 2)
        more = inner * config.inner_pool * config.stride
        after = first.after - (config.stride - 1 - first.offset)
        return max(0, first.before - first.offset + more), max(0, after + more)

    def flops(self, num_bins: int) -> int:
        """Count the operations of convolutions, attention pool and projection."""
        count, channels = self.num_positions, self.config.channels
        total = self.first.flops(self.bin_size) + self.proj.weight.numel() * 2
        for layer in self._inner():
            total += layer.flops(count)
        if self.queries is not None:
            total += 2 * 2 * count * channels * self.queries.out_features
        return num_bins * total

    def kept_numbers(self, num_bins: int) -> int:
        """Count the numbers of four bytes that are kept for the backward.

        What every convolution keeps and its result, softmax weights of the attention pool, and the
        pooled channels.
        """
        count, channels = self.num_positions, self.config.channels
        total = self.first.kept_numbers(self.bin_size) + self.proj.in_features
        for layer in self._inner():
            total += layer.kept_numbers(count) + count * channels
        if not self.sums_early:
            total += count * channels
        elif self.first.scale is None and self.first.pool == 1 and self.config.activation == "relu":
            # Nothing of the middle but the bases is kept.
            total -= (count - sum(self.first.edges(self.bin_size))) * (channels + channels // 4)
        if self.queries is not None:
            total += count * self.queries.out_features
        if self.dropout.p:
            total += self.proj.in_features
        return num_bins * total

    def _inner(self) -> list[StemLayer]:
        return [cast("StemLayer", layer) for layer in self.inner]
