"""Which known motif a found pattern is.

Shapes: W columns of a motif, C the four bases A C G T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.sequence import N_CODE, decode
from seq2exp.interpret.logo import information
from seq2exp.interpret.motif_files import MotifMatrix

__all__ = ["PATTERN_COLUMNS", "Likeness", "consensus", "likeness", "pattern_table"]

PATTERN_COLUMNS = ("pattern", "seqlets", "consensus", "motif", "correlation", "strand")
# At least so much of a known motif lies on the pattern, and at least so many columns.
_COVERED = 0.75
_FEWEST = 5
# Columns below half a bit are N in a consensus, and no ends of it.
_BITS = 0.5


@dataclass(frozen=True)
class Likeness:
    """How alike two motifs are at their best alignment.

    Attributes
    ----------
    correlation : float
        From -1 to 1.
    offset : int
        Column of the pattern on which the first column of the motif lies; may be negative.
    strand : str
        ``-`` where the reverse complement of the motif fits better.
    """

    correlation: float
    offset: int
    strand: str


def likeness(found: NDArray[np.float64], known: NDArray[np.float64]) -> Likeness:
    """Return the best correlation of probabilities over all alignments and both strands.

    The correlation is that of the probabilities minus 1/4 over all overlapping cells (Pearson about
    the mean of every column, as Pietrokovski, Nucleic Acids Research 1996, compares columns), so a
    column without information adds nothing. Three quarters of the known motif, and five columns,
    must lie on the pattern; a motif of which less can is not like it (correlation -1).

    Parameters
    ----------
    found, known : float array, shape (width, 4)
        Probabilities, columns A C G T.
    """
    best = Likeness(-1.0, 0, "+")
    fewest = max(_FEWEST, int(np.ceil(_COVERED * len(known))))
    for strand, motif in (("+", known), ("-", known[::-1, ::-1])):
        for offset in range(fewest - len(motif), len(found) - fewest + 1):
            first, last = max(0, offset), min(len(found), offset + len(motif))
            here = found[first:last] - 0.25
            there = motif[first - offset : last - offset] - 0.25
            size = float(np.sqrt((here**2).sum() * (there**2).sum()))
            value = float((here * there).sum()) / size if size else -1.0
            if last - first >= fewest and value > best.correlation:
                best = Likeness(value, offset, strand)
    return best


def consensus(probabilities: NDArray[np.float64]) -> str:
    """Return the likeliest base of every informative column, N between them, without the flanks."""
    told = information(np.asarray(probabilities, dtype=np.float64)).sum(axis=1) >= _BITS
    if not told.any():
        return ""
    codes = np.where(told, probabilities.argmax(axis=1), N_CODE).astype(np.uint8)
    (places,) = np.nonzero(told)
    return decode(codes[places[0] : places[-1] + 1])


def pattern_table(
    found: Sequence[MotifMatrix],
    seqlets: Mapping[str, int],
    known: Sequence[MotifMatrix] = (),
) -> pd.DataFrame:
    """Return one row per pattern: seqlets, consensus, and the known motif most like it.

    Parameters
    ----------
    found : sequence of MotifMatrix
        Patterns.
    seqlets : mapping
        Number of seqlets of each.
    known : sequence of MotifMatrix
        Motifs to compare with; without them these columns are empty.

    Returns
    -------
    DataFrame
        Columns `PATTERN_COLUMNS`.
    """
    rows = []
    for pattern in found:
        alike = [(likeness(pattern.probabilities, one.probabilities), one.name) for one in known]
        best, name = max(alike, key=lambda pair: pair[0].correlation, default=(None, ""))
        rows.append(
            (
                pattern.name,
                seqlets.get(pattern.name, 0),
                consensus(pattern.probabilities),
                name,
                np.nan if best is None else best.correlation,
                "" if best is None else best.strand,
            )
        )
    return pd.DataFrame(rows, columns=list(PATTERN_COLUMNS))
