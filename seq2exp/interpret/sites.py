"""Which stretches of which genes are tested: called elements, and decoys matched to them.

A decoy lies in the window of the same gene, has the length of its element and about its distance
from the TSS, and touches no called element, no promoter, no excluded region and hardly any N.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.edits import GeneWindow, Span

__all__ = ["OK", "choose_genes", "decoys", "place"]

OK = "ok"
_FACTOR = 1.5
_NEAR_BP = 1000
_MAX_N = 0.1


def choose_genes(
    elements: pd.DataFrame,
    dataset: Dataset,
    *,
    split: str,
    genes: Sequence[str] = (),
    max_genes: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the rows of the genes to test, ascending.

    Parameters
    ----------
    elements : DataFrame
        Called ones; genes without a distal element are left out.
    dataset : Dataset
    split : str
        Split of the genes; without effect when genes are named.
    genes : sequence of str
        Ids or symbols.
    max_genes : int, optional
        Of more genes, so many are drawn at random.
    seed : int

    Raises
    ------
    InputError
        A gene is unknown, or none has an element.
    """
    table = dataset.genes
    rows = dataset.find_genes(genes, what="--genes") if genes else dataset.gene_rows((split,))
    distal = set(elements.loc[elements["element_class"] != "promoter", "gene_id"].astype(str))
    with_any = rows[table["gene_id"].astype(str).iloc[rows].isin(distal).to_numpy()]
    if with_any.size == 0:
        raise InputError(
            facts(
                "genes to check",
                found=f"{rows.size} genes without a called distal element",
                expected="at least one gene with an element",
                fix="choose another --split or --genes, or call more elements",
            )
        )
    if max_genes is not None and with_any.size > max_genes:
        with_any = np.random.default_rng(seed).choice(with_any, max_genes, replace=False)
    return np.unique(with_any)


def place(gene: GeneWindow, start: int, end: int) -> tuple[Span, str]:
    """Return an interval of the genome as bases of the window, and whether it can be tested.

    The status is ``ok``, ``outside`` (not wholly in the window or its contig), ``promoter`` (it
    touches what is never destroyed), or ``unknown bases`` (more than half of it is N).
    """
    span = gene.to_model(start, end)
    window = gene.window
    if span[0] < 0 or span[1] > gene.length or start < 0 or end > window.contig_length:
        return span, "outside"
    if span[0] < gene.promoter[1] and span[1] > gene.promoter[0]:
        return span, "promoter"
    if (gene.reference.codes[slice(*span)] == N_CODE).mean() > 0.5:
        return span, "unknown bases"
    return span, OK


def decoys(
    gene: GeneWindow,
    spans: Sequence[Span],
    *,
    per_site: int,
    taken: Sequence[Span] = (),
    seed: int = 0,
) -> list[list[Span]]:
    """Draw stretches that are no called element, matched to each of the spans.

    A decoy begins as many bases after the edge of a bin as its element does. Its distance from the
    TSS is that of the element within a factor of 1.5 or 1 kb; where there is no such room, the
    nearest free place in distance. Decoys of a gene do not overlap.

    Parameters
    ----------
    gene : GeneWindow
    spans : sequence of (start, stop)
        Elements to match, in model direction.
    per_site : int
        Decoys wanted of each.
    taken : sequence of (start, stop)
        Further stretches that no decoy may touch.
    seed : int
        With the row of the gene it decides the draw.

    Returns
    -------
    list of list of (start, stop)
        At most `per_site` for each span; fewer where the window has no room.
    """
    reference = gene.reference
    forbidden = np.repeat(reference.blacklist | ~reference.valid, gene.bin_size)
    for start, stop in (*spans, *taken, gene.promoter):
        forbidden[max(start, 0) : max(stop, 0)] = True
    unknown = np.concatenate(([0], np.cumsum(reference.codes == N_CODE)))
    random = np.random.default_rng((seed, gene.row))
    found: list[list[Span]] = []
    for span in spans:
        mine: list[Span] = []
        for _ in range(per_site):
            drawn = _draw(gene, span, forbidden, unknown, random)
            if drawn is None:
                break
            forbidden[slice(*drawn)] = True
            mine.append(drawn)
        found.append(mine)
    return found


def _draw(
    gene: GeneWindow,
    span: Span,
    forbidden: NDArray[np.bool_],
    unknown: NDArray[np.int64],
    random: np.random.Generator,
) -> Span | None:
    length = span[1] - span[0]
    blocked = np.concatenate(([0], np.cumsum(forbidden)))
    starts = np.arange(span[0] % gene.bin_size, gene.length - length + 1, gene.bin_size)
    free = blocked[starts + length] == blocked[starts]
    free &= unknown[starts + length] - unknown[starts] <= _MAX_N * length
    starts = starts[free]
    if starts.size == 0:
        return None
    wanted = abs((span[0] + span[1]) / 2 - gene.tss)
    distance = np.abs(starts + length / 2 - gene.tss)
    off = np.abs(distance - wanted)
    near = (off <= _NEAR_BP) | ((distance <= _FACTOR * wanted) & (distance >= wanted / _FACTOR))
    start = int(random.choice(starts[near])) if near.any() else int(starts[np.argmin(off)])
    return start, start + length
