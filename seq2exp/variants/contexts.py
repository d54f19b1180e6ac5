"""Shuffled surroundings of a variant: what the same change does among other bases.

The null of a variant is its score when the bases around it are in another order: the ``flank``
bases of the genome before and as many behind it are shuffled, each side by itself, keeping every
count of neighbouring bases and the bases next to the variant. The alleles and the rest of the
window, with its tracks, stay. Both alleles stand in the same shuffle, and so do all members of an
ensemble, whatever their strand and shift. So the null asks whether the change does more here than
among bases of the same composition, and not whether the gene can change at all. Where the TSS is
within the flank, the promoter is shuffled with it.

Shapes: G bases of a contig, L of a window, F of a flank, K draws.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.sequence import reverse_complement

__all__ = ["FLANK", "Flanks", "shuffled_flanks", "variant_random", "with_flanks"]

FLANK = 1024
"""Bases on either side of a variant that are shuffled, by default."""

Codes = NDArray[np.uint8]


class Flanks(NamedTuple):
    """Shuffled bases on both sides of a variant, in genome direction.

    Attributes
    ----------
    before_KF, after_KF : uint8 arrays
        Those that end just before the variant, and those that begin just behind it.
    start, end : int
        The bases of REF between them, 0-based half-open.
    """

    before_KF: Codes
    after_KF: Codes
    start: int
    end: int


def variant_random(
    seed: int, contig: str, position: int, ref: str, alt: str
) -> np.random.Generator:
    """Return random numbers of a variant: the same in any order, batch, shard or process.

    Parameters
    ----------
    seed : int
        Of the whole analysis.
    contig : str
    position : int
        0-based, normalised.
    ref, alt : str
        Normalised alleles.
    """
    text = "\t".join((str(seed), contig, str(position), ref, alt))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def shuffled_flanks(
    codes_G: Codes,
    start: int,
    end: int,
    *,
    random: np.random.Generator,
    num: int,
    flank: int = FLANK,
) -> Flanks:
    """Draw shuffles of what lies around a stretch of a contig.

    Parameters
    ----------
    codes_G : uint8 array
        The contig; may be memory-mapped.
    start, end : int
        The bases of REF, 0-based half-open.
    random : Generator
        Of the variant: :func:`variant_random`.
    num : int
        Draws.
    flank : int
        Bases on either side; fewer at the ends of the contig. N stay where they are.

    Raises
    ------
    ConfigError
        ``num`` or ``flank`` is below 1.
    InputError
        The stretch is not inside of the contig.
    """
    if num < 1 or flank < 1:
        raise ConfigError(
            facts("shuffled contexts", found=f"{num} draws, flank of {flank} bp",
                  expected="at least 1 of each", fix="use 99 draws or more")
        )  # fmt: skip
    if not 0 <= start <= end <= len(codes_G):
        raise InputError(
            facts("shuffled contexts", found=f"an allele at {start}-{end}",
                  expected=f"inside of a contig of {len(codes_G)} bases", fix="check the assembly")
        )  # fmt: skip
    sides = codes_G[max(start - flank, 0) : start], codes_G[end : end + flank]
    drawn = [[shuffle_dinucleotides(side, random) for side in sides] for _ in range(num)]
    before, after = zip(*drawn, strict=True)
    return Flanks(np.stack(before), np.stack(after), start, end)


def with_flanks(
    codes_L: Codes, reference_map_L: NDArray[np.integer], flanks: Flanks, *, reverse: bool = False
) -> Codes:
    """Return the window of an allele with shuffled surroundings, shape (K, L).

    Parameters
    ----------
    codes_L : uint8 array
        The window with REF or ALT in it, in model direction.
    reference_map_L : int array
        Position of each of its bases, negative where it has none
        (:meth:`seq2exp.variation.haplotypes.Haplotypes.reference_map`). Inserted bases stay.
    flanks : Flanks
    reverse : bool
        The window is read from the other strand.
    """
    codes_KL = np.repeat(np.asarray(codes_L)[None], len(flanks.before_KF), axis=0)
    for side_KF, first in (
        (flanks.before_KF, flanks.start - flanks.before_KF.shape[1]),
        (flanks.after_KF, flanks.end),
    ):
        offset_L = np.asarray(reference_map_L, np.int64) - first
        here = np.flatnonzero(
            (reference_map_L >= 0) & (offset_L >= 0) & (offset_L < side_KF.shape[1])
        )
        bases = side_KF[:, offset_L[here]]
        # Complements without turning around: each base already has its place.
        codes_KL[:, here] = reverse_complement(bases[:, ::-1]) if reverse else bases
    return codes_KL
