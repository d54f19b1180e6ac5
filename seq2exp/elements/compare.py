"""Does the mask find true elements better than what needs no model? Ranked bins, paired by gene.

The unit is a learned bin of a gene's window; it is positive when it overlaps a true element of that
gene. Bins whose mask is forced (promoter, excluded regions) are left out for every method alike.
Genes are resampled, never bins, because the bins of a gene are not independent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import write_json
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.precision import Ranking, cut_to_budget
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, ScoredBins, score_bins
from seq2exp.elements.truth import Truth
from seq2exp.training.metrics import interval

__all__ = ["CompareConfig", "Comparison", "band_name", "compare_with_truth", "write_comparison"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class CompareConfig:
    """How elements are compared with a truth."""

    split: str = "test"
    """Split whose genes are scored."""
    select_split: str = "valid"
    """Split on which the rivals' cutoffs and the strongest signal are chosen."""
    distal_bp: int = 1000
    """Bins nearer to the TSS than this are not counted as distal."""
    bands_bp: tuple[int, ...] = (0, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
    """Edges of the distance bands."""
    budgets: tuple[float, ...] = (0.05, 0.1)
    """Shares of the distal bins that every method may keep."""
    num_resamples: int = 1000
    """Bootstrap resamples of genes."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        checks = {
            "bands_bp": (
                len(self.bands_bp) >= 2
                and all(a < b for a, b in itertools.pairwise(self.bands_bp)),
                "two or more rising edges",
            ),
            "budgets": (all(0 < b <= 1 for b in self.budgets), "values between 0 and 1"),
            "num_resamples": (self.num_resamples >= 1, "at least 1"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"compare.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change it",
                    )
                )


@dataclass(frozen=True, eq=False)
class Comparison:
    """The mask beside its rivals.

    Attributes
    ----------
    rows : list of dict
        ``name, metric, split, value, low, high, n``; NaN is None. Metrics: ``auprc`` (all distal
        bins), ``auprc@<budget>`` (everything outside the method's best share of bins tied last),
        ``precision@<budget>``, ``recall@<budget>``, ``auprc <band>``, ``pairs_auprc`` (whole
        candidate elements). Rows named ``mask - <rival>`` are paired differences, positive when
        the mask is better.
    chosen : dict
        Role to the name of the rival that stood for it: peak caller, strongest signal, distance,
        contact x activity.
    curves : dict
        Method to (recall, precision) lists over the distal bins.
    info : dict
        Truth, settings, numbers of genes, bins and positives.
    """

    rows: list[dict[str, Any]]
    chosen: dict[str, str]
    curves: dict[str, tuple[list[float], list[float]]] = field(repr=False)
    info: dict[str, Any]

    def value(self, name: str, metric: str) -> dict[str, Any] | None:
        """Return the row of a method and metric, or None."""
        found = (r for r in self.rows if r["name"] == name and r["metric"] == metric)
        return next(found, None)

    @property
    def text(self) -> str:
        """The main numbers as a table for the terminal."""
        return _table(self)


def compare_with_truth(
    masks: GeneMasks, dataset: Dataset, truth: Truth, *, config: CompareConfig | None = None
) -> Comparison:
    """Score masks and rivals against true elements.

    Parameters
    ----------
    masks : GeneMasks
        Masks of the genes of both splits.
    dataset : Dataset
        Where the rivals read tracks and contacts.
    truth : Truth
    config : CompareConfig, optional

    Raises
    ------
    InputError
        No gene of the split has a true distal element, or a split is empty.
    """
    config = config or CompareConfig()
    chosen = _choose(masks, dataset, truth, config)
    scored = score_bins(masks, dataset, truth, _genes(masks, config.split))
    distal = scored.where(scored.distance >= config.distal_bp)
    if not distal.label.any():
        raise InputError(
            facts(
                truth.name,
                found=f"no true distal element in the windows of split {config.split}",
                expected="at least one",
                fix="check that truth and dataset share assembly and gene ids",
                count=0,
            )
        )
    random = np.random.default_rng(config.seed)
    uniform = np.full(scored.num_genes, 1 / scored.num_genes)
    counts = random.multinomial(scored.num_genes, uniform, size=config.num_resamples)
    judge = _Judge(counts.astype(np.float64), config, chosen)
    names = [MODEL, *_reported(distal, chosen)]
    rankings = {name: _rank(distal, name) for name in names}
    rows = judge.rows(rankings, "auprc", Ranking.average_precisions)
    rows += judge.budgets(distal, names, rankings)
    for low, high in itertools.pairwise(config.bands_bp):
        band = scored.where((scored.distance >= low) & (scored.distance < high))
        if band.label.any():
            found = {name: _rank(band, name) for name in names}
            rows += judge.rows(found, f"auprc {band_name(low, high)}", Ranking.average_precisions)
    if scored.pairs is not None and scored.pairs.label.any():
        found = {name: _rank(scored.pairs, name) for name in names}
        rows += judge.rows(found, "pairs_auprc", Ranking.average_precisions)
    curves = {name: rankings[name].curve() for name in [MODEL, *chosen.values()]}
    return Comparison(
        rows=rows,
        chosen=chosen,
        curves={
            name: (list(map(float, r)), list(map(float, p))) for name, (r, p) in curves.items()
        },
        info=_info(scored, distal, truth, config),
    )


def band_name(low: int, high: int) -> str:
    """Return a distance band as text.

    >>> band_name(1000, 2000)
    '1-2 kb'
    """
    return f"{low / 1000:g}-{high / 1000:g} kb"


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write a comparison as JSON: command, inputs, rows, and what the pictures need."""
    content = {
        "command": "elements compare",
        "inputs": comparison.info,
        "rows": comparison.rows,
        "chosen": comparison.chosen,
        "curves": comparison.curves,
    }
    write_json(content, path)


def _genes(masks: GeneMasks, split: str) -> NDArray[np.int64]:
    rows = np.flatnonzero((masks.genes["split"] == split).to_numpy())
    if rows.size == 0:
        raise InputError(
            facts(
                "comparison",
                found=f"no mask of a gene of split {split!r}",
                expected="at least one",
                fix="map the elements of this split too",
            )
        )
    return rows


def _choose(
    masks: GeneMasks, dataset: Dataset, truth: Truth, config: CompareConfig
) -> dict[str, str]:
    """Choose, on other genes, the cutoff of the peak caller and the strongest signal."""
    rivals = Rivals(masks, dataset)
    scored = score_bins(masks, dataset, truth, _genes(masks, config.select_split))
    distal = scored.where(scored.distance >= config.distal_bp)

    def best(names: list[str]) -> str:
        values = {name: _rank(distal, name).average_precision() for name in names}
        return max(values, key=lambda name: (np.nan_to_num(values[name]), name))

    chosen = {}
    if rivals.peak_names:
        chosen["peak caller"] = best(rivals.peak_names)
    if rivals.signal_names:
        chosen["strongest signal"] = best(rivals.signal_names)
    chosen["distance"] = "distance"
    if "contact x activity" in distal.scores:
        chosen["contact x activity"] = "contact x activity"
    return chosen


def _reported(scored: ScoredBins, chosen: Mapping[str, str]) -> list[str]:
    """Every rival, but only the chosen peak cutoff."""
    peaks = chosen.get("peak caller")
    return [
        name
        for name in scored.scores
        if name != MODEL and (not name.startswith("peaks ") or name == peaks)
    ]


def _rank(bins: ScoredBins, name: str) -> Ranking:
    return Ranking(bins.label, bins.scores[name], bins.gene, num_genes=bins.num_genes)


class _Judge:
    """Turns rankings into rows with intervals; all methods see the same resamples."""

    def __init__(self, counts: Float, config: CompareConfig, chosen: Mapping[str, str]) -> None:
        self.counts = counts
        self.once = np.ones((1, counts.shape[1]))
        self.config = config
        self.chosen = chosen

    def rows(
        self,
        rankings: Mapping[str, Ranking],
        metric: str,
        function: Any,  # noqa: ANN401
    ) -> list[dict[str, Any]]:
        """Return one row per method and one per paired difference to a chosen rival."""
        values = {name: float(function(r, self.once)[0]) for name, r in rankings.items()}
        draws = {name: function(ranking, self.counts) for name, ranking in rankings.items()}
        rows = [self._row(name, metric, values[name], draws[name]) for name in rankings]
        for rival in self.chosen.values():
            value = values[MODEL] - values[rival]
            rows.append(self._row(f"{MODEL} - {rival}", metric, value, draws[MODEL] - draws[rival]))
        return rows

    def budgets(
        self, bins: ScoredBins, names: list[str], rankings: Mapping[str, Ranking]
    ) -> list[dict[str, Any]]:
        """Return AUPRC, precision and recall with everything outside a budget left out."""
        rows = []
        for budget in self.config.budgets:
            cut = {
                name: Ranking(
                    bins.label,
                    cut_to_budget(bins.scores[name], budget),
                    bins.gene,
                    num_genes=bins.num_genes,
                )
                for name in names
            }
            rows += self.rows(cut, f"auprc@{budget:g}", Ranking.average_precisions)
            for place, metric in enumerate(("precision", "recall")):
                rows += self.rows(
                    rankings,
                    f"{metric}@{budget:g}",
                    lambda ranking, counts, b=budget, p=place: ranking.at_budget(counts, b)[p],
                )
        return rows

    def _row(self, name: str, metric: str, value: float, draws: Float) -> dict[str, Any]:
        found = interval(value, draws, n=self.counts.shape[1])
        return {
            "name": name,
            "metric": metric,
            "split": self.config.split,
            "value": _finite(found.value),
            "low": _finite(found.low),
            "high": _finite(found.high),
            "n": found.n,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _info(
    scored: ScoredBins, distal: ScoredBins, truth: Truth, config: CompareConfig
) -> dict[str, Any]:
    return {
        "truth": truth.name,
        "settings": {key: _plain(value) for key, value in asdict(config).items()},
        "genes": scored.num_genes,
        "distal_bins": int(distal.label.size),
        "distal_positive_bins": int(distal.label.sum()),
        "base_rate": float(distal.label.mean()),
        "genes_with_distal_elements": int(np.unique(distal.gene[distal.label]).size),
        "pairs": 0 if scored.pairs is None else int(scored.pairs.label.size),
        "causal_pairs": 0 if scored.pairs is None else int(scored.pairs.label.sum()),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def _table(comparison: Comparison) -> str:
    metrics = ["auprc", *(f"auprc@{b:g}" for b in comparison.info["settings"]["budgets"])]
    if comparison.value(MODEL, "pairs_auprc"):
        metrics.append("pairs_auprc")
    names = list(dict.fromkeys(row["name"] for row in comparison.rows))
    width = max(len(name) for name in names)
    title = (
        f"Elements against {comparison.info['truth']}: {comparison.info['genes']} genes of split "
        f"{comparison.info['settings']['split']}, {comparison.info['distal_bins']} distal bins, "
        f"{100 * comparison.info['base_rate']:.1f}% in true elements"
    )
    lines = [
        title,
        " " * width + "".join(f"  {metric:>24}" for metric in metrics),
    ]
    for name in names:
        cells = [_cell(comparison.value(name, metric)) for metric in metrics]
        lines.append(f"{name:<{width}}" + "".join(f"  {cell:>24}" for cell in cells))
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
