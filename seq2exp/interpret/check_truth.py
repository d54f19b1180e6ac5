"""Do deletions rank true elements above candidates that do nothing? Beside mask and rivals.

Candidates are those that a simulation names for each gene: elements that are causal for it, and
decoys that are as open and do nothing. Each is deleted as called elements are. Rivals are the
scores that need no model (:mod:`seq2exp.elements.rivals`), averaged over the candidate's bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.precision import Ranking
from seq2exp.elements.rivals import Rivals
from seq2exp.interpret.agreement import GeneBootstrap, weighted_auroc
from seq2exp.interpret.checks import Checked
from seq2exp.interpret.sites import OK
from seq2exp.training.run import TrainedRun

__all__ = ["truth_rows"]

DELETION = "deletion"


def truth_rows(
    checked: Checked, run: TrainedRun, dataset: Dataset, *, split: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Return AUPRC and AUROC of deletions, mask and rivals over the candidates.

    Rows called ``deletion - <rival>`` are paired differences, positive when deletions are better.

    Parameters
    ----------
    checked : Checked
        With the candidates of a truth.
    run : TrainedRun
    dataset : Dataset
    split : str
        Written into the rows.
    seed : int
        Of the resamples of genes.

    Raises
    ------
    InputError
        No candidate could be deleted, or none is causal.
    """
    sites = checked.sites
    found = sites[(sites["kind"] == "candidate") & (sites["status"] == OK)].reset_index(drop=True)
    label = found["causal"].fillna(value=False).to_numpy(dtype=np.bool_)
    if not label.any() or label.all():
        raise InputError(
            facts(
                "candidates of the truth",
                found=f"{label.sum()} causal of {label.size} in the windows",
                expected="causal ones and ones that do nothing",
                fix="check more genes, or give the simulation of this dataset",
            )
        )
    scores = {DELETION: found["effect"].to_numpy(np.float64)}
    if found["mask_mean"].notna().all():
        scores["mask"] = found["mask_mean"].to_numpy(np.float64)
    scores |= _rival_scores(found, checked.genes, run, dataset)
    boot = GeneBootstrap(found["gene_id"], split=split, seed=seed)
    every = np.ones(len(found), dtype=np.bool_)
    once = np.ones((1, boot.num_genes))
    values: dict[str, dict[str, tuple[float, NDArray[np.float64]]]] = {"auprc": {}, "auroc": {}}
    for name, score in scores.items():
        ranking = Ranking(label, score, boot.code, num_genes=boot.num_genes)
        precision = ranking.average_precisions
        values["auprc"][name] = float(precision(once)[0]), precision(boot.counts_RG)

        def auroc(counts: NDArray[np.float64], score: NDArray[np.float64] = score) -> Any:  # noqa: ANN401
            return weighted_auroc(label, score, counts)

        whole = float(auroc(np.ones((1, len(found))))[0])
        values["auroc"][name] = whole, boot.draws(every, auroc)
    rows = []
    for metric, of_name in values.items():
        ours, our_draws = of_name[DELETION]
        for name, (value, draws) in of_name.items():
            rows.append(boot.finish(name, f"candidates {metric}", value, draws, every))
        for name, (value, draws) in of_name.items():
            if name != DELETION:
                rows.append(
                    boot.finish(
                        f"{DELETION} - {name}",
                        f"candidates {metric}",
                        ours - value,
                        our_draws - draws,
                        every,
                    )
                )
    return rows


def _rival_scores(
    found: pd.DataFrame, genes: NDArray[np.int64], run: TrainedRun, dataset: Dataset
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of every rival's score over the bins of each candidate."""
    masks = _places(genes, run, dataset)
    rivals = Rivals(masks, dataset)
    peaks = set(rivals.peak_names)
    scores: dict[str, NDArray[np.float64]] = {}
    for gene in range(len(masks)):
        first = int(masks.genes["start"].iloc[gene])
        mine = np.flatnonzero((found["gene_id"] == masks.genes["gene_id"].iloc[gene]).to_numpy())
        if mine.size == 0:
            continue
        for name, values in rivals.scores(gene).items():
            if name in peaks:
                continue
            whole = scores.setdefault(name, np.full(len(found), np.nan))
            for at in mine:
                low = (int(found["start"].iloc[at]) - first) // masks.bin_size
                high = -((first - int(found["end"].iloc[at])) // masks.bin_size)
                whole[at] = values[low:high].mean()
    return scores


def _places(genes: NDArray[np.int64], run: TrainedRun, dataset: Dataset) -> GeneMasks:
    """Windows of the genes in the form that the rivals read; their masks are not asked for."""
    windows = [gene_window(dataset, int(row), run.card.data) for row in genes]
    table = dataset.genes.iloc[genes][["gene_id", "symbol", "contig", "tss", "strand", "split"]]
    table = table.reset_index(drop=True)
    table.insert(0, "row", genes)
    table["start"] = np.array([window.start for window in windows], dtype=np.int64)
    table["contig_length"] = np.array([w.contig_length for w in windows], dtype=np.int64)
    data = run.card.data
    shape = len(genes), data.window_bp // data.bin_size
    return GeneMasks(
        genes=table,
        mask=np.zeros(shape, dtype=np.float16),
        forced=np.zeros(shape, dtype=np.uint8),
        alpha=None,
        beta=None,
        bin_size=data.bin_size,
        info={"assembly": dataset.manifest.assembly},
    )
