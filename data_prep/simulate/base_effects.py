"""What the strongest substitution of every base does to every gene it reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.batching import batches
from data_prep.simulate.effects import Substitutions, substitution_channels
from data_prep.simulate.grammar import DISTAL, PROMOTER, C, distal_activity, promoter_response
from data_prep.simulate.layout import PROMOTER_UP, promoter_interval
from data_prep.simulate.truth import cell_columns
from data_prep.simulate.world import State, World, distal_codes, log_expression, promoter_codes

__all__ = ["NEGLIGIBLE", "base_effects", "merge_over_genes"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
NEGLIGIBLE = 1e-4


@dataclass(frozen=True, eq=False)
class _Extremes:
    """Per element and position, the lowest and highest change over substitutions."""

    element: Ints
    position: Ints
    low: Array
    high: Array


def base_effects(world: World, state: State) -> pd.DataFrame:
    """Return the effect of the strongest substitution of each base on each gene.

    Returns
    -------
    DataFrame
        gene (int32, row of the gene table), position (int64, 0-based, on the gene's contig),
        effect_<cell> (float32, change of natural-log expression of the substitution with the
        largest absolute change, with its sign). Rows are in order of gene and position; bases
        whose effect is below 1e-4 in every cell type are left out.
    """
    gene, position, effect = (
        np.concatenate(parts)
        for parts in zip(_promoter(world, state), _distal(world, state), strict=True)
    )
    kept = np.abs(effect).max(axis=1) >= NEGLIGIBLE
    order = np.lexsort([position[kept], gene[kept]])
    frame = pd.DataFrame(
        {"gene": gene[kept][order].astype(np.int32), "position": position[kept][order]}
    )
    frame[cell_columns("effect")] = effect[kept][order].astype(np.float32)
    return frame


def merge_over_genes(world: World, effects: pd.DataFrame) -> dict[str, tuple[Ints, Array]]:
    """Return per contig the positions and, per cell type, the largest absolute effect on any gene.

    Returns
    -------
    dict of (int64 array of shape (M,), float64 array of shape (M, C))
    """
    chrom = world.genes["chrom"].to_numpy()[effects["gene"]]
    absolute = np.abs(effects[cell_columns("effect")].to_numpy(dtype=np.float64))
    merged = {}
    for name in world.genome:
        rows = np.flatnonzero(chrom == name)
        position = effects["position"].to_numpy()[rows]
        unique, inverse = np.unique(position, return_inverse=True)
        largest = np.zeros((len(unique), C))
        np.maximum.at(largest, inverse, absolute[rows])
        merged[name] = (unique, largest)
    return merged


def _larger(low: Array, high: Array) -> Array:
    return np.where(np.abs(low) > np.abs(high), low, high)


def _extremes(found: Substitutions, change: Array, members: Ints) -> _Extremes:
    """Reduce substitutions (ordered by element and position) to one row per base."""
    if len(found.element) == 0:
        nothing = np.zeros(0, dtype=np.int64)
        return _Extremes(nothing, nothing, np.zeros((0, C)), np.zeros((0, C)))
    new = (np.diff(found.element) != 0) | (np.diff(found.position) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    low = np.minimum(np.minimum.reduceat(change, starts), 0.0)
    high = np.maximum(np.maximum.reduceat(change, starts), 0.0)
    return _Extremes(members[found.element[starts]], found.position[starts], low, high)


def _promoter(world: World, state: State) -> tuple[Ints, Ints, Array]:
    sequences = promoter_codes(world)
    parts = []
    for members, batch in batches(sequences):
        anchor = np.full(len(batch), PROMOTER_UP, dtype=np.int64)
        found = substitution_channels(PROMOTER, batch, anchor_E=anchor)
        rows = members[found.element]
        strength, response = promoter_response(state.promoter_z[rows] + found.change)
        changed = log_expression(strength, response, state.input_sum[rows])
        parts.append(_extremes(found, changed - state.expression[rows], members))
    gene = np.concatenate([part.element for part in parts])
    offset = np.concatenate([part.position for part in parts])
    effect = np.concatenate([_larger(part.low, part.high) for part in parts])
    tss, strand = world.genes["tss"].to_numpy(), world.genes["strand"].to_numpy()
    spans = np.array([promoter_interval(int(t), s) for t, s in zip(tss, strand, strict=True)])
    plus = strand[gene] == "+"
    position = np.where(plus, spans[gene, 0] + offset, spans[gene, 1] - 1 - offset)
    return gene, position, effect


def _distal(world: World, state: State) -> tuple[Ints, Ints, Array]:
    found = _distal_extremes(world, state)
    # Rows of one element are consecutive: repeat each block once per gene of the element.
    counts = np.bincount(found.element, minlength=len(world.elements))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    size = counts[world.pair_element]
    pair = np.repeat(np.arange(len(size)), size)
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    row = offsets[world.pair_element[pair]] + within
    gene = world.pair_gene[pair]
    contact = world.pair_contact[pair][:, None]
    start = world.elements["start"].to_numpy()[found.element[row]]
    effects = []
    for change in (found.low, found.high):
        total = np.maximum(state.input_sum[gene] + contact * change[row], 0.0)
        changed = log_expression(state.strength[gene], state.response[gene], total)
        effects.append(changed - state.expression[gene])
    return gene, start + found.position[row], _larger(effects[0], effects[1])


def _distal_extremes(world: World, state: State) -> _Extremes:
    sequences = distal_codes(world)
    parts = []
    for members, batch in batches(sequences):
        found = substitution_channels(DISTAL, batch)
        rows = members[found.element]
        changed = distal_activity(state.distal_z[rows] + found.change)
        part = _extremes(found, changed - state.activity[rows], members)
        moved = (np.abs(part.low) + np.abs(part.high)).max(axis=1) > 1e-9
        parts.append(
            _Extremes(part.element[moved], part.position[moved], part.low[moved], part.high[moved])
        )
    element = np.concatenate([part.element for part in parts])
    order = np.argsort(element, kind="stable")  # batches come by length, callers want element order
    return _Extremes(
        element[order],
        *(
            np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("position", "low", "high")
        ),
    )
