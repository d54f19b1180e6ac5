"""EPInformer: the promoter and its candidate elements, each read alone, joined by attention.

Method: Lin et al., "EPInformer", bioRxiv 2024.08.01.606099, as run in the comparison of Su et al.,
arXiv 2502.13991. docs/epinformer.md says what differs from the reference code, and why.

Shapes: B batch, L base pairs, N bins, T tracks, R given elements, S rows of a gene (row 0 the
promoter), M filled rows of the batch, W base pairs of a row, F features of a row, D width; 2 start
and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.encoders.protocol import Span, Strands
from seq2exp.encoders.registry import register_encoder
from seq2exp.encoders.row_features import NUM_FEATURES, RowFeatures, activity_tracks
from seq2exp.nn.batch_norm import NormStatistics, run_again_in_backward
from seq2exp.nn.element_net import ElementNet, ElementNorm
from seq2exp.nn.elements import base_index, cut_sequences, first_copies, nearest_elements
from seq2exp.nn.star import StarBlock
from seq2exp.nn.tracks import TrackTransform

__all__ = ["EPInformerConfig", "EPInformerEncoder"]


@dataclass(frozen=True)
class EPInformerConfig:
    """Everything that shapes an EPInformer; the defaults are those of the published comparison."""

    out_dim: int = 64
    """Width, a multiple of 32."""
    num_layers: int = 3
    """Attention blocks."""
    num_heads: int = 4
    """Heads."""
    max_elements: int = 60
    """Nearest elements that are read."""
    element_bp: int = 2000
    """Length of promoter and elements: shorter ones are centred in zeros, longer ones trimmed. The
    elements begin beyond half of it from the TSS."""
    max_distance_bp: int = 100000
    """Largest distance of the centre of an element from the TSS."""
    signed_distance: bool = False
    """Give the distance its sign, negative upstream where windows run along transcription."""
    stem_channels: int = 256
    """Channels of the first convolution."""
    tower_channels: tuple[int, ...] = (128, 64, 64, 128)
    """Channels of the stages, each of which halves the positions."""
    norm: ElementNorm = "all"
    """Where batch norm stands: all, tower (as its authors trained) or none."""
    norm_statistics: NormStatistics = "batch"
    """batch: statistics of the filled rows in training. running: averages also in training."""
    accessibility: str | None = None
    """Track of accessibility; the first with DNase or ATAC in its name when left out."""
    acetylation: str | None = None
    """Track of H3K27ac; the first with that in its name when left out."""
    stored_transforms: tuple[TrackTransform, ...] = ()
    """Transform that each track was stored with, undone before the activity; none when left out."""
    shortcuts: Literal["exact", "never"] = "exact"
    """exact: encode equal sequences once, unless batch norm counts them, and only the promoter row
    in the last block. never: all of them."""
    chunk_rows: int = 64
    """Sequences that are encoded at a time where batch norm does not join them."""
    recompute: bool = False
    """Keep only the bases of the sequences and encode them again in the backward pass."""

    def __post_init__(self) -> None:
        for name in (
            "num_layers",
            "max_elements",
            "max_distance_bp",
            "stem_channels",
            "chunk_rows",
        ):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "1 or more")
        if not self.tower_channels or min(self.tower_channels) < 1:
            _refuse("tower_channels", self.tower_channels, "positive numbers of channels")


def _refuse(key: str, found: object, expected: str) -> None:
    raise ConfigError(
        facts(f"epinformer.{key}", found=found, expected=expected, fix="change the value")
    )


@register_encoder("epinformer", EPInformerConfig)
class EPInformerEncoder(nn.Module):
    """EPInformer without its head.

    The output is one position: the state of the promoter row. The published head reads it together
    with 9 scalars: Linear(out_dim + 9, 128), ReLU, Linear(128, 128), ReLU, Linear(128, 1).

    Parameters
    ----------
    config : EPInformerConfig
        See its fields.
    tracks : tuple of str
        Tracks of the signal; "contact" is the contact with the TSS. Without tracks the features
        that need them are 0.
    window_bp, bin_size : int
        Window, with the TSS at base window_bp / 2, and bins of the signal and of the mask.

    Attributes
    ----------
    pools : bool
        True: the output has one position whatever the window.
    takes_elements : bool
        True: `forward` needs `elements_BR2`.

    Raises
    ------
    ConfigError
        Sizes, track names or transforms that do not fit.
    """

    causal = False
    rc: Strands = "none"
    takes_tracks = True
    pools = True
    takes_elements = True

    def __init__(
        self,
        config: EPInformerConfig,
        *,
        tracks: tuple[str, ...] = (),
        window_bp: int,
        bin_size: int,
    ) -> None:
        super().__init__()
        if bin_size < 1 or window_bp < 1 or window_bp % bin_size:
            _refuse("window_bp", f"{window_bp} in bins of {bin_size}", "a multiple of the bins")
        if config.stored_transforms and len(config.stored_transforms) != len(tracks):
            _refuse("stored_transforms", config.stored_transforms, f"one for each of {tracks}")
        self.config, self.num_tracks = config, len(tracks)
        self.bin_size, self.window_bp, self.out_dim = bin_size, window_bp, config.out_dim
        self.features = RowFeatures(
            tracks=tracks,
            activity=activity_tracks(
                tracks, accessibility=config.accessibility, acetylation=config.acetylation
            ),
            transforms=config.stored_transforms,
            tss=window_bp // 2,
            bin_size=bin_size,
            is_signed=config.signed_distance,
        )
        self.net = ElementNet(
            config.out_dim,
            length=config.element_bp,
            stem_channels=config.stem_channels,
            tower_channels=config.tower_channels,
            norm=config.norm,
            statistics=config.norm_statistics,
        )
        self.mix = nn.Sequential(
            nn.Linear(config.out_dim + NUM_FEATURES, config.out_dim),
            nn.ReLU(),
            nn.Linear(config.out_dim, config.out_dim),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(
            StarBlock(config.out_dim, num_heads=config.num_heads) for _ in range(config.num_layers)
        )

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        mask_BN: Tensor | None = None,
        *,
        elements_BR2: Tensor,
        span: Span | None = None,
    ) -> Tensor:
        """State of the promoter row, shape (batch, 1, out_dim).

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, window_bp)
            Bases A0 C1 G2 T3 N4.
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Signal as stored; NaN counts as 0.
        mask_BN : float tensor, shape (batch, bins), optional
            Multiplies the bases and the signal of each bin. An element whose bins are all 0 is an
            empty slot.
        elements_BR2 : integer tensor, shape (batch, elements, 2)
            Start and end of the candidate elements in the window, half-open; (-1, -1) is an empty
            slot. Their order does not matter.
        span : (0, 1), optional
            The one position there is.

        Raises
        ------
        InputError
            Tensors of other shapes, another span, or in training a promoter without a known base.
        """
        self._check_input(codes_BL, signal_BNT, mask_BN, elements_BR2, span)
        spans_BS2, filled_BS = self._rows(elements_BR2)
        window_M, slot_M = filled_BS.nonzero(as_tuple=True)
        spans_M2 = spans_BS2[window_M, slot_M]
        index_MW, inside_MW = base_index(
            spans_M2, width=self.config.element_bp, length=codes_BL.shape[1]
        )
        codes_MW = cut_sequences(codes_BL, window_M, index_MW, inside_MW)
        weight_MW = None
        if mask_BN is not None:
            weight_MW = mask_BN[window_M[:, None], index_MW // self.bin_size]
        kept_M = self._readable(codes_MW, weight_MW, slot_M)
        window_M, slot_M, spans_M2 = window_M[kept_M], slot_M[kept_M], spans_M2[kept_M]
        weight_MW = None if weight_MW is None else weight_MW[kept_M]
        encoded_MD = self._encode(codes_MW[kept_M], weight_MW)
        features_MF = self.features(signal_BNT, mask_BN, window_M, spans_M2)
        features_MF = features_MF * (slot_M > 0)[:, None]
        mixed_MD = self.mix(torch.cat([encoded_MD, features_MF.to(encoded_MD.dtype)], dim=1))
        hidden_BSD = mixed_MD.new_zeros(*filled_BS.shape, self.out_dim)
        hidden_BSD = hidden_BSD.index_put((window_M, slot_M), mixed_MD)
        filled_BS = torch.zeros_like(filled_BS).index_put(
            (window_M, slot_M), torch.ones_like(window_M, dtype=torch.bool)
        )
        return self._attend(hidden_BSD, filled_BS)

    def _rows(self, elements_BR2: Tensor) -> tuple[Tensor, Tensor]:
        """Spans of the promoter and of the chosen elements, and which slots are filled."""
        tss, half = self.window_bp // 2, self.config.element_bp // 2
        chosen_BR2, filled_BR = nearest_elements(
            elements_BR2,
            tss=tss,
            beyond_bp=half,
            within_bp=self.config.max_distance_bp,
            limit=self.config.max_elements,
        )
        promoter_2 = chosen_BR2.new_tensor([tss - half, tss + self.config.element_bp - half])
        spans_BS2 = torch.cat([promoter_2.expand(len(chosen_BR2), 1, 2), chosen_BR2], dim=1)
        return spans_BS2, F.pad(filled_BR, (1, 0), value=True)

    def _readable(self, codes_MW: Tensor, weight_MW: Tensor | None, slot_M: Tensor) -> Tensor:
        """Rows that are encoded: all promoters, and elements with a known base that is seen."""
        known_MW = codes_MW < 4 if codes_MW.ndim == 2 else codes_MW.detach().sum(-1) > 0
        if self.training:
            num_unknown = int((~known_MW.any(1) & (slot_M == 0)).sum())
            if num_unknown:
                raise InputError(
                    facts(
                        "promoters of the batch",
                        found="only N",
                        expected="known bases around the TSS of a training gene",
                        fix="leave these genes out of the training split",
                        count=num_unknown,
                    )
                )
        if weight_MW is not None:
            known_MW &= weight_MW > 0
        return known_MW.any(1) | (slot_M == 0)

    def _encode(self, codes_MW: Tensor, weight_MW: Tensor | None) -> Tensor:
        """Vectors of the sequences, shape (sequences, out_dim)."""
        config = self.config
        if self.training and config.norm != "none" and config.norm_statistics == "batch":
            return self._run_net(codes_MW, weight_MW)
        if config.shortcuts == "exact" and weight_MW is None and codes_MW.ndim == 2:
            first_U, kind_M = first_copies(codes_MW)
            return self._in_chunks(codes_MW[first_U], None)[kind_M]
        return self._in_chunks(codes_MW, weight_MW)

    def _in_chunks(self, codes_MW: Tensor, weight_MW: Tensor | None) -> Tensor:
        size = self.config.chunk_rows
        codes = torch.split(codes_MW, size)
        weights = [None] * len(codes) if weight_MW is None else torch.split(weight_MW, size)
        return torch.cat([self._run_net(*part) for part in zip(codes, weights, strict=True)])

    def _run_net(self, codes_MW: Tensor, weight_MW: Tensor | None) -> Tensor:
        inputs = (codes_MW,) if weight_MW is None else (codes_MW, weight_MW)
        if self.config.recompute:
            return run_again_in_backward(self.net, *inputs)
        out_MD: Tensor = self.net(*inputs)
        return out_MD

    def _attend(self, hidden_BSD: Tensor, filled_BS: Tensor) -> Tensor:
        for block in self.blocks[:-1]:
            hidden_BSD = block(hidden_BSD, filled_BS)
        is_short = self.config.shortcuts == "exact"
        out_BSD: Tensor = self.blocks[-1](hidden_BSD, filled_BS, hub_only=is_short)
        return out_BSD[:, :1]

    def _check_input(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None,
        mask_BN: Tensor | None,
        elements_BR2: Tensor,
        span: Span | None,
    ) -> None:
        batch, num_bins = len(codes_BL), self.window_bp // self.bin_size
        wanted: list[tuple[str, Tensor, tuple[int, ...]]] = [
            ("bases", codes_BL, (batch, self.window_bp, *codes_BL.shape[2:3])),
            ("elements", elements_BR2, (batch, *elements_BR2.shape[1:2], 2)),
        ]
        if signal_BNT is not None:
            wanted.append(("signal", signal_BNT, (batch, num_bins, self.num_tracks)))
        if mask_BN is not None:
            wanted.append(("mask", mask_BN, (batch, num_bins)))
        for what, tensor, shape in wanted:
            if tensor.shape != shape:
                raise InputError(
                    facts(
                        f"{what} for the epinformer encoder",
                        found=f"shape {tuple(tensor.shape)}",
                        expected=f"shape {shape}",
                        fix="give the window, bins and tracks that the encoder was built for",
                    )
                )
        if span not in (None, (0, 1)):
            raise InputError(
                facts(
                    "span",
                    found=span,
                    expected="(0, 1): the output is one position",
                    fix="leave the span out",
                )
            )

    def receptive_field(self, window_bp: int) -> int:
        """Count the base pairs that can be read: elements up to `max_distance_bp` on both sides."""
        reach = self.config.max_distance_bp + self.config.element_bp // 2
        return min(window_bp, 2 * reach)

    def flops(self, window_bp: int) -> int:
        """Count the operations of convolutions and matrix products with every slot filled."""
        rows, last = self.config.max_elements + 1, len(self.blocks) - 1
        mix = sum(2 * p.numel() for p in self.mix.parameters() if p.ndim == 2)
        total = rows * (self.net.flops() + mix)
        for i, block in enumerate(self.blocks):
            is_short = i == last and self.config.shortcuts == "exact"
            total += block.flops(rows, hub_only=is_short)  # type: ignore[operator]
        return total

    def activation_bytes(self, window_bp: int) -> int:
        """Count the bytes that a float32 training pass keeps, per window with every slot filled.

        With `recompute` it is what one chunk keeps while it runs again; with batch statistics all
        rows are one chunk.
        """
        config = self.config
        rows = config.max_elements + 1
        live = rows
        if config.recompute and (config.norm == "none" or config.norm_statistics == "running"):
            live = min(rows, config.chunk_rows)
        mixed = 3 * config.out_dim + NUM_FEATURES
        attended = 17 * config.out_dim * config.num_layers
        return 4 * (live * self.net.kept() + rows * (mixed + attended))
