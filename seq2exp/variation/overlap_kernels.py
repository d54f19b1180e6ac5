"""Compiled loops that choose among records of a haplotype that cannot stand together.

Shapes: H haplotypes, M variants, G bases of the contig.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.compiled import compiled
from seq2exp.variation.haplotype_kernels import (
    ALT,
    DROPPED,
    IUPAC,
    LEAVE,
    UNKNOWN,
    allele_shape,
    conflicts,
    inline,
)

__all__ = ["keep_first", "keep_longest"]

Codes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@inline
def _clash(i, j, row, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C):
    """Whether variants i < j cannot both be put into a haplotype."""
    if row[i] == IUPAC and row[j] == IUPAC and position_M[i] == position_M[j]:
        # Both alleles of one call.
        return False
    ref_length, alt_length, _, _ = allele_shape(
        i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
    )
    _, _, front, _ = allele_shape(
        j, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
    )
    longer = row[i] == ALT and alt_length > ref_length
    return conflicts(position_M[j], front, position_M[i] + ref_length - 1, longer)


@inline
def _settle(row, members, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C):
    """Keep the longest of neighbours, then the longest of those that fit to it, and so on."""
    size = members.size
    for _ in range(size):
        best, longest = -1, np.int64(-1)
        for k in range(size):
            i = members[k]
            if i < 0:
                # Settled ones are marked by their complement.
                continue
            length = max(np.int64(ref_length_M[i]), alt_offset_M1[i + 1] - alt_offset_M1[i])
            if length > longest:
                best, longest = k, length
        i = members[best]
        for k in range(size):
            j = ~members[k]
            if j >= 0 and row[j] != DROPPED and _clash(
                min(i, j), max(i, j), row, reference_G, position_M, ref_length_M, alt_offset_M1,
                alt_codes_C,
            ):  # fmt: skip
                row[i] = DROPPED
                break
        members[best] = ~i


@compiled()
def keep_longest(
    actions_HM: Codes, reference_G: Codes, position_M: Ints, ref_length_M: Ints,
    alt_offset_M1: Ints, alt_codes_C: Codes, members_M: Ints,
) -> None:  # fmt: skip
    """Mark as dropped, in place, records that cannot stand beside a longer one.

    The length of a record is that of the longer of its alleles; of equal ones the first stays.
    ``members_M`` is room for int64 numbers.
    """
    for h in range(actions_HM.shape[0]):
        row = actions_HM[h]
        count, last = 0, np.int64(-1)
        for i in range(row.size + 1):
            if i < row.size:
                if row[i] == LEAVE:
                    continue
                if position_M[i] < 0 or position_M[i] + ref_length_M[i] > reference_G.size:
                    # Refused later, with its number.
                    continue
                ref_length, _, front, behind = allele_shape(
                    i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
                )
                if row[i] == UNKNOWN and ref_length == front + behind:
                    continue
            if count > 0 and (i == row.size or position_M[i] > last):
                if count > 1:
                    _settle(
                        row, members_M[:count], reference_G, position_M, ref_length_M,
                        alt_offset_M1, alt_codes_C,
                    )  # fmt: skip
                count = 0
            if i < row.size:
                members_M[count] = i
                count += 1
                last = max(last, position_M[i] + ref_length_M[i] - 1)


@compiled()
def keep_first(
    actions_HM: Codes, reference_G: Codes, position_M: Ints, ref_length_M: Ints,
    alt_offset_M1: Ints, alt_codes_C: Codes,
) -> None:  # fmt: skip
    """Mark as dropped, in place, records that cannot follow the one put in before them.

    What the builder of sequences leaves out by the rule ``first``, told before it builds.
    """
    for h in range(actions_HM.shape[0]):
        row = actions_HM[h]
        last, longer, pair = np.int64(-1), False, np.int64(-1)
        for i in range(row.size):
            if row[i] == LEAVE or row[i] == DROPPED:
                continue
            ref_length, alt_length, front, behind = allele_shape(
                i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
            )
            if row[i] == UNKNOWN and ref_length == front + behind:
                continue
            if conflicts(position_M[i], front, last, longer):
                if row[i] == IUPAC and position_M[i] == pair:
                    # Both alleles of one call.
                    pair = -1
                    continue
                row[i] = DROPPED
                continue
            pair = position_M[i] if row[i] == IUPAC else np.int64(-1)
            last, longer = position_M[i] + ref_length - 1, row[i] == ALT and alt_length > ref_length
