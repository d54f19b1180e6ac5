"""Scores of alleles: every gene whose window holds one, with every member of a run.

Alleles come and go as tables (`seq2exp.variants.columns`), a part of the input at a time. Within a
part they are grouped by gene, whose reference is run once.

Shapes: A alleles, C comparisons of one gene, V columns of scores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.target import quiet_models
from seq2exp.training.run import TrainedRun
from seq2exp.variants.arrays import compare
from seq2exp.variants.carriers import Backgrounds, Carriers, Contexts, Reference
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.elements import ElementBins
from seq2exp.variants.genes import GeneIndex, distance_to_tss
from seq2exp.variants.judge import STATUSES, Judged, Put, judge
from seq2exp.variants.passes import GenePasses, Predicted, concatenated
from seq2exp.variants.scoring import Scoring, make_scoring
from seq2exp.variants.views import View

__all__ = ["Engine", "open_engine"]

_REFERENCES = 32


@dataclass(frozen=True, eq=False)
class _Row:
    """One row of the result: an allele, and a gene if it has one."""

    allele: int
    gene: int = -1
    edge: str = "ok"
    skipped: str = ""
    background: str = ""
    num_haplotypes: int = 0


class Engine:
    """Scores alleles with the members of a run; made by `open_engine`.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    config : ScoreConfig
    device : str
    genotypes : Genotypes, optional
        Of whoever may be a carrier, where the configuration asks for their haplotypes.

    Attributes
    ----------
    columns : list of ScoreColumn
        The scores of a row, in the order of the table.
    num_members : int
        Members of the run times strands and shifts.
    """

    def __init__(
        self,
        run: TrainedRun,
        dataset: Dataset,
        config: ScoreConfig,
        *,
        device: str = "cpu",
        genotypes: Genotypes | None = None,
    ) -> None:
        self.run, self.dataset, self.config, self.device = run, dataset, config, device
        self.views = _views(run, config)
        self.num_members = len(self.views) * len(run.models)
        self.scoring: Scoring = make_scoring(run, dataset, config, num_members=self.num_members)
        sample_config = run.sample_config(dataset)
        self.samples = GeneSamples(dataset, sample_config, np.arange(len(dataset.genes)))
        rows = dataset.find_genes(config.genes, what="--gene") if config.genes else None
        self.index = GeneIndex(dataset, sample_config, rows)
        self.skip_edges = "skip" in (config.edge, sample_config.edge)
        self._seen: OrderedDict[int, _Reference] = OrderedDict()
        self.backgrounds: Backgrounds = Reference()
        if config.background != "reference":
            self.backgrounds = Carriers(dataset, genotypes, self.index.windows, config)
        genes = dataset.genes
        self._ids = genes["gene_id"].astype(str).to_numpy()
        self._symbols = genes["symbol"].astype(str).to_numpy()

    @property
    def columns(self) -> list[ScoreColumn]:
        """Scores of a row."""
        found = self.scoring.columns
        return [*found, *self.backgrounds.spreads(found)]

    def score(self, alleles: pd.DataFrame) -> pd.DataFrame:
        """Score a table of alleles.

        Parameters
        ----------
        alleles : DataFrame
            Columns ``seq2exp.variants.columns.ALLELE_COLUMNS``, in the order of the input.

        Returns
        -------
        DataFrame
            One row per allele and gene, and one for an allele without a gene; rows of an allele by
            the distance of the gene. Missing scores are NaN.
        """
        judged = judge(
            alleles,
            self.dataset,
            policy=self.config.ref_policy,
            max_indel=self.config.max_indel,
        )
        rows = self._rows(alleles, judged)
        values = np.full((len(rows), len(self.columns)), np.nan, dtype=np.float32)
        deleted = np.zeros(len(rows), dtype=np.bool_)
        inside: list[bool | None] = [None] * len(rows)
        by_gene: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            if row.gene >= 0 and not row.skipped:
                by_gene.setdefault(row.gene, []).append(number)
        for gene, numbers in by_gene.items():
            cases = [judged[rows[number].allele] for number in numbers]
            contexts = self.backgrounds.contexts(gene, cases)
            values[numbers], deleted[numbers] = self._score_gene(gene, contexts)
            elements = self._reference(gene).elements
            for number, case, word, num, lost in zip(
                numbers, cases, contexts.word_A, contexts.num_A, contexts.lost_A, strict=True
            ):
                inside[number] = elements.holds(case.span)
                rows[number] = replace(
                    rows[number],
                    background=word,
                    num_haplotypes=int(num),
                    skipped="overlap" if lost else "",
                )
        return self._table(alleles, judged, rows, values, deleted, inside)

    def _score_gene(
        self, gene: int, contexts: Contexts
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the scores of the alleles of one gene, and whether any sequence lost its TSS."""
        size = max(1, self.config.batch_size)
        found = [
            self.compare(gene, [contexts.case(number) for number in part])
            for part in _parts(list(range(len(contexts))), size)
        ]
        num_columns = len(self.scoring.columns)
        values_CV = np.concatenate([np.empty((0, num_columns), np.float32), *(v for v, _ in found)])
        deleted_C = np.concatenate([np.empty(0, np.bool_), *(gone for _, gone in found)])
        deleted_A = np.zeros(len(contexts.judged), dtype=np.bool_)
        np.logical_or.at(deleted_A, contexts.row_C, deleted_C)
        values_AV = contexts.averaged(values_CV, self.scoring.is_score_V)
        return values_AV[:, : len(self.columns)], deleted_A

    def compare(
        self, gene: int, cases: Sequence[Judged], *, widths: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Score comparisons of one gene, as many as fit into a batch.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        cases : sequence of Judged
        widths : sequence of int, optional
            Bases around each in which masks and tracks are compared; as configured by default.

        Returns
        -------
        values_CV : float32 array
            Columns of `scoring`.
        deleted_C : bool array
            One of the two sequences lacks the TSS.
        """
        widths = [self.config.mask_bp] * len(cases) if widths is None else widths
        return self._compare(self._reference(gene), cases, widths)

    def _rows(self, alleles: pd.DataFrame, judged: Sequence[Judged]) -> list[_Row]:
        found: list[_Row] = []
        contigs, wanted = alleles["contig"].tolist(), alleles["gene"].tolist()
        for number, case in enumerate(judged):
            if not case.scored:
                found.append(_Row(number))
                continue
            genes = self.index.holding(contigs[number], case.span)
            if wanted[number]:
                genes = [g for g in genes if wanted[number] in (self._ids[g], self._symbols[g])]
            if not genes:
                found.append(_Row(number, skipped="no_gene"))
                continue
            sites = self.dataset.sites
            order = sorted(genes, key=lambda g: (abs(_distance(case, sites[g])), g))
            for gene in order:
                edge = _edge(self.index.windows[gene])
                skipped = "edge" if edge != "ok" and self.skip_edges else ""
                found.append(_Row(number, gene, edge, skipped))
        return found

    def _reference(self, gene: int) -> _Reference:
        """Return the passes of a gene, of which the last few are kept."""
        if gene in self._seen:
            self._seen.move_to_end(gene)
            return self._seen[gene]
        passes = GenePasses(
            self.run.models,
            self.samples,
            gene,
            self.views,
            device=self.device,
            fixed=self.scoring.fixed,
        )
        predicted = passes.reference()
        elements = ElementBins(passes, predicted, threshold=self.config.element_threshold)
        self._seen[gene] = _Reference(passes, predicted, elements)
        if len(self._seen) > _REFERENCES:
            self._seen.popitem(last=False)
        return self._seen[gene]

    def _compare(
        self, reference: _Reference, cases: Sequence[Judged], widths: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Score comparisons of one gene; halves what is run at once where memory is short."""
        try:
            return self._compare_at_once(reference, cases, widths)
        except torch.OutOfMemoryError:
            if len(cases) == 1:
                raise
            torch.cuda.empty_cache()
            middle = len(cases) // 2
            parts = (slice(middle), slice(middle, None))
            halves = [self._compare(reference, cases[part], widths[part]) for part in parts]
            values, deleted = zip(*halves, strict=True)
            return np.concatenate(values), np.concatenate(deleted)

    def _compare_at_once(
        self, reference: _Reference, cases: Sequence[Judged], widths: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        distinct: dict[Put, int] = {(): 0}
        for case in cases:
            for put in (case.before, case.after):
                distinct.setdefault(put, len(distinct))
        predicted = reference.predicted
        if len(distinct) > 1:
            more = reference.passes.predict(list(distinct)[1:])
            predicted = concatenated(predicted, more)
        pairs = [(distinct[case.before], distinct[case.after]) for case in cases]
        compared = compare(
            predicted,
            pairs,
            [case.span[0] for case in cases],
            [member.view.window for member in reference.passes.members],
            bin_size=reference.passes.bin_size,
            widths=widths,
        )
        sign_C = np.array([case.sign for case in cases])
        deleted_C = predicted.tss_deleted_S[np.array(pairs)].any(axis=1)
        return self.scoring.score(compared, sign_C), deleted_C

    def _table(
        self,
        alleles: pd.DataFrame,
        judged: Sequence[Judged],
        rows: Sequence[_Row],
        values: NDArray[np.float32],
        deleted: NDArray[np.bool_],
        inside: Sequence[bool | None],
    ) -> pd.DataFrame:
        number = np.array([row.allele for row in rows], dtype=np.int64)
        gene = np.array([row.gene for row in rows], dtype=np.int64)
        cases = [judged[index] for index in number]
        windows = [self.index.windows.get(row) for row in gene.tolist()]
        sites = self.dataset.sites
        known = gene >= 0
        scores = [n for n, column in enumerate(self.columns) if column.kind == "score"]
        spoiled = np.isnan(values[:, scores]).all(axis=1)
        table: dict[str, Any] = {
            "record": alleles["record"].to_numpy()[number],
            "allele": alleles["allele"].to_numpy()[number],
            "gene_row": gene,
            "gene_id": np.where(known, self._ids[gene], ""),
            "symbol": np.where(known, self._symbols[gene], ""),
            "gene_strand": [sites[row][2] if row >= 0 else "" for row in gene.tolist()],
            "distance_to_tss": pd.array(
                [
                    _distance(case, sites[row]) if row >= 0 else None
                    for case, row in zip(cases, gene.tolist(), strict=True)
                ],
                dtype="Int64",
            ),
            "window_start": pd.array([w.start if w else None for w in windows], dtype="Int64"),
            "window_end": pd.array([w.end if w else None for w in windows], dtype="Int64"),
            "status": [_status(c, r) for c, r in zip(cases, rows, strict=True)],
            "score_status": [
                _score_status(c, r, bad)
                for c, r, bad in zip(cases, rows, spoiled.tolist(), strict=True)
            ],
            "edge_status": [row.edge if row.gene >= 0 else "" for row in rows],
            "indel_status": [
                _indel_status(c, gone) for c, gone in zip(cases, deleted.tolist(), strict=True)
            ],
            "num_members": np.where(known & ~spoiled, self.num_members, 0).astype(np.int32),
            "in_element": pd.array(list(inside), dtype="boolean"),
            "background": [row.background for row in rows],
            "num_haplotypes": np.array([row.num_haplotypes for row in rows], dtype=np.int32),
        }
        names = [column.name for column in self.columns]
        return pd.concat([pd.DataFrame(table), pd.DataFrame(values, columns=names)], axis=1)


@dataclass(frozen=True, eq=False)
class _Reference:
    """A gene whose reference was run."""

    passes: GenePasses
    predicted: Predicted
    elements: ElementBins


@contextmanager
def open_engine(
    run: TrainedRun, dataset: Dataset, config: ScoreConfig, *, genotypes: Genotypes | None = None
) -> Iterator[Engine]:
    """Put the members of a run on the device and score with them; they are put back afterwards.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
    config : ScoreConfig
    genotypes : Genotypes, optional
        For a background of carriers.

    Raises
    ------
    ConfigError
        The dataset does not fit the run, or a score that the models cannot give.
    """
    run.check_dataset(dataset)
    with quiet_models(run) as device, torch.no_grad():
        yield Engine(run, dataset, config, device=device, genotypes=genotypes)


def _views(run: TrainedRun, config: ScoreConfig) -> list[View]:
    """Strands and shifts; models that read both strands themselves are not asked twice."""
    models: list[Any] = run.models
    equivariant = all(getattr(model, "equivariant", False) for model in models)
    averaged = all(getattr(model.config, "rc_average", False) for model in models)
    both = config.strands == "both" or (
        config.strands == "auto" and (averaged or run.card.data.strand == "plus")
    )
    strands = (False, True) if both and not equivariant else (False,)
    return [View(opposite, shift) for shift in config.shifts for opposite in strands]


def _parts(numbers: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def _distance(case: Judged, site: tuple[str, int, str]) -> int:
    return distance_to_tss(case.span, site[1], site[2])


def _edge(window: Window) -> str:
    left, right = window.pad_left, window.pad_right
    return f"padded:{left},{right}" if left or right else "ok"


def _status(case: Judged, row: _Row) -> str:
    return row.skipped if row.skipped in STATUSES else case.status


def _score_status(case: Judged, row: _Row, spoiled: bool) -> str:  # noqa: FBT001
    reason = case.reason or row.skipped
    if reason:
        return f"skipped:{reason}"
    return "failed:not_finite" if spoiled else "scored"


def _indel_status(case: Judged, deleted: bool) -> str:  # noqa: FBT001
    if case.status == "too_long":
        return "too_long"
    if deleted:
        return "tss_deleted"
    alleles = (*case.before, *case.after)
    return "ok" if any(len(a.ref) != len(a.alt) for a in alleles) else "none"
