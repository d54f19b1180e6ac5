"""Element-gene pairs: the elements that act on a gene should rank first by its mask.

The unit is a listed element and a gene in whose window it lies. Its score is the mean of the gene's
learned mask over the bins it overlaps (``mask``), or their maximum (``mask max``). Rivals get the
mean over the same bins; the distance is that of the element's centre.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.dataset.store import Dataset
from seq2exp.elements.compare import CompareConfig, band_name
from seq2exp.elements.judging import Judge, Row, choose_rivals, rank, reported_names
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.precision import Ranking
from seq2exp.elements.references import Reference
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, ScoredBins

__all__ = [
    "MASK_MAX",
    "MinimalPairConfig",
    "PairComparison",
    "compare_pairs",
    "matched_pairs",
    "score_pairs",
]

MASK_MAX = "mask max"
"""The largest learned mask over an element."""
_KEYS = ["gene_id", "symbol", "chrom", "start", "end", "distance", "acts", "gene"]


@dataclass(frozen=True)
class MinimalPairConfig:
    """When two elements of a gene are alike but for what they do."""

    distance: float = 0.25
    """Largest ratio of their distances to the TSS, less 1."""
    activity: float = 0.25
    """The same of their activities."""
    nearest_bp: int = 500
    """Distances below this count as this."""


@dataclass(frozen=True, eq=False)
class PairComparison:
    """The mask beside its rivals on pairs.

    Attributes
    ----------
    rows : list of dict
        Metrics ``pair_auprc``, ``pair_auprc <band>`` and ``minimal_pairs``; empty where there are
        not both kinds of pairs.
    chosen : dict
        Role to name of the rival.
    curves : dict
        Method to (recall, precision).
    table : DataFrame
        One row per pair in reach: gene_id, symbol, chrom, start, end, distance, acts, and scores.
    info : dict
        Counts.
    """

    rows: list[Row]
    chosen: dict[str, str]
    curves: dict[str, tuple[list[float], list[float]]] = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    info: dict[str, Any]


def compare_pairs(
    masks: GeneMasks,
    dataset: Dataset,
    reference: Reference,
    *,
    genes: NDArray[np.int64],
    tuning: NDArray[np.int64],
    config: CompareConfig | None = None,
    minimal: MinimalPairConfig | None = None,
) -> PairComparison:
    """Compare masks and rivals on the pairs of a reference.

    Parameters
    ----------
    masks : GeneMasks
    dataset : Dataset
    reference : Reference
        With genes.
    genes : int64 array
        Rows of the masks that are scored.
    tuning : int64 array
        Rows by which the rivals' cutoffs are chosen; may be empty.
    config : CompareConfig, optional
    minimal : MinimalPairConfig, optional
    """
    config = config or CompareConfig()
    rivals = Rivals(masks, dataset)
    tuned, _ = score_pairs(masks, rivals, reference, tuning)
    chosen, informed = choose_rivals(rivals, _bins(tuned, tuning.size) if len(tuned) else None)
    table, counts = score_pairs(masks, rivals, reference, genes)
    names = list(dict.fromkeys([MODEL, MASK_MAX, *reported_names(_score_names(table), chosen)]))
    info: dict[str, Any] = {
        **counts,
        "pairs": len(table),
        "acting": int(table["acts"].sum()) if len(table) else 0,
        "genes": int(table["gene"].nunique()) if len(table) else 0,
        "not acting are": "listed" if reference.lists_negatives else "other elements of the file",
        "chosen_on": config.select_split if informed else "nothing: defaults",
    }
    shown = table[[*_KEYS[:-1], *(name for name in names if name in table and name != "distance")]]
    if not len(table) or table["acts"].nunique() < 2:
        return PairComparison([], chosen, {}, shown, info)
    bins = _bins(table, genes.size)
    compared = chosen | {part: part for part in ("contact", "activity") if part in table}
    judge = Judge(
        num_genes=genes.size,
        chosen=compared,
        split=config.split,
        num_resamples=config.num_resamples,
        seed=config.seed,
    )
    rankings = {name: rank(bins, name) for name in names}
    rows = judge.rows(rankings, "pair_auprc", Ranking.average_precisions)
    for low, high in itertools.pairwise(config.bands_bp):
        band = bins.where((bins.distance >= low) & (bins.distance < high))
        if band.label.any() and not band.label.all():
            found = {name: rank(band, name) for name in names}
            metric = f"pair_auprc {band_name(low, high)}"
            rows += judge.rows(found, metric, Ranking.average_precisions)
    alike = matched_pairs(table, config=minimal)
    info |= {"minimal_pairs": len(alike), "minimal_pair_genes": int(alike["gene"].nunique())}
    rows += _minimal_rows(judge, table, alike, names)
    curves = {}
    for name in (MODEL, *chosen.values()):
        recall, precision = rankings[name].curve()
        curves[name] = (list(map(float, recall)), list(map(float, precision)))
    info["base_rate"] = float(bins.label.mean())
    return PairComparison(rows, chosen, curves, shown, info)


def score_pairs(
    masks: GeneMasks, rivals: Rivals, reference: Reference, genes: NDArray[np.int64]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Score the pairs of genes.

    Returns
    -------
    table : DataFrame
        gene_id, symbol, chrom, start, end, distance, acts, gene (place among ``genes``), scores.
    counts : dict
        Listed pairs of these genes that lie outside the window, or in forced bins only.
    """
    listed = reference.lists_negatives
    others = {} if listed else _elements_by_contig(reference)
    frames, outside, forced, missed = [], 0, 0, 0
    for number, gene in enumerate(genes.tolist()):
        found = _candidates(masks, reference, gene, others)
        if found.empty:
            continue
        first, last = _span(found, int(masks.genes["start"].iloc[gene]), masks)
        free = np.asarray(masks.forced[gene]) == FREE
        cumulative = np.concatenate(([0], np.cumsum(free)))
        covered = cumulative[last] - cumulative[first]
        acts = found["causal"].to_numpy(dtype=np.bool_)
        outside += int((first == last).sum())
        forced += int(((first < last) & (covered == 0)).sum())
        missed += int((acts & (covered == 0)).sum())
        kept = covered > 0
        if kept.any():
            spans = (first[kept], last[kept], covered[kept])
            frames.append(_gene_table(masks, rivals, gene, number, found[kept], spans, free))
    counts = {
        "outside the window": outside,
        "in forced bins only": forced,
        "acting but out of reach": missed,
    }
    if not frames:
        return pd.DataFrame(columns=_KEYS), counts
    return pd.concat(frames, ignore_index=True), counts


def matched_pairs(table: pd.DataFrame, *, config: MinimalPairConfig | None = None) -> pd.DataFrame:
    """Return all pairs of an acting and a not acting element of one gene that are alike.

    Parameters
    ----------
    table : DataFrame
        Of :func:`score_pairs`. Without ``activity`` only the distance is matched.
    config : MinimalPairConfig, optional

    Returns
    -------
    DataFrame
        gene, acting, other: the last two are rows of the table.
    """
    config = config or MinimalPairConfig()
    distance = np.log(np.maximum(table["distance"].to_numpy(np.float64), config.nearest_bp))
    activity = np.zeros(len(table))
    if "activity" in table:
        with np.errstate(divide="ignore"):
            activity = np.log(table["activity"].to_numpy(np.float64))
    limits = np.log1p(config.distance), np.log1p(config.activity)
    found = []
    for gene, rows in table.groupby("gene").indices.items():
        acts = table["acts"].to_numpy(dtype=np.bool_)[rows]
        first, second = np.meshgrid(rows[acts], rows[~acts], indexing="ij")
        near = np.abs(distance[first] - distance[second]) <= limits[0]
        with np.errstate(invalid="ignore"):
            gap = np.abs(activity[first] - activity[second])
        # Two elements without any signal are alike: their logarithms differ by NaN.
        alike = near & ((gap <= limits[1]) | np.isnan(gap))
        found += [(gene, a, b) for a, b in zip(first[alike], second[alike], strict=True)]
    return pd.DataFrame(found, columns=["gene", "acting", "other"]).astype(np.int64)


def _minimal_rows(
    judge: Judge, table: pd.DataFrame, alike: pd.DataFrame, names: Sequence[str]
) -> list[Row]:
    """Return the share of matched pairs in which each method ranks the acting element higher."""
    if alike.empty:
        return []
    num_genes = judge.once.shape[1]
    gene = alike["gene"].to_numpy()
    size = np.bincount(gene, minlength=num_genes).astype(np.float64)
    values, draws = {}, {}
    for name in names:
        score = _score(table, name)
        gap = score[alike["acting"].to_numpy()] - score[alike["other"].to_numpy()]
        won = np.bincount(gene, weights=(np.sign(gap) + 1) / 2, minlength=num_genes)
        values[name] = float(won.sum() / size.sum())
        drawn = judge.counts @ size
        draws[name] = np.divide(
            judge.counts @ won, drawn, out=np.full(drawn.size, np.nan), where=drawn > 0
        )
    return judge.estimates("minimal_pairs", values, draws, n=len(alike))


def _elements_by_contig(reference: Reference) -> dict[str, pd.DataFrame]:
    places = reference.truth.elements.drop_duplicates(["chrom", "start", "end"])
    return {str(contig): here for contig, here in places.groupby("chrom")}


def _candidates(
    masks: GeneMasks, reference: Reference, gene: int, others: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return the pairs of a gene; without listed negatives the elements of other genes too."""
    row = masks.genes.iloc[gene]
    found = reference.truth.of_gene(str(row["gene_id"]), str(row["contig"]))
    found = found[found["gene_id"].notna() & (found["kind"] != "promoter")]
    if found.empty or row["contig"] not in others:
        return found
    near = others[row["contig"]]
    start, end = int(row["start"]), int(row["start"]) + masks.num_bins * masks.bin_size
    near = near[(near["start"] < end) & (near["end"] > start)]
    mine = set(zip(found["start"], found["end"], strict=True))
    other = [place not in mine for place in zip(near["start"], near["end"], strict=True)]
    return pd.concat([found, near[other].assign(causal=False, gene_id=row["gene_id"])])


def _span(
    found: pd.DataFrame, start: int, masks: GeneMasks
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    size, num_bins = masks.bin_size, masks.num_bins
    first = ((found["start"].to_numpy(np.int64) - start) // size).clip(0, num_bins)
    last = (-((start - found["end"].to_numpy(np.int64)) // size)).clip(0, num_bins)
    return first, np.maximum(first, last)


def _gene_table(
    masks: GeneMasks,
    rivals: Rivals,
    gene: int,
    number: int,
    found: pd.DataFrame,
    spans: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    free: NDArray[np.bool_],
) -> pd.DataFrame:
    row = masks.genes.iloc[gene]
    first, last, covered = spans
    mask = np.asarray(masks.mask[gene], dtype=np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.concatenate(([0.0], np.cumsum(np.where(free, values, 0))))
        result: NDArray[np.float64] = (total[last] - total[first]) / covered
        return result

    centre = (found["start"].to_numpy(np.float64) + found["end"].to_numpy(np.float64) - 1) / 2
    distance = np.abs(centre - int(row["tss"]))
    learned = np.where(free, mask, -1.0)
    table = {
        "gene_id": row["gene_id"],
        "symbol": row["symbol"],
        "chrom": row["contig"],
        "start": found["start"].to_numpy(np.int64),
        "end": found["end"].to_numpy(np.int64),
        "distance": distance,
        "acts": found["causal"].to_numpy(dtype=np.bool_),
        "gene": number,
        MODEL: mean(mask),
        MASK_MAX: [float(learned[a:b].max()) for a, b in zip(first, last, strict=True)],
    }
    scores = {**rivals.scores(gene), **rivals.parts(gene)}
    table |= {name: mean(values) for name, values in scores.items()}
    return pd.DataFrame(table | {"distance": distance})


def _score_names(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in _KEYS or name == "distance"]


def _score(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a score; the column of distances holds bases, of which fewer are better."""
    values = table[name].to_numpy(np.float64)
    return -values if name == "distance" else values


def _bins(table: pd.DataFrame, num_genes: int) -> ScoredBins:
    scores = {name: _score(table, name).astype(np.float32) for name in _score_names(table)}
    return ScoredBins(
        gene=table["gene"].to_numpy(np.int64),
        distance=table["distance"].to_numpy(np.float64),
        label=table["acts"].to_numpy(dtype=np.bool_),
        scores=scores,
        num_genes=num_genes,
    )
