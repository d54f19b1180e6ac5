"""Scalar features of a gene: lengths, GC, exon density, and the signal at its promoter.

NaN means unknown: a gene without annotated CDS has no CDS length, and a promoter in a masked region
has no signal. A feature that is unknown or equal for all genes is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.config import FeatureConfig, TrackConfig
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.format import FeatureInfo

__all__ = ["gc_fraction", "length_features", "promoter_signal", "sequence_features"]

_TSS_GC_BP = 500
_PLACE = ("gene_id", "contig", "tss", "gene_start", "gene_end")
_LENGTHS = ("cds_length", "utr5_length", "utr3_length", "intron_length")


def length_features(genes: pd.DataFrame) -> tuple[pd.DataFrame, list[FeatureInfo]]:
    """Return log10(1 + length) of the gene and its parts, exon number, and junction density.

    Parameters
    ----------
    genes : DataFrame
        As :func:`data_prep.annotation.read_annotation` gives it.

    Returns
    -------
    DataFrame, list of FeatureInfo
        ``exon_junction_density`` is the number of splice junctions inside the CDS per kb of CDS.
    """
    columns = {"log_gene_length": _log10_1p(genes["gene_end"] - genes["gene_start"])}
    units = {"log_gene_length": "log10(1 + bp)"}
    for name in _LENGTHS:
        columns[f"log_{name}"] = _log10_1p(genes[name])
        units[f"log_{name}"] = "log10(1 + bp)"
    columns["num_exons"] = genes["num_exons"]
    columns["exon_junction_density"] = (genes["num_cds"] - 1) / (genes["cds_length"] / 1000)
    units |= {"num_exons": "exons", "exon_junction_density": "junctions per kb of CDS"}
    return _known(pd.DataFrame(columns), units, "annotation")


def _log10_1p(length: pd.Series) -> pd.Series:
    return pd.Series(np.log10(1.0 + length.to_numpy(dtype=np.float64)), index=length.index)


def sequence_features(
    genes: pd.DataFrame, cds: pd.DataFrame, codes: Mapping[str, NDArray[np.uint8]]
) -> tuple[pd.DataFrame, list[FeatureInfo]]:
    """Return the GC fraction of the gene, its CDS, and the 1,000 bases around the TSS.

    Parameters
    ----------
    genes : DataFrame
    cds : DataFrame
        gene_id, start, end of coding intervals.
    codes : mapping of str to uint8 array
        Base codes by contig.
    """
    coding = {str(gene): rows for gene, rows in cds.groupby("gene_id")}
    rows = []
    places = zip(*(genes[name] for name in _PLACE), strict=True)
    for gene_id, name, tss, start, end in places:
        contig = codes[name]
        parts = coding.get(gene_id)
        rows.append(
            (
                gc_fraction(contig[start:end]),
                np.nan if parts is None else gc_fraction(_joined(contig, parts)),
                gc_fraction(contig[max(tss - _TSS_GC_BP, 0) : tss + _TSS_GC_BP]),
            )
        )
    frame = pd.DataFrame(rows, columns=["gc_gene", "gc_cds", "gc_tss"])
    units = dict.fromkeys(frame.columns, "fraction of known bases")
    return _known(frame, units, "sequence")


def _joined(contig: NDArray[np.uint8], parts: pd.DataFrame) -> NDArray[np.uint8]:
    pairs = zip(parts["start"], parts["end"], strict=True)
    return np.concatenate([contig[start:end] for start, end in pairs])


def gc_fraction(codes: NDArray[np.uint8]) -> float:
    """Return the fraction of G and C among the known bases; NaN without any.

    Examples
    --------
    >>> gc_fraction(np.array([0, 1, 2, 4], dtype=np.uint8))  # A C G N: two of three
    0.6666666666666666
    """
    counts = np.bincount(codes, minlength=N_CODE + 1)
    known = int(counts[:N_CODE].sum())
    return float((counts[1] + counts[2]) / known) if known else float("nan")


def promoter_signal(
    genes: pd.DataFrame,
    bins: Mapping[str, NDArray[np.float64]],
    tracks: Sequence[TrackConfig],
    config: FeatureConfig,
    *,
    bin_size: int,
    sizes: Mapping[str, int],
) -> tuple[pd.DataFrame, list[FeatureInfo]]:
    """Return the mean signal of each track within ``promoter_bp`` of the TSS, per base.

    With one H3K27ac and one DNase or ATAC track of the same biosample, the promoter activity of
    the Seq2Exp specification is added: the square root of the product of the two.

    Parameters
    ----------
    genes : DataFrame
    bins : mapping of str to float array, shape (num_bins, num_tracks)
        Untransformed binned signal by contig; NaN where unknown.
    tracks : sequence of TrackConfig
        In the order of the last axis.
    config : FeatureConfig
    bin_size : int
        Bases per bin.
    sizes : mapping of str to int
        Contig lengths.
    """
    values = np.full((len(genes), len(tracks)), np.nan)
    for row, (contig, tss) in enumerate(zip(genes["contig"], genes["tss"], strict=True)):
        start = max(tss - config.promoter_bp, 0)
        end = min(tss + config.promoter_bp + 1, sizes[contig])
        values[row] = _weighted_mean(bins[contig], start, end, bin_size)
    columns = {f"promoter_{track.name}": values[:, i] for i, track in enumerate(tracks)}
    units = {f"promoter_{track.name}": f"mean {track.unit or 'signal'}" for track in tracks}
    pair = _activity_pair(tracks)
    if pair is not None:
        product = values[:, pair[0]] * values[:, pair[1]]
        columns["promoter_activity"] = np.sqrt(np.maximum(product, 0.0))
        units["promoter_activity"] = "geometric mean of H3K27ac and accessibility"
    return _known(pd.DataFrame(columns), units, "track")


def _weighted_mean(
    bins: NDArray[np.float64], start: int, end: int, bin_size: int
) -> NDArray[np.float64]:
    first, last = start // bin_size, -(-end // bin_size)
    edges = np.arange(first, last) * bin_size
    weight = (np.minimum(edges + bin_size, end) - np.maximum(edges, start)).astype(np.float64)
    part = bins[first:last]
    known = np.isfinite(part)
    total = (weight[:, None] * known).sum(axis=0)
    sums = (weight[:, None] * np.where(known, part, 0.0)).sum(axis=0)
    mean: NDArray[np.float64] = np.full(part.shape[1], np.nan)
    np.divide(sums, total, out=mean, where=total > 0)
    return mean


def _activity_pair(tracks: Sequence[TrackConfig]) -> tuple[int, int] | None:
    """Return the positions of H3K27ac and of the accessibility track, DNase before ATAC."""
    for accessible in ("dnase", "atac"):
        for i, mark in enumerate(tracks):
            for j, other in enumerate(tracks):
                assays = (_assay(mark), _assay(other))
                if assays == ("h3k27ac", accessible) and mark.biosample == other.biosample:
                    return i, j
    return None


def _assay(track: TrackConfig) -> str:
    return (track.assay or track.name).lower().removesuffix("-seq").replace("dhs", "dnase")


def _known(
    frame: pd.DataFrame, units: Mapping[str, str], source: str
) -> tuple[pd.DataFrame, list[FeatureInfo]]:
    """Drop the features that no gene has, and those that are the same for all: they say nothing."""
    names = [str(name) for name in frame.columns if frame[name].nunique() > 1]
    kept = frame[names].astype("float32")
    return kept, [FeatureInfo(name, units[name], source) for name in names]
