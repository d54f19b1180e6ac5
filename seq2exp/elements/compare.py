"""Does the mask find true elements better than what needs no model? Ranked bins, paired by gene.

The unit is a learned bin of a gene's window; it is positive when it overlaps a true element of that
gene. Bins whose mask is forced (promoter, excluded regions) are left out for every method alike.
Genes are resampled, never bins, because the bins of a gene are not independent.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import write_json
from seq2exp.dataset.store import Dataset
from seq2exp.elements.judging import Judge, choose_rivals, rank, reported_names, rows_text
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.precision import Ranking
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, ScoredBins, score_bins
from seq2exp.elements.truth import Truth

__all__ = [
    "CompareConfig",
    "Comparison",
    "band_name",
    "compare_bins",
    "compare_with_truth",
    "genes_of",
    "tuning_genes",
    "write_comparison",
]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class CompareConfig:
    """How elements are compared with a truth."""

    split: str = "test"
    """Split whose genes are scored; all for the genes of every split."""
    select_split: str = "valid"
    """Split on which the rivals' cutoffs and the strongest signal are chosen. Where its genes are
    among those scored, or none has a true element, defaults stand in."""
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
        ``precision@<budget>``, ``recall@<budget>``, ``auprc <band>``, ``auprc@<budget> <band>``
        (the budget is that of all distal bins), ``pairs_auprc`` (whole
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
    other = tuning_genes(masks, config)
    tuned = score_bins(masks, dataset, truth, other) if other.size else None
    scored = score_bins(masks, dataset, truth, genes_of(masks, config.split))
    return compare_bins(scored, tuned, Rivals(masks, dataset), truth, config=config)


def compare_bins(
    scored: ScoredBins,
    tuned: ScoredBins | None,
    rivals: Rivals,
    truth: Truth,
    *,
    config: CompareConfig,
) -> Comparison:
    """Score bins that have their scores already.

    Parameters
    ----------
    scored : ScoredBins
        Of the genes that are reported.
    tuned : ScoredBins, optional
        Of the genes by which the rivals' cutoffs are chosen.
    rivals : Rivals
    truth : Truth
    config : CompareConfig

    Raises
    ------
    InputError
        No gene has a true distal element.
    """
    if tuned is not None:
        tuned = tuned.where(tuned.distance >= config.distal_bp)
    chosen, informed = choose_rivals(rivals, tuned)
    distal = scored.where(scored.distance >= config.distal_bp)
    if not distal.label.any():
        raise InputError(
            facts(
                truth.name,
                found=f"no true distal element in the windows of split {config.split}",
                expected="at least one",
                fix="check that truth and dataset share assembly and gene ids, and that windows "
                f"reach farther than {config.distal_bp:,} bp from the TSS",
            )
        )
    judge = Judge(
        num_genes=scored.num_genes,
        chosen=chosen,
        split=config.split,
        num_resamples=config.num_resamples,
        seed=config.seed,
    )
    names = [MODEL, *reported_names(distal.scores, chosen)]
    rankings = {name: rank(distal, name) for name in names}
    rows = judge.rows(rankings, "auprc", Ranking.average_precisions)
    edges = list(itertools.pairwise(config.bands_bp))
    rows += judge.budgets(
        distal,
        names,
        rankings,
        budgets=config.budgets,
        bands={band_name(*edge): _between(distal, *edge) for edge in edges},
    )
    for low, high in edges:
        band = scored.where(_between(scored, low, high))
        if band.label.any():
            found = {name: rank(band, name) for name in names}
            rows += judge.rows(found, f"auprc {band_name(low, high)}", Ranking.average_precisions)
    # Without candidates that do nothing every order is perfect.
    if scored.pairs is not None and np.unique(scored.pairs.label).size == 2:
        found = {name: rank(scored.pairs, name) for name in names}
        rows += judge.rows(found, "pairs_auprc", Ranking.average_precisions)
    curves = {name: rankings[name].curve() for name in [MODEL, *chosen.values()]}
    return Comparison(
        rows=rows,
        chosen=chosen,
        curves={
            name: (list(map(float, r)), list(map(float, p))) for name, (r, p) in curves.items()
        },
        info=_info(scored, distal, truth, config) | {"chosen_on": _chosen_on(config, informed)},
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


def genes_of(masks: GeneMasks, split: str) -> NDArray[np.int64]:
    """Return the rows of a split, or of all of them.

    Raises
    ------
    InputError
        There is none.
    """
    if split == "all":
        return np.arange(len(masks), dtype=np.int64)
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


def tuning_genes(masks: GeneMasks, config: CompareConfig) -> NDArray[np.int64]:
    """Return the rows of the genes by which rivals are chosen: none that is reported."""
    if config.split in ("all", config.select_split):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero((masks.genes["split"] == config.select_split).to_numpy())


def _between(bins: ScoredBins, low: int, high: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (bins.distance >= low) & (bins.distance < high)
    return inside


def _chosen_on(config: CompareConfig, informed: bool) -> str:  # noqa: FBT001
    return config.select_split if informed else "nothing: defaults"


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
    title = (
        f"Elements against {comparison.info['truth']}: {comparison.info['genes']} genes of split "
        f"{comparison.info['settings']['split']}, {comparison.info['distal_bins']} distal bins, "
        f"{100 * comparison.info['base_rate']:.1f}% in true elements"
    )
    return rows_text(title, comparison.rows, metrics)
