"""From a window of bases, and tracks, to one embedding per bin.

Shapes: B batch, L base pairs, N bins, T tracks, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from seq2exp.nn.sequence import one_hot
from seq2exp.nn.stem import StemConfig, build_stem
from seq2exp.nn.tokens import FIRST_BASE_ID
from seq2exp.nn.tracks import TrackEmbedding, TrackScaling, TrackTransform

__all__ = ["VOCABULARY", "BinEmbedding", "LinearEmbedding", "StemEmbedding", "TableEmbedding"]

VOCABULARY = 12
"""Characters of the published vocabulary: CLS SEP BOS MASK PAD RES UNK, then A C G T N."""
_INIT_STD = 0.02


class BinEmbedding(nn.Module, ABC):
    """Base of the embeddings: ``embedding(codes_BL, signal_BNT, mask_BN) -> hidden_BND``.

    Attributes
    ----------
    bin_size : int
        Base pairs per bin.
    num_tracks : int
        Tracks that are read.
    """

    bin_size: int = 1
    num_tracks: int = 0

    def margins(self) -> tuple[int, int]:
        """Count the base pairs before and after a bin that its embedding reads."""
        return 0, 0

    @abstractmethod
    def flops(self, num_bins: int) -> int:
        """Count the floating-point operations of so many bins."""

    @abstractmethod
    def kept_numbers(self, num_bins: int) -> int:
        """Count the numbers of four bytes that are kept for the backward."""

    def set_track_scaling(self, mean_T: Tensor, std_T: Tensor) -> None:
        """Set mean and standard deviation of the transformed tracks, float, shape (tracks,)."""
        for module in self.modules():
            if isinstance(module, TrackScaling):
                module.set_scaling(mean_T, std_T)


class TableEmbedding(BinEmbedding):
    """A row per character, for bins of one base; reads no tracks.

    Parameters
    ----------
    d_model : int
        Width.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, d_model)
        nn.init.normal_(self.table.weight, std=_INIT_STD)

    def forward(
        self, codes_BL: Tensor, signal_BNT: Tensor | None = None, mask_BN: Tensor | None = None
    ) -> Tensor:
        """Look the bases up, shape (batch, length, width)."""
        del signal_BNT, mask_BN
        if codes_BL.ndim == 3:
            columns_BLC = codes_BL.to(self.table.weight.dtype)
            # What a row lacks to the sum 1 is N.
            n_BL1 = 1 - columns_BLC.sum(-1, keepdim=True)
            rows = self.table.weight[FIRST_BASE_ID : FIRST_BASE_ID + 5]
            mixed_BLD: Tensor = torch.cat([columns_BLC, n_BL1], dim=-1) @ rows
            return mixed_BLD
        rows_BLD: Tensor = self.table(codes_BL.to(torch.int32) + FIRST_BASE_ID)
        return rows_BLD

    def flops(self, num_bins: int) -> int:
        """Count no operation: rows are looked up."""
        del num_bins
        return 0

    def kept_numbers(self, num_bins: int) -> int:
        """Count the row numbers."""
        return num_bins


class LinearEmbedding(BinEmbedding):
    """One matrix on one-hot bases and standardised tracks side by side, for bins of one base.

    With a learned embedding of missing tracks it is one matrix more.

    Parameters
    ----------
    d_model : int
        Width.
    num_tracks : int
        Tracks.
    transform : str
        See `seq2exp.nn.tracks.TrackScaling`.
    learn_missing : bool
        Add a learned vector for every track that is missing in a bin; else it counts as its mean.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_tracks: int = 0,
        transform: TrackTransform = "none",
        learn_missing: bool = False,
    ) -> None:
        super().__init__()
        self.num_tracks = num_tracks
        self.proj = nn.Linear(4 + num_tracks, d_model)
        nn.init.zeros_(self.proj.bias)
        self.scaling = TrackScaling(num_tracks, transform=transform) if num_tracks else None
        self.missing = None
        if num_tracks and learn_missing:
            self.missing = nn.Linear(num_tracks, d_model, bias=False)
            nn.init.zeros_(self.missing.weight)

    def forward(
        self, codes_BL: Tensor, signal_BNT: Tensor | None = None, mask_BN: Tensor | None = None
    ) -> Tensor:
        """Embed the bases, shape (batch, length, width)."""
        del mask_BN
        dtype = self.proj.weight.dtype
        parts = [one_hot(codes_BL, dtype=dtype)]
        missing_BNT = None
        if self.scaling is not None and signal_BNT is not None:
            missing_BNT = torch.isnan(signal_BNT)
            scaled_BNT = torch.where(missing_BNT, 0.0, self.scaling.scaled(signal_BNT))
            parts.append(scaled_BNT.to(dtype))
        hidden_BND: Tensor = self.proj(torch.cat(parts, dim=-1))
        if self.missing is not None and missing_BNT is not None:
            hidden_BND = hidden_BND + self.missing(missing_BNT.to(dtype))
        return hidden_BND

    def flops(self, num_bins: int) -> int:
        """Count the operations of the matrices."""
        extra = 0 if self.missing is None else self.missing.weight.numel()
        return 2 * num_bins * (self.proj.weight.numel() + extra)

    def kept_numbers(self, num_bins: int) -> int:
        """Count the inputs of the matrices."""
        extra = 0 if self.missing is None else self.num_tracks
        return num_bins * (4 + self.num_tracks + extra)


class StemEmbedding(BinEmbedding):
    """A stem on the bases, plus the embedded tracks of the bin.

    Parameters
    ----------
    d_model : int
        Width.
    bin_size : int
        Base pairs per bin.
    stem : StemConfig
        See `seq2exp.nn.stem.build_stem`.
    tss : int
        Index of the TSS in the window, from which strides count.
    num_tracks : int
        Tracks.
    transform, learn_missing
        See `seq2exp.nn.tracks.TrackEmbedding`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        bin_size: int,
        stem: StemConfig,
        tss: int = 0,
        num_tracks: int = 0,
        transform: TrackTransform = "none",
        learn_missing: bool = False,
    ) -> None:
        super().__init__()
        self.bin_size, self.num_tracks = bin_size, num_tracks
        self.stem = build_stem(d_model, bin_size=bin_size, config=stem, tss=tss)
        nn.init.zeros_(self.stem.proj.bias)
        self.tracks = None
        if num_tracks:
            self.tracks = TrackEmbedding(
                num_tracks, d_model, transform=transform, learn_missing=learn_missing
            )
            nn.init.zeros_(self.tracks.proj.bias)

    def forward(
        self, codes_BL: Tensor, signal_BNT: Tensor | None = None, mask_BN: Tensor | None = None
    ) -> Tensor:
        """Embed the bins, shape (batch, bins, width).

        `mask_BN` weighs what a bin shows to its neighbours over their border; it does not scale the
        result.
        """
        hidden_BND: Tensor = self.stem(self.stem.scan_bases(codes_BL), mask_BN)
        if self.tracks is not None and signal_BNT is not None:
            hidden_BND = hidden_BND + self.tracks(signal_BNT)
        return hidden_BND

    def margins(self) -> tuple[int, int]:
        """Count the base pairs before and after a bin that the convolutions read."""
        return self.stem.margins()

    def flops(self, num_bins: int) -> int:
        """Count the operations of stem and tracks."""
        tracks = 0
        if self.tracks is not None:
            tracks = self.tracks.proj.weight.numel() * (1 if self.tracks.missing is None else 2)
        return self.stem.flops(num_bins) + 2 * num_bins * tracks

    def kept_numbers(self, num_bins: int) -> int:
        """Count what the stem keeps, and the inputs of the tracks' matrices."""
        tracks = 0
        if self.tracks is not None:
            tracks = self.num_tracks * (1 if self.tracks.missing is None else 2)
        return self.stem.kept_numbers(num_bins) + num_bins * tracks
