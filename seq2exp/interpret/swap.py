"""Elements in the places of elements of other genes, at equal distances from the TSS.

Element a of gene A is put where element b of gene B was, at equal distance from the TSS. With b
destroyed as the zero, the effect of a there is compared with what a does at home and with what b
did in that place: does the effect follow the sequence or the place?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.dataset.samples import GeneSamples
from seq2exp.interpret.deletion import Destroyer
from seq2exp.interpret.edits import Edit, GeneWindow, Span
from seq2exp.interpret.rerun import GeneRunner
from seq2exp.interpret.site_table import Plan, Site, SiteTable

__all__ = ["Donor", "Donors", "swap_elements"]


@dataclass(frozen=True, eq=False)
class Donor:
    """An element of another gene, and the stretches that are exchanged.

    Attributes
    ----------
    gene : GeneWindow
    site : Site
    taken, placed : tuple of int
        Bases of the donor's and of the recipient's window, equally long, centred on the elements.
    """

    gene: GeneWindow
    site: Site
    taken: Span
    placed: Span


class Donors:
    """Finds, for each element, one of another gene at the nearest distance on the same side.

    Parameters
    ----------
    plans : sequence of Plan
        All genes that are checked.
    samples : GeneSamples
    open_gene : callable
        From the row of a gene to its window.
    tolerance_bp : int
        Largest difference between the distances.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        samples: GeneSamples,
        open_gene: Callable[[int], GeneWindow],
        *,
        tolerance_bp: int,
    ) -> None:
        self.samples, self.open_gene, self.tolerance_bp = samples, open_gene, tolerance_bp
        found = [
            (plan.row, site) for plan in plans for site in plan.tested if site.kind == "element"
        ]
        order = np.argsort([_middle(site) for _, site in found], kind="stable")
        self.entries = [found[i] for i in order]
        self.middles = np.array([_middle(site) for _, site in self.entries])

    def of(self, gene: GeneWindow, site: Site) -> Donor | None:
        """Return the donor for an element; None where no other gene has one so near in distance."""
        middle = _middle(site)
        low = np.searchsorted(self.middles, middle - self.tolerance_bp)
        high = np.searchsorted(self.middles, middle + self.tolerance_bp, side="right")
        near = sorted(range(low, high), key=lambda i: (abs(self.middles[i] - middle), i))
        for other, theirs in (self.entries[i] for i in near):
            if other == gene.row:
                continue
            donor = _matched(gene, site, self.open_gene(other), theirs)
            if donor is not None:
                return donor
        return None

    def put(self, gene: GeneWindow, donor: Donor) -> Edit:
        """Return the window of a gene with the donor's stretch in the place of its own.

        The donor's tracks are read on the bins of the recipient, so that they stay with its bases;
        contacts and candidate elements elsewhere are the recipient's.
        """
        moved = _moved(donor.gene.window, donor.taken[0] - donor.placed[0])
        part, bins = slice(*donor.placed), gene.bins(donor.placed)
        free = gene.reference.signal.shape[1] - gene.num_fixed
        codes, signal = gene.reference.codes.copy(), gene.reference.signal.copy()
        codes[part] = self.samples.dataset.codes(moved)[part]
        signal[bins, :free] = self.samples.signal(donor.gene.row, moved)[bins, :free]
        elements = gene.reference.elements
        if self.samples.config.elements is not None:
            elements = self._elements(gene, donor)
        return replace(gene.reference, codes=codes, signal=signal, elements=elements)

    def _elements(self, gene: GeneWindow, donor: Donor) -> NDArray[np.int32]:
        shift = donor.placed[0] - donor.taken[0]
        theirs = donor.gene.without(donor.gene.outside(donor.taken))
        theirs = np.where(theirs[:, 1:] > theirs[:, :1], theirs + shift, theirs)
        return gene.ordered(np.concatenate([gene.without([donor.placed]), theirs]))


def _middle(site: Site) -> float:
    return (site.span[0] + site.span[1]) / 2


def _moved(window: Window, bases: int) -> Window:
    """Shift a window by so many bases in model direction."""
    step = -bases if window.reverse else bases
    return Window(
        window.contig, window.start + step, window.end + step, window.strand, window.contig_length
    )


def _matched(gene: GeneWindow, site: Site, other: GeneWindow, theirs: Site) -> Donor | None:
    """Pair two elements; the stretch exchanged has the length of the longer one."""
    length = max(site.span[1] - site.span[0], theirs.span[1] - theirs.span[0])
    placed = _centred(gene, site, length)
    taken = _centred(other, theirs, length)
    if placed is None or taken is None:
        return None
    return Donor(other, theirs, taken, placed)


def _centred(gene: GeneWindow, site: Site, length: int) -> Span | None:
    """Run of so many bases around an element; None where it leaves the window or the distal DNA."""
    start = site.span[0] - (length - (site.span[1] - site.span[0])) // 2
    stop = start + length
    inside = start >= 0 and stop <= gene.length
    distal = stop <= gene.promoter[0] or start >= gene.promoter[1]
    if not (inside and distal):
        return None
    return (start, stop) if gene.reference.valid[gene.bins((start, stop))].all() else None


def swap_elements(
    runner: GeneRunner, destroyer: Destroyer, donors: Donors, table: SiteTable
) -> pd.DataFrame:
    """Swap every element of a gene.

    Returns
    -------
    DataFrame
        gene_id, name, donor_gene, donor, donor_row, distance_difference, and per output:
        ``empty`` (the place destroyed), ``swapped`` and ``effect_there`` (their difference).
    """
    gene = runner.gene
    pairs = [
        (site, donor)
        for site in table.plan.tested
        if site.kind == "element" and (donor := donors.of(gene, site)) is not None
    ]
    if not pairs:
        return pd.DataFrame()
    emptied = [edit for _, donor in pairs for edit in destroyer.destroy([donor.placed])]
    rounds = destroyer.config.rounds
    empty_PRK = runner.predict(emptied).mean(axis=1).reshape(len(pairs), rounds, -1)
    swapped_PK = runner.predict(donors.put(gene, donor) for _, donor in pairs).mean(axis=1)
    rows = []
    for (site, donor), empty_RK, swapped_K in zip(pairs, empty_PRK, swapped_PK, strict=True):
        empty_K = empty_RK.mean(axis=0)
        row = {
            "gene_id": str(table.gene["gene_id"]),
            "name": site.name,
            "donor": donor.site.name,
            "distance_difference": _middle(donor.site) - _middle(site),
        }
        for k, sample in enumerate(table.samples):
            row |= {
                f"empty:{sample}": empty_K[k],
                f"swapped:{sample}": swapped_K[k],
                f"effect_there:{sample}": swapped_K[k] - empty_K[k],
            }
        rows.append(row)
    return pd.DataFrame(rows)
