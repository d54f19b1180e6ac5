"""What is done with calls that do not say plainly which allele a haplotype carries.

Alleles of haplotypes are 0 REF, 1 ALT, 2 missing. :func:`resolve` turns them into actions, which
are all that the builder of haplotypes knows (`seq2exp.variation.haplotypes.build`).

A haploid call (the X of a male, mitochondria) stands in both haplotypes of a donor of a diploid
file: readers repeat the allele, so that the mean over haplotypes is that of the one there is.
Nothing here takes the absent second allele for REF.

Shapes: D donors, P ploidy (1 or 2), M variants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.variation.table import Variants

__all__ = [
    "ALT",
    "LEAVE",
    "MISSING",
    "PUT_ALT",
    "PUT_IUPAC",
    "PUT_N",
    "REF",
    "GenotypeCounts",
    "GenotypePolicy",
    "allele_frequency",
    "resolve",
]

REF, ALT, MISSING = 0, 1, 2
"""Alleles of haplotypes."""
LEAVE, PUT_ALT, PUT_N, PUT_IUPAC = 0, 1, 2, 3
"""Actions: leave REF, put ALT, put N over what ALT would replace or delete, put the code of "REF or
ALT" (single bases only)."""

Actions = NDArray[np.uint8]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class GenotypePolicy:
    """How calls become haplotypes.

    Raises
    ------
    ConfigError
        Frequencies or lengths that leave nothing.
    """

    phase: Literal["error", "iupac", "average", "random"] = "error"
    """Heterozygous calls without phase: ``error`` refuses them; ``iupac`` and ``average`` put both
    alleles of a single base into both haplotypes with half the weight each (to a model the two are
    one and the same: the one-hot row of the code is the mean of the rows of its bases) and leave
    out insertions and deletions, counted; ``random`` deals the two alleles to the two haplotypes by
    a hash of seed, donor, contig and position, so that the same call falls the same way in every
    window, batch and process."""
    missing: Literal["ref", "n", "major", "error"] = "ref"
    """Alleles that were not called: REF; N over the bases in doubt; the allele that is more common
    among training donors; or refused."""
    variants: Literal["all", "snps", "indels"] = "all"
    """Which variants are used: all; substitutions of a single base; or those that change the
    length."""
    min_maf: float = 0.0
    """Smallest minor allele frequency among training donors; rarer variants become the major
    allele in everybody."""
    max_maf: float = 0.5
    """Largest minor allele frequency among training donors; likewise."""
    max_indel: int = 1000
    """Longest difference between REF and ALT in bases; longer variants are left out."""
    overlap: Literal["first", "longest", "error"] = "first"
    """Which of the variants of one haplotype that cannot stand together apply: the first, the
    longest, or they are refused (docs/haplotypes.md)."""
    seed: int = 0
    """Seed of ``random``."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_maf <= self.max_maf <= 0.5:
            raise ConfigError(
                facts(
                    "min_maf, max_maf",
                    found=f"{self.min_maf}, {self.max_maf}",
                    expected="0 <= min_maf <= max_maf <= 0.5",
                    fix="give minor allele frequencies",
                )
            )
        if self.max_indel < 0:
            raise ConfigError(
                facts("max_indel", found=self.max_indel, expected="0 or more", fix="raise it")
            )

    @property
    def needs_frequency(self) -> bool:
        """Whether allele frequencies of training donors are needed."""
        return self.missing == "major" or self.min_maf > 0 or self.max_maf < 0.5


@dataclass
class GenotypeCounts:
    """How many alleles and calls were of which kind; add those of several windows with ``+``.

    A call is a donor at a variant. Calls at variants that were left out count in ``filtered_*``
    only.
    """

    calls: int = 0
    heterozygous: int = 0
    missing_alleles: int = 0
    unphased: int = 0
    """Heterozygous calls without phase."""
    unphased_indels_left_out: int = 0
    """Those that a code cannot show."""
    other_phase_set: int = 0
    """Phased heterozygous calls whose phase is not known relative to most others of the window."""
    filtered_kind: int = 0
    """Variants left out by ``variants``."""
    filtered_length: int = 0
    filtered_frequency: int = 0
    """Variants at which everybody got the major allele."""
    first_unphased: str = field(default="", compare=False)
    """Donor and place of the first."""

    def __add__(self, other: GenotypeCounts) -> GenotypeCounts:
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name != "first_unphased"
        }
        return GenotypeCounts(**numbers, first_unphased=self.first_unphased or other.first_unphased)

    @property
    def unphased_share(self) -> float:
        """Share of heterozygous calls whose phase is not known; NaN without any."""
        if not self.heterozygous:
            return float("nan")
        return (self.unphased + self.other_phase_set) / self.heterozygous


def allele_frequency(
    alleles_DPM: NDArray[np.uint8], donors: NDArray[np.int64] | Bools | None = None
) -> NDArray[np.float64]:
    """Return the frequency of ALT among the called alleles of donors, NaN where none is called.

    Parameters
    ----------
    alleles_DPM : uint8 array
    donors : int or bool array, optional
        Training donors; all when None.

    Returns
    -------
    float64 array, shape (M,)
    """
    chosen = alleles_DPM if donors is None else alleles_DPM[donors]
    called = (chosen != MISSING).sum(axis=(0, 1))
    alt = (chosen == ALT).sum(axis=(0, 1))
    found: NDArray[np.float64] = np.where(called > 0, alt / np.maximum(called, 1), np.nan)
    return found


def resolve(
    alleles_DPM: NDArray[np.uint8],
    variants: Variants,
    policy: GenotypePolicy,
    *,
    unphased_DM: Bools | None = None,
    phase_set_DM: NDArray[np.int32] | None = None,
    frequency_M: NDArray[np.floating] | None = None,
    donors: Sequence[str] | None = None,
    contig: str = "",
    site_M: NDArray[np.int64] | None = None,
) -> tuple[Actions, GenotypeCounts]:
    """Return what to do with each variant on each haplotype, and how many calls were of which kind.

    Parameters
    ----------
    alleles_DPM : uint8 array
        0 REF, 1 ALT, 2 missing.
    variants : Variants
        The same M.
    policy : GenotypePolicy
    unphased_DM : bool array, optional
        Heterozygous calls without phase.
    phase_set_DM : int32 array, optional
        Phase set of phased heterozygous calls, 0 where none was stated. Calls of a donor outside
        the set that most of his calls in the window belong to count as without phase; ``random``
        turns a set as a whole.
    frequency_M : float array, optional
        Frequency of ALT among training donors (:func:`allele_frequency`), for the settings that
        need one. Where it is NaN, REF is the major allele.
    donors : sequence of str, optional
        Names, for messages and for ``random``.
    contig : str
        Name, likewise.
    site_M : int64 array, optional
        Position that ``random`` takes in place of the variant's own. Alleles that were split from
        one record and normalised to different positions fall together when they share it.

    Returns
    -------
    actions_DPM : uint8 array
        0 leave, 1 ALT, 2 N, 3 IUPAC code. The alleles themselves, not a copy, where nothing had to
        be decided.
    counts : GenotypeCounts

    Raises
    ------
    InputError
        A call that the policy refuses, or an argument that it needs is absent.
    """
    size, _, num = alleles_DPM.shape
    _check(alleles_DPM, variants, policy, unphased_DM, frequency_M)
    counts = GenotypeCounts()
    actions = alleles_DPM
    left_out_M, major_M = _filters(variants, policy, frequency_M, counts)
    used = None if left_out_M is None and major_M is None else _used(num, left_out_M, major_M)
    counts.calls = size * (num if used is None else int(used.sum()))
    het_DM = _heterozygous(alleles_DPM, used)
    if het_DM is not None:
        counts.heterozygous = int(np.count_nonzero(het_DM))
    names = donors or [f"donor {i}" for i in range(size)]
    turn = _Turn(policy, names, contig, variants.position_M if site_M is None else site_M)
    if het_DM is not None:
        free_DM = None if unphased_DM is None else unphased_DM & het_DM
        if free_DM is not None and free_DM.any():
            counts.unphased = int(np.count_nonzero(free_DM))
            actions = _without_phase(actions, free_DM, variants, turn, counts)
        if phase_set_DM is not None:
            phased = het_DM if free_DM is None else het_DM & ~free_DM
            actions = _phase_sets(actions, phased, phase_set_DM, variants, turn, counts)
    if _largest(alleles_DPM) == MISSING:
        actions = _without_call(actions, alleles_DPM, used, frequency_M, turn, counts)
    if used is not None:
        actions = actions.copy() if actions is alleles_DPM else actions
        actions[:, :, ~used] = LEAVE
        if major_M is not None and frequency_M is not None:
            actions[:, :, major_M & (np.asarray(frequency_M) > 0.5)] = PUT_ALT
    return actions, counts


class _Turn:
    """Whether `random` changes the two alleles of a call around."""

    def __init__(
        self,
        policy: GenotypePolicy,
        donors: Sequence[str],
        contig: str,
        site_M: NDArray[np.int64],
    ) -> None:
        self.policy, self.donors, self.contig, self.site_M = policy, donors, contig, site_M

    def place(self, donor: int, variant: int) -> str:
        return f"{self.donors[donor]} at {self.contig}:{int(self.site_M[variant]) + 1}"

    def calls(self, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Bools:
        """Return a bit for each pair of a donor's row and a number, the same in any order."""
        keys = np.array([self._key(row) for row in np.unique(rows)], dtype=np.uint64)
        mixed = keys[np.unique(rows, return_inverse=True)[1]] ^ numbers.astype(np.uint64)
        # The finaliser of splitmix64: every bit of the input moves every bit of the result.
        with np.errstate(over="ignore"):
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits: Bools = ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(1)).astype(bool)
        return bits

    def _key(self, row: int) -> int:
        text = f"{self.policy.seed}\0{self.donors[row]}\0{self.contig}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _without_phase(
    actions: Actions,
    free_DM: Bools,
    variants: Variants,
    turn: _Turn,
    counts: GenotypeCounts,
) -> Actions:
    """Decide calls whose two alleles are known and their order is not."""
    policy = turn.policy
    rows, columns = np.nonzero(free_DM)
    counts.first_unphased = counts.first_unphased or turn.place(rows[0], columns[0])
    if policy.phase == "error":
        raise InputError(
            facts(
                f"genotypes on {turn.contig}",
                found="heterozygous calls without phase (0/1)",
                expected="phased calls (0|1)",
                fix="phase the file, or choose phase: random, iupac or average",
                count=rows.size,
                examples=[turn.place(rows[i], columns[i]) for i in range(min(3, rows.size))],
            )
        )
    actions = actions.copy()
    if policy.phase == "random":
        bits = turn.calls(rows, np.asarray(turn.site_M)[columns])
        rows, columns = rows[bits], columns[bits]
        pair = actions[rows, :, columns]
        actions[rows, :, columns] = pair[:, ::-1]
        return actions
    single = variants.is_snv_M[columns]
    counts.unphased_indels_left_out += int(np.count_nonzero(~single))
    actions[rows, :, columns] = np.where(single, PUT_IUPAC, LEAVE)[:, None]
    return actions


def _phase_sets(
    actions: Actions,
    phased_DM: Bools,
    phase_set_DM: NDArray[np.int32],
    variants: Variants,
    turn: _Turn,
    counts: GenotypeCounts,
) -> Actions:
    """Decide calls outside the phase set that most calls of their donor belong to."""
    policy = turn.policy
    sets_DM = np.where(phased_DM, phase_set_DM, -1)
    other_DM = np.zeros_like(phased_DM)
    for row in np.flatnonzero((sets_DM > 0).any(axis=1)):
        mine = sets_DM[row]
        names, firsts, sizes = np.unique(mine[mine >= 0], return_index=True, return_counts=True)
        if len(names) > 1:
            # Of equally large ones the first in the window.
            main = names[np.lexsort((firsts, -sizes))[0]]
            other_DM[row] = (mine >= 0) & (mine != main)
    if not other_DM.any():
        return actions
    rows, columns = np.nonzero(other_DM)
    counts.other_phase_set = rows.size
    if policy.phase != "random":
        return _without_phase(actions, other_DM, variants, turn, counts)
    counts.first_unphased = counts.first_unphased or turn.place(rows[0], columns[0])
    bits = turn.calls(rows, sets_DM[rows, columns].astype(np.int64))
    rows, columns = rows[bits], columns[bits]
    actions = actions.copy()
    pair = actions[rows, :, columns]
    actions[rows, :, columns] = pair[:, ::-1]
    return actions


def _without_call(
    actions: Actions,
    alleles_DPM: NDArray[np.uint8],
    used: Bools | None,
    frequency_M: NDArray[np.floating] | None,
    turn: _Turn,
    counts: GenotypeCounts,
) -> Actions:
    """Decide alleles that were not called."""
    policy = turn.policy
    missing = alleles_DPM == MISSING
    if used is not None:
        missing &= used
    counts.missing_alleles = int(np.count_nonzero(missing))
    if not counts.missing_alleles:
        return actions
    if policy.missing == "error":
        rows, columns = np.nonzero(missing.any(axis=1))
        raise InputError(
            facts(
                f"genotypes on {turn.contig}",
                found="alleles that were not called (./.)",
                expected="none",
                fix="choose missing: ref, n or major",
                count=counts.missing_alleles,
                examples=[turn.place(rows[i], columns[i]) for i in range(min(3, rows.size))],
            )
        )
    actions = actions.copy() if actions is alleles_DPM else actions
    if policy.missing == "major":
        likely = np.asarray(frequency_M) > 0.5
        actions[missing] = np.broadcast_to(likely, missing.shape)[missing]
    else:
        actions[missing] = PUT_N if policy.missing == "n" else LEAVE
    return actions


def _filters(
    variants: Variants,
    policy: GenotypePolicy,
    frequency_M: NDArray[np.floating] | None,
    counts: GenotypeCounts,
) -> tuple[Bools | None, Bools | None]:
    """Return which variants are left out, and at which everybody gets the major allele."""
    single_M = variants.is_snv_M
    left_out = None
    if policy.variants != "all":
        same_length_M = variants.alt_length_M == variants.ref_length_M
        left_out = same_length_M if policy.variants == "indels" else ~single_M
        counts.filtered_kind = int(np.count_nonzero(left_out))
    if not single_M.all():
        difference = np.abs(variants.alt_length_M - variants.ref_length_M)
        long = difference > policy.max_indel
        if left_out is not None:
            long &= ~left_out
        counts.filtered_length = int(np.count_nonzero(long))
        if counts.filtered_length:
            left_out = long if left_out is None else left_out | long
    if policy.min_maf <= 0 and policy.max_maf >= 0.5:
        return left_out, None
    alt = np.nan_to_num(np.asarray(frequency_M, dtype=np.float64))
    minor = np.minimum(alt, 1 - alt)
    major = (minor < policy.min_maf) | (minor > policy.max_maf)
    if left_out is not None:
        major &= ~left_out
    counts.filtered_frequency = int(np.count_nonzero(major))
    return left_out, major


def _used(num: int, left_out_M: Bools | None, major_M: Bools | None) -> Bools:
    used = np.ones(num, bool)
    for filtered in (left_out_M, major_M):
        if filtered is not None:
            used &= ~filtered
    return used


def _heterozygous(alleles_DPM: NDArray[np.uint8], used: Bools | None) -> Bools | None:
    """Return calls with both alleles at hand and different; None for a single haplotype."""
    if alleles_DPM.shape[1] != 2:
        return None
    first, second = alleles_DPM[:, 0], alleles_DPM[:, 1]
    # 0 and 1 in either order: missing alleles have another bit.
    het: Bools = (first ^ second) == 1
    return het if used is None else het & used


def _largest(alleles_DPM: NDArray[np.uint8]) -> int:
    return int(alleles_DPM.max()) if alleles_DPM.size else 0


def _check(
    alleles_DPM: NDArray[np.uint8],
    variants: Variants,
    policy: GenotypePolicy,
    unphased_DM: Bools | None,
    frequency_M: NDArray[np.floating] | None,
) -> None:
    size, ploidy, num = alleles_DPM.shape
    wrong = num != len(variants) or ploidy not in (1, 2)
    wrong |= unphased_DM is not None and unphased_DM.shape != (size, num)
    if wrong or _largest(alleles_DPM) > MISSING:
        raise InputError(
            facts(
                "genotypes",
                found=f"alleles of shape {alleles_DPM.shape} up to {_largest(alleles_DPM)}",
                expected=f"donors x 1 or 2 x {len(variants)} variants, 0 REF, 1 ALT, 2 missing",
                fix="read them from the dataset",
            )
        )
    if policy.needs_frequency and (frequency_M is None or len(frequency_M) != num):
        raise InputError(
            facts(
                "genotype policy",
                found="no allele frequencies",
                expected="those of training donors for missing: major, min_maf and max_maf",
                fix="give seq2exp.variation.policies.allele_frequency of the training donors",
            )
        )
