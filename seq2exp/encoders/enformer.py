"""Enformer: convolution tower to bins of 128 bp, then attention with relative positions.

Architecture: Avsec et al., "Effective gene expression prediction from sequence by integrating
long-range interactions", Nat Methods 18:1196 (2021). The track heads of the published model are not
part of the encoder.

Shapes: B batch, L base pairs, N bins (L / bin_size), S bins of a span, P = 2 N - 1 distances,
F features of a distance, C channels, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.encoders.protocol import Span, Strands
from seq2exp.encoders.registry import register_encoder
from seq2exp.nn.batch_norm import NormStatistics, run_again_in_backward
from seq2exp.nn.enformer import EnformerBlock, FinalPointwise, Stem, TowerStage, channel_ladder
from seq2exp.nn.relative import GammaScale, gamma_features, position_features

__all__ = ["EnformerConfig", "EnformerEncoder", "Shortcuts", "enformer_one_hot"]

Shortcuts = Literal["exact", "always", "never"]


@dataclass(frozen=True)
class EnformerConfig:
    """Everything that shapes an Enformer; the defaults are those of the published model."""

    dim: int = 1536
    """Width of the attention blocks; the output has twice as many channels."""
    depth: int = 11
    """Attention blocks."""
    num_heads: int = 8
    """Heads; dim / num_heads is the width of a value and the number of features of a distance, a
    multiple of 6."""
    key_dim: int = 64
    """Width of a key."""
    num_halvings: int = 7
    """Pools; a bin has 2**num_halvings base pairs."""
    channel_multiple: int = 128
    """Channels of the tower are rounded to multiples of this; divides dim."""
    dropout: float = 0.4
    """Dropout of the attention blocks; an eighth of it before the last activation."""
    attention_dropout: float = 0.05
    """Dropout on the attention weights."""
    position_dropout: float = 0.01
    """Dropout on the features of the distances."""
    crop_bins: int | None = None
    """Central bins that are returned, 896 in the published model; all when left out."""
    position_bins: int | None = None
    """Bins whose distances set the features of the positions; those of the window when left out.
    Published weights keep the positions they were trained with at 1536, also in shorter windows."""
    gamma_scale: GammaScale = "distances"
    """distances: gamma features as in the published weights. features: as enformer-pytorch computes
    them for models that it trains from scratch."""
    tf_gamma: bool = False
    """Keep the gamma features in the weights and load them with published ones (`tf_gammas`)."""
    norm_statistics: NormStatistics = "batch"
    """batch: batch norm as published. running: averages also in training, for fine-tuning."""
    shortcuts: Shortcuts = "exact"
    """Where the last block and the final layer work on the bins that are read only. exact: in
    evaluation; in training on the cropped bins, which batch norm sees in the published model.
    always: also in training, so that batch norm sees the read bins only. never: on all bins."""
    recompute: bool = False
    """Keep only the inputs of the stem, of every stage and of every block (less memory)."""

    def __post_init__(self) -> None:
        _require(self.depth >= 1, "depth", self.depth, "1 or more")
        _require(self.num_halvings >= 2, "num_halvings", self.num_halvings, "2 or more")
        _require(
            self.num_heads >= 1 and self.dim > 0 and self.dim % (6 * self.num_heads) == 0,
            "dim",
            f"{self.dim} with {self.num_heads} heads",
            "a multiple of 6 * num_heads",
        )
        _require(
            self.channel_multiple >= 1
            and self.dim % self.channel_multiple == 0
            and min(self.ladder) > 0
            and self.dim % 2 == 0,
            "channel_multiple",
            f"{self.channel_multiple} with dim {self.dim}",
            "a divisor of dim, at most half of it",
        )
        for name in ("key_dim", "crop_bins", "position_bins"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "1 or more")

    @property
    def bin_size(self) -> int:
        """Base pairs per bin."""
        return 1 << self.num_halvings

    @property
    def ladder(self) -> tuple[int, ...]:
        """Channels after the stem and after every stage of the tower."""
        return channel_ladder(
            self.dim, num_halvings=self.num_halvings, multiple=self.channel_multiple
        )


def _require(holds: bool, key: str, found: object, expected: str) -> None:  # noqa: FBT001
    if not holds:
        raise ConfigError(
            facts(f"enformer.{key}", found=found, expected=expected, fix="change the value")
        )


def enformer_one_hot(codes_BL: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encode ids as columns A C G T, shape (batch, length, 4): 0-3 bases, 4 (N) zero, -1 a quarter.

    Parameters
    ----------
    codes_BL : integer tensor, shape (batch, length)
        A0 C1 G2 T3 N4; -1, in uint8 255, for padding of which each base is equally likely. Float
        columns A C G T, shape (batch, length, 4), are passed on as they are.
    """
    if codes_BL.ndim == 3:
        return codes_BL.to(dtype)
    rows = torch.cat([torch.eye(4), torch.zeros(1, 4), torch.full((1, 4), 0.25)])
    ids_BL = codes_BL.to(torch.int32)
    is_padding_BL = (ids_BL == -1) | (ids_BL == 255)
    return rows.to(codes_BL.device, dtype)[ids_BL.masked_fill(is_padding_BL, 5)]


@register_encoder("enformer", EnformerConfig)
class EnformerEncoder(nn.Module):
    """Enformer without its track heads.

    The hidden states have ``2 * dim`` channels per bin of ``2**num_halvings`` bp.

    Parameters
    ----------
    config : EnformerConfig
        See its fields.
    tracks : tuple of str
        Must be empty.
    window_bp, bin_size : int
        Window and bins of the data; other windows that are multiples of the bin work too, unless
        `tf_gamma` fixes it.

    Raises
    ------
    ConfigError
        Tracks, other bins, or a window that does not fit the crop or the positions.
    """

    causal = False
    rc: Strands = "none"
    takes_tracks = False
    tf_gammas: Tensor | None

    def __init__(
        self,
        config: EnformerConfig,
        *,
        tracks: tuple[str, ...] = (),
        window_bp: int,
        bin_size: int,
    ) -> None:
        super().__init__()
        self.config, self.bin_size, self.out_dim = config, config.bin_size, 2 * config.dim
        self.window_bp = None
        _check_data(config, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
        ladder, statistics = config.ladder, config.norm_statistics
        self.stem = Stem(ladder[0], statistics=statistics)
        self.tower = nn.ModuleList(
            TowerStage(ladder[i], ladder[i + 1], statistics=statistics)
            for i in range(config.num_halvings - 1)
        )
        self.blocks = nn.ModuleList(
            EnformerBlock(
                config.dim,
                num_heads=config.num_heads,
                key_dim=config.key_dim,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                position_dropout=config.position_dropout,
            )
            for _ in range(config.depth)
        )
        self.final = FinalPointwise(config.dim, dropout=config.dropout / 8, statistics=statistics)
        stored = None
        if config.tf_gamma:
            stored = gamma_features(
                config.position_bins or window_bp // self.bin_size,
                config.dim // config.num_heads // 6,
                scale=config.gamma_scale,
            ).float()
        self.register_buffer("tf_gammas", stored)

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        mask_BN: Tensor | None = None,
        *,
        span: Span | None = None,
    ) -> Tensor:
        """Hidden states of the bins of `span`, else of the central `crop_bins`, else of all.

        Parameters
        ----------
        codes_BL : integer tensor, shape (batch, length)
            See `enformer_one_hot`.
        signal_BNT : None
            Enformer reads no tracks.
        mask_BN : float tensor, shape (batch, bins), optional
            Multiplies the one-hot bases of each bin.
        span : tuple of int, optional
            Half-open run of bins, counted from the first of the window, not of the crop.

        Returns
        -------
        float tensor, shape (batch, bins of the span, 2 * dim)

        Raises
        ------
        InputError
            Tracks, a length that is no multiple of the bin, a mask of another shape, or a span
            outside the window.
        """
        self._check_input(codes_BL, signal_BNT, mask_BN)
        return self.run_blocks(self.run_tower(codes_BL, mask_BN), span=span)

    def run_tower(self, codes_BL: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Embed whole bins with the convolutions, shape (batch, bins, dim).

        The arguments are those of `forward`.
        """
        bases_BLC = enformer_one_hot(codes_BL, dtype=self.stem.conv.weight.dtype)
        if mask_BN is not None:
            mask_BL = mask_BN.repeat_interleave(self.bin_size, dim=1)
            bases_BLC = bases_BLC * mask_BL[..., None].to(bases_BLC.dtype)
        hidden_BCL = self._run(self.stem, bases_BLC.mT)
        for stage in self.tower:
            hidden_BCL = self._run(stage, hidden_BCL)
        return hidden_BCL.mT

    def tower_margin(self) -> int:
        """Count the base pairs before and after a bin that the convolutions read."""
        widths = sum(TowerStage.WIDTH // 2 << (i + 1) for i in range(len(self.tower)))
        return Stem.WIDTH // 2 + widths

    def run_blocks(self, hidden_BND: Tensor, *, span: Span | None = None, done: int = 0) -> Tensor:
        """Mix embedded bins by attention, shape (batch, bins of the span, 2 * dim).

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, bins, dim)
            What `run_tower` returned.
        span : tuple of int, optional
            As for `forward`.
        done : int
            Blocks, not the last, that the embedded bins went through already.
        """
        num_bins = hidden_BND.shape[1]
        wanted = _inside(span or self._cropped(num_bins), num_bins)
        features_PF = self.positions(num_bins).to(hidden_BND.dtype)
        for block in self.blocks[done:-1]:
            hidden_BND = self._run(block, hidden_BND, features_PF)
        mixed, normed = self._rows(wanted, num_bins)
        hidden_BND = self._run(self.blocks[-1], hidden_BND, features_PF, span=mixed)
        out_BSD = self._run(self.final, _part(hidden_BND, normed, mixed))
        return _part(out_BSD, wanted, normed)

    def _run(self, module: nn.Module, *inputs: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        if self.config.recompute:
            return run_again_in_backward(module, *inputs, **options)
        out: Tensor = module(*inputs, **options)
        return out

    def positions(self, num_bins: int) -> Tensor:
        """Features of the distances of so many bins, float64, shape (2 * bins - 1, features).

        Raises
        ------
        InputError
            More bins than the positions are made for.
        """
        config = self.config
        made_for = config.position_bins or num_bins
        if self.tf_gammas is not None:
            made_for = (len(self.tf_gammas) + 1) // 2
        if num_bins > made_for:
            raise InputError(
                facts(
                    "window",
                    found=f"{num_bins} bins",
                    expected=f"at most the {made_for} whose distances have features",
                    fix="shorten the window or raise enformer.position_bins",
                )
            )
        features_PF = position_features(
            made_for,
            config.dim // config.num_heads,
            gamma_PF=self.tf_gammas,
            gamma_scale=config.gamma_scale,
            device=self.stem.conv.weight.device,
        )
        return features_PF[made_for - num_bins : made_for + num_bins - 1]

    def _cropped(self, num_bins: int) -> Span:
        """Bins that are returned when no span is asked for."""
        kept = num_bins if self.config.crop_bins is None else self.config.crop_bins
        start = (num_bins - kept) // 2
        return start, start + kept

    def _rows(self, wanted: Span, num_bins: int) -> tuple[Span, Span]:
        """Bins on which the last block works, and those that the final layer normalises."""
        shortcuts = self.config.shortcuts
        frozen = not self.training or self.config.norm_statistics == "running"
        if shortcuts == "always" or (shortcuts == "exact" and frozen):
            return wanted, wanted
        crop = self._cropped(num_bins)
        normed = min(crop[0], wanted[0]), max(crop[1], wanted[1])
        return ((0, num_bins) if shortcuts == "never" else normed), normed

    def _check_input(
        self, codes_BL: Tensor, signal_BNT: Tensor | None, mask_BN: Tensor | None
    ) -> int:
        """Count the bins, after refusing what cannot be read."""
        if signal_BNT is not None and signal_BNT.shape[-1]:
            raise InputError(
                facts(
                    "enformer",
                    found=f"{signal_BNT.shape[-1]} tracks",
                    expected="none, it reads bases only",
                    fix="leave the tracks out or choose another encoder",
                )
            )
        num_bins, rest = divmod(codes_BL.shape[1], self.bin_size)
        crop = self.config.crop_bins or 1
        if codes_BL.ndim not in (2, 3) or rest or num_bins < crop:
            raise InputError(
                facts(
                    "bases",
                    found=f"shape {tuple(codes_BL.shape)}",
                    expected=f"(batch, length), a multiple of {self.bin_size} bp with at least "
                    f"{crop} bins",
                    fix="change data.window_bp or enformer.crop_bins",
                )
            )
        if mask_BN is not None and mask_BN.shape != (len(codes_BL), num_bins):
            raise InputError(
                facts(
                    "mask",
                    found=f"shape {tuple(mask_BN.shape)}",
                    expected=f"{(len(codes_BL), num_bins)}",
                    fix=f"give one value per {self.bin_size} bp",
                )
            )
        return num_bins

    def receptive_field(self, window_bp: int) -> int:
        """Count the base pairs that an output bin reads: the whole window, by attention."""
        return window_bp

    def flops(self, window_bp: int) -> int:
        """Count the operations of matrix products and convolutions of a forward pass.

        Of one window, evaluated: the last block and the final layer work on the cropped bins.
        """
        return sum(cost for cost, _ in self._pieces(window_bp))

    def activation_bytes(self, window_bp: int) -> int:
        """Count the bytes that a float32 training pass keeps for its backward, per window.

        With `recompute` these are the inputs of the pieces and what the largest piece keeps while
        it runs again.
        """
        kept = [numbers for _, numbers in self._pieces(window_bp)]
        if not self.config.recompute:
            return 4 * sum(kept)
        num_bins = window_bp // self.bin_size
        inputs = 4 * window_bp + (len(self.blocks) + 1) * num_bins * self.config.dim
        for i, channels in enumerate(self.config.ladder[:-1]):
            inputs += (window_bp >> (i + 1)) * channels
        return 4 * (inputs + max(kept))

    def _pieces(self, window_bp: int) -> list[tuple[int, int]]:
        """Operations and kept numbers of stem, stages, blocks and final layer."""
        num_bins = window_bp // self.bin_size
        start, stop = self._cropped(num_bins)
        pieces = [(self.stem.flops(window_bp), self.stem.kept(window_bp))]
        for i, stage in enumerate(self.tower):
            length = window_bp >> (i + 1)
            pieces.append((stage.flops(length), stage.kept(length)))  # type: ignore[operator]
        for i, block in enumerate(self.blocks):
            size = (num_bins, stop - start if i == len(self.blocks) - 1 else num_bins)
            pieces.append((block.flops(*size), block.kept(*size)))  # type: ignore[operator]
        final = self.final
        return [*pieces, (final.flops(stop - start), final.kept(stop - start))]


def _part(hidden_BSD: Tensor, span: Span, of: Span) -> Tensor:
    """Bins of `span` among hidden states of the bins of `of`."""
    return hidden_BSD[:, span[0] - of[0] : span[1] - of[0]]


def _inside(span: Span, num_bins: int) -> Span:
    if not 0 <= span[0] < span[1] <= num_bins:
        raise InputError(
            facts(
                "span",
                found=tuple(span),
                expected=f"a run within the {num_bins} bins of the window",
                fix="ask for bins of the window",
            )
        )
    return span


def _check_data(
    config: EnformerConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
) -> None:
    """Refuse data that the encoder cannot read."""
    if tracks:
        raise ConfigError(
            facts(
                "tracks of the enformer encoder",
                found=", ".join(tracks),
                expected="none, it reads bases only",
                fix="leave the tracks out or choose another encoder",
            )
        )
    if bin_size != config.bin_size or window_bp < 1 or window_bp % config.bin_size:
        raise ConfigError(
            facts(
                "data for the enformer encoder",
                found=f"window_bp {window_bp} in bins of {bin_size} bp",
                expected=f"a multiple of {config.bin_size} bp in bins of {config.bin_size} bp",
                fix="change data.window_bp and data.bin_size, or enformer.num_halvings",
            )
        )
    num_bins = window_bp // bin_size
    crop, made_for = config.crop_bins or num_bins, config.position_bins or num_bins
    if crop > num_bins or (num_bins - crop) % 2:
        raise ConfigError(
            facts(
                "enformer.crop_bins",
                found=f"{crop} of {num_bins} bins",
                expected="an even number fewer than the window has",
                fix="change crop_bins or leave it out",
            )
        )
    if made_for < num_bins:
        raise ConfigError(
            facts(
                "enformer.position_bins",
                found=made_for,
                expected=f"at least the {num_bins} bins of the window",
                fix="raise it or leave it out",
            )
        )
