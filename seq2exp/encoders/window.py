"""Encoders made of an embedding and a trunk.

Shapes: B batch, L base pairs, N bins, T tracks, S bins of a span, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.encoders.embedding import BinEmbedding, LinearEmbedding, StemEmbedding, TableEmbedding
from seq2exp.encoders.protocol import Span, Strands
from seq2exp.encoders.stack import BlockTrunk, require_positive
from seq2exp.nn.stem import StemConfig
from seq2exp.nn.tracks import TrackTransform

__all__ = ["CharConfig", "CharEncoder", "Gate", "StemEncoder", "WindowConfig", "WindowEncoder"]

Gate = Literal["multiply", "delta"]
CharEmbedding = Literal["table", "linear", "stem"]


@dataclass(frozen=True)
class WindowConfig:
    """What all encoders with a trunk share."""

    d_model: int = 128
    """Width of the hidden states."""
    num_layers: int = 4
    """Blocks."""
    stem: StemConfig = field(default_factory=StemConfig)
    """Convolutions that embed the bases of a bin."""
    track_transform: TrackTransform = "log1p"
    """Transform of the raw signal before it is embedded."""
    learn_missing_tracks: bool = False
    """Give every missing track a learned embedding; else it adds nothing."""
    gate: Gate = "multiply"
    """multiply: a mask scales the embedding once (published). delta: it gates every block from
    inside, so that 0 hides a bin."""
    embedding_dropout: float = 0.0
    """Dropout on the embedded bins, before the first block."""
    dropout: float = 0.0
    """Dropout on the outputs of every block."""
    recompute: bool = False
    """Keep only the input of each block and run it again in the backward pass (less memory)."""
    final_norm: bool = True
    """Normalise the hidden states after the last block."""

    def __post_init__(self) -> None:
        require_positive("encoder", d_model=self.d_model)
        checks = {
            "num_layers": (self.num_layers >= 0, "at least 0"),
            "dropout": (0 <= self.dropout < 1, "0 <= value < 1"),
            "embedding_dropout": (0 <= self.embedding_dropout < 1, "0 <= value < 1"),
            "gate": (self.gate in get_args(Gate), "multiply or delta"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"encoder, {name}",
                        found=repr(getattr(self, name)),
                        expected=expected,
                        fix="change this key of the encoder",
                    )
                )

    def trunk_keywords(self) -> dict[str, Any]:
        """Keywords that every trunk takes."""
        names = ("d_model", "num_layers", "dropout", "recompute", "final_norm")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class CharConfig(WindowConfig):
    """Encoders that read single bases when bins are one base long."""

    embedding: CharEmbedding = "table"
    """table: a row per character of the published vocabulary, bases only. linear: one-hot bases and
    tracks through one matrix. stem: convolutions pooled inside bins; for bins above 1 bp."""


class WindowEncoder(nn.Module):
    """Embeds windows and mixes the bins; see `seq2exp.encoders.protocol.Encoder`.

    Only bins that the span can read are embedded.

    Parameters
    ----------
    embedding : BinEmbedding
        From bases and tracks to bins.
    trunk : BlockTrunk
        Mixes the bins.
    gate : str
        "multiply" or "delta", see `WindowConfig`.
    dropout : float
        Dropout on the embedded bins.
    """

    rc: Strands = "none"
    window_bp: int | None = None

    def __init__(
        self,
        embedding: BinEmbedding,
        trunk: BlockTrunk,
        *,
        gate: Gate = "multiply",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding, self.trunk, self.gate = embedding, trunk, gate
        self.embedding_dropout = nn.Dropout(dropout)
        self.bin_size, self.out_dim = embedding.bin_size, trunk.out_dim
        self.takes_tracks = embedding.num_tracks > 0
        # A stem shows a bin the edge of the next one.
        self.causal = trunk.causal and embedding.margins()[1] == 0

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        mask_BN: Tensor | None = None,
        *,
        span: Span | None = None,
    ) -> Tensor:
        """Hidden states of the bins of `span`, of all when left out.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, length)
            Bases A0 C1 G2 T3 N4; or one-hot columns, float, shape (batch, length, 4).
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Raw signal per bin; NaN where a track is missing.
        mask_BN : float tensor, shape (batch, bins), optional
            Multiplies the embedded bins, or gates the trunk from inside (`gate`).
        span : tuple of int, optional
            Half-open run of bins that is read.

        Raises
        ------
        InputError
            A window that is no multiple of the bins, tracks that are missing or not wanted, or a
            mask or signal of another shape.
        """
        num_bins = self._check(codes_BL, signal_BNT, mask_BN)
        whole = (0, num_bins)
        read = whole if span is None else self.trunk.reads(span, num_bins)
        hidden_BND = self._embed(codes_BL, signal_BNT, mask_BN, read)
        if mask_BN is not None:
            mask_BN = mask_BN[:, slice(*read)]
            if self.gate == "multiply":
                hidden_BND = hidden_BND * mask_BN[..., None].to(hidden_BND.dtype)
                mask_BN = None
        if span is not None:
            span = span[0] - read[0], span[1] - read[0]
        out_BSD: Tensor = self.trunk(self.embedding_dropout(hidden_BND), mask_BN, span=span)
        return out_BSD

    def _embed(
        self, codes_BL: Tensor, signal_BNT: Tensor | None, mask_BN: Tensor | None, read: Span
    ) -> Tensor:
        """Embed the bins of a span, with the neighbours that the stem sees over their borders."""
        size, num_bins = self.bin_size, codes_BL.shape[1] // self.bin_size
        left, right = (-(-margin // size) for margin in self.embedding.margins())
        first, stop = max(0, read[0] - left), min(num_bins, read[1] + right)
        hidden_BND: Tensor = self.embedding(
            codes_BL[:, first * size : stop * size],
            None if signal_BNT is None else signal_BNT[:, first:stop],
            mask_BN[:, first:stop] if mask_BN is not None and self.gate == "delta" else None,
        )
        return hidden_BND[:, read[0] - first : read[1] - first]

    def _check(self, codes_BL: Tensor, signal_BNT: Tensor | None, mask_BN: Tensor | None) -> int:
        """Count the bins of a window that fits."""
        batch, length = codes_BL.shape[:2]
        if length == 0 or length % self.bin_size:
            raise InputError(
                facts(
                    "window",
                    found=f"{length} bp",
                    expected=f"a positive multiple of {self.bin_size} bp (bin_size)",
                    fix="cut the window to whole bins",
                )
            )
        num_bins = length // self.bin_size
        if (signal_BNT is not None) != self.takes_tracks:
            raise InputError(
                facts(
                    "signal",
                    found="none" if signal_BNT is None else "tracks",
                    expected="tracks" if self.takes_tracks else "none",
                    fix="give the tracks for which the encoder was built, and no others",
                )
            )
        for name, values, shape in (
            ("signal", signal_BNT, (batch, num_bins, self.embedding.num_tracks)),
            ("mask", mask_BN, (batch, num_bins)),
        ):
            if values is not None and tuple(values.shape) != shape:
                raise InputError(
                    facts(
                        f"shape of {name}",
                        found=tuple(values.shape),
                        expected=shape,
                        fix="give one row per bin of the window",
                    )
                )
        return num_bins

    def receptive_field(self, window_bp: int) -> int:
        """Count the base pairs from the first to the last that one output bin can read."""
        num_bins = window_bp // self.bin_size
        left, right = self.embedding.margins()
        best = 0
        middle = num_bins // 2
        # The count grows towards the middle, or, in causal nets, towards the end.
        for at in {*range(max(0, middle - 2), min(num_bins, middle + 3)), num_bins - 1}:
            first, stop = self.trunk.reads((at, at + 1), num_bins)
            start = max(0, first * self.bin_size - left)
            best = max(best, min(window_bp, stop * self.bin_size + right) - start)
        return best

    def flops(self, window_bp: int) -> int:
        """Count the floating-point operations of a forward pass over a whole window."""
        num_bins = window_bp // self.bin_size
        return self.embedding.flops(num_bins) + self.trunk.flops(num_bins)

    def activation_bytes(self, window_bp: int) -> int:
        """Count the bytes that a float32 forward pass keeps for its backward, per window."""
        num_bins = window_bp // self.bin_size
        dropped = num_bins * self.out_dim if self.embedding_dropout.p else 0
        embedded = 4 * (self.embedding.kept_numbers(num_bins) + dropped)
        return embedded + self.trunk.activation_bytes(num_bins)

    def set_track_scaling(self, mean_T: Tensor, std_T: Tensor) -> None:
        """Set the moments of the transformed tracks, from training windows."""
        self.embedding.set_track_scaling(mean_T, std_T)


class StemEncoder(WindowEncoder):
    """A stem, tracks beside it, and a trunk.

    Parameters
    ----------
    config : WindowConfig
        Stem, tracks, gate and embedding dropout.
    trunk : BlockTrunk
        Mixes the bins.
    tracks : tuple of str
        Tracks that are read.
    window_bp, bin_size : int
        Window and bins of the data.
    """

    def __init__(
        self,
        config: WindowConfig,
        trunk: BlockTrunk,
        *,
        tracks: tuple[str, ...],
        window_bp: int,
        bin_size: int,
    ) -> None:
        _require_whole_bins(window_bp, bin_size)
        embedding = _stem_embedding(config, tracks, window_bp, bin_size)
        super().__init__(embedding, trunk, gate=config.gate, dropout=config.embedding_dropout)


class CharEncoder(WindowEncoder):
    """A table of characters, one-hot bases or a stem, and a trunk.

    Parameters
    ----------
    config : CharConfig
        Kind of embedding, stem, tracks, gate and embedding dropout.
    trunk : BlockTrunk
        Mixes the bins.
    tracks : tuple of str
        Tracks that are read.
    window_bp, bin_size : int
        Window and bins of the data.

    Raises
    ------
    ConfigError
        Tracks for the table, or single bases where bins are longer.
    """

    def __init__(
        self,
        config: CharConfig,
        trunk: BlockTrunk,
        *,
        tracks: tuple[str, ...],
        window_bp: int,
        bin_size: int,
    ) -> None:
        _require_whole_bins(window_bp, bin_size)
        super().__init__(
            _char_embedding(config, tracks, window_bp, bin_size),
            trunk,
            gate=config.gate,
            dropout=config.embedding_dropout,
        )


def _require_whole_bins(window_bp: int, bin_size: int) -> None:
    require_positive("encoder", window_bp=window_bp, bin_size=bin_size)
    if window_bp % bin_size:
        raise ConfigError(
            facts(
                "encoder, window_bp",
                found=f"{window_bp} bp for bins of {bin_size} bp",
                expected="a multiple of bin_size",
                fix=f"use a window of {window_bp // bin_size * bin_size or bin_size} bp",
            )
        )


def _stem_embedding(
    config: WindowConfig, tracks: tuple[str, ...], window_bp: int, bin_size: int
) -> BinEmbedding:
    return StemEmbedding(
        config.d_model,
        bin_size=bin_size,
        stem=config.stem,
        tss=window_bp // 2,
        num_tracks=len(tracks),
        transform=config.track_transform,
        learn_missing=config.learn_missing_tracks,
    )


def _char_embedding(
    config: CharConfig, tracks: tuple[str, ...], window_bp: int, bin_size: int
) -> BinEmbedding:
    """Make the embedding that the configuration asks for."""
    if config.embedding == "stem":
        return _stem_embedding(config, tracks, window_bp, bin_size)
    if bin_size != 1:
        raise ConfigError(
            facts(
                f"encoder, embedding {config.embedding!r}",
                found=f"bins of {bin_size} bp",
                expected="bins of 1 bp",
                fix="use embedding: stem, or data with bin_size 1",
            )
        )
    if config.embedding == "linear":
        return LinearEmbedding(
            config.d_model,
            num_tracks=len(tracks),
            transform=config.track_transform,
            learn_missing=config.learn_missing_tracks,
        )
    if tracks:
        raise ConfigError(
            facts(
                "encoder, embedding 'table'",
                found="the tracks " + ", ".join(tracks),
                expected="no tracks: the table has characters only",
                fix="use embedding: linear, or build the encoder without tracks",
            )
        )
    return TableEmbedding(config.d_model)
