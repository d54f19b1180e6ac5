"""Groups of people as the model reads them, and how they become batches.

Shapes: U sequences of a group or batch, Q groups, D people, P haplotypes, L bases, N bins,
T tracks, F scalar features, R elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from seq2exp.cohort.groups import GroupPlan
from seq2exp.cohort.losses import GroupTargets
from seq2exp.cohort.personal import GeneHaplotypes, PersonalGenes, stack_haplotypes
from seq2exp.cohort.targets import CohortTargets
from seq2exp.dataset.samples import Batch

__all__ = ["GroupBatch", "GroupSample", "PeopleSamples", "TrainingGroups", "collate_groups"]


@dataclass(frozen=True)
class GroupSample:
    """One gene and some people.

    Attributes
    ----------
    gene : int
        Row of the gene table.
    people : int64 array, shape (D,)
        Numbers of donors.
    haplotypes : GeneHaplotypes
        The distinct sequences of these people and, as the last one, that of the reference.
    raw, z, percentile : float32 arrays, shape (D,)
        Targets (:class:`seq2exp.cohort.losses.GroupTargets`).
    mean : float
    unseen : bool
        Whether the gene is held out from training.
    """

    gene: int
    people: NDArray[np.int64]
    haplotypes: GeneHaplotypes
    raw: NDArray[np.float32]
    z: NDArray[np.float32]
    percentile: NDArray[np.float32]
    mean: float
    unseen: bool


@dataclass(frozen=True)
class GroupBatch:
    """Groups stacked as tensors.

    Attributes
    ----------
    sequences : Batch
        All distinct sequences, one row each.
    row_QDP : int64 tensor
        Row of the sequence of each haplotype; 0 for people that a group lacks, whose targets are
        NaN.
    reference_Q : int64 tensor
        Row of the sequence of the reference.
    gene_Q : int64 tensor
    unseen_Q : bool tensor
    targets : GroupTargets
    """

    sequences: Batch
    row_QDP: torch.Tensor
    reference_Q: torch.Tensor
    gene_Q: torch.Tensor
    unseen_Q: torch.Tensor
    targets: GroupTargets

    def to(self, device: torch.device | str) -> GroupBatch:
        """Return the batch on a device."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, GroupTargets):
                value = GroupTargets(*(part.to(device) for part in value))
            else:
                value = value.to(device)
            moved[item.name] = value
        return GroupBatch(**moved)

    def __len__(self) -> int:
        return len(self.gene_Q)


class PeopleSamples(TorchDataset[GroupSample]):
    """The same people for each gene: validation and prediction.

    Parameters
    ----------
    genes : PersonalGenes
    targets : CohortTargets
    rows : int array, shape (num_genes,)
        Rows of the gene table.
    people_GD : bool array, shape (num_genes, num_donors)
        Who is asked for, for each of these genes.
    unseen : bool array, shape (num_genes,)
    """

    def __init__(
        self,
        genes: PersonalGenes,
        targets: CohortTargets,
        rows: NDArray[np.int64],
        people_GD: NDArray[np.bool_],
        unseen: NDArray[np.bool_],
    ) -> None:
        self.genes, self.targets = genes, targets
        self.rows = np.asarray(rows, dtype=np.int64)
        self.people = [np.flatnonzero(row) for row in people_GD]
        self.unseen = unseen

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> GroupSample:
        gene, people = int(self.rows[item]), self.people[item]
        haplotypes = self.genes.haplotypes(gene, people)
        return make_sample(gene, people, haplotypes, self.targets, unseen=bool(self.unseen[item]))


class TrainingGroups(TorchDataset[GroupSample]):
    """Groups of training people; which ones depends on seed, epoch and index alone.

    Parameters
    ----------
    genes : PersonalGenes
    targets : CohortTargets
    plan : GroupPlan
    jitter_bp : int
        Windows are shifted by up to this many bases, all people of a group alike.
    reference_only : bool
        Leave people out: for losses that know the sequence of the reference alone.
    """

    def __init__(
        self,
        genes: PersonalGenes,
        targets: CohortTargets,
        plan: GroupPlan,
        *,
        jitter_bp: int = 0,
        reference_only: bool = False,
    ) -> None:
        self.genes, self.targets, self.plan = genes, targets, plan
        self.reference_only = reference_only
        self.jitter_bp = jitter_bp
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the groups and shifts of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, item: int) -> GroupSample:
        group = self.plan.group(item, self.epoch)
        shift = 0
        if self.jitter_bp:
            random = np.random.default_rng((self.plan.seed, self.epoch, item, 1))
            shift = int(random.integers(-self.jitter_bp, self.jitter_bp + 1))
        people = group.people[:0] if self.reference_only else group.people
        haplotypes = self.genes.haplotypes(group.gene, people, shift=shift)
        return make_sample(group.gene, people, haplotypes, self.targets, unseen=False)


def make_sample(
    gene: int,
    people: NDArray[np.int64],
    haplotypes: GeneHaplotypes,
    targets: CohortTargets,
    *,
    unseen: bool,
) -> GroupSample:
    """Put sequences and targets of one gene together."""
    return GroupSample(
        gene=gene,
        people=people,
        haplotypes=haplotypes,
        raw=targets.raw_GD[gene, people],
        z=targets.z_GD[gene, people],
        percentile=targets.percentile_GD[gene, people],
        mean=float(targets.mean_G[gene]),
        unseen=unseen,
    )


def collate_groups(samples: Sequence[GroupSample]) -> GroupBatch:
    """Stack groups; sequences of all groups follow each other."""
    most = max(len(sample.people) for sample in samples)
    ploidy = samples[0].haplotypes.row_DP.shape[1]
    row_QDP = np.zeros((len(samples), most, ploidy), dtype=np.int64)
    targets = np.full((3, len(samples), most), np.nan, dtype=np.float32)
    first = 0
    reference = np.zeros(len(samples), dtype=np.int64)
    for number, sample in enumerate(samples):
        size = len(sample.people)
        row_QDP[number, :size] = sample.haplotypes.row_DP + first
        for part, values in zip(targets, (sample.raw, sample.z, sample.percentile), strict=True):
            part[number, :size] = values
        reference[number] = first + sample.haplotypes.reference
        first += len(sample.haplotypes)
    raw, z, percentile = (torch.from_numpy(part) for part in targets)
    mean = torch.tensor([sample.mean for sample in samples], dtype=torch.float32)
    return GroupBatch(
        sequences=stack_haplotypes([sample.haplotypes for sample in samples]),
        row_QDP=torch.from_numpy(row_QDP),
        reference_Q=torch.from_numpy(reference),
        gene_Q=torch.tensor([sample.gene for sample in samples]),
        unseen_Q=torch.tensor([sample.unseen for sample in samples]),
        targets=GroupTargets(raw, z, percentile, mean),
    )
