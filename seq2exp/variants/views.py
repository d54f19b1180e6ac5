"""The window of a gene as a model sees it, and the same window with alleles put in.

A view is a strand and a shift. Read from the other strand, the window has its TSS at the same base;
shifts read the bases that really lie there.

Shapes: S sequences, L bases, N bins, T tracks, M variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.intervals import Window, tss_window
from seq2exp.dataset.haplotype_tracks import moved_signal
from seq2exp.dataset.samples import (
    Batch,
    GeneSamples,
    Sample,
    collate,
    gene_window,
)
from seq2exp.variants.contexts import Flanks, with_flanks
from seq2exp.variants.judge import Put
from seq2exp.variation.alleles import Allele
from seq2exp.variation.haplotypes import Haplotypes, build
from seq2exp.variation.table import Variants

__all__ = ["GeneView", "Sequences", "View", "open_view"]


class View(NamedTuple):
    """How a window is read.

    Attributes
    ----------
    opposite : bool
        From the other strand.
    shift : int
        Bases by which the window is moved in the direction in which models usually read it.
    """

    opposite: bool
    shift: int


@dataclass(frozen=True, eq=False)
class Sequences:
    """Windows with alleles put in, and where their bases came from."""

    batch: Batch
    built: Haplotypes
    moved: NDArray[np.bool_]
    """Sequences that hold an insertion or deletion, shape (S,)."""


@dataclass(frozen=True, eq=False)
class GeneView:
    """A gene in one view.

    Attributes
    ----------
    row : int
        Row of the gene table.
    view : View
    window : Window
    sample : Sample
        The window without any allele.
    batch : Batch
        The same, alone in a batch.
    """

    samples: GeneSamples
    row: int
    view: View
    window: Window
    sample: Sample
    batch: Batch

    def put(self, sequences: Sequence[Put], *, flanks: Flanks | None = None) -> Sequences:
        """Build the window with the alleles of each sequence in it.

        Parameters
        ----------
        sequences : sequence of tuples of Allele
            Normalised, in any order.
        flanks : Flanks, optional
            Other bases around the alleles: the draws in turn, sequence by sequence.

        Raises
        ------
        InputError
            Alleles leave the contig.
        """
        distinct = sorted({allele for put in sequences for allele in put}, key=_place)
        number = {allele: index for index, allele in enumerate(distinct)}
        variants = Variants.from_alleles(distinct)
        actions_SM = np.zeros((len(sequences), len(distinct)), dtype=np.uint8)
        for actions_M, put in zip(actions_SM, sequences, strict=True):
            actions_M[[number[allele] for allele in put]] = 1
        dataset = self.samples.dataset
        contig, tss, strand = dataset.sites[self.row]
        built = build(
            dataset.contig_codes(contig),
            variants,
            actions_SM,
            self.window,
            tss,
            gene_strand=strand,
        )
        longer_M = variants.alt_length_M != variants.ref_length_M
        moved_S = (actions_SM[:, longer_M] != 0).any(axis=1)
        signal_SNT = moved_signal(self.samples, built, self.sample, moved_S)
        self._keep_near_tss(signal_SNT, built, variants, actions_SM * longer_M, tss)
        codes_SL = built.codes_HL
        if flanks is not None:
            codes_SL = self._among(flanks, built)
        return Sequences(self._batch(codes_SL, signal_SNT), built, moved_S)

    def _among(self, flanks: Flanks, built: Haplotypes) -> NDArray[np.uint8]:
        """Put each draw of shuffled surroundings around its sequence."""
        num = len(flanks.before_KF)
        maps_SL = built.reference_map()
        parts = [
            with_flanks(built.codes_HL[first], maps_SL[first], flanks, reverse=self.window.reverse)
            for first in range(0, len(built), num)
        ]
        return np.concatenate(parts)

    def _keep_near_tss(
        self,
        signal_SNT: NDArray[np.float32],
        built: Haplotypes,
        variants: Variants,
        moves_SM: NDArray[np.uint8],
        tss: int,
    ) -> None:
        """Put the very numbers of the reference where no insertion or deletion moved a base.

        They are the same but for the order of sums; bins that are equal need not be run again.
        """
        size = self.samples.config.bin_size
        for row in np.flatnonzero(moves_SM.any(axis=1)):
            here_M = moves_SM[row] != 0
            ends, starts = variants.end_M[here_M], variants.position_M[here_M]
            if ((starts <= tss) & (ends > tss)).any():
                continue
            low = int(ends[ends <= tss].max(initial=self.window.start))
            high = int(starts[starts > tss].min(initial=self.window.end))
            first, stop = low - self.window.start, high - self.window.start
            if self.window.reverse:
                first, stop = self.window.length - stop, self.window.length - first
            same = slice(-(-max(first, 0) // size), stop // size)
            signal_SNT[row, same] = self.sample.signal[same]

    def _batch(self, codes_SL: NDArray[np.uint8], signal_SNT: NDArray[np.float32]) -> Batch:
        one, num = self.batch, len(codes_SL)
        return replace(
            one,
            codes_BL=torch.from_numpy(codes_SL),
            signal_BNT=torch.from_numpy(signal_SNT),
            features_BF=one.features_BF.expand(num, -1),
            expression_BK=one.expression_BK.expand(num, -1),
            blacklist_BN=one.blacklist_BN.expand(num, -1),
            valid_BN=one.valid_BN.expand(num, -1),
            elements_BR2=one.elements_BR2.expand(num, -1, -1),
            index_B=one.index_B.expand(num),
        )

    def index_of(self, position: int) -> int:
        """Return where a base of the reference stands in the window; it may lie outside."""
        if self.window.reverse:
            return self.window.end - 1 - position
        return position - self.window.start


def _place(allele: Allele) -> tuple[int, bool, str, str]:
    """Return what alleles are sorted by: at one position a substitution stands before an indel.

    The overlap rule then leaves out none of what can stand together.
    """
    return allele.position, allele.ref[0] == allele.alt[0], allele.ref, allele.alt


def open_view(samples: GeneSamples, row: int, view: View) -> GeneView:
    """Read the window of a gene in a view.

    Parameters
    ----------
    samples : GeneSamples
    row : int
        Row of the gene table.
    view : View
    """
    config = samples.config
    contig, tss, _ = samples.dataset.sites[row]
    seen = gene_window(samples.dataset, row, config)
    reverse = seen.reverse != view.opposite
    centred = tss_window(
        contig,
        tss,
        "-" if reverse else "+",
        length=config.window_bp,
        contig_length=seen.contig_length,
    )
    shift = -view.shift if seen.reverse else view.shift
    window = replace(centred, start=centred.start + shift, end=centred.end + shift)
    sample = samples.sample(row, window)
    return GeneView(samples, row, view, window, sample, collate([sample]))
