"""Which motifs occur in elements more often than in their background.

The unit is a region: it has the motif or not, however many sites it holds. Fisher's exact test
(two-sided) on the 2 x 2 table, false-discovery rates over motifs by Benjamini and Hochberg (1995),
and the odds ratio with the interval of Woolf (1955), one half added to every cell (Haldane;
Anscombe 1956).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact, rankdata

from seq2exp.interpret.pwm import ScoredMotif, best_scores

__all__ = ["ENRICHMENT_COLUMNS", "benjamini_hochberg", "enrichment", "log2_odds_ratio"]

ENRICHMENT_COLUMNS = (
    "motif", "alt_name", "width", "threshold_bits", "elements_with", "elements", "background_with",
    "background", "fraction_elements", "fraction_background", "log2_odds_ratio", "low", "high",
    "auroc", "p", "q", "status",
)  # fmt: skip
_Z = 1.959963984540054


def enrichment(
    motifs: Sequence[ScoredMotif],
    elements: Sequence[NDArray[np.uint8]],
    background: Sequence[NDArray[np.uint8]],
) -> pd.DataFrame:
    """Compare how many regions hold each motif, in elements and background.

    Parameters
    ----------
    motifs : sequence of ScoredMotif
    elements, background : sequence of uint8 arrays
        Base codes of the regions.

    Returns
    -------
    DataFrame
        `ENRICHMENT_COLUMNS`, the smallest p-value first. `low` and `high` bound the log2 odds ratio
        at 95 %; `auroc` compares the best scores without a threshold. `status` is ``tested``, or
        ``threshold not reachable`` for motifs of which no site has so small a p-value: their p
        and q are missing.
    """
    best = [best_scores(motifs, sequences) for sequences in (elements, background)]
    rows = []
    for index, motif in enumerate(motifs):
        has = [scores[:, index] >= motif.threshold for scores in best]
        counts = [int(found.sum()) for found in has]
        sizes = [len(found) for found in has]
        row = {
            "motif": motif.motif.name,
            "alt_name": motif.motif.alt_name,
            "width": motif.motif.width,
            "threshold_bits": motif.threshold / 100,
            "elements_with": counts[0],
            "elements": sizes[0],
            "background_with": counts[1],
            "background": sizes[1],
            "fraction_elements": counts[0] / sizes[0],
            "fraction_background": counts[1] / sizes[1],
            "auroc": _auroc(best[0][:, index], best[1][:, index]),
        }
        ratio = log2_odds_ratio(counts[0], sizes[0], counts[1], sizes[1])
        row |= dict(zip(("log2_odds_ratio", "low", "high"), ratio, strict=True))
        table = [[counts[0], sizes[0] - counts[0]], [counts[1], sizes[1] - counts[1]]]
        row["p"] = float(fisher_exact(table)[1]) if motif.reachable else np.nan
        row["status"] = "tested" if motif.reachable else "threshold not reachable"
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    frame = frame.sort_values(["p", "motif"], kind="stable", na_position="last")
    return frame[list(ENRICHMENT_COLUMNS)].reset_index(drop=True)


def log2_odds_ratio(
    with_first: int, first: int, with_second: int, second: int
) -> tuple[float, float, float]:
    """Return log2 of the odds ratio with its 95 % interval, one half added to every cell.

    >>> [round(value, 3) for value in log2_odds_ratio(10, 20, 10, 20)]
    [0.0, -1.748, 1.748]
    """
    cells = np.array([with_first, first - with_first, with_second, second - with_second]) + 0.5
    middle = float(np.log(cells[0] * cells[3] / (cells[1] * cells[2])))
    half = _Z * float(np.sqrt((1 / cells).sum()))
    return middle / np.log(2), (middle - half) / np.log(2), (middle + half) / np.log(2)


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest false-discovery rate at which each test passes; NaN stays NaN.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, np.nan])).round(3).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    q = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    rate = p[order] * order.size / np.arange(1, order.size + 1)
    q[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return q


def _auroc(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Probability that a score of the first exceeds one of the second, ties counting half."""
    ranks = rankdata(np.concatenate((first, second)))
    above = ranks[: len(first)].sum() - len(first) * (len(first) + 1) / 2
    return float(above / (len(first) * len(second)))
