"""One mask for the genome: per base, the masks of all genes whose windows cover it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.elements.masks import FREE, PROMOTER, GeneMasks

__all__ = ["MergedStretch", "merged_mask", "run_lengths"]


@dataclass(frozen=True, eq=False)
class MergedStretch:
    """The merged mask of consecutive bases ``[start, start + length)`` of one contig.

    Attributes
    ----------
    contig : str
    start : int
        0-based.
    learned : float32 array, shape (length,)
        Largest mask over the genes for which the base is learned; NaN where there is none.
    mean : float32 array, shape (length,)
        Mean over the same genes.
    full : float32 array, shape (length,)
        Largest mask as the predictor saw it, forced promoters included; NaN outside all windows.
    promoter : bool array, shape (length,)
        The base lies in the forced promoter of some gene.
    num_genes : int32 array, shape (length,)
        Genes for which the base is learned.
    """

    contig: str
    start: int
    learned: NDArray[np.float32]
    mean: NDArray[np.float32]
    full: NDArray[np.float32]
    promoter: NDArray[np.bool_]
    num_genes: NDArray[np.int32]


def merged_mask(
    masks: GeneMasks, contig: str, *, chunk_bp: int = 1 << 21
) -> Iterator[MergedStretch]:
    """Yield the merged mask of a contig in stretches of bases.

    Parameters
    ----------
    masks : GeneMasks
    contig : str
    chunk_bp : int
        Longest stretch; bounds the memory. Stretches without a window are skipped.
    """
    genes = np.flatnonzero(masks.genes["contig"].to_numpy() == contig)
    if genes.size == 0:
        return
    length = int(masks.genes["contig_length"].iloc[genes[0]])
    start = masks.genes["start"].to_numpy(np.int64)[genes]
    end = start + masks.num_bins * masks.bin_size
    for low in range(0, length, chunk_bp):
        high = min(low + chunk_bp, length)
        here = genes[(start < high) & (end > low)]
        if here.size:
            yield _stretch(masks, contig, here, low, high)


def _stretch(
    masks: GeneMasks, contig: str, genes: NDArray[np.int64], low: int, high: int
) -> MergedStretch:
    size = high - low
    learned = np.full(size, -1, dtype=np.float32)
    full = np.full(size, -1, dtype=np.float32)
    total = np.zeros(size, dtype=np.float64)
    promoter = np.zeros(size, dtype=np.bool_)
    count = np.zeros(size, dtype=np.int32)
    for gene in genes:
        value, forced, where = _bases(masks, int(gene), low, high)
        full[where] = np.maximum(full[where], value)
        # An excluded bin was set to 0: the predictor saw that, but nothing was learned there.
        free = forced == FREE
        learned[where] = np.maximum(learned[where], np.where(free, value, -1))
        total[where] += np.where(free, value, 0)
        count[where] += free
        promoter[where] |= forced == PROMOTER
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return MergedStretch(
        contig=contig,
        start=low,
        learned=np.where(learned < 0, np.float32(np.nan), learned),
        mean=mean.astype(np.float32),
        full=np.where(full < 0, np.float32(np.nan), full),
        promoter=promoter,
        num_genes=count,
    )


def _bases(
    masks: GeneMasks, gene: int, low: int, high: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], slice]:
    """Return a gene's mask and flags per base of ``[low, high)`` and where they belong."""
    start, size = int(masks.genes["start"].iloc[gene]), masks.bin_size
    first = max(low - start, 0) // size
    last = min(-(-(high - start) // size), masks.num_bins)
    value = np.repeat(np.asarray(masks.mask[gene, first:last], dtype=np.float32), size)
    forced = np.repeat(np.asarray(masks.forced[gene, first:last]), size)
    origin = start + first * size
    begin, stop = max(low, origin), min(high, origin + value.size)
    inner = slice(begin - origin, stop - origin)
    return value[inner], forced[inner], slice(begin - low, stop - low)


def run_lengths(
    values: NDArray[np.float32], *, start: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the constant stretches of an array without its NaN, as (starts, ends, values)."""
    if values.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0)
    new = np.ones(values.size, dtype=np.bool_)
    new[1:] = (filled[1:] != filled[:-1]) | (known[1:] != known[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], values.size)
    kept = known[first]
    return first[kept] + start, last[kept] + start, filled[first[kept]].astype(np.float64)
