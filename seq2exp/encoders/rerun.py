"""Hidden states of many edits of one window, with what the edits leave as it is computed once.

An embedding reads a few base pairs around a bin, so only the bins near an edit are embedded again.
A trunk of dilated convolutions hands a change on by its reach from block to block: each block then
runs only where the change has come, and only where the span still reads it. Attention and scans
hand it to every bin at once: such trunks run in full on the shared embedding, a few windows at a
time, so that their states stay in the cache. Nothing is approximated: the values are those of a
whole pass up to the order of sums.

Shapes: B edits, L base pairs, N bins, T tracks, P bins of a piece, Q bins that these read, S bins
of a span, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.encoders.enformer import EnformerEncoder
from seq2exp.encoders.first_attention import FirstAttention
from seq2exp.encoders.first_block import first_block
from seq2exp.encoders.protocol import Span
from seq2exp.encoders.stack import BlockTrunk
from seq2exp.encoders.stretches import find_stretches, refresh
from seq2exp.encoders.window import WindowEncoder
from seq2exp.nn.kmers import KmerStem
from seq2exp.nn.stem import ConvStem, LinearStem
from seq2exp.nn.stem_layer import StemScan

__all__ = ["Embedded", "EnformerRerun", "StemRerun", "TrunkRerun", "WindowRerun", "in_parts"]

Embedded = Callable[[Tensor | None], Tensor]
"""Embeds the bases of some windows under a mask, or under none."""

# Bins of the windows that a trunk takes at once on a processor.
_BINS_AT_ONCE = 1536


def in_parts(changed_BN: Tensor) -> list[slice]:
    """Divide windows into as many as fit into a processor's cache; other devices take them all."""
    batch, num_bins = changed_BN.shape
    on_cpu = changed_BN.device.type == "cpu"
    size = max(1, _BINS_AT_ONCE // num_bins) if on_cpu else max(1, batch)
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


class TrunkRerun:
    """A trunk of blocks of finite reach, and its states for one window.

    Parameters
    ----------
    trunk : BlockTrunk
        Its `reaches` must not be None.
    hidden_1ND : float tensor, shape (1, bins that are read, width)
    span : tuple of int
        Positions that are returned, from the first bin that is read.
    """

    def __init__(self, trunk: BlockTrunk, hidden_1ND: Tensor, *, span: Span) -> None:
        self.trunk, self.reaches = trunk, trunk.reaches or []
        _, self.spans = trunk.spans(span, hidden_1ND.shape[1])
        self.num_bins = hidden_1ND.shape[1]
        self.inputs: list[Tensor] = []
        first = 0
        for layer, (start, stop), reach in zip(trunk.layers, self.spans, self.reaches, strict=True):
            # Bins outside of the window count as zero, as in the blocks.
            self.inputs.append(F.pad(hidden_1ND, (0, 0, first + reach, reach)))
            hidden_1ND = layer(hidden_1ND, None, span=(start - first, stop - first))
            first = start
        self.firsts = [0, *(start for start, _ in self.spans)]
        self.out_1SD: Tensor = trunk.norm_f(hidden_1ND)

    def __call__(self, piece_BPD: Tensor, at: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the states of the span, shape (batch, positions of span, width).

        Parameters
        ----------
        piece_BPD : float tensor, shape (batch, positions of a piece, width)
            Edited embeddings, of as many positions of each window.
        at : int tensor, shape (batch,)
            First position of each piece.
        low, high : int tensor, shape (batch,)
            Half-open run of the positions, within the piece, whose embedding differs.
        """
        rows = torch.arange(len(piece_BPD), device=at.device)
        out_BSD = self.out_1SD.repeat(len(rows), 1, 1)
        piece = piece_BPD
        for number, (start, stop) in enumerate(self.spans):
            reach = self.reaches[number]
            low, high = (low - reach).clamp(min=start), (high + reach).clamp(max=stop)
            width = int((high - low).max())
            there = low.clamp(max=stop - width)
            around = self._around(number, at, piece, there - reach, width + 2 * reach)
            piece = self.trunk.layers[number](around, None, span=(reach, reach + width))
            at = there
        index = at[:, None] - self.firsts[-1] + torch.arange(piece.shape[1], device=rows.device)
        out_BSD[rows[:, None], index] = self.trunk.norm_f(piece)
        return out_BSD

    def _around(self, number: int, at: Tensor, piece: Tensor, first: Tensor, width: int) -> Tensor:
        """Input of a block from `first` on: the edited piece, and the reference around it."""
        index_BQ = first[:, None] + torch.arange(width, device=first.device)
        inputs_ND = self.inputs[number][0]
        offset = self.reaches[number]
        around_BQD = inputs_ND[(index_BQ + offset).clamp(0, len(inputs_ND) - 1)]
        # Where the bins of the piece lie in it; what no bin of the span reads is left out.
        place_BP = (at - first)[:, None] + torch.arange(piece.shape[1], device=at.device)
        inside_BP = (place_BP >= 0) & (place_BP < width)
        row_BP = torch.arange(len(at), device=at.device)[:, None].expand_as(place_BP)
        around_BQD[row_BP[inside_BP], place_BP[inside_BP]] = piece[inside_BP]
        return around_BQD


class WindowRerun:
    """An encoder and its states for one window, to be shared by edits of that window.

    Parameters
    ----------
    encoder : WindowEncoder
    codes_1L, signal_1NT : tensors
        The window without edits.
    span : tuple of int, optional
        Half-open run of bins that is read.
    """

    def __init__(
        self,
        encoder: WindowEncoder,
        codes_1L: Tensor,
        signal_1NT: Tensor | None,
        *,
        span: Span | None,
    ) -> None:
        self.encoder = encoder
        size = encoder.bin_size
        num_bins = codes_1L.shape[1] // size
        wanted = (0, num_bins) if span is None else span
        self.read = encoder.trunk.reads(wanted, num_bins)
        self.span = wanted[0] - self.read[0], wanted[1] - self.read[0]
        before, after = (-(-margin // size) for margin in encoder.embedding.margins())
        self.margins = before, after
        self.hidden_1ND: Tensor = encoder.embedding(codes_1L, signal_1NT)
        self.trunk = None
        if encoder.trunk.reaches is not None:
            read_1ND = self.hidden_1ND[:, slice(*self.read)]
            self.trunk = TrunkRerun(encoder.trunk, read_1ND, span=self.span)
        self.first = first_block(encoder.trunk, self.hidden_1ND)

    def __call__(self, codes_BL: Tensor, signal_BNT: Tensor | None, changed_BN: Tensor) -> Tensor:
        """Return the hidden states of the span for edited windows, (batch, bins of span, width)."""
        if self.trunk is not None:
            return self._near(self.trunk, codes_BL, signal_BNT, changed_BN)
        states = [
            self._through(
                codes_BL[rows],
                None if signal_BNT is None else signal_BNT[rows],
                changed_BN[rows],
            )
            for rows in in_parts(changed_BN)
        ]
        return torch.cat(states)

    def _through(self, codes_BL: Tensor, signal_BNT: Tensor | None, changed_BN: Tensor) -> Tensor:
        """Embed where a change comes and run a trunk that hands it to every bin."""
        (hidden_BND,) = refresh(
            lambda codes, signal: (self.encoder.embedding(codes, signal),),
            (self.hidden_1ND,),
            codes_BL,
            signal_BNT,
            changed_BN,
            bin_size=self.encoder.bin_size,
            reads=self.margins,
        )
        if self.first is None:
            out_BSD: Tensor = self.encoder.trunk(hidden_BND[:, slice(*self.read)], span=self.span)
            return out_BSD
        hidden_BND = self.first(hidden_BND, changed_BN, self.margins)
        out_BSD = self.encoder.trunk(hidden_BND, span=self.span, done=1)
        return out_BSD

    def _near(
        self,
        trunk: TrunkRerun,
        codes_BL: Tensor,
        signal_BNT: Tensor | None,
        changed_BN: Tensor,
    ) -> Tensor:
        """Embed and run a trunk of finite reach where a change comes."""
        (before, after), (first, stop) = self.margins, self.read
        out_BSD = trunk.out_1SD.repeat(len(codes_BL), 1, 1)
        bins_N = torch.arange(changed_BN.shape[1], device=changed_BN.device)
        changed_BN = changed_BN & (bins_N >= first - before) & (bins_N < stop + after)
        for some in find_stretches(changed_BN, reads=self.margins, joined=True):
            rows, place_BP = some.row_M1[:, 0], some.index_MP - first
            signal = None if signal_BNT is None else some.cut(signal_BNT)
            codes = some.cut_bases(codes_BL, self.encoder.bin_size)
            piece_BPD = self.hidden_1ND[0][some.index_MP]
            inside_BP = some.inside_MP
            piece_BPD[inside_BP] = self.encoder.embedding(codes, signal)[inside_BP]
            seen_BP = inside_BP & (place_BP >= 0) & (place_BP < stop - first)
            low = torch.where(seen_BP, place_BP, stop).amin(1)
            high = torch.where(seen_BP, place_BP, -1).amax(1) + 1
            out_BSD[rows] = trunk(piece_BPD, place_BP[:, 0], low, high)
        return out_BSD


class EnformerRerun:
    """The tower of an Enformer for one window, and on a processor its first attention.

    All further attention runs in full for each edit.

    Parameters
    ----------
    encoder : EnformerEncoder
        In evaluation mode.
    codes_1L : tensor, shape (1, length)
        The window without edits.
    span : tuple of int, optional
        Half-open run of bins that is read.
    """

    def __init__(self, encoder: EnformerEncoder, codes_1L: Tensor, *, span: Span | None) -> None:
        self.encoder, self.span = encoder, span
        self.tower_1ND = encoder.run_tower(codes_1L)
        self.first: FirstAttention | None = None
        exact = self.tower_1ND.dtype in (torch.float32, torch.float64)
        if exact and len(encoder.blocks) > 1 and codes_1L.device.type == "cpu":
            block: Any = encoder.blocks[0]
            features_PF = encoder.positions(self.tower_1ND.shape[1]).to(self.tower_1ND.dtype)
            self.first = FirstAttention(block, self.tower_1ND, features_PF)

    def __call__(self, codes_BL: Tensor, signal_BNT: Tensor | None, changed_BN: Tensor) -> Tensor:
        """Return the hidden states of the span for edited windows, (batch, bins of span, width)."""
        del signal_BNT
        encoder, parts = self.encoder, []
        reach = -(-encoder.tower_margin() // encoder.bin_size)
        for rows in in_parts(changed_BN):
            (tower_BND,) = refresh(
                lambda codes, _: (encoder.run_tower(codes),),
                (self.tower_1ND,),
                codes_BL[rows],
                None,
                changed_BN[rows],
                bin_size=encoder.bin_size,
                reads=(reach, reach),
            )
            if self.first is not None:
                tower_BND = self.first(tower_BND)
            done = int(self.first is not None)
            parts.append(encoder.run_blocks(tower_BND, span=self.span, done=done))
        return torch.cat(parts)


class StemRerun:
    """A stem and what it makes of one window, to be shared by edits of that window.

    Parameters
    ----------
    stem : LinearStem, ConvStem or KmerStem
    codes_1L : tensor, shape (1, length)
        The window without edits.
    bin_size : int
    """

    def __init__(
        self, stem: LinearStem | ConvStem | KmerStem, codes_1L: Tensor, bin_size: int
    ) -> None:
        self.stem, self.bin_size = stem, bin_size
        before, after = (-(-margin // bin_size) for margin in stem.margins())
        self.margins = before, after
        self.scanned: StemScan = stem.scan_bases(codes_1L)
        self.open_1ND: Tensor = stem(self.scanned)
        self.mask_1N: Tensor | None = None
        self.masked_1ND = self.open_1ND

    def as_it_is(self, mask_BN: Tensor | None = None) -> Tensor:
        """Embed the window without edits under a mask, or under none."""
        return self.open_1ND if mask_BN is None else self.stem(self.scanned, mask_BN)

    def hold(self, mask_1N: Tensor) -> None:
        """Embed the window under a mask that edits will mostly share, shape (1, bins)."""
        self.mask_1N, self.masked_1ND = mask_1N, self.stem(self.scanned, mask_1N)

    def __call__(self, codes_BL: Tensor, changed_BN: Tensor) -> Embedded:
        """Return what embeds edited windows, under the mask that it is called with, if any."""
        found = find_stretches(changed_BN, reads=self.margins)
        scans = [
            (some, self.stem.scan_bases(some.cut_bases(codes_BL, self.bin_size))) for some in found
        ]

        def embedded(mask_BN: Tensor | None = None) -> Tensor:
            if mask_BN is None:
                hidden_BND = self.open_1ND.repeat(len(codes_BL), 1, 1)
            elif self.mask_1N is not None and bool((mask_BN == self.mask_1N).all()):
                hidden_BND = self.masked_1ND.repeat(len(codes_BL), 1, 1)
            else:
                shared = (part.expand(len(codes_BL), *part.shape[1:]) for part in self.scanned)
                # A stem may give back what it scanned.
                hidden_BND = self.stem(tuple(shared), mask_BN).clone()
            for some, scan in scans:
                mask_MP = None if mask_BN is None else some.cut(mask_BN)
                some.paste(hidden_BND, self.stem(scan, mask_MP))
            return hidden_BND

        return embedded
