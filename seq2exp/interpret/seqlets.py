"""Seqlets: short stretches of bases whose attributions stand out from those of shuffled sequence.

Every window is explained twice: as it is, and with its bases shuffled (dinucleotides kept, tracks
as they are). The sum over a stretch, divided by the root mean square of such sums in the shuffled
window of the same gene, is its score; of overlapping stretches and of several widths the highest
score wins. The shuffled windows are searched in the same way, and a threshold's false-discovery
rate is the number of decoys that reach it over the number of seqlets that do (target-decoy
counting, Elias and Gygi, Nature Methods 2007).

Shapes: L base pairs of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from seq2exp.core.bed import write_bed
from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.files import write_json
from seq2exp.core.progress import track
from seq2exp.core.sequence import decode
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.attribution import AttributionConfig, Regions, explain_bases
from seq2exp.interpret.attribution_files import load_gene
from seq2exp.interpret.target import make_target, quiet_models
from seq2exp.training.run import TrainedRun

__all__ = ["SEQLET_COLUMNS", "SeqletConfig", "Stretches", "call_seqlets", "find_stretches",
           "q_values", "write_seqlets"]  # fmt: skip

SEQLET_COLUMNS = (
    "chrom", "start", "end", "name", "score", "strand", "gene_id", "attribution", "z", "q",
    "sequence",
)  # fmt: skip
# Weaker stretches are neither seqlets nor decoys worth counting.
_WEAKEST = 1.5


@dataclass(frozen=True)
class SeqletConfig:
    """How seqlets are called."""

    fdr: float = 0.05
    """Largest false-discovery rate."""
    widths: tuple[int, ...] = (6, 8, 10, 12, 16, 20)
    """Lengths of the stretches, bp."""

    def __post_init__(self) -> None:
        if not 0 < self.fdr <= 1:
            raise ConfigError(
                facts("--seqlet-fdr", found=self.fdr, expected="0 < value <= 1", fix="use 0.05")
            )
        if not self.widths or min(self.widths) < 2:
            raise ConfigError(
                facts(
                    "seqlet widths", found=self.widths, expected="lengths of 2 bp or more",
                    fix="use 6 to 20",
                )
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches that do not overlap, by place.

    Attributes
    ----------
    start, width : int64 array, shape (num_stretches,)
        In bases from the first of the array that was searched.
    z : float64 array, shape (num_stretches,)
        Signed score.
    """

    start: NDArray[np.int64]
    width: NDArray[np.int64]
    z: NDArray[np.float64]


def find_stretches(
    share: NDArray[np.floating], scale: Mapping[int, float], *, weakest: float = _WEAKEST
) -> Stretches:
    """Return the stretches that score highest, no two of which overlap.

    Parameters
    ----------
    share : float array, shape (length,)
        Attribution of every base.
    scale : mapping
        For each width, what sums are divided by.
    weakest : float
        Smallest absolute score.
    """
    sums = np.concatenate(([0.0], np.cumsum(share, dtype=np.float64)))
    starts, widths, scores = [], [], []
    for width, unit in scale.items():
        if width > len(share) or unit <= 0:
            continue
        z = (sums[width:] - sums[:-width]) / unit
        places = _local_maxima(np.abs(z), weakest)
        starts.append(places)
        widths.append(np.full(places.size, width))
        scores.append(z[places])
    if not starts:
        nothing = np.empty(0, dtype=np.int64)
        return Stretches(nothing, nothing, np.empty(0))
    start, length = np.concatenate(starts), np.concatenate(widths)
    score = np.concatenate(scores)
    taken = np.zeros(len(share), dtype=np.bool_)
    kept = []
    # Ties go to the left and to the narrow, so that the result depends on nothing else.
    for at in np.lexsort((length, start, -np.abs(score))):
        here = slice(start[at], start[at] + length[at])
        if not taken[here].any():
            taken[here] = True
            kept.append(at)
    order = np.array(sorted(kept, key=lambda at: start[at]), dtype=np.int64)
    return Stretches(start[order], length[order].astype(np.int64), score[order])


def _local_maxima(values: NDArray[np.float64], weakest: float) -> NDArray[np.int64]:
    """Places at least as high as both neighbours and as `weakest`."""
    padded = np.concatenate(([-np.inf], values, [-np.inf]))
    peak = (values >= padded[:-2]) & (values >= padded[2:]) & (values >= weakest)
    return np.flatnonzero(peak).astype(np.int64)


def null_scale(share: NDArray[np.floating], widths: tuple[int, ...]) -> dict[int, float]:
    """Return for each width the root mean square of the sums over stretches of that width."""
    sums = np.concatenate(([0.0], np.cumsum(share, dtype=np.float64)))
    return {
        width: float(np.sqrt(np.mean((sums[width:] - sums[:-width]) ** 2)))
        for width in widths
        if width <= len(share)
    }


def q_values(
    targets: NDArray[np.float64], decoys: NDArray[np.float64], *, ratio: float = 1.0
) -> NDArray[np.float64]:
    """Return for each target the smallest false-discovery rate of a threshold that keeps it.

    Parameters
    ----------
    targets, decoys : float array
        Scores; higher is better.
    ratio : float
        Searched bases of the targets over those of the decoys.

    Returns
    -------
    float64 array, shape of `targets`
        ``min over thresholds t <= score of ratio (1 + decoys >= t) / (targets >= t)``, at most 1.
    """
    order = np.argsort(-targets, kind="stable")
    ranked = targets[order]
    # Equal scores fall together, so each counts all of its ties.
    num_targets = np.searchsorted(-ranked, -ranked, side="right")
    num_decoys = np.searchsorted(np.sort(-decoys), -ranked, side="right")
    rate = np.minimum(ratio * (1 + num_decoys) / num_targets, 1.0)
    found = np.empty(targets.size)
    found[order] = np.minimum.accumulate(rate[::-1])[::-1]
    return found


def call_seqlets(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    folder: Path,
    config: AttributionConfig,
    *,
    seqlets: SeqletConfig,
    output: int | None = None,
    regions: Mapping[int, Regions] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Return the seqlets of genes whose attributions lie in a folder; columns `SEQLET_COLUMNS`.

    Parameters
    ----------
    run, dataset, rows, config, output, regions
        As the attributions were made. Seqlets lie inside of the regions.
    folder : Path
        Folder of the attributions.
    seqlets : SeqletConfig
    progress : bool
        Show progress.
    """
    found, decoys, searched = [], [], 0
    with quiet_models(run):
        for row in track(rows, total=len(rows), label="shuffled windows", enabled=progress):
            own = None if regions is None else regions.get(int(row), ())
            null = _null_share(run, dataset, int(row), config, output=output, regions=own)
            gene_id = str(dataset.genes["gene_id"].iloc[row])
            arrays = load_gene(folder, gene_id)
            inside = _inside(arrays, own)
            scale = null_scale(null[inside], seqlets.widths)
            for first, last in _runs(inside):
                here = find_stretches(arrays["attribution"][first:last], scale)
                found.append(_frame(here, first, gene_id, dataset, int(row), arrays))
                decoys.append(np.abs(find_stretches(null[first:last], scale).z))
                searched += last - first
    if not found:
        return pd.DataFrame(columns=list(SEQLET_COLUMNS))
    frame = pd.concat(found, ignore_index=True)
    frame["q"] = q_values(frame["z"].abs().to_numpy(), np.concatenate(decoys))
    kept = frame[frame["q"] <= seqlets.fdr].reset_index(drop=True)
    kept["name"] = [f"S{number + 1:06d}" for number in range(len(kept))]
    kept["score"] = (50 * kept["z"].abs()).clip(0, 1000).astype(int)
    return kept[list(SEQLET_COLUMNS)]


def _null_share(
    run: TrainedRun,
    dataset: Dataset,
    row: int,
    config: AttributionConfig,
    *,
    output: int | None,
    regions: Regions | None,
) -> NDArray[np.float32]:
    """Attributions of the shuffled window, in genome direction."""
    target = make_target(run, dataset, row, output=output, mask=config.mask)
    window = gene_window(dataset, row, run.card.data)
    random = np.random.default_rng((config.seed, row, 1))
    codes = shuffle_dinucleotides(target.batch.codes_BL[0].cpu().numpy(), random)
    shuffled = target.with_codes(torch.from_numpy(codes)[None].to(target.batch.codes_BL.device))
    _, arrays = explain_bases(shuffled, window, config, row=row, regions=regions)
    share: NDArray[np.float32] = arrays["share"][::-1] if window.reverse else arrays["share"]
    return share


def _inside(arrays: Mapping[str, NDArray[Any]], regions: Regions | None) -> NDArray[np.bool_]:
    """Bases that are searched: explained ones, in regions where there are any."""
    inside = np.array(arrays["covered"], dtype=np.bool_)
    if regions is not None:
        chosen = np.zeros_like(inside)
        origin = int(arrays["start"])
        for start, end in regions:
            chosen[max(0, start - origin) : max(0, end - origin)] = True
        inside &= chosen
    return inside


def _runs(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _frame(
    here: Stretches,
    first: int,
    gene_id: str,
    dataset: Dataset,
    row: int,
    arrays: Mapping[str, NDArray[Any]],
) -> pd.DataFrame:
    origin = int(arrays["start"])
    begin, end = here.start + first, here.start + first + here.width
    pairs = list(zip(begin.tolist(), end.tolist(), strict=True))
    share, codes = arrays["attribution"], np.asarray(arrays["codes"], dtype=np.uint8)
    return pd.DataFrame(
        {
            "chrom": str(dataset.genes["contig"].iloc[row]),
            "start": begin + origin,
            "end": end + origin,
            "strand": ".",
            "gene_id": gene_id,
            "attribution": [float(np.sum(share[a:b], dtype=np.float64)) for a, b in pairs],
            "z": here.z,
            "sequence": [decode(codes[a:b]) for a, b in pairs],
        }
    )


def write_seqlets(frame: pd.DataFrame, folder: Path) -> None:
    """Write seqlets.bed.gz with its index, and the names of its columns."""
    write_bed(frame, folder / "seqlets.bed.gz")
    write_json({"columns": list(SEQLET_COLUMNS), "seqlets": len(frame)}, folder / "seqlets.json")
