"""Rows with intervals for several rankings of the same things; all methods see the same resamples.

Genes are resampled, never bins or pairs, because those of one gene are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seq2exp.elements.precision import Ranking, cut_to_budget
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, ScoredBins
from seq2exp.training.metrics import Row, interval

__all__ = [
    "Judge",
    "Row",
    "choose_rivals",
    "gene_resamples",
    "rank",
    "reported_names",
    "rows_text",
]

Float = NDArray[np.float64]


def rank(bins: ScoredBins, name: str) -> Ranking:
    """Return the ranking of bins, or of pairs, by one of their scores."""
    return Ranking(bins.label, bins.scores[name], bins.gene, num_genes=bins.num_genes)


def choose_rivals(rivals: Rivals, bins: ScoredBins | None) -> tuple[dict[str, str], bool]:
    """Choose the peak cutoff and the strongest signal that do best on other genes.

    Parameters
    ----------
    rivals : Rivals
        Names the candidates.
    bins : ScoredBins or None
        Bins or pairs of genes that are not reported. Without any, or without a true one, the
        middle cutoff and the last signal (the product where there is one) stand in.

    Returns
    -------
    (dict, bool)
        Role to name: peak caller, strongest signal, distance, contact x activity; and whether
        there was something to choose by.
    """
    informed = bins is not None and bool(bins.label.any()) and not bool(bins.label.all())

    def best(names: list[str], fallback: str) -> str:
        if bins is None or not informed:
            return fallback
        values = {name: rank(bins, name).average_precision() for name in names}
        return max(values, key=lambda name: (np.nan_to_num(values[name]), name))

    chosen = {}
    if rivals.peak_names:
        middle = rivals.peak_names[len(rivals.peak_names) // 2]
        chosen["peak caller"] = best(rivals.peak_names, middle)
    if rivals.signal_names:
        chosen["strongest signal"] = best(rivals.signal_names, rivals.signal_names[-1])
    chosen["distance"] = "distance"
    if rivals.accessible is not None:
        chosen["contact x activity"] = "contact x activity"
    return chosen, informed


def reported_names(names: Iterable[str], chosen: Mapping[str, str]) -> list[str]:
    """Return every rival, but only the chosen peak cutoff."""
    peaks = chosen.get("peak caller")
    return [
        name for name in names if name != MODEL and (not name.startswith("peaks ") or name == peaks)
    ]


def gene_resamples(num_genes: int, *, num_resamples: int, seed: int) -> Float:
    """Return how often each bootstrap resample draws each gene.

    Returns
    -------
    float64 array, shape (num_resamples, num_genes)
    """
    random = np.random.default_rng(seed)
    uniform = np.full(num_genes, 1 / num_genes)
    counts = random.multinomial(num_genes, uniform, size=num_resamples)
    return counts.astype(np.float64)


def rows_text(title: str, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Return some metrics of all methods as a table for the terminal."""
    found = {(row["name"], row["metric"]): row for row in rows}
    names = list(dict.fromkeys(row["name"] for row in rows))
    names = [name for name in names if any((name, metric) in found for metric in metrics)]
    width = max((len(name) for name in names), default=0)
    lines = [title, " " * width + "".join(f"  {metric:>24}" for metric in metrics)]
    for name in names:
        cells = [_cell(found.get((name, metric))) for metric in metrics]
        lines.append(f"{name:<{width}}" + "".join(f"  {cell:>24}" for cell in cells))
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


class Judge:
    """Turns rankings into rows with intervals.

    Parameters
    ----------
    num_genes : int
        Genes that are resampled.
    chosen : mapping
        Role to name of the rivals that the mask is paired with.
    split : str
        Written into the rows.
    num_resamples, seed : int
    """

    def __init__(
        self,
        *,
        num_genes: int,
        chosen: Mapping[str, str],
        split: str,
        num_resamples: int,
        seed: int,
    ) -> None:
        self.counts = gene_resamples(num_genes, num_resamples=num_resamples, seed=seed)
        self.once = np.ones((1, num_genes))
        self.chosen = chosen
        self.split = split

    def rows(
        self, rankings: Mapping[str, Ranking], metric: str, function: Callable[..., Float]
    ) -> list[Row]:
        """Return one row per method and one per paired difference to a chosen rival.

        Parameters
        ----------
        rankings : mapping of name to Ranking
            Holds the mask.
        metric : str
        function : callable
            From a ranking and counts of genes to one number per resample.
        """
        values = {name: float(function(r, self.once)[0]) for name, r in rankings.items()}
        draws = {name: function(ranking, self.counts) for name, ranking in rankings.items()}
        return self.estimates(metric, values, draws)

    def estimates(
        self,
        metric: str,
        values: Mapping[str, float],
        draws: Mapping[str, Float],
        *,
        n: int | None = None,
    ) -> list[Row]:
        """Return the rows of given values and their resamples, and the paired differences."""
        rows = [self.row(name, metric, values[name], draws[name], n=n) for name in values]
        for rival in self.chosen.values():
            if rival in values and rival != MODEL:
                value = values[MODEL] - values[rival]
                spread = draws[MODEL] - draws[rival]
                rows.append(self.row(f"{MODEL} - {rival}", metric, value, spread, n=n))
        return rows

    def budgets(
        self,
        bins: ScoredBins,
        names: list[str],
        rankings: Mapping[str, Ranking],
        *,
        budgets: Iterable[float],
        bands: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> list[Row]:
        """Return AUPRC, precision and recall with everything outside a budget left out.

        Parameters
        ----------
        bins : ScoredBins
        names : list of str
        rankings : mapping of name to Ranking
            Of the same bins.
        budgets : iterable of float
            Shares of the bins.
        bands : mapping of name to bool array, optional
            Subsets of the bins for which AUPRC is given as well. The budget stays that of all
            bins, so that a method may spend it where it likes.
        """
        rows = []
        for budget in budgets:
            scores = {name: cut_to_budget(bins.scores[name], budget) for name in names}
            kept = ScoredBins(bins.gene, bins.distance, bins.label, scores, bins.num_genes)
            cut = {name: rank(kept, name) for name in names}
            rows += self.rows(cut, f"auprc@{budget:g}", Ranking.average_precisions)
            for place, metric in enumerate(("precision", "recall")):
                rows += self.rows(
                    rankings,
                    f"{metric}@{budget:g}",
                    lambda ranking, counts, b=budget, p=place: ranking.at_budget(counts, b)[p],
                )
            for band, where in (bands or {}).items():
                inside = kept.where(where)
                if inside.label.any():
                    found = {name: rank(inside, name) for name in names}
                    metric = f"auprc@{budget:g} {band}"
                    rows += self.rows(found, metric, Ranking.average_precisions)
        return rows

    def row(
        self, name: str, metric: str, value: float, draws: Float, *, n: int | None = None
    ) -> Row:
        """Return one row; ``n`` is the number of genes where not given."""
        found = interval(value, draws, n=self.counts.shape[1] if n is None else n)
        return found.row(name, metric, split=self.split)
