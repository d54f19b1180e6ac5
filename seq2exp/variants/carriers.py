"""The haplotypes of carriers: what else stands in the sequences in which a variant is compared.

Every distinct haplotype of a gene's window among the carriers is a context of its own: before, it
holds REF of the variant, after, its ALT, and everything else as it is carried. The score is the
mean over contexts, each weighted by the copies of carriers that it stands for.

Shapes: A alleles of one gene, C comparisons, V columns of scores, D people, H haplotypes (D times
the ploidy), U distinct haplotypes, M variants of a window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.judge import Judged, Put
from seq2exp.variation.alleles import Allele
from seq2exp.variation.haplotypes import needed_interval, unique_haplotypes
from seq2exp.variation.overlaps import applied
from seq2exp.variation.policies import PUT_ALT, GenotypePolicy, resolve
from seq2exp.variation.table import Variants

__all__ = ["Carriers", "ContextMaker", "Contexts", "GeneCarriers", "Reference"]

REFERENCE = "reference"
_GENES = 8


@dataclass(frozen=True, eq=False)
class Contexts:
    """The comparisons by which the alleles of one gene are scored.

    Attributes
    ----------
    row_C : int64 array
        Which allele.
    copies_C : int64 array
        Copies of carriers' haplotypes that the comparison stands for; 1 on the reference.
    judged : sequence of Judged
        The alleles.
    word_A : list of str
        ``reference``, or ``carriers:`` and the copies that were scored; where the overlap rule
        drops the variant from some, the copies that carry it follow a slash.
    num_A : int64 array
        Distinct haplotypes; 0 on the reference.
    haplotype_C : int64 array
        Which haplotype of `carriers`; -1 for the reference.
    carriers : GeneCarriers, optional
    """

    row_C: NDArray[np.int64]
    copies_C: NDArray[np.int64]
    judged: Sequence[Judged]
    word_A: list[str]
    num_A: NDArray[np.int64]
    haplotype_C: NDArray[np.int64]
    carriers: GeneCarriers | None = None

    def __len__(self) -> int:
        return len(self.row_C)

    def case(self, number: int) -> Judged:
        """Return one comparison."""
        judged: Judged = self.judged[int(self.row_C[number])]
        haplotype = int(self.haplotype_C[number])
        if haplotype < 0 or self.carriers is None:
            return judged
        after = self.carriers.put(haplotype)
        before = tuple(allele for allele in after if allele != judged.after[0])
        return replace(judged, before=before, after=after)

    @property
    def lost_A(self) -> NDArray[np.bool_]:
        """Alleles that stand on no haplotype, because the overlap rule drops them everywhere."""
        found = np.ones(len(self.judged), dtype=np.bool_)
        found[self.row_C] = False
        return found

    def averaged(
        self, values_CV: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean of every column over contexts, and its spread.

        Returns
        -------
        mean_AV : float32 array
            NaN for an allele without a comparison.
        spread_AV : float32 array
            Standard deviation over the copies; NaN on the reference.
        """
        size = len(self.judged)
        weight_C1 = self.copies_C[:, None].astype(np.float64)
        total_A1 = np.bincount(self.row_C, self.copies_C, size)[:, None]
        # Around one of the values, so that equal ones have no spread at all.
        first_AV = np.zeros((size, values_CV.shape[1]))
        first_AV[self.row_C] = values_CV
        away_CV = values_CV - first_AV[self.row_C]
        with np.errstate(invalid="ignore"):
            middle_AV = self._sums(weight_C1 * away_CV) / total_A1
            squares_CV = weight_C1 * (away_CV - middle_AV[self.row_C]) ** 2
            spread_AV = np.sqrt(self._sums(squares_CV) / total_A1)
            mean_AV = np.where(total_A1 > 0, first_AV + middle_AV, np.nan)
        spread_AV[self.num_A == 0] = np.nan
        return mean_AV.astype(np.float32), spread_AV.astype(np.float32)

    def _sums(self, values_CV: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.zeros((len(self.judged), values_CV.shape[1]))
        np.add.at(found, self.row_C, values_CV)
        return found


class ContextMaker(Protocol):
    """Says in which sequences alleles are compared."""

    def contexts(self, gene: int, judged: Sequence[Judged]) -> Contexts:
        """Return the comparisons of alleles that are scored for a gene."""


class Reference:
    """Every allele in the reference."""

    def contexts(self, gene: int, judged: Sequence[Judged]) -> Contexts:
        """Return one comparison per allele, whatever the gene."""
        del gene
        size = len(judged)
        return Contexts(
            np.arange(size),
            np.ones(size, dtype=np.int64),
            judged,
            [REFERENCE] * size,
            np.zeros(size, dtype=np.int64),
            np.full(size, -1, dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class GeneCarriers:
    """Who carries what in the window of a gene.

    Attributes
    ----------
    first : int
        Number of the first variant on its contig.
    variants : Variants
    alleles : list of Allele
        The same variants.
    carried_HM : bool array
        Haplotypes that carry ALT.
    applied_UM : bool array
        Distinct haplotypes by the variants that apply.
    haplotype_H : int64 array
        Which of them each haplotype is.
    """

    first: int
    variants: Variants
    alleles: list[Allele]
    carried_HM: NDArray[np.bool_]
    applied_UM: NDArray[np.bool_]
    haplotype_H: NDArray[np.int64]

    def find(self, allele: Allele) -> int:
        """Return the number of a variant; -1 where the genotypes do not have it."""
        positions = self.variants.position_M
        at = int(np.searchsorted(positions, allele.position))
        while at < len(positions) and positions[at] == allele.position:
            if self.alleles[at] == allele:
                return at
            at += 1
        return -1

    def put(self, haplotype: int) -> Put:
        """Return what a distinct haplotype holds."""
        numbers = np.flatnonzero(self.applied_UM[haplotype]).tolist()
        return tuple(self.alleles[number] for number in numbers)


class Carriers:
    """Haplotypes of people, from the genotypes of a dataset or of the input.

    Parameters
    ----------
    dataset : Dataset
    genotypes : Genotypes or None
        Of the same genome; those of the dataset when None.
    windows : mapping of int to Window
        Of every gene, without shift.
    config : ScoreConfig
        Who may be a carrier, how many are looked at, and what is done without phase.

    Raises
    ------
    InputError
        A name is no donor, or calls lack their phase and the configuration refuses such.
    """

    def __init__(
        self,
        dataset: Dataset,
        genotypes: Genotypes | None,
        windows: dict[int, Window],
        config: ScoreConfig,
    ) -> None:
        self.dataset, self.windows, self.config = dataset, windows, config
        genotypes = genotypes or Genotypes(dataset.root)
        self.genotypes = genotypes
        self.policy = GenotypePolicy(
            phase=config.phase, max_indel=config.max_indel, seed=config.seed
        )
        _require_phase(genotypes, config)
        names = list(config.carriers)
        people = genotypes.donor_rows(names) if names else np.arange(len(genotypes.donors))
        # The same people are looked at first for every variant, so that haplotypes are shared.
        self.people = np.random.default_rng(config.seed).permutation(people)
        self.shift = max(map(abs, (*config.shifts, *config.indel_shifts)))
        self._seen: OrderedDict[int, GeneCarriers] = OrderedDict()

    def gene(self, gene: int) -> GeneCarriers:
        """Return who carries what in the window of a gene."""
        if gene not in self._seen:
            self._seen[gene] = self.carried(gene, self.people)
            if len(self._seen) > _GENES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(gene)
        return self._seen[gene]

    def carried(self, gene: int, people: NDArray[np.int64]) -> GeneCarriers:
        """Return who of some people carries what in the window of a gene.

        Parameters
        ----------
        gene : int
        people : int64 array
            Numbers of donors, in the order of the haplotypes.
        """
        contig, tss, _ = self.dataset.sites[gene]
        window = self.windows[gene]
        window = replace(window, start=window.start - self.shift, end=window.end + self.shift)
        genotypes, codes = self.genotypes, self.dataset.contig_codes(contig)
        _, _, first, last = needed_interval(
            window,
            genotypes.variants(contig),
            span=lambda low, high: genotypes.span(contig, low, high),
        )
        variants = genotypes.variants(contig).between(first, last)
        actions_DPM, _ = resolve(
            genotypes.alleles(contig, first, last, people),
            variants,
            self.policy,
            unphased_DM=genotypes.unphased(contig, first, last, people),
            phase_set_DM=genotypes.phase_sets(contig, first, last, people),
            donors=[genotypes.donors[number] for number in people],
            contig=contig,
            site_M=genotypes.sites(contig, first, last),
        )
        # Not -1: a window may hold no variant at all.
        num_haplotypes = actions_DPM.shape[0] * actions_DPM.shape[1]
        actions_HM = actions_DPM.reshape(num_haplotypes, last - first)
        applied_HM = applied(codes, variants, actions_HM) == PUT_ALT
        _forget_outside(applied_HM, variants, window, tss)
        first_U, haplotype_H = unique_haplotypes(applied_HM.view(np.uint8))
        spans = zip(variants.position_M.tolist(), variants.end_M.tolist(), strict=True)
        return GeneCarriers(
            first,
            variants,
            [
                Allele(start, decode(codes[start:end]), variants.alt(number))
                for number, (start, end) in enumerate(spans)
            ],
            actions_HM == PUT_ALT,
            applied_HM[first_U],
            haplotype_H,
        )

    def contexts(self, gene: int, judged: Sequence[Judged]) -> Contexts:
        """Return the comparisons of alleles: on each haplotype of carriers, or on the reference.

        What REF is not what the genome says, and what nobody carries, is compared on the reference.
        """
        here = self.gene(gene)
        rows: list[tuple[int, int, int]] = []
        words, numbers = [REFERENCE] * len(judged), np.zeros(len(judged), dtype=np.int64)
        for row, case in enumerate(judged):
            plain = case.status == "ok" and not case.before and len(case.after) == 1
            variant = here.find(case.after[0]) if plain else -1
            copies_H = self._copies(here, variant)
            if not len(copies_H):
                rows.append((-1, row, 1))
                continue
            haplotypes, counts = np.unique(here.haplotype_H[copies_H], return_counts=True)
            stands = here.applied_UM[haplotypes, variant]
            scored, carried = int(counts[stands].sum()), len(copies_H)
            words[row] = f"carriers:{scored}" + (f"/{carried}" if scored < carried else "")
            numbers[row] = int(stands.sum())
            pairs = zip(haplotypes[stands].tolist(), counts[stands].tolist(), strict=True)
            rows += [(haplotype, row, number) for haplotype, number in pairs]
        # By haplotype: what stands on one has its sequence after in common.
        table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
        return Contexts(table[:, 1], table[:, 2], judged, words, numbers, table[:, 0], here)

    def _copies(self, here: GeneCarriers, variant: int) -> NDArray[np.int64]:
        """Return the haplotypes of carriers of a variant, of as many people as are looked at."""
        if variant < 0:
            return np.empty(0, dtype=np.int64)
        copies_H = np.flatnonzero(here.carried_HM[:, variant])
        person_H = copies_H // self.genotypes.ploidy
        chosen = np.unique(person_H)[: self.config.max_carriers or None]
        return copies_H[np.isin(person_H, chosen)]


def _forget_outside(
    applied_HM: NDArray[np.bool_], variants: Variants, window: Window, tss: int
) -> None:
    """Take out, in place, what lies further out than a haplotype's own deletions can bring in."""
    lost_M = np.maximum(variants.end_M - variants.position_M - variants.alt_length_M, 0)
    left_M = variants.position_M < tss
    start_H = window.start - applied_HM @ (lost_M * left_M)
    end_H = window.end + applied_HM @ (lost_M * ~left_M)
    applied_HM &= variants.end_M > start_H[:, None]
    applied_HM &= variants.position_M < end_H[:, None]


def _require_phase(genotypes: Genotypes, config: ScoreConfig) -> None:
    """Raise before any work where calls without phase are refused."""
    count = genotypes.info.counts.get("calls_heterozygous_unphased", 0)
    if config.phase != "error" or not count:
        return
    raise InputError(
        facts(
            "genotypes of carriers",
            found="heterozygous calls without phase (0/1)",
            expected="phased calls (0|1)",
            fix="phase the file, or --phase random, which deals the two alleles to the two "
            "haplotypes by a hash of --seed, sample and position",
            count=count,
        )
    )
