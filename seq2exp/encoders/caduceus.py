"""Caduceus: bidirectional Mamba-1 over single bases, plain (Ph) or reverse-complement equivariant.

Ph is trained with reverse-complemented windows and averages both strands at test, which the models
here do with `rc_average`. PS runs the same blocks on both strands and is equivariant by
construction (Schiff et al., arXiv 2403.03234). With a linear embedding and four blocks of width
128 it is the "Caduceus" of the Seq2Exp comparison, with tracks the "Caduceus with signals" (Su et
al., arXiv 2502.13991); with a token table it takes the published weights
(`seq2exp.encoders.pretrained`).

Shapes: B batch, L base pairs, T tracks, N = L positions, S positions of a span, D width of one
strand, C the four bases, V rows of the token table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.encoders.bimamba import BiMambaTrunk
from seq2exp.encoders.protocol import Span, Strands
from seq2exp.encoders.registry import register_encoder
from seq2exp.nn.norm import RMSNorm
from seq2exp.nn.rcps import exchanged, join_strands, ph_logits, ps_logits, require_rms_norm
from seq2exp.nn.sequence import flip_bins, one_hot, reverse_complement
from seq2exp.nn.tokens import TokenTable, complement_ids
from seq2exp.nn.tracks import TrackScaling, TrackTransform
from seq2exp.nn.two_pass import Strategy, TwoPassMixer

__all__ = ["Caduceus", "CaduceusConfig", "StrandTrunk"]


@dataclass(frozen=True)
class CaduceusConfig:
    """Everything that shapes a Caduceus encoder; the defaults are those of the comparison."""

    variant: Literal["ph", "ps"] = "ph"
    """ph: one pass over the window. ps: both strands through the same blocks, equivariant."""
    d_model: int = 128
    """Width of the hidden states of one strand."""
    num_layers: int = 4
    """Blocks."""
    d_state: int = 16
    """States per channel of the scan."""
    d_conv: int = 4
    """Taps of the convolution in each block."""
    expand: int = 2
    """Inner width over model width."""
    embedding: Literal["linear", "table"] = "linear"
    """linear: one-hot bases and tracks through one Linear with bias. table: the token table of the
    published models, bases only."""
    bidirectional_strategy: Strategy = "add"
    """How the outputs of the two directions are combined; ew_multiply: their product."""
    tie_projections: bool = True
    """Share in- and out-projection between the directions (as in every published model)."""
    swap_halves: bool = False
    """Of ps: exchange the strands before every block. true for weights that were trained by the
    published fused norm path, which computes another function than the unfused one."""
    norm_eps: float = 1e-5
    """Added to the mean square in every norm."""
    init_depth: int | None = None
    """Depth that scales the out-projections at the start; the real depth when left out."""
    track_transform: TrackTransform = "none"
    """Transform of the raw signal before the linear embedding; a missing value counts as 0."""
    recompute: bool = False
    """Keep only the input of each block and run it again in the backward pass (less memory)."""

    def __post_init__(self) -> None:
        sizes = ("d_model", "d_state", "d_conv", "expand")
        checks = {name: (getattr(self, name) > 0, "at least 1") for name in sizes}
        checks |= {
            "num_layers": (self.num_layers >= 0, "at least 0"),
            "norm_eps": (self.norm_eps > 0, "a positive value"),
            "swap_halves": (
                self.variant == "ps" or not self.swap_halves,
                "false with variant: ph, which has no halves",
            ),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"encoder.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change this key of the encoder section",
                    )
                )


class StrandTrunk(BiMambaTrunk):
    """The blocks of `BiMambaTrunk` run on one strand, or on both with the same weights.

    Parameters
    ----------
    config : CaduceusConfig
        See its fields.
    """

    def __init__(self, config: CaduceusConfig) -> None:
        mixer: dict[str, Any] = {
            "d_state": config.d_state,
            "d_conv": config.d_conv,
            "expand": config.expand,
        }
        depth = config.init_depth or config.num_layers
        super().__init__(
            config.d_model,
            num_layers=config.num_layers,
            init_depth=depth,
            recompute=config.recompute,
            **mixer,
        )
        self.swap_halves = config.swap_halves
        if config.bidirectional_strategy != "add" or not config.tie_projections:
            for layer in self.layers:
                layer.mixer = TwoPassMixer(
                    config.d_model,
                    strategy=config.bidirectional_strategy,
                    tied=config.tie_projections,
                    init_depth=depth,
                    **mixer,
                )
        for part in self.modules():
            if isinstance(part, RMSNorm):
                part.eps = config.norm_eps

    def live_bytes(self, num_positions: int) -> int:
        """Count what the block that runs again keeps beyond its input; 0 without `recompute`."""
        if not self.recompute or not self.layers:
            return 0
        kept = max(block.kept_numbers(num_positions) for block in self._blocks())
        return 4 * (kept - num_positions * self.out_dim)

    def both_strands(
        self, plus_BND: Tensor, minus_BND: Tensor, *, span: Span | None = None
    ) -> Tensor:
        """Equivariant hidden states ``[p, q]``, shape (batch, span, 2D).

        Parameters
        ----------
        plus_BND, minus_BND : float tensor, shape (batch, positions, width)
            Embedded window and embedded reverse complement, each in its own reading order.
        span : tuple of int, optional
            Half-open run of positions of the window that is read.

        Raises
        ------
        ConfigError
            The blocks hold another norm than RMSNorm.
        """
        require_rms_norm(self)
        num_positions = plus_BND.shape[1]
        begin, end = span or (0, num_positions)
        mirrored = num_positions - end, num_positions - begin
        for at, layer in enumerate(self.layers):
            last = span is not None and at == len(self.layers) - 1
            plus_BND, minus_BND = exchanged(plus_BND, minus_BND, swap_halves=self.swap_halves)
            plus_BND = self._strand(layer, plus_BND, (begin, end) if last else None)
            minus_BND = self._strand(layer, minus_BND, mirrored if last else None)
        if not self.layers:
            plus_BND, minus_BND = plus_BND[:, begin:end], minus_BND[:, slice(*mirrored)]
        return join_strands(self.norm_f(plus_BND), self.norm_f(minus_BND))

    def _strand(self, layer: nn.Module, hidden_BND: Tensor, span: Span | None) -> Tensor:
        return self._run(layer, hidden_BND, None, span=span, starts_BL=None)


class _LinearEmbedding(nn.Module):
    """One-hot bases and tracks through one Linear with bias; the mask scales its input."""

    def __init__(self, config: CaduceusConfig, num_tracks: int) -> None:
        super().__init__()
        self.scaling = (
            TrackScaling(num_tracks, transform=config.track_transform) if num_tracks else None
        )
        self.proj = nn.Linear(4 + num_tracks, config.d_model)
        nn.init.zeros_(self.proj.bias)

    def forward(self, bases: Tensor, signal_BNT: Tensor | None, mask_BN: Tensor | None) -> Tensor:
        dtype = self.proj.weight.dtype
        inputs = one_hot(bases, dtype=dtype) if bases.ndim == 2 else bases.to(dtype)
        if self.scaling is not None and signal_BNT is not None:
            scaled_BNT = torch.nan_to_num(self.scaling.scaled(signal_BNT), nan=0.0).to(dtype)
            inputs = torch.cat([inputs, scaled_BNT], dim=-1)
        if mask_BN is not None:
            inputs = inputs * mask_BN[..., None].to(dtype)
        embedded_BND: Tensor = self.proj(inputs)
        return embedded_BND


@register_encoder("caduceus", CaduceusConfig)
class Caduceus(nn.Module):
    """Caduceus over single bases.

    Parameters
    ----------
    config : CaduceusConfig
        See its fields.
    tracks : tuple of str
        Tracks to read; only with a linear embedding.
    window_bp, bin_size : int
        Window and bins of the data; any window, bins of one base.

    Raises
    ------
    ConfigError
        Tracks with a token table, or bins of more than one base.
    """

    bin_size = 1
    causal = False
    window_bp: int | None = None

    def __init__(
        self, config: CaduceusConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
    ) -> None:
        super().__init__()
        del window_bp  # every length is read
        self._check(config, tracks=tracks, bin_size=bin_size)
        self.config = config
        self.takes_tracks = bool(tracks)
        self.num_tracks = len(tracks)
        self.table: TokenTable | None = None
        self.linear: _LinearEmbedding | None = None
        if config.embedding == "table":
            self.table = TokenTable(config.d_model)
        else:
            self.linear = _LinearEmbedding(config, len(tracks))
        self.trunk = StrandTrunk(config)

    @staticmethod
    def _check(config: CaduceusConfig, *, tracks: tuple[str, ...], bin_size: int) -> None:
        if tracks and config.embedding == "table":
            raise ConfigError(
                facts(
                    "encoder caduceus with embedding: table",
                    found=f"tracks {', '.join(tracks)}",
                    expected="no tracks: the published token table knows bases only",
                    fix="use embedding: linear, or leave the tracks to the rest of the model",
                )
            )
        if bin_size != 1:
            raise ConfigError(
                facts(
                    "encoder caduceus",
                    found=f"bins of {bin_size} bp",
                    expected="bins of 1 bp",
                    fix="set bin_size: 1, or use an encoder that pools bases",
                )
            )

    @property
    def rc(self) -> Strands:
        """Equivariant for PS, none for Ph."""
        return "equivariant" if self.config.variant == "ps" else "none"

    @property
    def out_dim(self) -> int:
        """Width of the output: D for Ph, 2D for PS."""
        return self.config.d_model * self._num_strands

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        mask_BN: Tensor | None = None,
        *,
        span: Span | None = None,
    ) -> Tensor:
        """Hidden states of the bases of `span`, of all when left out.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, length)
            Bases A0 C1 G2 T3 N4; or one-hot columns A C G T, float, shape (batch, length, 4), for
            gradients with respect to the bases.
        signal_BNT : float tensor, shape (batch, length, tracks), optional
            Raw signal per base; NaN counts as 0 after scaling.
        mask_BN : float tensor, shape (batch, length), optional
            Multiplies the input of the linear embedding (published), or the row of the table.
        span : tuple of int, optional
            Half-open run of bases that is read.

        Returns
        -------
        float tensor, shape (batch, span, out_dim)
            For PS ``[p, q]``: p of the window, q of its reverse complement, flipped over length and
            channels (`seq2exp.nn.rcps.split_strands` undoes it).

        Raises
        ------
        InputError
            Signal that is missing, or that the encoder was not built for; a signal or mask of
            another shape; an empty window, or a span outside of it.
        """
        self._check_call(codes_BL, signal_BNT, mask_BN, span)
        plus_BND = self._embed(codes_BL, signal_BNT, mask_BN)
        if self.config.variant == "ph":
            out_BSD: Tensor = self.trunk(plus_BND, span=span)
            return out_BSD
        minus_BND = self._embed(
            reverse_complement(codes_BL),
            None if signal_BNT is None else flip_bins(signal_BNT),
            None if mask_BN is None else flip_bins(mask_BN),
        )
        return self.trunk.both_strands(plus_BND, minus_BND, span=span)

    def _check_call(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None,
        mask_BN: Tensor | None,
        span: Span | None,
    ) -> None:
        batch, length = codes_BL.shape[:2]
        wanted = (batch, length, self.num_tracks) if self.num_tracks else None
        given: dict[str, tuple[Tensor | None, tuple[int, ...] | None]]
        given = {"signal": (signal_BNT, wanted)}
        if mask_BN is not None:
            given["mask"] = (mask_BN, (batch, length))
        for name, (values, expected) in given.items():
            found = None if values is None else tuple(values.shape)
            if found != expected:
                raise InputError(
                    facts(
                        f"{name} of encoder caduceus",
                        found="none" if found is None else f"shape {found}",
                        expected="none" if expected is None else f"shape {expected}",
                        fix="give one value per base, of the tracks that the encoder was built for",
                    )
                )
        begin, end = span or (0, length)
        if not 0 <= begin < end <= length:
            raise InputError(
                facts(
                    "window or span of encoder caduceus",
                    found=f"bases {begin} to {end} of {length}",
                    expected="at least one base, inside of the window",
                    fix="count the bases from the start of the window",
                )
            )

    def _embed(self, bases: Tensor, signal_BNT: Tensor | None, mask_BN: Tensor | None) -> Tensor:
        if self.linear is not None:
            embedded_BND: Tensor = self.linear(bases, signal_BNT, mask_BN)
            return embedded_BND
        embedded_BND = self._need_table()(bases)
        if mask_BN is not None:
            embedded_BND = embedded_BND * mask_BN[..., None].to(embedded_BND.dtype)
        return embedded_BND

    def _need_table(self) -> TokenTable:
        if self.table is None:
            raise ConfigError(
                facts(
                    "token logits of encoder caduceus",
                    found="embedding: linear",
                    expected="embedding: table, to whose rows the head is tied",
                    fix="use embedding: table",
                )
            )
        return self.table

    def receptive_field(self, window_bp: int) -> int:
        """Count the bases that one position can read: all of them, in both directions."""
        return self.trunk.receptive_field(window_bp)

    def flops(self, window_bp: int) -> int:
        """Count the floating-point operations of a forward pass, of both strands for PS."""
        linear = 0 if self.linear is None else 2 * self.linear.proj.weight.numel() * window_bp
        return self._num_strands * (self.trunk.flops(window_bp) + linear)

    def activation_bytes(self, window_bp: int) -> int:
        """Count the bytes that a float32 forward pass keeps for its backward, per window.

        Beside the trunk these are what is embedded: 4 columns and the tracks, or int64 ids. With
        `recompute` the blocks of the two strands of PS run again one after the other.
        """
        columns = 2 if self.linear is None else self.linear.proj.in_features
        kept = self.trunk.activation_bytes(window_bp) + 4 * columns * window_bp
        return self._num_strands * kept - (self._num_strands - 1) * self.trunk.live_bytes(window_bp)

    @property
    def _num_strands(self) -> int:
        return 2 if self.config.variant == "ps" else 1

    def set_track_scaling(self, mean_T: Tensor, std_T: Tensor) -> None:
        """Set the moments of the transformed tracks, from training windows."""
        if self.linear is not None and self.linear.scaling is not None:
            self.linear.scaling.set_scaling(mean_T, std_T)

    def token_logits(self, codes_BL: Tensor) -> Tensor:
        """Logits of the language-model head that is tied to the table, shape (batch, length, V).

        For PS they are equivariant: those of the reverse complement are flipped along the window,
        the columns of complementary tokens exchanged.

        Raises
        ------
        ConfigError
            The encoder has no token table.
        """
        table_VD = self._need_table().weight
        hidden = self(codes_BL)
        if self.config.variant == "ph":
            return ph_logits(hidden, table_VD)
        return ps_logits(hidden, table_VD, complement_ids().to(table_VD.device))
