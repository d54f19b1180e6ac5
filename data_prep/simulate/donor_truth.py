"""Noise-free expression of haplotypes, and the effect of every variant alone.

An element is evaluated once for every distinct sequence that it has among the haplotypes, by the
same grammar as the reference.

Shapes: G genes, E distal elements, H haplotypes, D donors, M variants of a contig.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from data_prep.simulate.base_effects import NEGLIGIBLE
from data_prep.simulate.batching import channels_of
from data_prep.simulate.donor_variants import ContigVariants
from data_prep.simulate.grammar import DISTAL, PROMOTER, distal_activity, promoter_response
from data_prep.simulate.layout import promoter_interval
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY
from data_prep.simulate.world import Edit, State, World, apply_edits, log_expression
from seq2exp.core.sequence import encode, reverse_complement
from seq2exp.variation.alleles import Allele

__all__ = ["haplotype_expression", "variant_effects"]

Codes = NDArray[np.uint8]
Array = NDArray[np.float64]
_CELL = CELL_TYPES.index(PRIMARY)


def haplotype_expression(
    world: World,
    variants: Mapping[str, ContigVariants],
    alleles: Mapping[str, NDArray[np.bool_]],
    num_haplotypes: int,
) -> Array:
    """Return the natural log of expression of every gene on every haplotype, shape (G, H).

    Parameters
    ----------
    world : World
    variants : mapping of str to ContigVariants
    alleles : mapping of str to bool array, shape (H, M)
        Whether a haplotype carries ALT.
    num_haplotypes : int
    """
    places = _Places(world, variants)
    pieces, patterns = [], []
    for kind in ("distal", "promoter"):
        found: list[tuple[Codes, int]] = []
        pattern_EH = np.zeros((places.number(kind), num_haplotypes), dtype=np.int32)
        for row in range(places.number(kind)):
            chrom, inside = places.variants_of(kind, row)
            carried = alleles[chrom][:, inside] if chrom in alleles else None
            first = len(found)
            if carried is None or not carried.size:
                found.append(places.sequence(kind, row, []))
                pattern_EH[row] = first
                continue
            unique, inverse = np.unique(carried, axis=0, return_inverse=True)
            pattern_EH[row] = first + inverse.reshape(-1)
            for line in unique:
                chosen = [variants[chrom].alleles[i] for i in inside[line]]
                found.append(places.sequence(kind, row, chosen))
        pieces.append(found)
        patterns.append(pattern_EH)
    activity = distal_activity(channels_of(DISTAL, [piece for piece, _ in pieces[0]]))[:, _CELL]
    anchors = np.array([anchor for _, anchor in pieces[1]], dtype=np.int64)
    promoter_z = channels_of(PROMOTER, [piece for piece, _ in pieces[1]], anchors=anchors)
    strength, response = promoter_response(promoter_z)
    shape = (len(world.genes), len(world.elements))
    contact = sparse.csr_array((world.pair_contact, (world.pair_gene, world.pair_element)), shape)
    total_GH = contact @ activity[patterns[0]]
    return log_expression(strength[:, _CELL][patterns[1]], response[:, 0][patterns[1]], total_GH)


def variant_effects(
    world: World, state: State, variants: Mapping[str, ContigVariants]
) -> pd.DataFrame:
    """Return what each variant alone does to the reference haplotype.

    Returns
    -------
    DataFrame
        chrom, position (0-based), ref, alt, gene_id, planted (for this gene), effect (ALT minus
        REF, natural log of expression in the primary cell type); effects below 1e-4 are left out.
    """
    places = _Places(world, variants)
    rows: list[tuple[str, int, int, float]] = []
    for kind in ("distal", "promoter"):
        found, owners = [], []
        for row in range(places.number(kind)):
            chrom, inside = places.variants_of(kind, row)
            for index in inside.tolist():
                found.append(places.sequence(kind, row, [variants[chrom].alleles[index]]))
                owners.append((row, chrom, index))
        if found:
            rows += _alone(world, state, kind, found, owners)
    summed: dict[tuple[str, int, int], float] = {}
    for chrom, index, gene, effect in rows:
        # A variant in a promoter and an element of the gene is rare; the sum is close enough.
        summed[chrom, index, gene] = summed.get((chrom, index, gene), 0.0) + effect
    gene_id = world.genes["gene_id"].to_numpy()
    table = [
        (
            chrom,
            variants[chrom].alleles[index].position,
            variants[chrom].alleles[index].ref,
            variants[chrom].alleles[index].alt,
            gene_id[gene],
            bool(variants[chrom].planted_M[index] == gene),
            effect,
        )
        for (chrom, index, gene), effect in sorted(summed.items())
        if abs(effect) >= NEGLIGIBLE
    ]
    columns = ["chrom", "position", "ref", "alt", "gene_id", "planted", "effect"]
    return pd.DataFrame(table, columns=columns)


def _alone(
    world: World,
    state: State,
    kind: str,
    found: Sequence[tuple[Codes, int]],
    owners: Sequence[tuple[int, str, int]],
) -> list[tuple[str, int, int, float]]:
    pieces = [piece for piece, _ in found]
    if kind == "promoter":
        anchors = np.array([anchor for _, anchor in found], dtype=np.int64)
        strength, response = promoter_response(channels_of(PROMOTER, pieces, anchors=anchors))
        genes = np.array([row for row, _, _ in owners])
        value = log_expression(strength, response, state.input_sum[genes])[:, _CELL]
        effect = value - state.expression[genes, _CELL]
        return [
            (chrom, index, row, float(change))
            for (row, chrom, index), change in zip(owners, effect, strict=True)
        ]
    activity = distal_activity(channels_of(DISTAL, pieces))[:, _CELL]
    pairs = pd.Series(np.arange(len(world.pair_element))).groupby(world.pair_element).indices
    rows = []
    for (element, chrom, index), new in zip(owners, activity, strict=True):
        change = new - state.activity[element, _CELL]
        for pair in pairs.get(element, ()) if change else ():
            gene = int(world.pair_gene[pair])
            total = max(state.input_sum[gene, _CELL] + world.pair_contact[pair] * change, 0.0)
            value = log_expression(
                state.strength[gene, _CELL], state.response[gene, 0], np.asarray(total)
            )
            rows.append((chrom, index, gene, float(value - state.expression[gene, _CELL])))
    return rows


class _Places:
    """Where elements and promoters lie, and their sequences with chosen variants."""

    def __init__(self, world: World, variants: Mapping[str, ContigVariants]) -> None:
        self.world = world
        elements, genes = world.elements, world.genes
        self.chroms = {
            "distal": elements["chrom"].astype(str).tolist(),
            "promoter": genes["chrom"].astype(str).tolist(),
        }
        self.spans = {
            "distal": list(zip(elements["start"], elements["end"], strict=True)),
            "promoter": [
                promoter_interval(int(tss), strand)
                for tss, strand in zip(genes["tss"], genes["strand"], strict=True)
            ],
        }
        self.tss, self.strand = genes["tss"].to_numpy(), genes["strand"].to_numpy()
        self.starts = {chrom: found.position_M for chrom, found in variants.items()}
        self.ends = {
            chrom: np.array([a.position + len(a.ref) for a in found.alleles], dtype=np.int64)
            for chrom, found in variants.items()
        }

    def number(self, kind: str) -> int:
        return len(self.spans[kind])

    def variants_of(self, kind: str, row: int) -> tuple[str, NDArray[np.int64]]:
        """Return the contig and the indices of variants whose REF touches the element.

        Variants never overlap, so their ends are in order too. One that only shares its anchor
        with the element changes nothing there.
        """
        chrom = self.chroms[kind][row]
        if chrom not in self.starts:
            return chrom, np.empty(0, dtype=np.int64)
        start, end = self.spans[kind][row]
        first = np.searchsorted(self.ends[chrom], start, side="right")
        last = np.searchsorted(self.starts[chrom], end, side="left")
        return chrom, np.arange(first, last, dtype=np.int64)

    def sequence(self, kind: str, row: int, alleles: Sequence[Allele]) -> tuple[Codes, int]:
        """Return the sequence as the grammar reads it, and the index of the TSS in it."""
        chrom, (start, end) = self.chroms[kind][row], self.spans[kind][row]
        edits = [_edit(chrom, allele) for allele in alleles]
        codes = self.world.genome[chrom]
        if kind == "distal":
            return apply_edits(codes, int(start), int(end), edits)
        piece, anchor = apply_edits(codes, int(start), int(end), edits, mark=int(self.tss[row]))
        if self.strand[row] == "-":
            return reverse_complement(piece), len(piece) - 1 - anchor
        return piece, anchor


def _edit(chrom: str, allele: Allele) -> Edit:
    """Return the edit without the anchor base that VCF writes before insertions and deletions."""
    shared = int(len(allele.ref) != len(allele.alt) and allele.ref[0] == allele.alt[0])
    start = allele.position + shared
    return Edit(chrom, start, allele.position + len(allele.ref), encode(allele.alt[shared:]))
