"""Four meanings of deleting a stretch of DNA from a window, all with the TSS where it was.

``shuffle``
    Its bases are shuffled with their dinucleotides, several times; its tracks take the background
    of the window.
``n``
    Its bases become N, its tracks missing.
``mask``
    Bases and tracks stay, the mask of its bins becomes 0: the bottleneck's own deletion.
``true-deletion``
    Its bases are cut out; what lies farther from the TSS moves up, and the genome beyond the
    window fills the far end.

Contacts and scalar features stay in every case: they belong to the place and the gene.

Shapes: L base pairs, N bins, T tracks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.samples import GeneSamples
from seq2exp.interpret.edits import Edit, GeneWindow, Span

__all__ = ["DeletionConfig", "Destroyer", "Method", "background", "true_deletion"]

Method = Literal["shuffle", "n", "mask", "true-deletion"]


@dataclass(frozen=True)
class DeletionConfig:
    """What deletion means."""

    method: Method = "shuffle"
    """shuffle, n, mask or true-deletion."""
    num_shuffles: int = 5
    """Shuffles that are averaged; without effect on the other methods."""
    seed: int = 0
    """Seed of the shuffles."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(
                facts(
                    "check.method",
                    found=repr(self.method),
                    expected="one of " + ", ".join(get_args(Method)),
                    fix="use shuffle",
                )
            )
        if self.num_shuffles < 1:
            raise ConfigError(
                facts("check.shuffles", found=self.num_shuffles, expected="at least 1", fix="use 5")
            )

    @property
    def rounds(self) -> int:
        """Edits per deletion."""
        return self.num_shuffles if self.method == "shuffle" else 1

    @property
    def in_place(self) -> DeletionConfig:
        """The same, or shuffles where the method cannot destroy all of a window in its place."""
        return replace(self, method="shuffle") if self.method == "true-deletion" else self

    @property
    def of_sequence(self) -> DeletionConfig:
        """The same, or shuffles where the method leaves the DNA as it is or moves it."""
        return self.in_place if self.method != "mask" else replace(self, method="shuffle")


class Destroyer:
    """Makes the edits of one gene.

    Parameters
    ----------
    gene : GeneWindow
    samples : GeneSamples
        Where true deletions read what lies beyond the window.
    config : DeletionConfig
    background_T : float array, shape (num_tracks,)
        What tracks fall back to (see :func:`background`).
    """

    def __init__(
        self,
        gene: GeneWindow,
        samples: GeneSamples,
        config: DeletionConfig,
        *,
        background_T: NDArray[np.float32],
    ) -> None:
        self.gene, self.samples, self.config = gene, samples, config
        self.background_T = background_T

    def destroy(self, spans: list[Span]) -> list[Edit]:
        """Return the window without what is in the spans, once per round.

        Shuffles depend on the seed, the gene and the span, never on the order of the calls.
        """
        gene, method = self.gene, self.config.method
        if method == "true-deletion":
            return [true_deletion(gene, self.samples, span) for span in spans]
        touched = gene.bin_mask(spans)
        if method == "mask":
            return [replace(gene.reference, closed=touched)]
        signal = gene.reference.signal.copy()
        free = signal.shape[1] - gene.num_fixed
        signal[touched, :free] = np.nan if method == "n" else self.background_T[:free]
        elements = gene.without(spans)
        return [
            replace(
                gene.reference,
                codes=self._codes(spans, number),
                signal=signal,
                elements=elements,
            )
            for number in range(self.config.rounds)
        ]

    def _codes(self, spans: list[Span], number: int) -> NDArray[np.uint8]:
        codes = self.gene.reference.codes.copy()
        for start, stop in spans:
            if self.config.method == "n":
                codes[start:stop] = N_CODE
                continue
            random = np.random.default_rng((self.config.seed, self.gene.row, start, stop, number))
            codes[start:stop] = shuffle_dinucleotides(codes[start:stop], random)
        return codes

    def put_back(self, destroyed: Edit, span: Span) -> Edit:
        """Return a destroyed window with the original of a span in it."""
        gene, reference = self.gene, self.gene.reference
        bins = gene.bins(span)
        if destroyed.closed is not None:
            closed = destroyed.closed.copy()
            closed[bins] = False
            return replace(destroyed, closed=closed)
        codes, signal = destroyed.codes.copy(), destroyed.signal.copy()
        codes[slice(*span)] = reference.codes[slice(*span)]
        signal[bins] = reference.signal[bins]
        inside = gene.without(gene.outside(span))
        elements = np.concatenate([destroyed.elements, inside])
        return replace(destroyed, codes=codes, signal=signal, elements=gene.ordered(elements))


def background(gene: GeneWindow, called: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what destroyed tracks fall back to: the median over the quiet bins of the window.

    Parameters
    ----------
    gene : GeneWindow
    called : bool array, shape (num_bins,)
        Bins of called elements, which are left out as the promoter is.

    Returns
    -------
    float32 array, shape (num_tracks,)
        NaN for a track without data in these bins.
    """
    quiet = gene.reference.valid & ~called & ~gene.bin_mask([gene.promoter])
    chosen = gene.reference.signal[quiet if quiet.any() else slice(None)]
    known = np.isfinite(chosen).any(axis=0)
    medians = np.full(chosen.shape[1], np.nan, dtype=np.float32)
    medians[known] = np.nanmedian(chosen[:, known], axis=0)
    return medians


def true_deletion(gene: GeneWindow, samples: GeneSamples, span: Span) -> Edit:
    """Cut a stretch out and fill the window from beyond its end on that side of the TSS.

    Tracks, excluded regions and candidate elements move with the bases; a bin that holds both
    sides of the cut has the mean of its parts, weighted by their bases.

    Raises
    ------
    ConfigError
        The stretch covers the TSS, which would have no side.
    """
    start, stop = span
    if start <= gene.tss < stop:
        raise ConfigError(
            facts(
                "check.method",
                found=f"true-deletion of {start - gene.tss} to {stop - gene.tss} bp from the TSS",
                expected="a stretch on one side of the TSS",
                fix="use shuffle, n or mask",
            )
        )
    upstream = stop <= gene.tss
    length = stop - start
    window = gene.window
    shift = -length if upstream != window.reverse else length
    moved = Window(
        window.contig, window.start + shift, window.end + shift, window.strand,
        window.contig_length,
    )  # fmt: skip
    data, size = samples.dataset, gene.bin_size
    cut = stop if upstream else start
    base = np.arange(gene.length) < cut
    bins = np.arange(gene.length // size) < -(-cut // size)
    if not upstream:
        base, bins = ~base, np.arange(gene.length // size) >= cut // size
    signal = np.where(bins[:, None], samples.signal(gene.row, moved), gene.reference.signal)
    if cut % size:
        at = cut // size
        parts = (moved, window) if upstream else (window, moved)
        signal[at] = _joined(samples, parts, at * size, cut, (at + 1) * size)
    if gene.num_fixed:
        signal[:, -gene.num_fixed :] = gene.reference.signal[:, -gene.num_fixed :]
    excluded = np.where(bins, data.excluded_bins(moved, bin_size=size), gene.reference.blacklist)
    inside = np.where(bins, data.inside_bins(moved, bin_size=size), gene.reference.valid)
    return Edit(
        codes=np.where(base, data.codes(moved), gene.reference.codes),
        signal=signal.astype(np.float32),
        elements=_moved_elements(gene, samples, span, upstream=upstream),
        blacklist=excluded,
        valid=inside,
    )


def _joined(
    samples: GeneSamples, windows: tuple[Window, Window], first: int, cut: int, last: int
) -> NDArray[np.float64]:
    """Mean of a bin whose bases before the cut are of one window, and after it of another."""
    total = weight = np.zeros(len(samples.track_index))
    for window, start, stop in ((windows[0], first, cut), (windows[1], cut, last)):
        low, high = window.genome_interval(start, stop)
        part = Window(window.contig, low, high, window.strand, window.contig_length)
        mean = samples.dataset.track_bins(part, bin_size=stop - start)[0, samples.track_index]
        known = np.isfinite(mean)
        total = total + np.where(known, mean, 0.0) * (stop - start)
        weight = weight + known * float(stop - start)
    with np.errstate(invalid="ignore"):
        mean = np.asarray(total / weight)
    contact = np.zeros(int(samples.config.contacts))
    return np.concatenate([mean, contact])


def _moved_elements(
    gene: GeneWindow, samples: GeneSamples, span: Span, *, upstream: bool
) -> NDArray[np.int32]:
    """Candidate elements of the window after the cut, those that entered it included."""
    name, length = samples.config.elements, span[1] - span[0]
    if name is None:
        return gene.reference.elements
    window = gene.window
    low = length if upstream != window.reverse else 0
    wider = Window(
        window.contig, window.start - low, window.end + length - low, window.strand,
        window.contig_length,
    )  # fmt: skip
    tss = samples.dataset.sites[gene.row][1]
    found = samples.dataset.window_elements(wider, tss, name=name)
    # Bases of the wider window; upstream it begins `length` bases before the window.
    lead = length if upstream else 0
    middle = found.mean(axis=1) - lead
    before, after = middle < span[0], middle >= span[1]
    shifted = np.where(after[:, None], found - length, found)
    return gene.ordered(shifted[before | after])
