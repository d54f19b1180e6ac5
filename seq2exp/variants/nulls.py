"""Empirical p-values of scores, from the same change in shuffled surroundings.

The null of a variant is its score when the bases around it are in another order: of the window, the
``flank`` bases before and as many behind the variant are shuffled, each by itself, keeping every
count of neighbouring bases and the bases next to the variant; the alleles and the rest of the
window (with its tracks) stay. Both alleles stand in the same shuffle. So the null asks whether the
change does more here than among bases of the same composition, and not whether the gene can change
at all. Where the TSS is within the flank, the promoter is shuffled with it.

With n draws, p_right is ``(1 + draws >= score) / (1 + n)`` and p_left ``(1 + draws <= score) / (1 +
n)``: never 0, and uniform on its steps when the surroundings do not matter. Signed scores are
two-sided, ``min(1, 2 min(p_left, p_right))``; without the outer minimum that can exceed 1, as in
kundajelab/variant-scorer. Unsigned ones take the right tail.

Shapes: L bases of a window, K draws, B scores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError, InputError, facts

__all__ = [
    "FLANK",
    "QValues",
    "empirical_p",
    "p_left",
    "p_right",
    "p_two_sided",
    "shuffled_contexts",
    "variant_random",
]

FLANK = 1024
"""Bases on either side of a variant that are shuffled, by default."""

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def p_right(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return the share of draws that reach each score, the score itself counted with them.

    Parameters
    ----------
    score_B : float array, shape (B,)
    draws_BK : float array, shape (B, K) or (K,)
        NaN draws do not count. Without any draw, or for a NaN score, p is NaN.
    """
    score, draws, num = _checked(score_B, draws_BK)
    return _known(((draws >= score[:, None]).sum(1) + 1) / (num + 1), score, num)


def p_left(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return the share of draws that are at most each score; as :func:`p_right`."""
    score, draws, num = _checked(score_B, draws_BK)
    return _known(((draws <= score[:, None]).sum(1) + 1) / (num + 1), score, num)


def p_two_sided(score_B: ArrayLike, draws_BK: ArrayLike) -> Floats:
    """Return ``min(1, 2 min(p_left, p_right))``; as :func:`p_right`."""
    tails = np.minimum(p_left(score_B, draws_BK), p_right(score_B, draws_BK))
    return np.asarray(np.minimum(1.0, 2 * tails))


def empirical_p(score_B: ArrayLike, draws_BK: ArrayLike, *, signed: bool) -> Floats:
    """Return the p-value of a score: two-sided if it is signed, else of the right tail."""
    return p_two_sided(score_B, draws_BK) if signed else p_right(score_B, draws_BK)


@dataclass
class QValues:
    """False-discovery rates (Benjamini and Hochberg 1995) of p-values that come in parts.

    Empirical p-values are few different numbers, so counting each of them says everything: first
    `add` every part, in any order, then ask for the `q` of each. The result is that of all p-values
    sorted together.

    Attributes
    ----------
    counts : dict
        How often each p-value occurred.
    """

    counts: dict[float, int] = field(default_factory=dict)

    def add(self, p: ArrayLike) -> None:
        """Count p-values; NaN are no tests."""
        values = np.asarray(p, np.float64)
        found, times = np.unique(values[~np.isnan(values)], return_counts=True)
        for value, number in zip(found.tolist(), times.tolist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + number

    def q(self, p: ArrayLike) -> Floats:
        """Return the smallest rate at which each p-value passes; NaN stays NaN.

        Raises
        ------
        InputError
            A p-value was not added before.
        """
        values = np.asarray(p, np.float64)
        known = ~np.isnan(values)
        levels = np.array(sorted(self.counts))
        place = np.searchsorted(levels, values[known])
        there = levels[np.minimum(place, levels.size - 1)] if levels.size else values[known] * 0 - 1
        if (there != values[known]).any():
            raise InputError(
                facts("q-values", found="p-values that were not counted",
                      expected="those that were added", fix="add all of them first",
                      count=int((there != values[known]).sum()))
            )  # fmt: skip
        rank = np.cumsum([self.counts[level] for level in levels.tolist()])
        rate = levels * (rank[-1] if rank.size else 0) / np.maximum(rank, 1)
        smallest = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
        q = np.full(values.shape, np.nan)
        q[known] = smallest[place]
        return q


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


def shuffled_contexts(
    ref_L: Codes,
    alt_L: Codes,
    ref_span: tuple[int, int],
    alt_span: tuple[int, int],
    *,
    random: np.random.Generator,
    num: int,
    flank: int = FLANK,
) -> tuple[Codes, Codes]:
    """Return windows of REF and ALT with shuffled surroundings, the same for both.

    Parameters
    ----------
    ref_L, alt_L : uint8 arrays, shape (length,)
        Windows of the two alleles, both in the same direction. What is to be shuffled must be equal
        in both: no other variant within the flank that only one of them carries.
    ref_span, alt_span : (int, int)
        Where the alleles stand in their windows, half-open.
    random : Generator
        Of the variant: :func:`variant_random`.
    num : int
        Draws.
    flank : int
        Bases on either side; fewer where one of the windows ends. N stay where they are.

    Returns
    -------
    ref_KL, alt_KL : uint8 arrays

    Raises
    ------
    ConfigError
        ``num`` or ``flank`` is below 1.
    InputError
        An allele is outside of its window, or the surroundings differ.
    """
    if num < 1 or flank < 1:
        raise ConfigError(
            facts("shuffled contexts", found=f"{num} draws, flank of {flank} bp",
                  expected="at least 1 of each", fix="use 99 draws or more")
        )  # fmt: skip
    spans = (ref_span, alt_span)
    for codes, (start, end) in zip((ref_L, alt_L), spans, strict=True):
        if not 0 <= start <= end <= len(codes):
            raise InputError(
                facts("shuffled contexts", found=f"an allele at {start}-{end}",
                      expected=f"inside of the window of {len(codes)}", fix="use a longer window")
            )  # fmt: skip
    before = min(flank, ref_span[0], alt_span[0])
    after = min(flank, len(ref_L) - ref_span[1], len(alt_L) - alt_span[1])
    sides = [
        [slice(span[0] - before, span[0]) for span in spans],
        [slice(span[1], span[1] + after) for span in spans],
    ]
    for in_ref, in_alt in sides:
        if not np.array_equal(ref_L[in_ref], alt_L[in_alt]):
            raise InputError(
                facts("shuffled contexts", found="other bases around REF than around ALT",
                      expected="alleles that differ in one place",
                      fix="score variants of one haplotype together without a null")
            )  # fmt: skip
    ref_KL, alt_KL = (np.repeat(codes[None], num, axis=0) for codes in (ref_L, alt_L))
    for draw in range(num):
        for in_ref, in_alt in sides:
            shuffled = shuffle_dinucleotides(ref_L[in_ref], random)
            ref_KL[draw, in_ref] = shuffled
            alt_KL[draw, in_alt] = shuffled
    return ref_KL, alt_KL


def _checked(score_B: ArrayLike, draws_BK: ArrayLike) -> tuple[Floats, Floats, NDArray[np.int64]]:
    score = np.atleast_1d(np.asarray(score_B, np.float64))
    draws = np.atleast_2d(np.asarray(draws_BK, np.float64))
    return score, draws, np.broadcast_to((~np.isnan(draws)).sum(1), score.shape)


def _known(p_B: Floats, score_B: Floats, num_B: NDArray[np.int64]) -> Floats:
    return np.where(np.isnan(score_B) | (num_B == 0), np.nan, p_B)
