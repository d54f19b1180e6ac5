"""The effect of every base: all single-base substitutions of all elements, exactly and fast.

A channel is linear in occupancies, and sites of one pair never overlap, so a substitution changes
a channel by the change of occupancy of the few sites it overlaps, times their weight and the
field of their partners. Only windows that one substitution can lift above the occupancy floor are
visited.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.simulate.grammar import (
    OCCUPANCY_MARGIN,
    OCCUPANCY_WIDTH,
    Grammar,
    occupancy,
    partner_field,
    position_weight,
    scan_all,
    site_occupancies,
)
from data_prep.simulate.motifs import MOTIF_INDEX, MOTIFS

__all__ = ["Substitutions", "substitution_channels"]

Codes = NDArray[np.uint8]
Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Substitutions:
    """Substitutions that change at least one channel.

    Parameters
    ----------
    element : int64 array, shape (M,)
        Row of the batch.
    position : int64 array, shape (M,)
        Index in the sequence.
    base : int64 array, shape (M,)
        Code of the new base.
    change : float64 array, shape (M, K)
        New minus old channels.
    """

    element: NDArray[np.int64]
    position: NDArray[np.int64]
    base: NDArray[np.int64]
    change: NDArray[np.float64]


def substitution_channels(
    grammar: Grammar, codes_EL: Codes, *, anchor_E: NDArray[np.int64] | None = None
) -> Substitutions:
    """Return the change of channels for every substitution that has one.

    Parameters
    ----------
    grammar : Grammar
    codes_EL : uint8 array, shape (E, L)
        Base codes, padded with N; N is never substituted.
    anchor_E : int64 array, shape (E,), optional
        Index of the TSS base; promoters need it.

    Returns
    -------
    Substitutions
        Ordered by element, position and base.
    """
    length = codes_EL.shape[1]
    scores = scan_all(grammar, codes_EL)
    stranded = site_occupancies(scores)
    keys, changes = [], []
    for index in grammar.motifs:
        sites = _changed_sites(codes_EL, index, scores[index])
        if grammar.positioned:
            if anchor_E is None:
                raise TypeError("a promoter grammar needs anchor_E")
            weight = position_weight(index, length, anchor_E)[sites.element, sites.start]
        else:
            weight = np.ones(len(sites.element), dtype=np.float32)
        change = (sites.best * weight)[:, None] * grammar.linear[index]
        change += _pair_change(grammar, index, stranded, sites)
        keys.append((sites.element * length + sites.position) * 4 + sites.base)
        changes.append(change)
    key, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    stacked = np.concatenate(changes)
    summed = np.stack(
        [
            np.bincount(inverse, weights=stacked[:, k], minlength=len(key))
            for k in range(stacked.shape[1])
        ],
        axis=1,
    ).astype(np.float64)
    return Substitutions(key // (4 * length), key // 4 % length, key % 4, summed)


@dataclass(frozen=True, eq=False)
class _Sites:
    """One row per (site, substitution inside it) whose occupancy changes."""

    element: NDArray[np.int64]
    start: NDArray[np.int64]
    position: NDArray[np.int64]
    base: NDArray[np.int64]
    forward: Float
    reverse: Float
    best: Float


def _changed_sites(codes_EL: Codes, index: int, strands: tuple[Float, Float]) -> _Sites:
    motif = MOTIFS[index]
    forward, reverse = strands
    table = motif.log_odds
    gain = float((table[:, :4].max(axis=1) - table[:, :4].min(axis=1)).max())
    floor = motif.max_score - OCCUPANCY_MARGIN - 3.0 * OCCUPANCY_WIDTH
    # N columns score -20, so a window that holds N can never come near the floor.
    element, start = np.nonzero(np.maximum(forward, reverse) > floor - gain)
    column = np.arange(motif.width)
    old_MW = codes_EL[element[:, None], start[:, None] + column]
    shifted = []
    for score, lookup in ((forward, table), (reverse, table[::-1][:, [3, 2, 1, 0, 4]])):
        delta = lookup[None, :, :4] - lookup[column[None, :], old_MW][:, :, None]
        shifted.append((score[element, start][:, None, None], delta))
    values = []
    for before, delta in shifted:
        values.append(occupancy(before + delta, motif) - occupancy(before, motif))
    old = [occupancy(before, motif) for before, _ in shifted]
    best = np.maximum(old[0] + values[0], old[1] + values[1]) - np.maximum(old[0], old[1])
    if motif.stranded:
        best = values[0]
    site, where, base = np.nonzero((values[0] != 0) | (values[1] != 0))
    pick = (site, where, base)
    return _Sites(
        element[site].astype(np.int64),
        start[site].astype(np.int64),
        (start[site] + where).astype(np.int64),
        base.astype(np.int64),
        values[0][pick],
        values[1][pick],
        best[pick],
    )


def _pair_change(
    grammar: Grammar, index: int, stranded: dict[int, tuple[Float, Float]], sites: _Sites
) -> NDArray[np.float64]:
    total = np.zeros((len(sites.element), grammar.linear.shape[1]))
    for rule, feed in grammar.pairs:
        for name, of_upstream in ((rule.upstream, True), (rule.downstream, False)):
            if MOTIF_INDEX[name] != index:
                continue
            forward, reverse = partner_field(rule, stranded, of_upstream=of_upstream)
            at = (sites.element, sites.start)
            amount = sites.forward * forward[at] + sites.reverse * reverse[at]
            total += amount[:, None].astype(np.float64) * feed
    return total
