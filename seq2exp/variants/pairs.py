"""Pairs of an allele and a gene, and the table that tells what became of them.

Shapes: R rows, V columns of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.dataset.store import Dataset
from seq2exp.variants.carriers import Contexts
from seq2exp.variants.genes import distance_to_tss
from seq2exp.variants.judge import Judged

__all__ = ["BELOW", "Pair", "PairTable", "edge_status"]

BELOW = "scored:below_resolution"
"""Of a row whose predictions do not differ in the arithmetic of the model, though its sequences do:
the scores of expression are 0 because they are smaller than it resolves."""

_WORDS = {"gradient_indel": "unsupported", "overlap": ""}


@dataclass(frozen=True)
class Pair:
    """A row of the result.

    Attributes
    ----------
    allele : int
        Row of the table of alleles.
    gene : int
        Row of the gene table, -1 without a gene.
    edge : str
        Whether the window reaches beyond the contig.
    skipped : str
        Why the pair is not scored though the allele could be.
    """

    allele: int
    gene: int = -1
    edge: str = ""
    skipped: str = ""

    def status(self, case: Judged) -> str:
        """Return the one word that says what became of it."""
        return _WORDS.get(self.skipped, self.skipped) or case.status

    def score_status(self, case: Judged, *, spoiled: bool, unseen: bool) -> str:
        """Return whether it has a score, and why not, or why its score is 0."""
        reason = case.reason or self.skipped
        if reason:
            return f"skipped:{reason}"
        if spoiled:
            return "failed:not_finite"
        return BELOW if unseen and case.before != case.after else "scored"


class PairTable:
    """What became of pairs, filled gene by gene.

    Parameters
    ----------
    pairs : sequence of Pair
    judged : sequence of Judged
        Of all alleles.
    names : sequence of str
        Columns of scores.

    Attributes
    ----------
    values_RV : float32 array
        Scores, NaN until they are filled in.
    deleted_R : bool array
        The TSS is deleted.
    inside : list of (bool or None)
        Whether the variant lies in an element.
    context : list of str
        In which sequences the pair was compared (`seq2exp.variants.carriers.Contexts`).
    spread_RV : float32 array
        Over haplotypes of carriers.
    num_haplotypes_R : int32 array
        How many there were.
    """

    def __init__(
        self, pairs: Sequence[Pair], judged: Sequence[Judged], names: Sequence[str]
    ) -> None:
        self.pairs, self.names = list(pairs), list(names)
        self.cases = [judged[pair.allele] for pair in pairs]
        self.values_RV = np.full((len(pairs), len(names)), np.nan, dtype=np.float32)
        self.deleted_R = np.zeros(len(pairs), dtype=np.bool_)
        self.inside: list[bool | None] = [None] * len(pairs)
        self.context = [""] * len(pairs)
        self.spread_RV = np.full_like(self.values_RV, np.nan)
        self.num_haplotypes_R = np.zeros(len(pairs), dtype=np.int32)

    def by_gene(self) -> dict[int, list[int]]:
        """Return the rows that are to be scored, gene by gene, in the order of their first row."""
        found: dict[int, list[int]] = {}
        for number, pair in enumerate(self.pairs):
            if pair.gene >= 0 and not pair.skipped:
                found.setdefault(pair.gene, []).append(number)
        return found

    def fill(
        self,
        numbers: list[int],
        contexts: Contexts,
        values_CV: NDArray[np.float32],
        deleted_C: NDArray[np.bool_],
    ) -> None:
        """Fill in the scores of the pairs of a gene.

        Parameters
        ----------
        numbers : list of int
            Rows, in the order in which the contexts know them.
        contexts : Contexts
        values_CV : float32 array
            Of every comparison.
        deleted_C : bool array
            One of the two sequences lacks the TSS.
        """
        self.values_RV[numbers], self.spread_RV[numbers] = contexts.averaged(values_CV)
        rows_C = np.array(numbers, dtype=np.int64)[contexts.row_C]
        np.logical_or.at(self.deleted_R, rows_C, deleted_C)
        self.num_haplotypes_R[numbers] = contexts.num_A
        for number, word, lost in zip(numbers, contexts.word_A, contexts.lost_A, strict=True):
            self.context[number] = word
            if lost:
                self.pairs[number] = replace(self.pairs[number], skipped="overlap")

    def frame(
        self,
        alleles: pd.DataFrame,
        dataset: Dataset,
        windows: dict[int, Window],
        *,
        is_score_V: NDArray[np.bool_],
        is_expression_V: NDArray[np.bool_],
        num_members: Sequence[int],
    ) -> pd.DataFrame:
        """Return the table of scores.

        Parameters
        ----------
        alleles : DataFrame
        dataset : Dataset
        windows : dict
            Of every gene.
        is_score_V : bool array
            Columns that are scores: a row without any has failed.
        is_expression_V : bool array
            Columns that are scores of predicted expression.
        num_members : sequence of int
            Of every row, if it has a score.
        """
        genes, sites = dataset.genes, dataset.sites
        number = np.array([pair.allele for pair in self.pairs], dtype=np.int64)
        gene = np.array([pair.gene for pair in self.pairs], dtype=np.int64)
        rows = gene.tolist()
        known = gene >= 0
        spoiled = np.asarray(np.isnan(self.values_RV[:, is_score_V]).all(axis=1))
        expression_RV = self.values_RV[:, is_expression_V]
        unseen = np.asarray((np.nan_to_num(expression_RV) == 0).all(axis=1))
        if not expression_RV.shape[1]:
            unseen[:] = False
        both = list(zip(self.pairs, self.cases, strict=True))
        ids, symbols = (genes[name].astype(str).to_numpy() for name in ("gene_id", "symbol"))
        near = [
            distance_to_tss(case.span, *sites[row][1:]) if row >= 0 else None
            for row, (_, case) in zip(rows, both, strict=True)
        ]
        here = [windows.get(row) for row in rows]
        table: dict[str, Any] = {
            "record": alleles["record"].to_numpy()[number],
            "allele": alleles["allele"].to_numpy()[number],
            "gene_row": gene,
            "gene_id": np.where(known, ids[gene], ""),
            "symbol": np.where(known, symbols[gene], ""),
            "gene_strand": [sites[row][2] if row >= 0 else "" for row in rows],
            "distance_to_tss": pd.array(near, dtype="Int64"),
            "window_start": pd.array([w.start if w else None for w in here], dtype="Int64"),
            "window_end": pd.array([w.end if w else None for w in here], dtype="Int64"),
            "status": [pair.status(case) for pair, case in both],
            "score_status": [
                pair.score_status(case, spoiled=bool(bad), unseen=bool(zero))
                for (pair, case), bad, zero in zip(
                    both, spoiled.tolist(), unseen.tolist(), strict=True
                )
            ],
            "edge_status": [pair.edge for pair in self.pairs],
            "indel_status": [
                _indel_status(case, deleted=bool(gone))
                for (_, case), gone in zip(both, self.deleted_R.tolist(), strict=True)
            ],
            "num_members": np.where(known & ~spoiled, num_members, 0).astype(np.int32),
            "in_element": pd.array(list(self.inside), dtype="boolean"),
            "context": self.context,
            "num_haplotypes": self.num_haplotypes_R,
        }
        scores = pd.DataFrame(self.values_RV, columns=self.names)
        return pd.concat([pd.DataFrame(table), scores], axis=1)


def edge_status(window: Window) -> str:
    """Return whether a window reaches beyond its contig, and by how many bases on either side."""
    left, right = window.pad_left, window.pad_right
    return f"padded:{left},{right}" if left or right else "ok"


def _indel_status(case: Judged, *, deleted: bool) -> str:
    if case.status == "too_long":
        return "too_long"
    if deleted:
        return "tss_deleted"
    return "ok" if case.moves else "none"
