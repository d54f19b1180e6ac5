"""Variants of a simulated population: neutral ones, and some planted into the sites of elements.

Founder 0 is the reference genome, so an allele that it shares is REF and the others carry ALT.

Shapes: F founders, M variants of a contig, C cell types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.simulate.base_effects import NEGLIGIBLE
from data_prep.simulate.batching import batches
from data_prep.simulate.donor_config import DonorConfig
from data_prep.simulate.effects import substitution_channels
from data_prep.simulate.grammar import DISTAL, PROMOTER, distal_activity, promoter_response
from data_prep.simulate.layout import PROMOTER_UP, promoter_interval
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY
from data_prep.simulate.population import Genealogy, draw_genealogy, stretches
from data_prep.simulate.world import State, World, distal_codes, log_expression, promoter_codes
from seq2exp.core.sequence import N_CODE, decode
from seq2exp.variation.alleles import Allele, normalise

__all__ = ["ContigVariants", "Planted", "draw_variants", "plant"]

Codes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
# Substitutions between A and G or C and T are about twice as frequent as all others together.
_TRANSITION = 2 / 3
_INDEL_STOP = 0.35


@dataclass(frozen=True, eq=False)
class ContigVariants:
    """Variants of one contig in order of position; none overlaps or touches another.

    Attributes
    ----------
    alleles : list of Allele
        Normalised, shape (M,).
    carried_MF : bool array, shape (M, F)
        Founders with ALT.
    planted_M : int64 array, shape (M,)
        Row of the gene that a variant was planted for, -1 for neutral ones.
    """

    alleles: list[Allele]
    carried_MF: Bools
    planted_M: NDArray[np.int64]

    @property
    def position_M(self) -> NDArray[np.int64]:
        """0-based position of the first base of REF, shape (M,)."""
        return np.array([allele.position for allele in self.alleles], dtype=np.int64)


@dataclass(frozen=True)
class Planted:
    """A substitution to be made for a gene."""

    gene: int
    chrom: str
    position: int
    base: int


@dataclass(frozen=True, eq=False)
class _Substitutions:
    """All substitutions of some elements, ordered by element."""

    first: NDArray[np.int64]
    position: NDArray[np.int64]
    base: NDArray[np.int64]
    change: NDArray[np.float64]

    def of(self, element: int) -> slice:
        return slice(int(self.first[element]), int(self.first[element + 1]))


def plant(
    world: World, state: State, config: DonorConfig, random: np.random.Generator
) -> list[Planted]:
    """Choose substitutions that change the expression of their gene, up or down.

    Every gene gets a Poisson number of those whose effect on one haplotype, in the primary cell
    type, is at least ``config.causal_effect``.
    """
    cell = CELL_TYPES.index(PRIMARY)
    distal, promoter = _distal(world, state), _promoter(world, state)
    starts = world.elements["start"].to_numpy()
    order = np.argsort(world.pair_gene, kind="stable")
    first = np.searchsorted(world.pair_gene[order], np.arange(len(world.genes) + 1))
    chosen = []
    for gene, chrom in enumerate(world.genes["chrom"]):
        effects, places, bases = [], [], []
        own = promoter.of(gene)
        effects.append(promoter.change[own, cell])
        places.append(promoter.position[own])
        bases.append(promoter.base[own])
        for pair in order[first[gene] : first[gene + 1]]:
            element = int(world.pair_element[pair])
            inside = distal.of(element)
            changed = state.input_sum[gene] + world.pair_contact[pair] * distal.change[inside]
            value = log_expression(
                state.strength[gene], state.response[gene], np.maximum(changed, 0.0)
            )
            effects.append(value[:, cell] - state.expression[gene, cell])
            places.append(starts[element] + distal.position[inside])
            bases.append(distal.base[inside])
        effect, place, base = (np.concatenate(part) for part in (effects, places, bases))
        fine = np.flatnonzero(np.abs(effect) >= max(config.causal_effect, NEGLIGIBLE))
        wanted = min(int(random.poisson(config.causal_per_gene)), len(fine))
        rows = random.choice(fine, size=wanted, replace=False) if wanted else fine[:0]
        chosen += [Planted(gene, str(chrom), int(place[row]), int(base[row])) for row in rows]
    return chosen


def _distal(world: World, state: State) -> _Substitutions:
    """Return changes of activity, shape (rows, C), at positions inside the element."""
    parts = []
    for members, batch in batches(distal_codes(world)):
        found = substitution_channels(DISTAL, batch)
        rows = members[found.element]
        change = distal_activity(state.distal_z[rows] + found.change) - state.activity[rows]
        parts.append((rows, found.position, found.base, change))
    return _ordered(parts, len(world.elements))


def _promoter(world: World, state: State) -> _Substitutions:
    """Return changes of log expression, shape (rows, C), at genome positions and bases."""
    tss, strand = world.genes["tss"].to_numpy(), world.genes["strand"].to_numpy()
    spans = np.array([promoter_interval(int(t), s) for t, s in zip(tss, strand, strict=True)])
    parts = []
    for members, batch in batches(promoter_codes(world)):
        anchor = np.full(len(batch), PROMOTER_UP, dtype=np.int64)
        found = substitution_channels(PROMOTER, batch, anchor_E=anchor)
        rows = members[found.element]
        strength, response = promoter_response(state.promoter_z[rows] + found.change)
        value = log_expression(strength, response, state.input_sum[rows])
        minus = strand[rows] == "-"
        position = np.where(
            minus, spans[rows, 1] - 1 - found.position, spans[rows, 0] + found.position
        )
        base = np.where(minus, 3 - found.base, found.base)
        parts.append((rows, position, base, value - state.expression[rows]))
    return _ordered(parts, len(world.genes))


def _ordered(parts: Sequence[tuple[NDArray[Any], ...]], num_elements: int) -> _Substitutions:
    element, position, base, change = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.argsort(element, kind="stable")
    first = np.searchsorted(element[order], np.arange(num_elements + 1))
    return _Substitutions(first, position[order], base[order], change[order])


def draw_variants(
    codes: Codes,
    planted: list[Planted],
    config: DonorConfig,
    random: np.random.Generator,
) -> ContigVariants:
    """Draw genealogies along one contig and the variants on them.

    Parameters
    ----------
    codes : uint8 array, shape (contig_length,)
    planted : list of Planted
        Of this contig. They come before neutral variants where both want a place.
    config : DonorConfig
    random : Generator
    """
    founders = (config.founders, config.founders if config.num_second else 0)
    edges = stretches(len(codes), config.block_bp, random)
    by_block: dict[int, list[Planted]] = {}
    for item in planted:
        block = int(np.searchsorted(edges, item.position, side="right")) - 1
        by_block.setdefault(block, []).append(item)
    taken = codes == N_CODE
    kept: list[tuple[Allele, Bools, int]] = []
    for block, (start, end) in enumerate(pairwise(edges.tolist())):
        tree = draw_genealogy(founders, config.split_time, random)
        drawn = [
            *_causal(codes, by_block.get(block, []), tree, config, random),
            *_neutral(codes, start, end, tree, config, random),
        ]
        for allele, carried, gene in drawn:
            # A base apart, so that no two are one variant in another notation.
            span = slice(max(allele.position - 1, 0), allele.position + len(allele.ref) + 1)
            if not taken[span].any():
                taken[span] = True
                kept.append((allele, carried, gene))
    kept.sort(key=lambda row: row[0].position)
    return ContigVariants(
        [row[0] for row in kept],
        np.array([row[1] for row in kept], dtype=bool).reshape(len(kept), sum(founders)),
        np.array([row[2] for row in kept], dtype=np.int64),
    )


def _causal(
    codes: Codes,
    planted: list[Planted],
    tree: Genealogy,
    config: DonorConfig,
    random: np.random.Generator,
) -> Iterator[tuple[Allele, Bools, int]]:
    share = tree.frequency_B()
    common = np.flatnonzero(np.minimum(share, 1 - share) >= config.causal_frequency)
    for item in planted if len(common) else ():
        branch = int(random.choice(common))
        if random.random() < config.indel_share:
            allele = _deletion(codes, item.position - 1, int(random.integers(1, 5)))
        else:
            ref = decode(codes[item.position : item.position + 1])
            allele = Allele(item.position, ref, "ACGT"[item.base])
        if allele is not None:
            yield allele, _not_reference(tree.carriers_BF[branch]), item.gene


def _neutral(
    codes: Codes,
    start: int,
    end: int,
    tree: Genealogy,
    config: DonorConfig,
    random: np.random.Generator,
) -> Iterator[tuple[Allele, Bools, int]]:
    total = tree.length_B.sum()
    # Two founders differ by 2 x (their time to a common ancestor, 1 on average) x rate.
    number = random.poisson(config.diversity / 2 * total * (end - start))
    branches = random.choice(len(tree.length_B), size=number, p=tree.length_B / total)
    places = random.integers(start, end, size=number)
    for place, branch in zip(places.tolist(), branches.tolist(), strict=True):
        if random.random() < config.indel_share:
            allele = _indel(codes, place, config.max_indel, random)
        else:
            allele = _substitution(codes, place, random)
        if allele is not None:
            yield allele, _not_reference(tree.carriers_BF[branch]), -1


def _not_reference(carriers_F: Bools) -> Bools:
    return ~carriers_F if carriers_F[0] else carriers_F


def _substitution(codes: Codes, place: int, random: np.random.Generator) -> Allele | None:
    base = int(codes[place])
    if base == N_CODE:
        return None
    # Codes A0 C1 G2 T3: two apart is the transition.
    step = 2 if random.random() < _TRANSITION else int(random.choice([1, 3]))
    return Allele(place, "ACGT"[base], "ACGT"[(base + step) % 4])


def _indel(codes: Codes, place: int, longest: int, random: np.random.Generator) -> Allele | None:
    size = min(int(random.geometric(_INDEL_STOP)), longest)
    if random.random() < 0.5:
        return _deletion(codes, place, size)
    copied = codes[place + 1 : place + 1 + size]
    # Half of the insertions repeat what follows, as slippage does.
    new = copied if random.random() < 0.5 else random.integers(0, 4, size=size, dtype=np.uint8)
    if N_CODE in (*new.tolist(), int(codes[place])) or len(new) < size:
        return None
    anchor = decode(codes[place : place + 1])
    return normalise(Allele(place, anchor, anchor + decode(new)), codes)


def _deletion(codes: Codes, place: int, size: int) -> Allele | None:
    span = codes[max(place, 0) : place + 1 + size]
    if place < 0 or len(span) < size + 1 or (span == N_CODE).any():
        return None
    return normalise(Allele(place, decode(span), decode(span[:1])), codes)
