"""Which genes a cohort is trained on and judged by, ranked with training people only.

Shapes: G genes of the dataset, D donors, M variants of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.cohort.config import GeneConfig
from seq2exp.cohort.heritability import cis_heritability
from seq2exp.cohort.personal import PersonalGenes
from seq2exp.cohort.splits import DONOR_SETS
from seq2exp.cohort.targets import CohortTargets

__all__ = ["chosen_genes", "rank_genes"]

_SETS = {
    "num_seen": ("seen", "seen_a", "seen_b"),
    "num_unseen": ("unseen",),
}


def chosen_genes(
    config: GeneConfig, targets: CohortTargets, personal: PersonalGenes
) -> NDArray[np.bool_]:
    """Return which genes are used, shape (G,).

    Parameters
    ----------
    config : GeneConfig
    targets : CohortTargets
    personal : PersonalGenes
    """
    used = np.asarray(np.isfinite(targets.z_GD).any(axis=1))
    if config.rank == "none":
        return used
    sets = np.array(targets.split.gene_sets)
    chosen = np.zeros_like(used)
    chosen[used & (sets == "valid")] = True
    for key, names in _SETS.items():
        rows = np.flatnonzero(used & np.isin(sets, names))
        number = getattr(config, key) or len(rows)
        if number < len(rows):
            rows = rows[rank_genes(config.rank, rows, targets, personal)[:number]]
        chosen[rows] = True
    return chosen


def rank_genes(
    rank: str, rows: NDArray[np.int64], targets: CohortTargets, personal: PersonalGenes
) -> NDArray[np.int64]:
    """Return the order of genes, the best first; ties and unknown ones as they stand.

    Parameters
    ----------
    rank : str
        h2: cis-heritability by REML in the window, large first; p: its likelihood-ratio p, small
        first.
    rows : int64 array
        Rows of the gene table.
    targets : CohortTargets
    personal : PersonalGenes
    """
    # Of each gene its own: with splits.people per_gene they differ.
    train_GD = targets.split.codes() == DONOR_SETS.index("train")
    scores = []
    for gene in rows.tolist():
        donors = np.flatnonzero(train_GD[gene])
        dosage, snv = personal.dosage(gene, donors)
        found = cis_heritability(
            dosage[:, snv],
            targets.corrected_GD[gene, donors],
            ploidy=personal.genotypes.ploidy,
        )
        score = -found.h2 if rank == "h2" else found.p
        scores.append(score if np.isfinite(score) else np.inf)
    return np.argsort(np.array(scores), kind="stable")
