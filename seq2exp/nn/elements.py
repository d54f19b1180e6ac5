"""Candidate elements of a window: choice, sequences and mean signal.

Elements are half-open spans in window coordinates; a span without a base is an empty slot.

Shapes: B batch, L base pairs, N bins, T tracks, R given elements, S slots, M filled slots of the
whole batch, W base pairs of a cut sequence; 2 start and end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2exp.nn.tracks import TrackTransform

__all__ = [
    "base_index",
    "cut_sequences",
    "first_copies",
    "nearest_elements",
    "span_centres",
    "span_means",
    "undo_transform",
]

_UNKNOWN = 4


def span_centres(spans: Tensor) -> Tensor:
    """Middle base of spans of shape (..., 2), ``floor((start + end) / 2)``."""
    return torch.div(spans.sum(-1), 2, rounding_mode="floor")


def nearest_elements(
    elements_BR2: Tensor, *, tss: int, beyond_bp: int, within_bp: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Choose the elements nearest to the TSS by the distance of their centres.

    Parameters
    ----------
    elements_BR2 : integer tensor, shape (batch, elements, 2)
        In any order; empty slots anywhere, such as (-1, -1).
    tss : int
        Base of the TSS.
    beyond_bp, within_bp : int
        Elements count with ``beyond_bp < distance <= within_bp``.
    limit : int
        Keep at most so many.

    Returns
    -------
    spans_BS2 : int64 tensor, shape (batch, slots, 2)
        In the given order where all fit, else by distance.
    filled_BS : bool tensor, shape (batch, slots)
        Slots that hold an element.
    """
    spans_BR2 = elements_BR2.long()
    distance_BR = (span_centres(spans_BR2) - tss).abs()
    filled_BR = (spans_BR2[..., 1] > spans_BR2[..., 0]) & (distance_BR > beyond_bp)
    filled_BR &= distance_BR <= within_bp
    if spans_BR2.shape[1] <= limit:
        return spans_BR2, filled_BR
    far_BR = distance_BR.masked_fill(~filled_BR, torch.iinfo(torch.int64).max)
    order_BS = far_BR.argsort(dim=1, stable=True)[:, :limit]
    spans_BS2 = spans_BR2.gather(1, order_BS[..., None].expand(-1, -1, 2))
    return spans_BS2, filled_BR.gather(1, order_BS)


def base_index(spans_M2: Tensor, *, width: int, length: int) -> tuple[Tensor, Tensor]:
    """Bases of `width` positions around the centre of every span.

    The centre stands at position ``width // 2``.

    Returns
    -------
    index_MW : int64 tensor, shape (spans, width)
        Bases of the window, kept within it.
    inside_MW : bool tensor, shape (spans, width)
        False outside the span and outside the window of `length` bases.
    """
    offset_W = torch.arange(width, device=spans_M2.device) - width // 2
    index_MW = span_centres(spans_M2)[:, None] + offset_W
    start_M1, end_M1 = spans_M2.clamp(0, length).unsqueeze(-1).unbind(1)
    inside_MW = (index_MW >= start_M1) & (index_MW < end_M1)
    return index_MW.clamp(0, max(length - 1, 0)), inside_MW


def cut_sequences(
    codes_BL: Tensor, window_M: Tensor, index_MW: Tensor, inside_MW: Tensor
) -> Tensor:
    """Cut bases by `base_index` from the windows `window_M`; N outside, shape (spans, width).

    One-hot columns, shape (batch, length, 4), give columns, shape (spans, width, 4).
    """
    if codes_BL.ndim == 3:
        return codes_BL[window_M[:, None], index_MW] * inside_MW[..., None]
    return codes_BL[window_M[:, None], index_MW].masked_fill(~inside_MW, _UNKNOWN)


def span_means(signal_BNT: Tensor, window_M: Tensor, spans_M2: Tensor, *, bin_size: int) -> Tensor:
    """Mean signal per base of every span, float64, shape (spans, tracks).

    The part of a span outside the window is left out; NaN counts as 0.
    """
    signal_BNT = torch.nan_to_num(signal_BNT.double(), nan=0.0)
    batch, num_bins, num_tracks = signal_BNT.shape
    sums_BNT = torch.cat([signal_BNT.new_zeros(batch, 1, num_tracks), signal_BNT.cumsum(1)], dim=1)
    spans_M2 = spans_M2.clamp(0, num_bins * bin_size)

    def total_to(base_M: Tensor) -> Tensor:
        """Sum over all bases before these, in units of bins."""
        bin_M = torch.div(base_M, bin_size, rounding_mode="floor")
        rest_M1 = (base_M - bin_M * bin_size)[:, None].double() / bin_size
        own_MT = signal_BNT[window_M, bin_M.clamp(max=num_bins - 1)]
        total_MT: Tensor = sums_BNT[window_M, bin_M] + rest_M1 * own_MT
        return total_MT

    start_M, end_M = spans_M2.unbind(1)
    size_M1 = (end_M - start_M).clamp(min=1)[:, None].double() / bin_size
    return (total_to(end_M) - total_to(start_M)) / size_M1


def undo_transform(signal: Tensor, transform: TrackTransform) -> Tensor:
    """Return the signal before `transform`; NaN stays NaN."""
    if transform == "log1p":
        return torch.expm1(signal)
    if transform == "arcsinh":
        return torch.sinh(signal)
    return signal.square() if transform == "sqrt" else signal


def first_copies(codes_MW: Tensor) -> tuple[Tensor, Tensor]:
    """Find equal rows.

    Parameters
    ----------
    codes_MW : uint8 tensor, shape (rows, width)

    Returns
    -------
    first_U : int64 tensor, shape (distinct rows,)
        One row of each kind.
    kind_M : int64 tensor, shape (rows,)
        Place in `first_U` of every row's kind, so that ``codes_MW[first_U][kind_M] == codes_MW``.
    """
    # Rows are compared by a random 64-bit sum, and then in full: a clash falls back to sorting.
    generator = torch.Generator().manual_seed(codes_MW.shape[1])
    factor_W = torch.randint(-(2**62), 2**62, (codes_MW.shape[1],), generator=generator)
    sums_M = (codes_MW.long() * factor_W.to(codes_MW.device)).sum(1)
    first_U, kind_M = _firsts(torch.unique(sums_M, return_inverse=True)[1])
    if not torch.equal(codes_MW[first_U][kind_M], codes_MW):
        return _firsts(torch.unique(codes_MW, dim=0, return_inverse=True)[1])
    return first_U, kind_M


def _firsts(kind_M: Tensor) -> tuple[Tensor, Tensor]:
    row_M = torch.arange(len(kind_M), device=kind_M.device)
    num_kinds = int(kind_M.max()) + 1 if len(kind_M) else 0
    first_U = row_M.new_full((num_kinds,), len(kind_M)).scatter_reduce(0, kind_M, row_M, "amin")
    return first_U, kind_M
