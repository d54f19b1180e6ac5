"""The window of one gene as arrays that can be edited, and what every edit is made of.

Positions are bases of the window in model direction: base ``length // 2`` is the TSS on both
strands, so an edit never moves it.

Shapes: L base pairs, N bins, T tracks, R candidate elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.dataset.samples import Batch, GeneSamples, collate, gene_window
from seq2exp.models.masking import central_span

__all__ = ["Edit", "GeneWindow", "Span", "make_batch", "open_window"]

Span = tuple[int, int]
"""Half-open run of bases of a window in model direction."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What a model reads instead of the window of a gene.

    Attributes
    ----------
    codes : uint8 array, shape (window_bp,)
    signal : float32 array, shape (num_bins, num_tracks)
    elements : int32 array, shape (num_elements, 2)
        Candidate elements; -1 in rows that are left over.
    blacklist, valid : bool arrays, shape (num_bins,)
    closed : bool array, shape (num_bins,), or None
        Bins whose mask is set to 0 while the rest of the mask stays that of the reference. None
        lets the model make its mask anew.
    """

    codes: NDArray[np.uint8]
    signal: NDArray[np.float32]
    elements: NDArray[np.int32]
    blacklist: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    closed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class GeneWindow:
    """One gene: where it lies, what the model reads, and what stays whatever is destroyed.

    Attributes
    ----------
    row : int
        Row of the gene table.
    window : Window
    batch : Batch
        The gene alone.
    reference : Edit
        The window as it is.
    promoter : tuple of int
        Bases that are never destroyed.
    bin_size : int
    num_fixed : int
        Last tracks that no edit of DNA changes: the contact profile.
    """

    row: int
    window: Window
    batch: Batch
    reference: Edit
    promoter: Span
    bin_size: int
    num_fixed: int

    @property
    def length(self) -> int:
        """Base pairs of the window."""
        return int(self.reference.codes.size)

    @property
    def tss(self) -> int:
        """Base of the TSS."""
        return self.length // 2

    def to_model(self, start: int, end: int) -> Span:
        """Return a genome interval as bases of the window; it may reach beyond it."""
        if self.window.reverse:
            return self.window.end - end, self.window.end - start
        return start - self.window.start, end - self.window.start

    def bins(self, span: Span) -> slice:
        """Return the bins that a span touches."""
        return slice(span[0] // self.bin_size, -(-span[1] // self.bin_size))

    def bin_mask(self, spans: list[Span]) -> NDArray[np.bool_]:
        """Return which bins any of the spans touches."""
        touched = np.zeros(self.length // self.bin_size, dtype=np.bool_)
        for span in spans:
            touched[self.bins(span)] = True
        return touched

    def without(self, spans: list[Span]) -> NDArray[np.int32]:
        """Return the candidate elements whose middle lies in none of the spans."""
        elements = self.reference.elements
        middle = elements.mean(axis=1)
        gone = np.zeros(len(elements), dtype=np.bool_)
        for start, stop in spans:
            gone |= (middle >= start) & (middle < stop)
        kept = np.full_like(elements, -1)
        kept[: int((~gone).sum())] = elements[~gone]
        return kept

    def ordered(self, elements: NDArray[np.int32]) -> NDArray[np.int32]:
        """Order elements by the distance of their middle from the TSS; left-over rows go."""
        there = elements[elements[:, 1] > elements[:, 0]]
        there = there[(there[:, 1] > 0) & (there[:, 0] < self.length)]
        distance = np.abs(there.sum(axis=1) - (2 * self.tss + 1))
        order = np.lexsort((there[:, 0], distance))
        return np.ascontiguousarray(there[order].astype(np.int32))

    def outside(self, span: Span) -> list[Span]:
        """Return what lies left and right of a span."""
        return [part for part in ((0, span[0]), (span[1], self.length)) if part[0] < part[1]]


def open_window(samples: GeneSamples, row: int, *, promoter_bp: int) -> GeneWindow:
    """Read the window of a gene.

    Parameters
    ----------
    samples : GeneSamples
        What the model reads.
    row : int
        Row of the gene table.
    promoter_bp : int
        Central base pairs that stay; rounded outwards to whole bins.
    """
    config = samples.config
    sample = GeneSamples(samples.dataset, config, [row])[0]
    batch = collate([sample])
    first, stop = central_span(
        config.window_bp // config.bin_size, bin_size=config.bin_size, central_bp=promoter_bp
    )
    reference = Edit(
        codes=sample.codes,
        signal=sample.signal,
        elements=batch.elements_BR2[0].numpy(),
        blacklist=sample.blacklist,
        valid=sample.valid,
    )
    return GeneWindow(
        row=row,
        window=gene_window(samples.dataset, row, config),
        batch=batch,
        reference=reference,
        promoter=(first * config.bin_size, stop * config.bin_size),
        bin_size=config.bin_size,
        num_fixed=int(config.contacts),
    )


def make_batch(gene: GeneWindow, edits: list[Edit]) -> Batch:
    """Stack edits of one gene; features and labels are those of the gene."""
    num = len(edits)

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(edit, name) for edit in edits]))

    longest = max(len(edit.elements) for edit in edits)
    elements = np.full((num, longest, 2), -1, dtype=np.int32)
    for padded, edit in zip(elements, edits, strict=True):
        padded[: len(edit.elements)] = edit.elements
    return replace(
        gene.batch,
        codes_BL=stack("codes"),
        signal_BNT=stack("signal"),
        features_BF=gene.batch.features_BF.expand(num, -1),
        expression_BK=gene.batch.expression_BK.expand(num, -1),
        blacklist_BN=stack("blacklist"),
        valid_BN=stack("valid"),
        elements_BR2=torch.from_numpy(elements),
        index_B=gene.batch.index_B.expand(num),
    )
