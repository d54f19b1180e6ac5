"""Haplotypes of two related populations: genealogies, founders, and donors as mosaics of founders.

A stretch of the genome has one genealogy, drawn from the structured coalescent: within a
population lineages join at rate k (k - 1) / 2, before the split all are one population. Mutations
fall on branches in proportion to their lengths, so frequencies have the neutral spectrum and
variants of a stretch are linked. Founder 0 is the reference genome itself. A donor's haplotype
copies one founder of its population at a time and changes to another at random places.

Shapes: F founders of both populations, B branches of a genealogy, M variants, H haplotypes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Genealogy", "draw_genealogy", "mosaic", "stretches"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Genealogy:
    """The branches of one tree.

    Attributes
    ----------
    carriers_BF : bool array, shape (B, F)
        Founders below each branch.
    length_B : float64 array, shape (B,)
        In units of 2N generations.
    """

    carriers_BF: Bools
    length_B: NDArray[np.float64]

    def frequency_B(self) -> NDArray[np.float64]:
        """Share of founders below each branch."""
        share: NDArray[np.float64] = self.carriers_BF.mean(axis=1)
        return share


def draw_genealogy(
    founders: tuple[int, int], split: float, random: np.random.Generator
) -> Genealogy:
    """Draw a tree of two populations that were one before the time ``split``.

    Parameters
    ----------
    founders : (int, int)
        Founders of the first and of the second population; the second may have none.
    split : float
        Time since the populations parted, in units of 2N generations.
    random : Generator
    """
    total = sum(founders)
    below = [np.eye(total, dtype=bool)[row] for row in range(total)]
    born = [0.0] * total
    demes = [list(range(founders[0])), list(range(founders[0], total))]
    carriers, lengths, now = [], [], 0.0
    apart = bool(founders[1])
    while True:
        rates = [len(deme) * (len(deme) - 1) / 2 for deme in demes]
        wait = random.exponential(1 / sum(rates)) if sum(rates) else np.inf
        if apart and now + wait >= split:
            # Waiting has no memory, so what was drawn across the split is drawn again.
            demes, now, apart = [demes[0] + demes[1], []], split, False
            continue
        if not sum(rates):
            break
        now += wait
        deme = demes[int(random.random() * sum(rates) >= rates[0])]
        pair = random.choice(len(deme), size=2, replace=False)
        joined = [deme[index] for index in pair]
        for node in joined:
            deme.remove(node)
            carriers.append(below[node])
            lengths.append(now - born[node])
        below.append(below[joined[0]] | below[joined[1]])
        born.append(now)
        deme.append(len(below) - 1)
    return Genealogy(np.array(carriers), np.array(lengths))


def stretches(length: int, mean: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Cut a contig into stretches of one genealogy: edges, from 0 to ``length``.

    Lengths are gamma distributed with shape 2 around ``mean`` bases.
    """
    drawn = random.gamma(2.0, mean / 2, size=2 * length // mean + 20)
    inner = np.cumsum(np.maximum(drawn, 1)).astype(np.int64)
    return np.concatenate(([0], inner[inner < length], [length]))


def mosaic(
    carried_MF: Bools,
    position_M: NDArray[np.int64],
    founders: NDArray[np.int64],
    num_haplotypes: int,
    *,
    switch_bp: float,
    random: np.random.Generator,
) -> Bools:
    """Return the alleles of haplotypes that copy founders piece by piece, shape (H, M).

    Parameters
    ----------
    carried_MF : bool array, shape (M, F)
        Which founder carries ALT.
    position_M : int64 array, shape (M,)
        Sorted positions on one contig.
    founders : int64 array
        Those that may be copied, columns of ``carried_MF``.
    num_haplotypes : int
    switch_bp : float
        Mean bases between changes of founder.
    random : Generator
    """
    end = float(position_M[-1]) + 1 if len(position_M) else 1.0
    alleles_HM = np.zeros((num_haplotypes, len(position_M)), dtype=bool)
    for haplotype in alleles_HM:
        breaks = np.sort(random.random(random.poisson(end / switch_bp))) * end
        copied = random.choice(founders, size=len(breaks) + 1)
        piece_M = np.searchsorted(breaks, position_M, side="right")
        haplotype[:] = carried_MF[np.arange(len(position_M)), copied[piece_M]]
    return alleles_HM
