"""Which records of a haplotype apply where some of them cannot stand together.

The rules are those of :mod:`seq2exp.variation.haplotypes`, told before any sequence is built.

Shapes: H haplotypes, M variants, G bases of the contig.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.variation import overlap_kernels
from seq2exp.variation.haplotype_kernels import DROPPED, LEAVE
from seq2exp.variation.haplotypes import read_only
from seq2exp.variation.table import Variants

__all__ = ["applied"]


def applied(
    reference_codes: NDArray[np.uint8],
    variants: Variants,
    actions_HM: NDArray[np.uint8],
    *,
    overlap: str = "first",
) -> NDArray[np.uint8]:
    """Return the actions that take effect; those that the overlap rule drops are 0.

    Without any one of them the others still apply.

    Parameters
    ----------
    reference_codes : uint8 array, shape (G,)
        Codes of the whole contig; may be memory-mapped.
    variants : Variants
        From the beginning of a cluster of overlapping ones on.
    actions_HM : uint8 array
        As `seq2exp.variation.haplotypes.build` takes them.
    overlap : str
        ``first`` or ``longest``.

    Raises
    ------
    InputError
        Another rule, or a variant that leaves the contig.
    """
    kept = np.array(actions_HM, dtype=np.uint8, order="C")
    ends_M = np.asarray(variants.end_M)
    outside = len(ends_M) and (variants.position_M[0] < 0 or ends_M.max() > len(reference_codes))
    if overlap not in ("first", "longest") or outside:
        raise InputError(
            facts(
                "overlapping variants",
                found="a variant outside of its contig" if outside else f"overlap {overlap!r}",
                expected="variants of this genome, and the rule first or longest",
                fix="read them from the dataset, and use one of the rules",
            )
        )
    arrays = (
        read_only(reference_codes),
        read_only(variants.position_M),
        read_only(variants.ref_length_M),
        read_only(variants.alt_offset_M1),
        read_only(variants.alt_codes_C),
    )
    if overlap == "first":
        overlap_kernels.keep_first(kept, *arrays)
    else:
        overlap_kernels.keep_longest(kept, *arrays, np.empty(len(variants), np.int64))
    kept[kept == DROPPED] = LEAVE
    return kept
