"""The stretches of bins that have to be computed again where windows differ from a reference.

Stretches of about the same length run together, so that a single changed base costs a few bins also
where another window of the batch is shifted from an indel to its end.

Shapes: B edits, L base pairs, N bins, M stretches, P bins of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Stretches", "find_stretches", "refresh", "widened"]

Parts = tuple[Tensor, ...]


@dataclass(frozen=True)
class Stretches:
    """Runs of as many bins each, and which of their bins are to be replaced.

    Attributes
    ----------
    row_M1 : int tensor, shape (stretches, 1)
        Edit that each lies in.
    index_MP : int tensor, shape (stretches, bins)
        Its bins.
    inside_MP : bool tensor, shape (stretches, bins)
        Bins to replace; the others only show them what lies beside them.
    """

    row_M1: Tensor
    index_MP: Tensor
    inside_MP: Tensor

    def cut(self, values_BN: Tensor) -> Tensor:
        """Cut values with one row per bin, shape (batch, bins, ...), to (stretches, bins, ...)."""
        return values_BN[self.row_M1, self.index_MP]

    def cut_bases(self, codes_BL: Tensor, bin_size: int) -> Tensor:
        """Cut bases, shape (batch, length, ...), to (stretches, bins * bin_size, ...)."""
        batch, length = codes_BL.shape[:2]
        bins = codes_BL.reshape(batch, length // bin_size, bin_size, *codes_BL.shape[2:])
        return self.cut(bins).flatten(1, 2)

    def paste(self, values_BN: Tensor, fresh_MP: Tensor) -> None:
        """Put what was computed in place of the bins to replace."""
        rows_MP = self.row_M1.expand_as(self.index_MP)
        target = rows_MP[self.inside_MP], self.index_MP[self.inside_MP]
        values_BN[target] = fresh_MP[self.inside_MP]


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


def find_stretches(
    changed_BN: Tensor, *, reads: tuple[int, int], joined: bool = False
) -> list[Stretches]:
    """Find what has to be computed again, in groups of about the same length.

    Parameters
    ----------
    changed_BN : bool tensor, shape (batch, bins)
        Where the windows differ from the reference.
    reads : tuple of int
        Bins that a row of the result reads before and after its own.
    joined : bool
        One stretch per edit, from its first bin to its last.
    """
    before, after = reads
    num_bins = changed_BN.shape[1]
    affected_BN = widened(changed_BN, before=before, after=after)
    row, start, stop = _runs(affected_BN)
    if not len(row):
        return []
    around = before + after
    total_B = torch.zeros(len(changed_BN), dtype=torch.long, device=row.device)
    total_B.index_add_(0, row, stop - start + around)
    many_B = torch.ones_like(total_B, dtype=torch.bool) if joined else total_B > num_bins
    if many_B.any():
        row, start, stop = _joined_runs(row, start, stop, many_B)
    length = (stop - start + around).clamp(max=num_bins)
    group = torch.log2(length.double()).ceil()
    found = []
    for number in sorted(set(group.tolist())):
        chosen = group == number
        size = int(length[chosen].max())
        first_M1 = (start[chosen] - before).clamp(0, num_bins - size)[:, None]
        index_MP = first_M1 + torch.arange(size, device=row.device)
        inside_MP = (index_MP >= start[chosen, None]) & (index_MP < stop[chosen, None])
        found.append(Stretches(row[chosen, None], index_MP, inside_MP))
    return found


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
    found = find_stretches(changed_BN, reads=reads)
    batch = len(changed_BN)
    if not found:
        return tuple(part.expand(batch, *part.shape[1:]) for part in reference)
    results = tuple(part.repeat(batch, *[1] * (part.ndim - 1)) for part in reference)
    for some in found:
        signal = None if signal_BNT is None else some.cut(signal_BNT)
        fresh = run(some.cut_bases(codes_BL, bin_size), signal)
        for result, part in zip(results, fresh, strict=True):
            some.paste(result, part)
    return results


def _runs(affected_BN: Tensor) -> Parts:
    """Rows, starts and ends of the runs of true bins."""
    steps = F.pad(affected_BN.to(torch.int8), (1, 1)).diff(dim=1)
    rows, starts = (steps == 1).nonzero(as_tuple=True)
    stops = (steps == -1).nonzero(as_tuple=True)[1]
    return rows, starts, stops


def _joined_runs(row: Tensor, start: Tensor, stop: Tensor, many_B: Tensor) -> Parts:
    """Make one run of all runs of the rows that have many; runs come row by row, in order."""
    keep = ~many_B[row]
    rows, first = torch.unique_consecutive(row, return_counts=True)
    last = first.cumsum(0)
    first, joins = last - first, many_B[rows]
    return (
        torch.cat([row[keep], rows[joins]]),
        torch.cat([start[keep], start[first[joins]]]),
        torch.cat([stop[keep], stop[last[joins] - 1]]),
    )
