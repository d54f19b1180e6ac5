"""Which genes have a variant in their window, and where it lies from their TSS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.dataset.samples import SampleConfig, gene_window
from seq2exp.dataset.store import Dataset

__all__ = ["GeneIndex", "distance_to_tss", "window_holds"]

Span = tuple[int, int]


def window_holds(window: Window, span: Span) -> bool:
    """Tell whether a change of the reference changes a window.

    Parameters
    ----------
    window : Window
    span : (int, int)
        Changed bases, 0-based half-open; empty for an insertion before the base ``span[0]``, of
        which both neighbours must lie in the window: it is anchored at the TSS, so what is inserted
        beyond its last base is outside.
    """
    start, end = span
    if start == end:
        return window.start < start < window.end
    return window.start < end and start < window.end


def distance_to_tss(span: Span, tss: int, strand: str) -> int:
    """Return the bases from the TSS to the nearest changed base; > 0 is downstream of the gene."""
    start, end = span
    # An insertion lies between two bases: the nearer one counts.
    first, last = (start - 1, start) if start == end else (start, end - 1)
    nearest = min(max(tss, first), last)
    return nearest - tss if strand != "-" else tss - nearest


class GeneIndex:
    """Windows of all genes of a dataset, found by position.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
        Length of the windows.
    rows : int array, optional
        Rows of the gene table that count; all when left out.
    """

    def __init__(
        self, dataset: Dataset, config: SampleConfig, rows: NDArray[np.int64] | None = None
    ) -> None:
        self.windows: dict[int, Window] = {}
        chosen = range(len(dataset.sites)) if rows is None else rows.tolist()
        by_contig: dict[str, list[tuple[int, int]]] = {}
        for row in chosen:
            window = gene_window(dataset, row, config)
            self.windows[row] = window
            by_contig.setdefault(window.contig, []).append((window.start, row))
        self.length = config.window_bp
        self._starts: dict[str, NDArray[np.int64]] = {}
        self._rows: dict[str, NDArray[np.int64]] = {}
        for contig, pairs in by_contig.items():
            ordered = np.array(sorted(pairs), dtype=np.int64)
            self._starts[contig], self._rows[contig] = ordered[:, 0], ordered[:, 1]

    def holding(self, contig: str, span: Span) -> list[int]:
        """Return the rows of genes whose window a change lies in, by the start of the window."""
        if contig not in self._starts:
            return []
        starts = self._starts[contig]
        first = int(np.searchsorted(starts, span[0] - self.length, side="left"))
        last = int(np.searchsorted(starts, span[1], side="right"))
        near = self._rows[contig][first:last].tolist()
        return [row for row in near if window_holds(self.windows[row], span)]
