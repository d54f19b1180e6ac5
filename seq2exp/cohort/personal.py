"""Windows of people: the distinct haplotypes of a gene, as a model reads them.

People share haplotypes, so a gene is a few distinct sequences and a table that says who has which;
a model runs each sequence once. Sequences are built when they are asked for, nothing is written.

Tracks are measured on the reference; they follow their bases onto a haplotype with insertions or
deletions. Contacts, excluded regions and candidate elements keep their places in the window.

Shapes: D people, P haplotypes of each, U distinct haplotypes, M variants of the window, L bases,
N bins, T tracks, F scalar features, R elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.haplotype_tracks import moved_signal
from seq2exp.dataset.samples import Batch, GeneSamples, Sample, SampleConfig, collate, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.variation.haplotypes import build, needed_interval, unique_haplotypes
from seq2exp.variation.iupac import one_hot
from seq2exp.variation.policies import GenotypePolicy, allele_frequency, resolve
from seq2exp.variation.table import Variants

__all__ = ["GeneHaplotypes", "HaplotypePlan", "PersonalGenes", "stack_haplotypes"]


@dataclass(frozen=True, eq=False)
class GeneHaplotypes:
    """The distinct sequences of one gene.

    Attributes
    ----------
    codes_UL : uint8 array
        Bases in model direction; codes above N where the policy of genotypes makes them.
    signal_UNT : float32 array
        Tracks in stored units, contacts last; NaN where there is no data.
    row_DP : int64 array
        Which sequence each haplotype of a person is.
    reference : int
        Which sequence is that of the reference.
    shared : Sample
        What all of them have in common: features, excluded and valid bins, elements.
    """

    codes_UL: NDArray[np.uint8]
    signal_UNT: NDArray[np.float32]
    row_DP: NDArray[np.int64]
    reference: int
    shared: Sample

    def __len__(self) -> int:
        return len(self.codes_UL)


@dataclass(frozen=True, eq=False)
class HaplotypePlan:
    """The distinct haplotypes of one gene by what they carry: small, however long the window.

    Attributes
    ----------
    gene : int
        Row of the gene table.
    window : Window
    known : (int, int)
        Interval of which `variants` holds every variant.
    variants : Variants
    actions_UM : uint8 array
        What each haplotype does with each variant.
    row_DP : int64 array
        Which of them each haplotype of a person is.
    reference : int
        Which of them is the reference.
    shared : Sample
        What all of them have in common.
    """

    gene: int
    window: Window
    known: tuple[int, int]
    variants: Variants
    actions_UM: NDArray[np.uint8]
    row_DP: NDArray[np.int64]
    reference: int
    shared: Sample

    def __len__(self) -> int:
        return len(self.actions_UM)


class PersonalGenes:
    """Haplotypes of any people for any gene of a dataset.

    Parameters
    ----------
    dataset : Dataset
        With genotypes.
    config : SampleConfig
        Windows and tracks.
    policy : GenotypePolicy
    train : int array
        Donors whose frequencies decide which variants are used and which allele is the major one.

    Raises
    ------
    InputError
        The dataset has no genotypes.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: SampleConfig,
        policy: GenotypePolicy,
        *,
        train: NDArray[np.int64],
    ) -> None:
        if dataset.genotypes is None:
            raise InputError(
                facts(
                    f"dataset {dataset.root}",
                    found="no genotypes",
                    expected="a dataset that was prepared with a section genotypes",
                    fix="add genotypes to the data configuration and prepare it again",
                )
            )
        self.dataset, self.config, self.policy, self.train = dataset, config, policy, train
        self.genotypes: Genotypes = dataset.genotypes
        self.samples = GeneSamples(dataset, config, np.arange(len(dataset.genes)))

    def haplotypes(self, gene: int, people: NDArray[np.int64], *, shift: int = 0) -> GeneHaplotypes:
        """Return the distinct haplotypes of people in the window of a gene.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        people : int array, shape (D,)
            Numbers of donors.
        shift : int
            Bases by which the window is moved in genome direction.
        """
        return self.sequences(self.plan(gene, people, shift=shift))

    def plan(self, gene: int, people: NDArray[np.int64], *, shift: int = 0) -> HaplotypePlan:
        """Return who carries what, before any sequence is built; parameters as `haplotypes`."""
        contig = self.dataset.sites[gene][0]
        window = gene_window(self.dataset, gene, self.config, shift=shift)
        variants = self.genotypes.variants(contig)
        start, end, first, last = needed_interval(
            window,
            variants,
            overlap=self.policy.overlap,
            span=lambda low, high: self.genotypes.span(contig, low, high),
        )
        actions_DPM = self._actions(contig, first, last, people)
        num, ploidy, size = actions_DPM.shape
        # The reference is one more haplotype, which carries nothing.
        actions_HM = np.zeros((num * ploidy + 1, size), dtype=np.uint8)
        actions_HM[:-1] = actions_DPM.reshape(num * ploidy, size)
        first_U, inverse_H = unique_haplotypes(actions_HM)
        return HaplotypePlan(
            gene=gene,
            window=window,
            known=(start, end),
            variants=variants.between(first, last),
            actions_UM=actions_HM[first_U],
            row_DP=inverse_H[:-1].reshape(num, ploidy),
            reference=int(inverse_H[-1]),
            shared=self.samples.sample(gene, window),
        )

    def sequences(
        self, plan: HaplotypePlan, first: int = 0, last: int | None = None
    ) -> GeneHaplotypes:
        """Build the sequences of a plan, or some of them, so that not all need be held at once.

        Parameters
        ----------
        plan : HaplotypePlan
        first, last : int
            Half-open range of its sequences; `row_DP` and `reference` count from the plan's first.
        """
        contig, tss, strand = self.dataset.sites[plan.gene]
        actions_UM = plan.actions_UM[first:last]
        moves_M = plan.variants.alt_length_M != plan.variants.ref_length_M
        built = build(
            self.dataset.contig_codes(contig),
            plan.variants,
            actions_UM,
            plan.window,
            tss,
            overlap=self.policy.overlap,
            gene_strand=strand,
            known=plan.known,
        )
        moved_U = (actions_UM[:, moves_M] != 0).any(axis=1)
        return GeneHaplotypes(
            codes_UL=built.codes_HL,
            signal_UNT=moved_signal(self.samples, built, plan.shared, moved_U),
            row_DP=plan.row_DP,
            reference=plan.reference,
            shared=plan.shared,
        )

    def dosage(
        self, gene: int, people: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what linear models read: copies of ALT of the variants in the window of a gene.

        Returns
        -------
        dosage_DM : float32 array
            0 to the ploidy; NaN for a missing call.
        snv_M : bool array
            Which variants are substitutions of one base.
        """
        contig = self.dataset.sites[gene][0]
        window = gene_window(self.dataset, gene, self.config)
        first, last = self.genotypes.span(contig, window.clipped_start, window.clipped_end)
        part = self.genotypes.variants(contig).between(first, last)
        used = np.flatnonzero((part.position_M >= window.start) & (part.position_M < window.end))
        dosage = self.genotypes.dosage(contig, first, last, people)
        return dosage[:, used], part.is_snv_M[used]

    def _actions(
        self, contig: str, first: int, last: int, people: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Return what becomes of each allele, shape (D, P, M)."""
        genotypes = self.genotypes
        frequency = None
        if self.policy.needs_frequency:
            frequency = allele_frequency(genotypes.alleles(contig, first, last, self.train))
        found, _ = resolve(
            genotypes.alleles(contig, first, last, people),
            genotypes.variants(contig).between(first, last),
            self.policy,
            unphased_DM=genotypes.unphased(contig, first, last, people),
            phase_set_DM=genotypes.phase_sets(contig, first, last, people),
            frequency_M=frequency,
            donors=[genotypes.donors[number] for number in people],
            contig=contig,
            site_M=genotypes.sites(contig, first, last),
        )
        return found


def stack_haplotypes(genes: Sequence[GeneHaplotypes]) -> Batch:
    """Return the sequences of genes as a batch, one row for each, gene after gene.

    Bases are codes, or one-hot columns where a sequence holds codes for several bases.
    """
    codes_UL = np.concatenate([gene.codes_UL for gene in genes])
    signal_UNT = np.concatenate([gene.signal_UNT for gene in genes])
    counts = torch.tensor([len(gene) for gene in genes])
    common = collate([gene.shared for gene in genes])
    bases = codes_UL if codes_UL.max(initial=0) <= N_CODE else one_hot(codes_UL)

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(counts, dim=0)

    return Batch(
        codes_BL=torch.from_numpy(bases),
        signal_BNT=torch.from_numpy(signal_UNT),
        features_BF=spread(common.features_BF),
        expression_BK=spread(common.expression_BK),
        blacklist_BN=spread(common.blacklist_BN),
        valid_BN=spread(common.valid_BN),
        elements_BR2=spread(common.elements_BR2),
        index_B=spread(common.index_B),
    )
