"""Variants of one contig as flat arrays, so that compiled loops and memory maps can read them.

Shapes: M variants, C inserted or replacing bases of all ALT alleles together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import decode, encode

__all__ = ["Variants"]


@dataclass(frozen=True, eq=False)
class Variants:
    """Bi-allelic, normalised variants of one contig in the order of their positions.

    Alleles are in the anchored form of VCF after trimming and left-alignment: an insertion or
    deletion begins with the reference base before it, anything else has no base in common at either
    end. The REF allele is not stored: it is what the genome says, which was checked.

    Attributes
    ----------
    position_M : int64 array, shape (M,)
        0-based position of the first base of REF, never falling.
    ref_length_M : int32 array, shape (M,)
        Bases of REF.
    alt_offset_M1 : int64 array, shape (M + 1,)
        ALT of variant i is ``alt_codes_C[alt_offset_M1[i] : alt_offset_M1[i + 1]]``.
    alt_codes_C : uint8 array, shape (C,)
        Codes A0 C1 G2 T3.
    """

    position_M: NDArray[np.int64]
    ref_length_M: NDArray[np.int32]
    alt_offset_M1: NDArray[np.int64]
    alt_codes_C: NDArray[np.uint8]

    def __post_init__(self) -> None:
        size = len(self.position_M)
        if len(self.ref_length_M) != size or len(self.alt_offset_M1) != size + 1:
            raise InputError(
                facts(
                    "variants",
                    found=f"{size} positions, {len(self.ref_length_M)} REF lengths, "
                    f"{len(self.alt_offset_M1)} ALT offsets",
                    expected="M, M and M + 1",
                    fix="prepare the genotypes again",
                )
            )

    @classmethod
    def from_alleles(cls, alleles: Iterable[tuple[int, str, str]]) -> Variants:
        """Return the arrays of (0-based position, REF, ALT) triples, normalised and in order.

        Raises
        ------
        InputError
            Positions fall, or an allele is empty.
        """
        rows = list(alleles)
        for (before, _, _), (after, _, _) in pairwise(rows):
            if after < before:
                raise InputError(
                    facts(
                        "variants",
                        found=f"position {after} after {before}",
                        expected="positions that never fall",
                        fix="sort them",
                    )
                )
        if any(not ref or not alt for _, ref, alt in rows):
            raise InputError(
                facts(
                    "variants",
                    found="an empty allele",
                    expected="at least one base in REF and ALT",
                    fix="write insertions and deletions with the base before them, as VCF does",
                )
            )
        lengths = [len(alt) for _, _, alt in rows]
        return cls(
            np.array([position for position, _, _ in rows], dtype=np.int64),
            np.array([len(ref) for _, ref, _ in rows], dtype=np.int32),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
            encode("".join(alt for _, _, alt in rows)),
        )

    def __len__(self) -> int:
        return len(self.position_M)

    @property
    def end_M(self) -> NDArray[np.int64]:
        """One past the last base of REF, shape (M,)."""
        return self.position_M + self.ref_length_M

    @property
    def alt_length_M(self) -> NDArray[np.int64]:
        """Bases of ALT, shape (M,)."""
        return np.diff(self.alt_offset_M1)

    @property
    def is_snv_M(self) -> NDArray[np.bool_]:
        """Substitutions of a single base, shape (M,)."""
        found: NDArray[np.bool_] = (self.ref_length_M == 1) & (self.alt_length_M == 1)
        return found

    def alt(self, index: int) -> str:
        """Return the letters of one ALT allele."""
        start, end = self.alt_offset_M1[index], self.alt_offset_M1[index + 1]
        return decode(self.alt_codes_C[start:end])

    def between(self, first: int, last: int) -> Variants:
        """Return variants ``first`` to ``last - 1`` without copying."""
        return Variants(
            self.position_M[first:last],
            self.ref_length_M[first:last],
            self.alt_offset_M1[first : last + 1],
            self.alt_codes_C,
        )
