"""Scores of alleles: every gene whose window holds one, with every member of a run.

Alleles come and go as tables (`seq2exp.variants.columns`), a part of the input at a time. Within a
part they are grouped by gene, whose reference is run once.

Shapes: V columns of scores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch

from seq2exp.core.errors import ConfigError, facts
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.target import quiet_models
from seq2exp.training.run import TrainedRun
from seq2exp.variants.background import Background
from seq2exp.variants.carriers import Carriers, ContextMaker, Reference
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.gene_scores import GeneScores
from seq2exp.variants.genes import GeneIndex, distance_to_tss
from seq2exp.variants.gradient_passes import GradientPasses
from seq2exp.variants.judge import Judged, judge
from seq2exp.variants.pairs import Pair, PairTable, edge_status
from seq2exp.variants.passes import GenePasses
from seq2exp.variants.scoring import Scoring, make_scoring
from seq2exp.variants.shifts import with_shifts
from seq2exp.variants.significance import p_columns, quantile_columns
from seq2exp.variants.views import View

__all__ = ["Engine", "open_engine"]

# Windows of genes whose states are kept: one for each way in which one is read.
_WINDOWS_KEPT = 96


class Engine:
    """Scores alleles with the members of a run; made by `open_engine`.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    config : ScoreConfig
    background : Background, optional
        Scores of common variants with this run; adds quantiles.
    genotypes : Genotypes, optional
        Of carriers, where the configuration asks for their haplotypes; by default those of the
        dataset.
    device : str

    Attributes
    ----------
    config : ScoreConfig
        With the shifts that are used.
    views, indel_views : list of View
        In which substitutions, and insertions and deletions, are compared.
    num_members, num_indel_members : int
        Members of the run times these views.
    """

    def __init__(
        self,
        run: TrainedRun,
        dataset: Dataset,
        config: ScoreConfig,
        *,
        background: Background | None = None,
        genotypes: Genotypes | None = None,
        device: str = "cpu",
    ) -> None:
        config = with_shifts(config, run.card.data)
        _check_shifts("--shifts", config.shifts, run.card.data.window_bp)
        _check_shifts("--indel-shifts", config.indel_shifts, run.card.data.window_bp)
        self.run, self.dataset, self.config, self.device = run, dataset, config, device
        self.background = background
        self.views = _views(run, config, config.shifts)
        self.indel_views = _views(run, config, config.indel_shifts)
        self.num_members = len(self.views) * len(run.models)
        self.num_indel_members = len(self.indel_views) * len(run.models)
        # A gradient tells nothing about moved bases.
        most = self.num_members
        if config.method == "exact":
            most = max(most, self.num_indel_members)
        self.scoring: Scoring = make_scoring(
            run, config, num_members=most, with_quantile=background is not None
        )
        sample_config = run.sample_config(dataset)
        self.samples = GeneSamples(dataset, sample_config, np.arange(len(dataset.genes)))
        rows = dataset.find_genes(config.genes, what="--gene") if config.genes else None
        self.index = GeneIndex(dataset, sample_config, rows)
        self.skip_edges = "skip" in (config.edge, sample_config.edge)
        self._seen: OrderedDict[tuple[int, bool], GeneScores] = OrderedDict()
        self.contexts: ContextMaker = Reference()
        if config.context != "reference":
            self.contexts = Carriers(dataset, genotypes, self.index.windows, config)

    @property
    def columns(self) -> list[ScoreColumn]:
        """Scores of a row, in the order of the table."""
        return self.scoring.columns

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
            the distance of the gene. Missing scores are NaN; so are q-values, which need all
            tables of an input (`seq2exp.variants.significance.QCounts`).
        """
        config = self.config
        judged = judge(alleles, self.dataset, policy=config.ref_policy, max_indel=config.max_indel)
        computed = self.scoring.computed
        table = PairTable(
            self._pairs(alleles, judged), judged, [column.name for column in computed]
        )
        for gene, numbers in table.by_gene().items():
            elements = self.gene(gene).elements
            for number in numbers:
                table.inside[number] = elements.holds(table.cases[number].span)
            for moved in (False, True):
                here = [n for n in numbers if table.cases[n].moves == moved]
                if here:
                    self._fill(table, gene, here, moved=moved)
        frame = table.frame(
            alleles,
            self.dataset,
            self.index.windows,
            is_score_V=self.scoring.is_score_V,
            is_expression_V=self.scoring.is_expression_V,
            num_members=[self.members_in(moved=case.moves) for case in table.cases],
        )
        for name, values in self._more(alleles, table, frame).items():
            frame[name] = values
        for column in self.columns:
            if column.name not in frame:
                frame[column.name] = np.float32(np.nan)
        names = [column.name for column in self.columns]
        return frame[[*(n for n in frame if n not in names), *names]]

    def _fill(self, table: PairTable, gene: int, numbers: list[int], *, moved: bool) -> None:
        """Score pairs of a gene that are compared in the same views."""
        contexts = self.contexts.contexts(gene, [table.cases[number] for number in numbers])
        scores = self.gene(gene, moved=moved)
        found = [
            scores.score([contexts.case(number) for number in part])
            for part in _parts(list(range(len(contexts))), self.config.batch_size)
        ]
        values_CV = [np.empty((0, len(table.names)), dtype=np.float32)]
        deleted_C = [np.empty(0, dtype=np.bool_)]
        table.fill(
            numbers,
            contexts,
            np.concatenate([*values_CV, *(values for values, _ in found)]),
            np.concatenate([*deleted_C, *(deleted for _, deleted in found)]),
        )

    def _more(self, alleles: pd.DataFrame, table: PairTable, frame: pd.DataFrame) -> dict[str, Any]:
        """Return spreads over haplotypes, p-values and quantiles of the rows that have scores."""
        found: dict[str, Any] = {}
        for place, column in enumerate(self.scoring.computed):
            name = f"{column.name}:haplotype_sd"
            if any(name == other.name for other in self.columns):
                found[name] = table.spread_RV[:, place]
        if self.config.null_draws:
            scored = self.scoring.is_score_V
            draws = np.full(
                (len(table.pairs), self.config.null_draws, int(scored.sum())), np.nan, np.float32
            )
            for gene, numbers in table.by_gene().items():
                for number in numbers:
                    case = table.cases[number]
                    draws[number] = self.gene(gene, moved=case.moves).draw(case)[:, scored]
            found |= p_columns(self.columns, table.values_RV[:, scored], draws)
        if self.background is not None:
            kinds = alleles["variant_type"].to_numpy()[[pair.allele for pair in table.pairs]]
            found |= quantile_columns(
                self.columns, frame.assign(variant_type=kinds), self.background
            )
        return found

    def _pairs(self, alleles: pd.DataFrame, judged: Sequence[Judged]) -> list[Pair]:
        found: list[Pair] = []
        contigs, wanted = alleles["contig"].tolist(), alleles["gene"].tolist()
        for number, case in enumerate(judged):
            if not case.scored:
                found.append(Pair(number))
            elif self.config.method == "gradient" and case.moves:
                found.append(Pair(number, skipped="gradient_indel"))
            else:
                found += self._genes_of(number, case, contigs[number], wanted[number])
        return found

    def members_in(self, *, moved: bool) -> int:
        """Return how many members compare alleles.

        Parameters
        ----------
        moved : bool
            In the views of insertions and deletions.
        """
        return self.num_indel_members if moved else self.num_members

    def genes_holding(self, contig: str, span: tuple[int, int], *, wanted: str = "") -> list[int]:
        """Return the rows of the genes whose window holds a change.

        Parameters
        ----------
        contig : str
        span : (int, int)
            Changed bases; see `Judged`.
        wanted : str
            Id or symbol of the only gene that counts; all do when empty.
        """
        genes = self.index.holding(contig, span)
        if wanted:
            names = self.dataset.genes[["gene_id", "symbol"]]
            genes = [gene for gene in genes if wanted in names.iloc[gene].tolist()]
        return genes

    def _genes_of(self, number: int, case: Judged, contig: str, wanted: str) -> list[Pair]:
        genes = self.genes_holding(contig, case.span, wanted=wanted)
        if not genes:
            return [Pair(number, skipped="no_gene")]
        sites = self.dataset.sites
        far = {gene: abs(distance_to_tss(case.span, *sites[gene][1:])) for gene in genes}
        found = []
        for gene in sorted(genes, key=lambda gene: (far[gene], gene)):
            edge = edge_status(self.index.windows[gene])
            skipped = "edge" if edge != "ok" and self.skip_edges else ""
            found.append(Pair(number, gene, edge, skipped))
        return found

    def gene(self, gene: int, *, moved: bool = False) -> GeneScores:
        """Return what scores comparisons for a gene; that of the last few genes is kept.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        moved : bool
            In the views of insertions and deletions.
        """
        key = gene, moved and self.indel_views != self.views
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._seen[key]
        passes = self.passes(gene, moved=moved)
        self._seen[key] = GeneScores(passes, self.scoring, self.config)
        while len(self._seen) > 1 and self._num_kept() > _WINDOWS_KEPT:
            self._seen.popitem(last=False)
        return self._seen[key]

    def _num_kept(self) -> int:
        return sum(len(scores.passes.views) for scores in self._seen.values())

    def passes(self, gene: int, *, moved: bool = False) -> GenePasses | GradientPasses:
        """Return the passes for a gene, whose reference is run.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        moved : bool
            In the views of insertions and deletions.
        """
        kind = GradientPasses if self.config.method == "gradient" else GenePasses
        return kind(
            self.run.models,
            self.samples,
            gene,
            self.indel_views if moved else self.views,
            device=self.device,
            fixed=self.scoring.fixed,
        )


@contextmanager
def open_engine(
    run: TrainedRun,
    dataset: Dataset,
    config: ScoreConfig,
    *,
    background: Background | None = None,
    genotypes: Genotypes | None = None,
) -> Iterator[Engine]:
    """Put the members of a run on the device and score with them; they are put back afterwards.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
    config : ScoreConfig
    background : Background, optional
    genotypes : Genotypes, optional

    Raises
    ------
    ConfigError
        The dataset does not fit the run, or a score that the models cannot give.
    """
    run.check_dataset(dataset)
    with quiet_models(run) as device, torch.no_grad():
        yield Engine(
            run, dataset, config, background=background, genotypes=genotypes, device=device
        )


def _check_shifts(option: str, shifts: Sequence[int], window_bp: int) -> None:
    """Refuse windows without their TSS before any work."""
    most = window_bp // 2 - 1
    far = [shift for shift in shifts if abs(shift) > most]
    if far:
        raise ConfigError(
            facts(option, found=far[0], expected=f"-{most:,} to {most:,}: the TSS stays in the "
                  f"window of {window_bp:,} bp", fix="shift by less than a bin")
        )  # fmt: skip


def _views(run: TrainedRun, config: ScoreConfig, shifts: Sequence[int]) -> list[View]:
    """Strands and shifts; models that read both strands themselves are not asked twice."""
    models: list[Any] = run.models
    equivariant = all(getattr(model, "equivariant", False) for model in models)
    averaged = all(getattr(model.config, "rc_average", False) for model in models)
    both = config.strands == "both" or (
        config.strands == "auto" and (averaged or run.card.data.strand == "plus")
    )
    strands = (False, True) if both and not equivariant else (False,)
    return [View(opposite, shift) for shift in shifts for opposite in strands]


def _parts(numbers: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]
