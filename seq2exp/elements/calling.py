"""From a mask to elements: a threshold, then the run-length rule of peak callers.

The threshold is given, or follows from a budget or from a false-discovery level
(:mod:`seq2exp.elements.fdr`). The rule is in :mod:`seq2exp.core.runs`.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, Seq2ExpWarning, facts
from seq2exp.core.runs import Runs, call_runs
from seq2exp.elements.fdr import FdrCurve, distal_runs, learned_histogram
from seq2exp.elements.masks import PROMOTER, GeneMasks

__all__ = [
    "ELEMENT_COLUMNS",
    "EVIDENCE_COLUMNS",
    "CallConfig",
    "budget_threshold",
    "call_elements",
    "merge_elements",
]

logger = logging.getLogger(__name__)

ELEMENT_COLUMNS = (
    "chrom",
    "start",
    "end",
    "name",
    "score",
    "strand",
    "mean_mask",
    "max_mask",
    "summit",
    "gene_id",
    "symbol",
    "distance",
    "element_class",
    "q_value",
    "mask_q05",
    "mask_q95",
    "prob_called",
    "num_calling",
    "idr",
)
"""Columns of an element; those from ``q_value`` on are filled by :mod:`seq2exp.elements.evidence`
and are NaN for promoters, whose mask is forced."""

EVIDENCE_COLUMNS = ELEMENT_COLUMNS[13:]

_BUDGET = 0.05
_LEVEL_GAP_BP = 256


@dataclass(frozen=True)
class CallConfig:
    """How elements are called."""

    threshold: float | None = None
    """Smallest mask of a called bin; when not given it follows from the level or the budget, and is
    1 for a mask that is not learned (retrain, peaks, abc)."""
    budget: float | None = None
    """Largest share of all learned bins, over all genes together, that may be called; 0.05 when
    neither a threshold nor a level is given."""
    max_gap_bp: int | None = None
    """Runs at most this far apart are joined; 0 when not given, and 256 with a level: tracks reach
    beyond the borders of an element, and what is called there belongs to it."""
    min_length_bp: int = 100
    """Shorter runs are dropped."""
    fdr: float | None = None
    """False-discovery level: the smallest threshold at which at most this share of the called
    distal elements is expected to be no element."""

    def __post_init__(self) -> None:
        named = [name for name in ("threshold", "budget", "fdr") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ConfigError(
                facts(
                    "elements",
                    found=" and ".join(named),
                    expected="one of threshold, budget and fdr",
                    fix="drop all but one: each of them sets the threshold",
                    count=len(named),
                )
            )
        if not named:
            object.__setattr__(self, "budget", _BUDGET)
        if self.max_gap_bp is None:
            object.__setattr__(self, "max_gap_bp", 0 if self.fdr is None else _LEVEL_GAP_BP)
        checks = {
            "threshold": (self.threshold is None or 0 < self.threshold <= 1, "0 < value <= 1"),
            "budget": (self.budget is None or 0 < self.budget <= 1, "0 < value <= 1"),
            "fdr": (self.fdr is None or 0 < self.fdr < 1, "0 < value < 1"),
            "max_gap_bp": (self.gap >= 0, ">= 0"),
            "min_length_bp": (self.min_length_bp >= 1, ">= 1"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"elements.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change it",
                    )
                )

    @property
    def gap(self) -> int:
        """``max_gap_bp`` with its default filled in."""
        return self.max_gap_bp or 0

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the settings as plain values."""
        return asdict(self)


def budget_threshold(masks: GeneMasks, budget: float) -> float:
    """Return the smallest value that at most ``budget`` of all learned bins reach.

    Exact and in bounded memory: float16 has few values, and the bit patterns of those that are
    not negative have the order of the numbers, so one histogram holds all genes.
    """
    counts = learned_histogram(masks)
    above = np.cumsum(counts[::-1])[::-1]
    within = np.flatnonzero(above <= budget * above[0])
    bits = np.array([within[0]], dtype=np.uint16)
    # Bit patterns without a bin lie between two values: take the next one that occurs.
    occurring = np.flatnonzero(counts[within[0] :])
    if occurring.size:
        bits = np.array([within[0] + occurring[0]], dtype=np.uint16)
    return float(bits.view(np.float16)[0])


def call_elements(
    masks: GeneMasks, config: CallConfig | None = None, *, curve: FdrCurve | None = None
) -> tuple[pd.DataFrame, float]:
    """Call the elements of every gene.

    Forced bins never enter the calls: the promoter is reported once per gene as its own class, and
    runs of learned bins end at it.

    Parameters
    ----------
    masks : GeneMasks
    config : CallConfig, optional
    curve : FdrCurve, optional
        What a level is read from.

    Returns
    -------
    elements : DataFrame
        Columns ``ELEMENT_COLUMNS``, sorted by contig, start, end. ``score`` is 1000 times the mean
        mask. ``distance`` is the signed distance in bases from the TSS to the nearest base of the
        element along transcription (0 where it covers the TSS, negative upstream).
        ``element_class`` is ``promoter`` or ``distal``.
    threshold : float
        The threshold used; infinite where no threshold meets the level.

    Raises
    ------
    ConfigError
        A level without a curve.
    """
    config = config or CallConfig()
    threshold = _threshold(masks, config, curve)
    frames = []
    for genes in masks.chunks():
        frames += [_distal(masks, genes, threshold, config), _promoters(masks, genes)]
    elements = pd.concat(frames, ignore_index=True)
    if np.isfinite(threshold) and not (elements["element_class"] == "distal").any():
        warnings.warn(
            facts(
                "elements",
                found=f"no distal element at mask >= {threshold:.4g}",
                expected="at least one",
                fix="raise the budget or the level, or lower the threshold or the minimum length",
                count=0,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    ordered = elements.sort_values(["chrom", "start", "end", "gene_id"], kind="stable")
    return ordered.reset_index(drop=True), float(threshold)


def _threshold(masks: GeneMasks, config: CallConfig, curve: FdrCurve | None) -> float:
    if config.threshold is not None:
        return config.threshold
    if config.fdr is None:
        # Of zeros and ones no budget can choose the best; the ones are the mask.
        return 1.0 if _is_binary(masks) else budget_threshold(masks, config.budget or _BUDGET)
    if curve is None:
        raise ConfigError(
            facts(
                "elements.fdr",
                found="no null masks",
                expected="the masks of the model on inputs without evidence",
                fix="call export_elements, or give the curve of seq2exp.elements.fdr.fdr_curve",
            )
        )
    chosen = curve.choose(config.fdr)
    if chosen is not None:
        if chosen == curve.threshold[0] and curve.value(chosen) < config.fdr / 2:
            logger.warning(
                "a false-discovery level of %g is not reached: lower thresholds than %.4g only join"
                " elements or add false ones, and there the rate is %.3g",
                config.fdr,
                chosen,
                curve.value(chosen),
            )
        return chosen
    warnings.warn(
        facts(
            f"elements.fdr {config.fdr:g}",
            found=f"a false-discovery rate of {curve.fdr.min():.3g} at best",
            expected="a threshold that meets the level",
            fix="raise the level; no distal element is called",
            count=0,
        ),
        Seq2ExpWarning,
        stacklevel=3,
    )
    return float("inf")


def _is_binary(masks: GeneMasks) -> bool:
    """Tell whether the masks were not learned and hold nothing but 0 and 1."""
    if masks.alpha is not None:
        return False
    pieces = (np.asarray(masks.mask[genes]) for genes in masks.chunks())
    return all(bool(((piece == 0) | (piece == 1)).all()) for piece in pieces)


def _distal(
    masks: GeneMasks, genes: NDArray[np.int64], threshold: float, config: CallConfig
) -> pd.DataFrame:
    runs = distal_runs(masks, genes, threshold, max_gap=config.gap, min_length=config.min_length_bp)
    return _table(masks, genes[runs.group // (masks.num_bins + 1)], runs, "distal")


def _promoters(masks: GeneMasks, genes: NDArray[np.int64]) -> pd.DataFrame:
    starts, ends = masks.intervals_of(genes)
    forced = np.asarray(masks.forced[genes]) == PROMOTER
    runs = call_runs(
        starts.ravel(),
        ends.ravel(),
        forced.ravel().astype(np.float64),
        cutoff=1.0,
        groups=np.repeat(genes, masks.num_bins),
    )
    return _table(masks, runs.group, runs, "promoter")


def _table(
    masks: GeneMasks, owner: NDArray[np.int64], runs: Runs, element_class: str
) -> pd.DataFrame:
    genes = masks.genes.iloc[owner]
    strand = genes["strand"].to_numpy(dtype=object)
    tss = genes["tss"].to_numpy(np.int64)
    gene_id = genes["gene_id"].astype(str).to_numpy(dtype=object)
    place = [f"{start}-{end}" for start, end in zip(runs.start, runs.end, strict=True)]
    summit = np.where(element_class == "promoter", tss, runs.summit)
    return pd.DataFrame(
        {
            "chrom": genes["contig"].astype(str).to_numpy(dtype=object),
            "start": runs.start,
            "end": runs.end,
            "name": [
                f"{gene}|{element_class}|{where}"
                for gene, where in zip(gene_id, place, strict=True)
            ],
            "score": np.rint(1000 * runs.mean).astype(np.int64).clip(0, 1000),
            "strand": strand,
            "mean_mask": runs.mean,
            "max_mask": runs.height,
            "summit": summit,
            "gene_id": gene_id,
            "symbol": genes["symbol"].astype(str).to_numpy(dtype=object),
            "distance": _signed_distance(runs.start, runs.end, tss, strand),
            "element_class": element_class,
            **dict.fromkeys(EVIDENCE_COLUMNS, np.nan),
        },
        columns=list(ELEMENT_COLUMNS),
    )


def _signed_distance(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    tss: NDArray[np.int64],
    strand: NDArray[np.object_],
) -> NDArray[np.int64]:
    right = np.maximum(start - tss, 0)
    left = np.maximum(tss - (end - 1), 0)
    distance: NDArray[np.int64] = np.where(strand == "-", left - right, right - left)
    return distance


def merge_elements(elements: pd.DataFrame) -> pd.DataFrame:
    """Return the union of elements over genes: overlapping ones become one.

    Returns
    -------
    DataFrame
        chrom, start, end, name, score, strand (``.``), mean_mask and max_mask (largest of the
        merged ones), num_genes, genes (ids joined by commas), element_class (``promoter`` where
        any of them is one).
    """
    ordered = elements.sort_values(["chrom", "start", "end"], kind="stable")
    if ordered.empty:
        columns = ["chrom", "start", "end", "name", "score", "strand"]
        extra = ["mean_mask", "max_mask", "num_genes", "genes", "element_class"]
        return pd.DataFrame(columns=columns + extra)
    reach = ordered.groupby("chrom", sort=False)["end"].cummax().to_numpy()
    start = ordered["start"].to_numpy()
    chrom = ordered["chrom"].to_numpy()
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = (chrom[1:] != chrom[:-1]) | (start[1:] >= reach[:-1])
    first = np.flatnonzero(new)
    genes = ordered["gene_id"].to_numpy(dtype=object)
    joined = [sorted(set(part)) for part in np.split(genes, first[1:])]

    def largest(name: str) -> NDArray[Any]:
        highest: NDArray[Any] = np.maximum.reduceat(ordered[name].to_numpy(), first)
        return highest

    promoter = np.logical_or.reduceat((ordered["element_class"] == "promoter").to_numpy(), first)
    return pd.DataFrame(
        {
            "chrom": chrom[first],
            "start": start[first],
            "end": largest("end"),
            "name": [f"E{number + 1:06d}" for number in range(first.size)],
            "score": largest("score"),
            "strand": ".",
            "mean_mask": largest("mean_mask"),
            "max_mask": largest("max_mask"),
            "num_genes": [len(names) for names in joined],
            "genes": [",".join(names) for names in joined],
            "element_class": np.where(promoter, "promoter", "distal"),
        }
    )
