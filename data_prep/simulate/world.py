"""The simulated world: genome, genes, elements, contacts, and the map from sequence to expression.

``World.expression`` is the truth without noise; ``expression_of`` re-evaluates it for an edited
genome (used for variants and donors), touching only the elements that the edits hit.

Shapes: G genes, E distal elements, J pairs of a gene and a distal element, C cell types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.batching import channels_of
from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.grammar import (
    DISTAL,
    PROMOTER,
    distal_activity,
    promoter_response,
)
from data_prep.simulate.layout import PROMOTER_UP, promoter_interval
from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import reverse_complement

__all__ = [
    "DISTAL_GAIN",
    "Edit",
    "State",
    "World",
    "distal_codes",
    "evaluate",
    "expression_of",
    "log_expression",
    "promoter_codes",
]

Codes = NDArray[np.uint8]
Array = NDArray[np.float64]
DISTAL_GAIN = 4.0


@dataclass(frozen=True)
class Edit:
    """Replace genome bases [start, end) by ``codes``; start == end inserts.

    Parameters
    ----------
    chrom : str
    start, end : int
        0-based half-open, reference coordinates.
    codes : uint8 array
        New bases; empty deletes.
    """

    chrom: str
    start: int
    end: int
    codes: Codes


@dataclass(frozen=True, eq=False)
class World:
    """Everything the truth is computed from.

    Parameters
    ----------
    config : SimulationConfig
    genome : dict of uint8 arrays
        Base codes per contig.
    genes : DataFrame
        gene_id, symbol, chrom, tss, strand, start, end, cpg_island.
    elements : DataFrame
        Distal elements: element_id, chrom, start, end, kind, subkind, home.
    pair_gene, pair_element : int64 arrays, shape (J,)
        Rows of ``genes`` and ``elements`` within reach of each other.
    pair_contact : float64 array, shape (J,)
        True contact of the pair.
    """

    config: SimulationConfig
    genome: dict[str, Codes]
    genes: pd.DataFrame
    elements: pd.DataFrame
    pair_gene: NDArray[np.int64]
    pair_element: NDArray[np.int64]
    pair_contact: Array


@dataclass(frozen=True, eq=False)
class State:
    """What the model says about a world.

    Parameters
    ----------
    distal_z : float64 array, shape (E, 4 C)
        Channels of distal elements.
    activity : float64 array, shape (E, C)
    promoter_z : float64 array, shape (G, C + 1)
    strength : float64 array, shape (G, C)
        Promoter strength, log units.
    response : float64 array, shape (G, 1)
        Responsiveness of the promoter to enhancers.
    input_sum : float64 array, shape (G, C)
        Sum over elements of contact times activity.
    expression : float64 array, shape (G, C)
        Natural log of expression, without noise.
    """

    distal_z: Array
    activity: Array
    promoter_z: Array
    strength: Array
    response: Array
    input_sum: Array
    expression: Array


def log_expression(strength: Array, response: Array, input_sum: Array) -> Array:
    """Return ``p + log(1 + 4 r S)``, the natural log of expression without noise."""
    return strength + np.log1p(DISTAL_GAIN * response * input_sum)


def distal_codes(world: World, rows: NDArray[np.int64] | None = None) -> list[Codes]:
    """Return the plus-strand sequences of distal elements."""
    table = world.elements if rows is None else world.elements.iloc[rows]
    places = table[["chrom", "start", "end"]].itertuples(index=False)
    return [world.genome[str(chrom)][start:end] for chrom, start, end in places]


def promoter_codes(world: World, rows: NDArray[np.int64] | None = None) -> list[Codes]:
    """Return the promoter sequences [-250, +50), in the direction of transcription."""
    table = world.genes if rows is None else world.genes.iloc[rows]
    found = []
    for chrom, tss, strand in table[["chrom", "tss", "strand"]].itertuples(index=False):
        start, end = promoter_interval(tss, strand)
        codes = world.genome[str(chrom)][start:end]
        found.append(codes if strand == "+" else reverse_complement(codes))
    return found


def evaluate(world: World) -> State:
    """Return the model's state for the reference genome of a world."""
    distal_z = channels_of(DISTAL, distal_codes(world))
    anchors = np.full(len(world.genes), PROMOTER_UP, dtype=np.int64)
    promoter_z = channels_of(PROMOTER, promoter_codes(world), anchors=anchors)
    return _state(world, distal_z, promoter_z)


def _state(world: World, distal_z: Array, promoter_z: Array) -> State:
    activity = distal_activity(distal_z)
    strength, response = promoter_response(promoter_z)
    input_sum = np.zeros_like(strength)
    flow = world.pair_contact[:, None] * activity[world.pair_element]
    np.add.at(input_sum, world.pair_gene, flow)
    expression = log_expression(strength, response, input_sum)
    return State(distal_z, activity, promoter_z, strength, response, input_sum, expression)


def expression_of(world: World, edits: Sequence[Edit], *, reference: State | None = None) -> Array:
    """Return the noise-free log expression of every gene after editing the genome.

    Only elements and promoters that an edit touches are evaluated again. Elements keep their
    contact: an insertion or deletion between element and TSS has no effect of its own.

    Parameters
    ----------
    world : World
    edits : sequence of Edit
        One haplotype's edits in reference coordinates; they must not overlap.
    reference : State, optional
        ``evaluate(world)``, to save its computation.

    Returns
    -------
    float64 array, shape (G, C)
        Natural log units. Rows are ``world.genes``, columns ``CELL_TYPES``.

    Raises
    ------
    InputError
        Two edits overlap, or an edit lies outside its contig.
    """
    state = evaluate(world) if reference is None else reference
    per_chrom = _sorted_edits(world, edits)
    distal_z, promoter_z = state.distal_z.copy(), state.promoter_z.copy()
    for chrom, found in per_chrom.items():
        table = world.elements
        rows = _touched(chrom, found, table["chrom"], table["start"], table["end"])
        if rows.size:
            pieces = [
                apply_edits(world.genome[chrom], s, e, found)[0]
                for s, e in zip(table["start"].iloc[rows], table["end"].iloc[rows], strict=True)
            ]
            distal_z[rows] = channels_of(DISTAL, pieces)
        _update_promoters(world, chrom, found, promoter_z)
    return _state(world, distal_z, promoter_z).expression


def _update_promoters(world: World, chrom: str, edits: list[Edit], promoter_z: Array) -> None:
    genes = world.genes
    spans = np.array(
        [promoter_interval(t, s) for t, s in zip(genes["tss"], genes["strand"], strict=True)]
    ).reshape(-1, 2)
    rows = _touched(chrom, edits, genes["chrom"], pd.Series(spans[:, 0]), pd.Series(spans[:, 1]))
    pieces, anchors = [], []
    for row in rows:
        start, end = spans[row]
        tss, strand = int(genes["tss"].iloc[row]), genes["strand"].iloc[row]
        piece, anchor = apply_edits(world.genome[chrom], int(start), int(end), edits, mark=tss)
        if strand == "-":
            piece, anchor = reverse_complement(piece), len(piece) - 1 - anchor
        pieces.append(piece)
        anchors.append(anchor)
    if pieces:
        promoter_z[rows] = channels_of(PROMOTER, pieces, anchors=np.array(anchors, dtype=np.int64))


def _sorted_edits(world: World, edits: Sequence[Edit]) -> dict[str, list[Edit]]:
    per_chrom: dict[str, list[Edit]] = {}
    for edit in edits:
        contig = world.genome.get(edit.chrom)
        if contig is None or not 0 <= edit.start <= edit.end <= len(contig):
            raise InputError(
                facts(
                    "edit of the simulated genome",
                    found=f"{edit.chrom}:{edit.start}-{edit.end}",
                    expected="an interval inside a simulated contig",
                    fix="use the contigs of genome.fa and 0-based half-open positions",
                )
            )
        per_chrom.setdefault(edit.chrom, []).append(edit)
    for chrom, found in per_chrom.items():
        found.sort(key=lambda edit: (edit.start, edit.end))
        for first, second in pairwise(found):
            if second.start < first.end:
                raise InputError(
                    facts(
                        "edits of the simulated genome",
                        found=f"overlap at {chrom}:{second.start}",
                        expected="edits that do not overlap",
                        fix="merge overlapping edits before evaluating a haplotype",
                    )
                )
    return per_chrom


def _touched(
    chrom: str, edits: list[Edit], chroms: pd.Series, starts: pd.Series, ends: pd.Series
) -> NDArray[np.int64]:
    rows = np.flatnonzero((chroms == chrom).to_numpy())
    first, last = starts.to_numpy()[rows], ends.to_numpy()[rows]
    hit = np.zeros(len(rows), dtype=bool)
    for edit in edits:
        if edit.start == edit.end:  # an insertion at a border lies outside
            hit |= (first < edit.start) & (edit.start < last)
        else:
            hit |= (first < edit.end) & (edit.start < last)
    return rows[hit]


def apply_edits(
    codes: Codes, start: int, end: int, edits: list[Edit], *, mark: int | None = None
) -> tuple[Codes, int]:
    """Return the sequence of [start, end) after sorted edits, and where base ``mark`` went.

    An edit that reaches over the border of the interval contributes the new bases that lie at or
    after ``start``; a deleted ``mark`` moves to the first base after the deletion.
    """
    pieces: list[Codes] = []
    cursor, moved = start, 0 if mark is None else mark - start
    for edit in edits:
        inside = start < edit.start < end if edit.start == edit.end else edit.start < end
        if not inside or edit.end <= start:
            continue
        low, high = max(edit.start, start), min(edit.end, end)
        pieces.extend([codes[cursor:low], _inside(edit, start, end)])
        change = len(pieces[-1]) - (high - low)
        if mark is not None and high <= mark:
            moved += change
        elif mark is not None and low <= mark < high:
            moved = sum(len(p) for p in pieces[:-1]) + min(mark - low, max(len(pieces[-1]) - 1, 0))
        cursor = high
    pieces.append(codes[cursor:end])
    return np.concatenate(pieces), moved


def _inside(edit: Edit, start: int, end: int) -> Codes:
    """Return the new bases of an edit that fall inside [start, end), aligned to its left end."""
    skip = max(0, start - edit.start)
    keep = len(edit.codes) - skip if edit.end <= end else end - max(edit.start, start)
    return edit.codes[skip:][: max(0, keep)]
