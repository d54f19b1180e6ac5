"""Hidden states of many edits of one window, with what the edits leave as it is computed once.

An embedding reads a few base pairs around a bin, so only the bins near an edit are embedded again.
A trunk of dilated convolutions hands a change on by its reach from block to block: each block then
runs only where the change has come, and only where the span still reads it. Attention and scans
hand it to every bin at once: such trunks run in full on the shared embedding. Nothing is
approximated: the values are those of a whole pass up to the order of sums.

Shapes: B edits, L base pairs, N bins, T tracks, M pieces, P bins of a piece, Q bins that these
read, S bins of a span, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2exp.encoders.protocol import Span
from seq2exp.encoders.stack import BlockTrunk
from seq2exp.encoders.window import WindowEncoder

__all__ = ["TrunkRerun", "WindowRerun", "refresh", "widened"]

Parts = tuple[Tensor, ...]
# Above this share of bins that change, whole windows are cheaper than pieces.
_MOST = 0.5


def widened(changed_BN: Tensor, *, before: int, after: int) -> Tensor:
    """Return the bins that read a changed one, bool, shape (batch, bins).

    Parameters
    ----------
    changed_BN : bool tensor, shape (batch, bins)
    before, after : int
        Bins that a bin reads before and after itself.
    """
    seen_B1N = F.pad(changed_BN[:, None].float(), (before, after))
    return F.max_pool1d(seen_B1N, before + after + 1, 1)[:, 0] > 0


def refresh(
    run: Callable[[Tensor, Tensor | None], Parts],
    reference: Parts,
    codes_BL: Tensor,
    signal_BNT: Tensor | None,
    changed_BN: Tensor,
    *,
    bin_size: int,
    reads: tuple[int, int],
) -> Parts:
    """Return what `run` gives for edited windows, run only on the bins that read a changed one.

    Parameters
    ----------
    run : callable
        From bases and signal of a stretch of whole bins to tensors with one row per bin.
    reference : tuple of tensors, shape (1, bins, ...)
        What it gave for the window without edits.
    codes_BL, signal_BNT : tensors
        Edited windows.
    changed_BN : bool tensor, shape (batch, bins)
        Where they differ from the window without edits.
    bin_size : int
    reads : tuple of int
        Bins that a row of the result reads before and after its own.

    Returns
    -------
    tuple of tensors, shape (batch, bins, ...)
    """
    before, after = reads
    affected_BN = widened(changed_BN, before=before, after=after)
    row_M, start_M, stop_M = _runs(affected_BN)
    batch, num_bins = changed_BN.shape
    if not len(row_M):
        return tuple(part.expand(batch, *part.shape[1:]) for part in reference)
    length = min(num_bins, int((stop_M - start_M).max()) + before + after)
    if len(row_M) * length > _MOST * batch * num_bins:
        return run(codes_BL, signal_BNT)
    first_M = (start_M - before).clamp(0, num_bins - length)
    index_MP = first_M[:, None] + torch.arange(length, device=first_M.device)
    where = row_M[:, None], index_MP
    bins_MPS = codes_BL.reshape(batch, num_bins, bin_size)[where]
    signal_MPT = None if signal_BNT is None else signal_BNT[where]
    fresh = run(bins_MPS.flatten(1), signal_MPT)
    inside_MP = (index_MP >= start_M[:, None]) & (index_MP < stop_M[:, None])
    target = row_M[:, None].expand_as(index_MP)[inside_MP], index_MP[inside_MP]
    results = []
    for old, new in zip(reference, fresh, strict=True):
        result = old.repeat(batch, *[1] * (old.ndim - 1))
        result[target] = new[inside_MP]
        results.append(result)
    return tuple(results)


def _runs(affected_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, starts and ends of the runs of true bins."""
    steps = F.pad(affected_BN.to(torch.int8), (1, 1)).diff(dim=1)
    rows, starts = (steps == 1).nonzero(as_tuple=True)
    stops = (steps == -1).nonzero(as_tuple=True)[1]
    return rows, starts, stops


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

    def __call__(self, hidden_BND: Tensor, changed_BN: Tensor) -> Tensor:
        """Return the states of the span, shape (batch, positions of span, width).

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, bins that are read, width)
            Edited embeddings.
        changed_BN : bool tensor, shape (batch, bins that are read)
            Bins whose embedding differs.
        """
        out_BSD = self.out_1SD.repeat(len(hidden_BND), 1, 1)
        rows = changed_BN.any(1).nonzero()[:, 0]
        if not len(rows):
            return out_BSD
        places_N = torch.arange(self.num_bins, device=rows.device)
        low = torch.where(changed_BN[rows], places_N, self.num_bins).amin(1)
        high = torch.where(changed_BN[rows], places_N, -1).amax(1) + 1
        at, piece = self._cut(hidden_BND[rows], low, high)
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

    def _cut(self, hidden_BND: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        width = int((high - low).max())
        at = low.clamp(max=self.num_bins - width)
        index = at[:, None] + torch.arange(width, device=at.device)
        return at, hidden_BND[torch.arange(len(at), device=at.device)[:, None], index]

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

    def __call__(self, codes_BL: Tensor, signal_BNT: Tensor | None, changed_BN: Tensor) -> Tensor:
        """Return the hidden states of the span for edited windows, (batch, bins of span, width)."""
        before, after = self.margins
        embed = self.encoder.embedding
        (hidden_BND,) = refresh(
            lambda codes, signal: (embed(codes, signal),),
            (self.hidden_1ND,),
            codes_BL,
            signal_BNT,
            changed_BN,
            bin_size=self.encoder.bin_size,
            reads=(before, after),
        )
        part = slice(*self.read)
        if self.trunk is None:
            whole_BSD: Tensor = self.encoder.trunk(hidden_BND[:, part], span=self.span)
            return whole_BSD
        affected_BN = widened(changed_BN, before=before, after=after)
        return self.trunk(hidden_BND[:, part], affected_BN[:, part])
