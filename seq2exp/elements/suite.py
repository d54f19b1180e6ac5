"""`seq2exp elements compare`: one element map against several files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.store import Dataset
from seq2exp.elements.compare import (
    CompareConfig,
    Comparison,
    compare_bins,
    genes_of,
    tuning_genes,
)
from seq2exp.elements.folder import ElementMap
from seq2exp.elements.judging import Row, rows_text
from seq2exp.elements.overlap import LearnedSpace, overlap_rows
from seq2exp.elements.pairs import MinimalPairConfig, PairComparison, compare_pairs
from seq2exp.elements.precision import cut_to_budget
from seq2exp.elements.references import Reference
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, ScoredBins, score_bins

__all__ = ["CALLED", "ReferenceResult", "compare_reference"]

CALLED = "called elements"
"""Name of the called distal elements in the rows on overlap."""


@dataclass(frozen=True, eq=False)
class ReferenceResult:
    """An element map against one file.

    Attributes
    ----------
    reference : Reference
    bins : Comparison or None
        Ranked bins; None where the file holds tested pairs only, or no bin in reach is true.
    pairs : PairComparison or None
        Ranked pairs; None where elements name no gene.
    overlap : list of dict
        Rows on bases.
    """

    reference: Reference
    bins: Comparison | None
    pairs: PairComparison | None
    overlap: list[Row] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All rows, each with the name of the file as ``reference``."""
        parts = [self.bins.rows if self.bins else [], self.pairs.rows if self.pairs else []]
        parts.append(self.overlap)
        return [{**row, "reference": self.reference.name} for part in parts for row in part]

    @property
    def text(self) -> str:
        """The main numbers as tables for the terminal."""
        parts = [self.bins.text] if self.bins else []
        name = self.reference.name
        if self.pairs is not None:
            info = self.pairs.info
            title = (
                f"Pairs of {name}: {info['acting']} of {info['pairs']} act, on {info['genes']} "
                f"genes; {info['acting but out of reach']} more act out of reach; "
                f"{info.get('minimal_pairs', 0)} minimal pairs"
            )
            parts.append(rows_text(title, self.pairs.rows, ["pair_auprc", "minimal_pairs"]))
        if self.overlap:
            title = f"Bases shared with {name}, as many bins of each"
            metrics = ["base_precision", "jaccard", "enrichment", "enrichment_null"]
            parts.append(rows_text(title, self.overlap, metrics))
        return "\n\n".join(parts)

    @property
    def info(self) -> dict[str, Any]:
        """Counts and settings."""
        return {
            "file": str(self.reference.path),
            "kind": self.reference.kind,
            "rows": self.reference.notes,
            "bins": self.bins.info if self.bins else None,
            "pairs": self.pairs.info if self.pairs else None,
        }


def compare_reference(
    elements: ElementMap,
    dataset: Dataset,
    reference: Reference,
    *,
    config: CompareConfig | None = None,
    minimal: MinimalPairConfig | None = None,
) -> ReferenceResult:
    """Compare an element map with one file in every way the file allows.

    Parameters
    ----------
    elements : ElementMap
    dataset : Dataset
        Where the rivals read tracks and contacts.
    reference : Reference
    config : CompareConfig, optional
    minimal : MinimalPairConfig, optional

    Raises
    ------
    InputError
        No element of the file lies in the window of a gene of the split, outside forced bins.
    """
    config = config or CompareConfig()
    masks = elements.masks
    genes, tuning = genes_of(masks, config.split), tuning_genes(masks, config)
    pairs = None
    if reference.per_gene:
        pairs = compare_pairs(
            masks,
            dataset,
            reference,
            genes=genes,
            tuning=tuning,
            config=config,
            minimal=minimal,
        )
    bins, overlap = None, []
    if reference.covers_bins:
        scored = score_bins(masks, dataset, reference.truth, genes)
        if scored.label[scored.distance >= config.distal_bp].any():
            tuned = score_bins(masks, dataset, reference.truth, tuning) if tuning.size else None
            rivals = Rivals(masks, dataset)
            bins = compare_bins(scored, tuned, rivals, reference.truth, config=config)
            overlap = _overlap(elements, reference, scored, genes, bins, config)
    if bins is None and (pairs is None or not len(pairs.table)):
        raise InputError(
            facts(
                str(reference.path),
                found=f"no element in the windows of the genes of split {config.split}"
                + (f" ({_out_of_reach(pairs)})" if pairs else ""),
                expected="at least one, outside forced bins",
                fix="choose another --split, or map elements with a wider window",
                count=0,
            )
        )
    return ReferenceResult(reference, bins, pairs, overlap)


def _out_of_reach(pairs: PairComparison) -> str:
    reasons = ("outside the window", "in forced bins only")
    return ", ".join(f"{pairs.info[reason]} {reason}" for reason in reasons)


def _overlap(
    elements: ElementMap,
    reference: Reference,
    scored: ScoredBins,
    genes: NDArray[np.int64],
    bins: Comparison,
    config: CompareConfig,
) -> list[Row]:
    """Return overlap of called elements, and of as many best bins of each rival."""
    masks = elements.masks
    space = LearnedSpace(masks, genes)
    ids = set(masks.genes["gene_id"].iloc[genes])
    known = reference.truth.elements
    known = known[known["causal"] & (known["gene_id"].isna() | known["gene_id"].isin(ids))]
    called = elements.elements
    called = called[(called["element_class"] == "distal") & called["gene_id"].isin(ids)]
    threshold = elements.summary["threshold"]
    # Where nothing is called there is no threshold.
    budget = 0.0 if threshold is None else float((scored.scores[MODEL] >= threshold).mean())
    sets = {CALLED: called}
    contigs = masks.genes["contig"].astype(str).to_numpy()[genes]
    for name in dict.fromkeys(bins.chosen.values()):
        sets[name] = _best_bins(scored, name, budget, contigs, masks.bin_size)
    rows: list[Row] = []
    for name, intervals in sets.items():
        rows += overlap_rows(
            space,
            intervals,
            known,
            name=name,
            split=config.split,
            num_resamples=config.num_resamples,
            seed=config.seed,
        )
    return rows


def _best_bins(
    scored: ScoredBins, name: str, budget: float, contigs: NDArray[np.object_], bin_size: int
) -> pd.DataFrame:
    if scored.start is None or budget <= 0:
        return pd.DataFrame({"chrom": [], "start": [], "end": []})
    score = cut_to_budget(scored.scores[name], budget)
    kept = score > score.min()
    start = scored.start[kept]
    chrom = contigs[scored.gene[kept]]
    return pd.DataFrame({"chrom": chrom, "start": start, "end": start + bin_size})
