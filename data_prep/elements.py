"""Named sets of candidate elements: intervals of a BED or narrowPeak file, or runs of a track.

Sets are stored as disjoint intervals: those of a file that overlap are joined, and keep the
highest score. Touching ones stay apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.config import DataConfig, ElementConfig
from data_prep.windows import parse_region
from seq2exp.core.bed import read_bed
from seq2exp.core.contigs import match_contigs
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.runs import call_runs
from seq2exp.dataset import format as layout

__all__ = ["called_elements", "element_table", "read_elements", "training_cutoff"]

_COLUMNS = ["contig", "start", "end", "score"]
_KINDS: Any = {
    "set": str, "contig": str, "start": "int64", "end": "int64", "score": "float32",
}  # fmt: skip
# narrowPeak: column 7 is the signal, column 9 is -log10(q).
_SIGNAL, _LOG_Q = "column_7", "column_9"


def read_elements(
    config: ElementConfig, path: Path, *, sizes: Mapping[str, int], contigs: Sequence[str]
) -> pd.DataFrame:
    """Return the elements of a file on the stored contigs, disjoint and sorted.

    Parameters
    ----------
    config : ElementConfig
        A set with a `bed`.
    path : Path
        Where it lies. Lines may come in any order.
    sizes : mapping of str to int
        Contig lengths of the genome.
    contigs : sequence of str
        Stored contigs, in order.

    Returns
    -------
    DataFrame
        contig, start, end, score: signal (column 7 of a narrowPeak), else the BED score, else 0.

    Raises
    ------
    InputError
        The file is missing, holds no interval, shares no contig with the genome, has intervals
        that end beyond their contig, or none that passes the limits on a stored contig.
    FormatError
        A line is no interval.
    """
    frame = read_bed(path)
    if frame.empty:
        raise _nothing(path, "no interval", "at least one", "give a file of candidate elements")
    shared = match_contigs(sizes, frame["chrom"].unique(), what=str(path), partial="ignore")
    names = {theirs: ours for ours, theirs in shared.items()}
    frame = frame[frame["chrom"].isin(names)]
    frame = frame.assign(contig=frame["chrom"].map(names), score=_scores(frame, path))
    _refuse_beyond(frame, sizes, path)
    kept = frame[frame["contig"].isin(contigs)]
    if kept.empty:
        raise _nothing(
            path, "no interval on a stored contig", "at least one", "use a file for these contigs"
        )
    for key, column, limit in (
        ("min_signal", _SIGNAL, config.min_signal),
        ("min_log10_q", _LOG_Q, config.min_log10_q),
    ):
        if limit:
            kept = kept[_numbers(kept, column, path, key=f"elements.{key}") >= limit]
    if kept.empty:
        raise _nothing(
            path,
            "no interval that reaches the limits",
            f"signal >= {config.min_signal:g} and -log10(q) >= {config.min_log10_q:g}",
            "lower elements.min_signal or elements.min_log10_q",
        )
    return _disjoint(kept, contigs)


def called_elements(
    config: ElementConfig,
    values: Mapping[str, NDArray[np.floating]],
    *,
    sizes: Mapping[str, int],
    bin_size: int,
    cutoff: float,
) -> pd.DataFrame:
    """Return the runs of bins whose value reaches a cutoff; ``score`` is the highest bin.

    Parameters
    ----------
    config : ElementConfig
        A set with a `track`.
    values : mapping of str to float array
        Stored bins of the track by contig, in order; NaN is no signal.
    sizes : mapping of str to int
        Contig lengths.
    bin_size : int
        Bases per bin.
    cutoff : float
        See `training_cutoff`.
    """
    frames = []
    for contig, bins in values.items():
        starts = np.arange(len(bins), dtype=np.int64) * bin_size
        runs = call_runs(
            starts,
            np.minimum(starts + bin_size, sizes[contig]),
            bins,
            cutoff=cutoff,
            max_gap=config.max_gap_bp,
            min_length=config.min_length_bp,
        )
        columns = {"contig": contig, "start": runs.start, "end": runs.end, "score": runs.height}
        frames.append(pd.DataFrame(columns, columns=_COLUMNS))
    return pd.concat(frames, ignore_index=True)


def training_cutoff(
    config: ElementConfig,
    values: Mapping[str, NDArray[np.floating]],
    *,
    genes: pd.DataFrame,
    held_out: Sequence[str],
    sizes: Mapping[str, int],
    bin_size: int,
) -> float:
    """Return the quantile of the known bins that only training genes may see.

    These are the bins of contigs with a training gene, outside the regions of the validation and
    test splits. A value of 0 is never an element, whatever the quantile.

    Parameters
    ----------
    genes : DataFrame
        contig and split of every gene.
    held_out : sequence of str
        Contigs and regions of the validation and test splits.
    sizes : mapping of str to int
        All contigs of the genome, stored or not, and their lengths.
    """
    trained = set(genes.loc[genes["split"] == "train", "contig"])
    regions = [parse_region(text, sizes, what="splits") for text in held_out]
    parts = []
    for contig, bins in values.items():
        if contig not in trained:
            continue
        start = np.arange(len(bins), dtype=np.int64) * bin_size
        free = np.isfinite(bins)
        for region in regions:
            if region.contig == contig:
                free &= (start + bin_size <= region.start) | (start >= region.end)
        parts.append(bins[free])
    known = np.concatenate(parts) if parts else np.empty(0)
    if known.size == 0:
        raise _nothing(
            f"elements {config.name}",
            f"no training bin with data of track {config.track}",
            "at least one",
            "use another track, or give a bed",
        )
    quantile = float(np.quantile(known.astype(np.float64), config.quantile))
    return max(quantile, float(np.finfo(np.float32).tiny))


def element_table(
    config: DataConfig,
    files: Mapping[str, pd.DataFrame],
    *,
    root: Path,
    contigs: Mapping[str, int],
    sizes: Mapping[str, int],
    genes: pd.DataFrame,
    tracks: Sequence[str],
) -> pd.DataFrame:
    """Return all sets of a configuration as one table: set, contig, start, end, score.

    Parameters
    ----------
    config : DataConfig
    files : mapping of str to DataFrame
        What `read_elements` returned, by set.
    root : Path
        Dataset folder; its tracks are written.
    contigs : mapping of str to int
        Stored contigs and their lengths.
    sizes : mapping of str to int
        All contigs of the genome and their lengths.
    genes : DataFrame
        Gene table with contig and split.
    tracks : sequence of str
        Stored tracks. A set of a track that was left out is left out too, with a warning.
    """
    frames = []
    for item in config.elements:
        if item.name in files:
            found = files[item.name]
        elif item.track in tracks:
            column = tracks.index(item.track)
            found = _from_track(item, config, root, contigs, sizes, genes, column)
        else:
            _warn_left_out(item)
            continue
        found = found.assign(set=item.name)[["set", *_COLUMNS]]
        kinds: Any = {
            "set": str,
            "contig": str,
            "start": "int64",
            "end": "int64",
            "score": "float32",
        }
        frames.append(found.astype(kinds))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _from_track(
    item: ElementConfig,
    config: DataConfig,
    root: Path,
    contigs: Mapping[str, int],
    sizes: Mapping[str, int],
    genes: pd.DataFrame,
    column: int,
) -> pd.DataFrame:
    values = {
        contig: layout.load_array(layout.tracks_path(root, contig))[:, column].astype(np.float32)
        for contig in contigs
    }
    held_out = [*config.splits.valid, *config.splits.test]
    cutoff = training_cutoff(
        item, values, genes=genes, held_out=held_out, sizes=sizes, bin_size=config.bin_size
    )
    found = called_elements(item, values, sizes=contigs, bin_size=config.bin_size, cutoff=cutoff)
    if found.empty:
        raise _nothing(
            f"elements {item.name}",
            f"no run of {item.track} at {cutoff:.4g} or more",
            f"runs of at least {item.min_length_bp} bases",
            "lower elements.quantile or elements.min_length_bp",
        )
    return found


def _scores(frame: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    for column in (_SIGNAL, "score"):
        if column in frame:
            values = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
            if np.isfinite(values).all():
                return values
            if column == _SIGNAL and path.name.lower().removesuffix(".gz").endswith("narrowpeak"):
                return _numbers(frame, column, path, key="narrowPeak column 7")
    return np.zeros(len(frame))


def _numbers(frame: pd.DataFrame, column: str, path: Path, *, key: str) -> NDArray[np.float64]:
    known = column in frame
    values = pd.to_numeric(frame[column], errors="coerce") if known else pd.Series(dtype=float)
    if not known or not np.isfinite(values).all():
        bad = "no such column" if not known else f"{frame[column][values.isna()].iloc[0]!r}"
        raise InputError(
            facts(
                f"{path}, column {column.removeprefix('column_')}",
                found=bad,
                expected=f"numbers, for {key}",
                fix="give a narrowPeak file, or leave the key out",
            )
        )
    return values.to_numpy(np.float64)


def _refuse_beyond(frame: pd.DataFrame, sizes: Mapping[str, int], path: Path) -> None:
    beyond = frame[frame["end"] > frame["contig"].map(sizes)]
    if len(beyond):
        first = beyond.iloc[0]
        raise InputError(
            facts(
                str(path),
                found=f"an interval on {first['chrom']} that ends at {first['end']}",
                expected=f"at most {sizes[first['contig']]}, the length of the contig",
                fix="use a file of the same assembly",
                count=len(beyond),
            )
        )


def _disjoint(frame: pd.DataFrame, contigs: Sequence[str]) -> pd.DataFrame:
    """Sort by the order of the contigs and join intervals that share a base."""
    rank = frame["contig"].map({name: number for number, name in enumerate(contigs)})
    ordered = frame.assign(rank=rank).sort_values(["rank", "start", "end"], kind="stable")
    reach = ordered.groupby("rank", sort=False)["end"].cummax().to_numpy()
    number, start = ordered["rank"].to_numpy(), ordered["start"].to_numpy()
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = (number[1:] != number[:-1]) | (start[1:] >= reach[:-1])
    grouped = ordered.groupby(np.cumsum(new), sort=True)
    joined = grouped.agg(
        contig=("contig", "first"),
        start=("start", "min"),
        end=("end", "max"),
        score=("score", "max"),
    )
    return joined.reset_index(drop=True)[_COLUMNS]


def _warn_left_out(item: ElementConfig) -> None:
    warnings.warn(
        facts(
            f"elements {item.name}",
            found=f"track {item.track}, which was left out",
            expected="a usable track",
            fix="nothing, if the set is not needed; else mend the track",
        ),
        Seq2ExpWarning,
        stacklevel=3,
    )


def _nothing(place: object, found: str, expected: str, fix: str) -> InputError:
    return InputError(facts(str(place), found=found, expected=expected, fix=fix, count=0))
