"""Scanning sequences with motifs at thresholds whose p-values are exact.

Log odds in bits are rounded to whole steps, so the score of a site is a whole number and its
distribution over random sequences of given base frequencies follows exactly from one convolution
per column (Staden, Computer Applications in the Biosciences 1989; as FIMO does, Grant, Bailey and
Noble, Bioinformatics 2011). What is scanned are the rounded scores, so threshold and scan agree to
the last site.

Shapes: M motifs, W columns, C the four bases A C G T, P positions, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.sequence import N_CODE, NUM_BASES
from seq2exp.interpret.motif_files import MotifMatrix

__all__ = ["Hits", "ScoredMotif", "base_frequencies", "best_scores", "scan", "score_motif"]

STEPS_PER_BIT = 100
"""Scores are multiples of one hundredth of a bit."""
# Bases that are compared with all motifs at once.
_PIECE = 1 << 15
_RULED_OUT = -(1 << 22)


@dataclass(frozen=True, eq=False)
class ScoredMotif:
    """A motif ready to scan.

    Attributes
    ----------
    motif : MotifMatrix
    steps : int64 array, shape (width, 4)
        Log odds in steps of 1 / `STEPS_PER_BIT` bits.
    tail : float64 array
        ``tail[k]`` is the probability that a random site scores at least ``lowest + k``.
    lowest : int
        Score of the worst site.
    threshold : int
        Smallest score whose p-value is at most `p_value`.
    p_value : float
        What was asked for.
    """

    motif: MotifMatrix
    steps: NDArray[np.int64]
    tail: NDArray[np.float64]
    lowest: int
    threshold: int
    p_value: float

    @property
    def reachable(self) -> bool:
        """Whether any site passes the threshold; short motifs cannot have small p-values."""
        return self.threshold <= int(self.steps.max(axis=1).sum())

    def p_of(self, score: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the p-value of scores, for one strand of one position."""
        place = np.clip(score - self.lowest, 0, len(self.tail) - 1)
        p: NDArray[np.float64] = self.tail[place]
        return p


@dataclass(frozen=True, eq=False)
class Hits:
    """Sites that pass the threshold, in order of sequence and position.

    Attributes
    ----------
    motif, sequence, start : int64 array, shape (num_hits,)
    reverse : bool array, shape (num_hits,)
        Found on the other strand.
    score : int64 array, shape (num_hits,)
        In steps.
    """

    motif: NDArray[np.int64]
    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    score: NDArray[np.int64]


def base_frequencies(sequences: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Return the frequencies of A C G T over both strands; a quarter each without known bases."""
    counts = np.zeros(NUM_BASES)
    for codes in sequences:
        counts += np.bincount(codes, minlength=NUM_BASES + 1)[:NUM_BASES]
    both = counts + counts[::-1]
    if not both.sum():
        return np.full(NUM_BASES, 1 / NUM_BASES)
    # A base that is absent must still be possible, or the odds of it would be infinite.
    both = both + 1
    frequencies: NDArray[np.float64] = both / both.sum()
    return frequencies


def score_motif(
    motif: MotifMatrix,
    *,
    background: NDArray[np.float64],
    p_value: float = 1e-4,
    pseudocount: float = 0.1,
) -> ScoredMotif:
    """Round the log odds of a motif and find the score that a random site reaches with `p_value`.

    Parameters
    ----------
    motif : MotifMatrix
    background : float64 array, shape (4,)
        Frequencies of A C G T.
    p_value : float
        For one strand of one position.
    pseudocount : float
        Sites with the frequencies of the background that are added to every column; for a motif
        of unknown sites as if there were 20. Zero probabilities need it.

    Raises
    ------
    ConfigError
        A p-value outside (0, 1), or a pseudocount that is not positive.
    """
    if not 0 < p_value < 1 or pseudocount <= 0:
        raise ConfigError(
            facts(
                "--p-value or --pseudocount",
                found=f"{p_value}, {pseudocount}",
                expected="0 < p < 1, and a positive pseudocount",
                fix="use 1e-4 and 0.1",
            )
        )
    sites = motif.num_sites or 20.0
    smooth = (motif.probabilities * sites + background * pseudocount) / (sites + pseudocount)
    steps = np.rint(np.log2(smooth / background) * STEPS_PER_BIT).astype(np.int64)
    lowest, tail = _tail(steps, background)
    passing = np.flatnonzero(tail <= p_value)
    # One above the best score where no site passes.
    place = int(passing[0]) if passing.size else len(tail)
    return ScoredMotif(motif, steps, tail, lowest, lowest + place, p_value)


def _tail(
    steps: NDArray[np.int64], background: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    """Return the lowest score and the tail probabilities of the scores from it upwards."""
    lows = steps.min(axis=1)
    spread = steps.max(axis=1) - lows
    density = np.ones(1)
    for column, low, more in zip(steps, lows, spread, strict=True):
        wider = np.zeros(density.size + int(more))
        for base in range(NUM_BASES):
            shift = int(column[base] - low)
            wider[shift : shift + density.size] += background[base] * density
        density = wider
    # Summed from the best score down, so that small tails keep their digits.
    return int(lows.sum()), np.cumsum(density[::-1])[::-1]


def scan(motifs: Sequence[ScoredMotif], sequences: Sequence[NDArray[np.uint8]]) -> Hits:
    """Return every site, on both strands, that reaches the threshold of its motif.

    Parameters
    ----------
    motifs : sequence of ScoredMotif
    sequences : sequence of uint8 arrays
        Base codes A0 C1 G2 T3 N4; a site with an N never passes.
    """
    threshold_M = np.array([motif.threshold for motif in motifs])
    parts = []
    for scores_PM, is_reverse, place, sequence in _scores(motifs, sequences):
        row, motif = np.nonzero(scores_PM >= threshold_M)
        found = scores_PM[row, motif].astype(np.int64)
        parts.append((motif, sequence[row], place[row], np.full(row.size, is_reverse), found))
    if not parts:
        nothing = np.empty(0, dtype=np.int64)
        return Hits(nothing, nothing, nothing, nothing.astype(np.bool_), nothing)
    motif, sequence, start, reverse, score = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.lexsort((reverse, motif, start, sequence))
    return Hits(motif[order], sequence[order], start[order], reverse[order], score[order])


def best_scores(
    motifs: Sequence[ScoredMotif], sequences: Sequence[NDArray[np.uint8]]
) -> NDArray[np.int64]:
    """Return the best score of each motif in each sequence, shape (num_sequences, num_motifs).

    Sequences without a scorable site have one below all scores.
    """
    best = np.full((len(sequences), len(motifs)), _RULED_OUT, dtype=np.int64)
    for scores_PM, _, _, sequence in _scores(motifs, sequences):
        first = np.flatnonzero(np.concatenate(([True], np.diff(sequence) != 0)))
        largest = np.maximum.reduceat(scores_PM, first, axis=0).astype(np.int64)
        np.maximum.at(best, sequence[first], largest)
    return best


def _scores(motifs: Sequence[ScoredMotif], sequences: Sequence[NDArray[np.uint8]]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Yield scores of all positions and motifs, strand, place and sequence, in bounded pieces."""
    if not motifs or not sequences:
        return
    longest = max(len(motif.steps) for motif in motifs)
    tables = [_table(motifs, longest, is_reverse=reverse) for reverse in (False, True)]
    # N between sequences, so that no site crosses from one into the next.
    gap = np.full(longest, N_CODE, dtype=np.uint8)
    joined = np.concatenate([part for codes in sequences for part in (codes, gap)])
    lengths = np.array([len(codes) for codes in sequences])
    sequence = np.repeat(np.arange(len(sequences)), lengths + longest)
    offset = np.cumsum(lengths + longest) - (lengths + longest)
    place = np.arange(joined.size) - offset[sequence]
    windows = np.lib.stride_tricks.sliding_window_view(joined, longest)
    for first in range(0, len(windows), _PIECE):
        here = slice(first, min(first + _PIECE, len(windows)))
        columns = _columns(windows[here])
        for is_reverse, table in zip((False, True), tables, strict=True):
            yield columns @ table, is_reverse, place[here], sequence[here]


def _columns(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One-hot rows of A C G T N, flattened per window."""
    one_hot = np.eye(NUM_BASES + 1, dtype=np.float32)
    return one_hot[windows].reshape(len(windows), -1)


def _table(motifs: Sequence[ScoredMotif], longest: int, *, is_reverse: bool) -> NDArray[np.float32]:
    """Scores by position and base, shape (longest * 5, num_motifs); float32 holds them exactly."""
    table = np.zeros((longest, NUM_BASES + 1, len(motifs)), dtype=np.float32)
    for index, motif in enumerate(motifs):
        steps = motif.steps[::-1, ::-1] if is_reverse else motif.steps
        table[: len(steps), :NUM_BASES, index] = steps
        table[: len(steps), NUM_BASES, index] = _RULED_OUT
    return table.reshape(-1, len(motifs))
