"""Motif enrichment from files to files.

::

    OUT/enrichment.tsv       one row per motif, see `seq2exp.interpret.enrichment`
    OUT/enrichment.json      the same with the settings
    OUT/background.bed       the regions that were compared, with matched ones
    OUT/sites.bed.gz, .tbi   sites in the elements: BED6 + bits, p, element; score is 10 times bits
    OUT/enrichment.png, .svg effect sizes with intervals beside the logos
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.bed import write_bed
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_directory, refuse_existing, write_json
from seq2exp.dataset.store import Dataset
from seq2exp.elements.folder import called_elements
from seq2exp.elements.intervals import on_contigs, read_intervals, warn_left_out
from seq2exp.elements.masks import load_masks
from seq2exp.interpret.background import (
    Background,
    allowed_places,
    cut_sequences,
    matched_regions,
    shuffled_sequences,
)
from seq2exp.interpret.enrichment import enrichment
from seq2exp.interpret.logo import draw_logo, information, styled
from seq2exp.interpret.motif_files import read_motifs
from seq2exp.interpret.pwm import ScoredMotif, base_frequencies, scan, score_motif

__all__ = ["MotifConfig", "enrich_motifs", "read_regions"]

_MAX_PLOTTED = 24


@dataclass(frozen=True)
class MotifConfig:
    """How motifs are scanned and compared."""

    p_value: float = 1e-4
    """Largest p-value of a site, for one strand of one position."""
    pseudocount: float = 0.1
    """Sites added to every column of a matrix."""
    background: Literal["matched", "shuffled"] = "matched"
    """Matched regions of the same windows, or dinucleotide shuffles of the elements."""
    per_element: int = 5
    """Background regions per element."""
    around_bp: int = 10_000
    """With a BED file: how far from an element its background may lie."""
    kind: Literal["distal", "promoter", "all"] = "distal"
    """With a folder of elements: which class of them."""
    seed: int = 0
    """Draws the background."""

    def __post_init__(self) -> None:
        for name in ("per_element", "around_bp"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    facts(
                        f"motifs {name}",
                        found=getattr(self, name),
                        expected="1 or more",
                        fix="use a positive number",
                    )
                )


@dataclass(frozen=True, eq=False)
class _Regions:
    """Elements, and where their background may and may not lie."""

    elements: pd.DataFrame
    inside: pd.DataFrame
    outside: pd.DataFrame


def enrich_motifs(
    source: Path,
    motif_file: Path,
    out: Path,
    *,
    data: Path,
    splits: Sequence[str] = (),
    config: MotifConfig | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Write the enrichment of a motif file in elements; the folder appears whole or not at all.

    Parameters
    ----------
    source : Path
        Folder of `seq2exp elements`, or a BED file.
    motif_file : Path
        MEME, JASPAR or TRANSFAC.
    out : Path
        Folder to write.
    data : Path
        Dataset with the sequence.
    splits : sequence of str
        With a folder: only elements of genes of these splits.
    config : MotifConfig, optional
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    DataFrame
        Columns of `seq2exp.interpret.enrichment.ENRICHMENT_COLUMNS`.

    Raises
    ------
    InputError, FormatError
        Broken, missing or empty files, or no element.
    ConfigError
        Settings that make no sense.
    """
    config = config or MotifConfig()
    refuse_existing(Path(out), overwrite=overwrite)
    motifs = read_motifs(motif_file)
    dataset = Dataset(data)
    regions = read_regions(source, dataset, splits=splits, config=config)
    elements = cut_sequences(dataset, regions.elements)
    background = _background(dataset, regions, elements, config)
    # One background model for both sets: the null says that they do not differ.
    frequencies = base_frequencies([*elements, *background.sequences])
    scored = [
        score_motif(
            motif, background=frequencies, p_value=config.p_value, pseudocount=config.pseudocount
        )
        for motif in motifs
    ]
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        frame = enrichment(scored, elements, background.sequences)
        frame.to_csv(partial / "enrichment.tsv", sep="\t", index=False, float_format="%.6g")
        settings = {
            **asdict(config),
            "source": str(source),
            "motif_file": str(motif_file),
            "dataset": str(dataset.root),
            "splits": list(splits),
            "frequencies": dict(zip("ACGT", frequencies.tolist(), strict=True)),
            "missing_background": background.num_missing,
        }
        write_json(_plain({"settings": settings, "rows": _records(frame)}),
                   partial / "enrichment.json")  # fmt: skip
        if len(background.regions):
            write_bed(background.regions, partial / "background.bed")
        _write_sites(scored, elements, regions.elements, partial / "sites.bed.gz")
        _plot(frame, scored, partial / "enrichment")
    return frame


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Replace what JSON lacks: numpy numbers, and NaN by null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def read_regions(
    source: Path, dataset: Dataset, *, splits: Sequence[str], config: MotifConfig
) -> _Regions:
    """Return the elements of a folder or a BED file, merged, and the room for a background.

    Raises
    ------
    InputError
        No element is left, or the contigs are those of another assembly.
    """
    if Path(source).is_dir():
        regions = _of_map(Path(source), dataset, splits, config)
    else:
        regions = _of_bed(Path(source), dataset, splits, config)
    if regions.elements.empty:
        raise InputError(
            facts(
                str(source),
                found="no element of the class and splits asked for",
                expected="at least one",
                fix="change --class or --split",
            )
        )
    return regions


def _of_map(folder: Path, dataset: Dataset, splits: Sequence[str], config: MotifConfig) -> _Regions:
    """Elements of a map; background from the windows of the same genes."""
    found = called_elements(folder)
    found.check_places(dataset)
    called, masks = found.elements, load_masks(folder / "masks")
    genes = masks.genes
    if splits:
        genes = genes[genes["split"].isin(list(splits))]
    chosen = called[called["gene_id"].isin(genes["gene_id"])]
    if config.kind != "all":
        chosen = chosen[chosen["element_class"] == config.kind]
    windows = pd.DataFrame({"chrom": genes["contig"], "start": genes["start"]})
    windows["end"] = windows["start"] + masks.num_bins * masks.bin_size
    # What is called for any gene, promoters included, is no background.
    return _Regions(_union(chosen), windows, called[["chrom", "start", "end"]])


def _of_bed(path: Path, dataset: Dataset, splits: Sequence[str], config: MotifConfig) -> _Regions:
    if splits:
        raise ConfigError(
            facts(
                "--split",
                found=f"a BED file ({path.name})",
                expected="a folder of `seq2exp elements`, whose genes have splits",
                fix="leave --split out",
            )
        )
    notes: dict[str, int] = {}
    frame = read_intervals(path, dataset)
    notes["rows"] = len(frame)
    frame = on_contigs(frame, dataset, path, notes)
    warn_left_out(path, notes)
    around = frame[["chrom", "start", "end"]].copy()
    around["start"] -= config.around_bp
    around["end"] += config.around_bp
    return _Regions(_union(frame), around, frame[["chrom", "start", "end"]])


def _union(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the distinct intervals: one that is called for several genes counts once."""
    distinct = frame[["chrom", "start", "end"]].drop_duplicates()
    ordered = distinct.sort_values(["chrom", "start", "end"], kind="stable")
    # Of overlapping ones the first stays, so that no base is counted twice.
    kept: list[int] = []
    contig, last = "", 0
    spans = zip(ordered["chrom"], ordered["start"], ordered["end"], strict=True)
    for at, (chrom, start, end) in enumerate(spans):
        if chrom != contig or start >= last:
            kept.append(at)
            contig, last = str(chrom), int(end)
    return ordered.iloc[kept].reset_index(drop=True)


def _background(
    dataset: Dataset,
    regions: _Regions,
    elements: list[NDArray[np.uint8]],
    config: MotifConfig,
) -> Background:
    if config.background == "shuffled":
        return shuffled_sequences(elements, per_element=config.per_element, seed=config.seed)
    allowed = allowed_places(dataset, regions.inside, regions.outside)
    return matched_regions(
        dataset, regions.elements, allowed, per_element=config.per_element, seed=config.seed
    )


def _write_sites(
    scored: Sequence[ScoredMotif],
    sequences: list[NDArray[np.uint8]],
    elements: pd.DataFrame,
    path: Path,
) -> None:
    hits = scan(scored, sequences)
    width = np.array([motif.motif.width for motif in scored])
    start = elements["start"].to_numpy()[hits.sequence] + hits.start
    p = np.empty(len(start))
    for index, motif in enumerate(scored):
        own = hits.motif == index
        p[own] = motif.p_of(hits.score[own])
    frame = pd.DataFrame(
        {
            "chrom": elements["chrom"].to_numpy()[hits.sequence],
            "start": start,
            "end": start + width[hits.motif],
            "name": [scored[index].motif.name for index in hits.motif],
            "score": (hits.score / 10).clip(0, 1000).astype(int),
            "strand": np.where(hits.reverse, "-", "+"),
            "bits": hits.score / 100,
            "p": p,
            "element": hits.sequence,
        }
    )
    write_bed(frame, path)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _plot(frame: pd.DataFrame, scored: Sequence[ScoredMotif], path: Path) -> None:
    """Draw effect sizes of the motifs with the smallest p-values, each beside its logo."""
    from matplotlib.figure import Figure

    shown = frame[frame["status"] == "tested"].head(_MAX_PLOTTED)
    if shown.empty:
        return
    by_name = {motif.motif.name: motif.motif for motif in scored}
    with styled():
        figure: Figure = Figure(figsize=(6.5, 0.9 + 0.42 * len(shown)), layout="constrained")
        grid = figure.add_gridspec(len(shown), 2, width_ratios=(1, 2.2))
        right = figure.add_subplot(grid[:, 1])
        for row, one in enumerate(_records(shown)):
            axes = figure.add_subplot(grid[row, 0])
            draw_logo(axes, information(by_name[one["motif"]].probabilities))
            axes.set_ylim(0, 2)
            axes.axis("off")
            strong = one["q"] <= 0.05
            colour = "#D55E00" if strong else "#6B6B6B"
            right.plot([one["low"], one["high"]], [row, row], color=colour, linewidth=1.2)
            right.plot([one["log2_odds_ratio"]], [row], "o", color=colour, markersize=4)
        labels = [f"{one['motif']}  (q = {one['q']:.1g})" for one in _records(shown)]
        right.set_yticks(range(len(shown)), labels)
        right.set_ylim(len(shown) - 0.5, -0.5)
        right.axvline(0, color="#6B6B6B", linewidth=0.6)
        right.set_xlabel("log2 odds ratio, elements against background (95 % interval)")
        right.set_title(f"{int(frame['elements'].iloc[0]):,} elements; orange: q <= 0.05")
        for suffix in ("png", "svg"):
            metadata = {"Date": None} if suffix == "svg" else {}
            figure.savefig(path.with_name(f"{path.name}.{suffix}"), metadata=metadata)
