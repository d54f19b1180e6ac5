"""Splits by contig or region, excluded regions, and the check that windows do not leak.

Regions are written ``contig`` or ``contig:start-end``, 0-based half-open, commas allowed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.config import RegionConfig, SplitConfig
from seq2exp.core.bed import read_bed
from seq2exp.core.contigs import match_contigs
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.intervals import complement, merge

__all__ = [
    "Region",
    "assign_splits",
    "bed_intervals",
    "excluded_regions",
    "leaking_pairs",
    "mark_excluded",
    "parse_region",
    "region_intervals",
]

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]
_REGION = re.compile(r"^(?P<contig>.+):(?P<start>[\d,]+)-(?P<end>[\d,]+)$")
_HELD_OUT = ("valid", "test")
_NOTHING: Intervals = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Region:
    """A stretch of a contig, 0-based half-open."""

    contig: str
    start: int
    end: int


def parse_region(text: str, sizes: Mapping[str, int], *, what: str) -> Region:
    """Return the region that a text such as ``XII:451,000-491,000`` or ``Mito`` names.

    Parameters
    ----------
    text : str
    sizes : mapping of str to int
        Contig lengths; aliases such as chr1 for 1 are understood.
    what : str
        The configuration key, for messages.

    Raises
    ------
    ConfigError
        Unknown contig, or an interval that is empty or ends beyond the contig.
    """
    match = None if text in sizes else _REGION.match(text)
    name = match["contig"] if match else text
    try:
        contig = match_contigs([name], sizes, what=what)[name]
    except InputError as error:
        raise ConfigError(str(error)) from None
    if not match:
        return Region(contig, 0, sizes[contig])
    start, end = (int(match[key].replace(",", "")) for key in ("start", "end"))
    if not 0 <= start < end <= sizes[contig]:
        raise ConfigError(
            facts(
                what,
                found=text,
                expected=f"0 <= start < end <= {sizes[contig]}, 0-based half-open",
                fix="correct the region",
            )
        )
    return Region(contig, start, end)


def bed_intervals(path: Path, sizes: Mapping[str, int]) -> dict[str, Intervals]:
    """Return the merged intervals of a BED file by contig of the genome.

    Raises
    ------
    InputError
        No contig of the file is in the genome, or an interval ends beyond its contig.
    """
    frame = read_bed(path)
    if frame.empty:
        return {}
    # A blacklist usually names more contigs than are stored; those are nothing to warn about.
    names = match_contigs(frame["chrom"].unique(), sizes, what=str(path), partial="ignore")
    found: dict[str, list[pd.DataFrame]] = {}
    for chrom, rows in frame.groupby("chrom"):
        if str(chrom) in names:
            contig = names[str(chrom)]
            if int(rows["end"].max()) > sizes[contig]:
                raise InputError(
                    facts(
                        str(path),
                        found=f"an interval on {chrom} that ends at {int(rows['end'].max())}",
                        expected=f"at most {sizes[contig]}, the length of the contig",
                        fix="use a BED file of the same assembly",
                    )
                )
            found.setdefault(contig, []).append(rows)
    joined = {contig: pd.concat(rows) for contig, rows in found.items()}
    return {contig: merge(rows["start"], rows["end"]) for contig, rows in joined.items()}


def excluded_regions(config: RegionConfig, source: Path, sizes: Mapping[str, int]) -> pd.DataFrame:
    """Return every excluded interval with its reason.

    Returns
    -------
    DataFrame
        contig, start, end, reason; sorted; 0-based half-open. What ``include`` leaves out has the
        reason ``not included``.
    """
    rows: list[tuple[str, int, int, str]] = []
    for entry in config.exclude:
        path = source / entry
        if path.is_file():
            for contig, (starts, ends) in bed_intervals(path, sizes).items():
                pairs = zip(starts.tolist(), ends.tolist(), strict=True)
                rows += [(contig, start, end, Path(entry).name) for start, end in pairs]
        else:
            _refuse_missing_file(entry, path)
            region = parse_region(entry, sizes, what="regions.exclude")
            rows.append((region.contig, region.start, region.end, entry))
    if config.include:
        kept = bed_intervals(source / config.include, sizes)
        for contig, size in sizes.items():
            outside = complement(*kept.get(contig, _NOTHING), length=size)
            pairs = zip(outside[0].tolist(), outside[1].tolist(), strict=True)
            rows += [(contig, start, end, "not included") for start, end in pairs]
    frame = pd.DataFrame(rows, columns=["contig", "start", "end", "reason"])
    frame = frame.astype({"contig": str, "start": "int64", "end": "int64", "reason": str})
    return frame.sort_values(["contig", "start", "end", "reason"], ignore_index=True)


def _refuse_missing_file(entry: str, path: Path) -> None:
    if "/" in entry or entry.endswith((".bed", ".bed.gz", ".narrowPeak", ".txt")):
        raise InputError(
            facts(str(path), found="no such file", expected="a BED file", fix="check the path")
        )


def region_intervals(regions: pd.DataFrame, contig: str) -> Intervals:
    """Return the merged excluded intervals of one contig."""
    rows = regions[regions["contig"] == contig]
    return merge(rows["start"], rows["end"])


def mark_excluded(genes: pd.DataFrame, regions: pd.DataFrame) -> pd.DataFrame:
    """Give genes whose TSS lies in an excluded region the status ``excluded: <reason>``."""
    status = genes["status"].to_numpy(dtype=object).copy()
    for (contig, reason), rows in regions.groupby(["contig", "reason"], sort=True):
        here = np.flatnonzero((genes["contig"] == contig).to_numpy())
        if not len(here):
            continue
        starts, ends = merge(rows["start"], rows["end"])
        tss = genes["tss"].to_numpy()[here]
        index = np.searchsorted(starts, tss, side="right") - 1
        inside = (index >= 0) & (tss < ends[index.clip(0)])
        hit = here[inside]
        status[hit] = np.where(status[hit] == "ok", f"excluded: {reason}", status[hit])
    return genes.assign(status=status)


def assign_splits(
    genes: pd.DataFrame, config: SplitConfig, sizes: Mapping[str, int]
) -> pd.DataFrame:
    """Add the column ``split``: train, valid, test or excluded, with the reason in ``status``.

    A gene belongs to the region that holds its TSS. Genes closer than ``buffer_bp`` to a region of
    another split are excluded, so windows of twice that length never touch the other split.

    Raises
    ------
    ConfigError
        Regions of two splits overlap, or a held-out region holds no gene.
    """
    regions = {
        split: [
            parse_region(text, sizes, what=f"splits.{split}") for text in getattr(config, split)
        ]
        for split in ("train", *_HELD_OUT)
    }
    _refuse_overlap(regions)
    if not config.train:
        regions["train"] = _rest([*regions["valid"], *regions["test"]], sizes)
    split = np.full(len(genes), "excluded", dtype=object)
    status = genes["status"].to_numpy(dtype=object).copy()
    near = np.zeros(len(genes), dtype=bool)
    for name, parts in regions.items():
        split[_inside(genes, parts, margin=0)] = name
    for name, parts in regions.items():
        near |= _inside(genes, parts, margin=config.buffer_bp) & (split != name)
    outside = split == "excluded"
    status[(status == "ok") & outside] = "in no split"
    status[(status == "ok") & near & ~outside] = "in the buffer between splits"
    split[status != "ok"] = "excluded"
    _refuse_empty(config, split)
    return genes.assign(split=split, status=status)


def _inside(genes: pd.DataFrame, regions: Iterable[Region], *, margin: int) -> NDArray[np.bool_]:
    contig, tss = genes["contig"].to_numpy(), genes["tss"].to_numpy()
    found = np.zeros(len(genes), dtype=bool)
    for region in regions:
        found |= (
            (contig == region.contig) & (tss >= region.start - margin) & (tss < region.end + margin)
        )
    return found


def _rest(regions: Sequence[Region], sizes: Mapping[str, int]) -> list[Region]:
    rest = []
    for contig, size in sizes.items():
        taken = [region for region in regions if region.contig == contig]
        starts, ends = complement(
            [region.start for region in taken], [region.end for region in taken], length=size
        )
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        rest += [Region(contig, start, end) for start, end in pairs]
    return rest


def _refuse_overlap(regions: Mapping[str, Sequence[Region]]) -> None:
    ordered = sorted(
        (
            (part.contig, part.start, part.end, name)
            for name, parts in regions.items()
            for part in parts
        )
    )
    for first, second in itertools.pairwise(ordered):
        if first[0] == second[0] and second[1] < first[2] and first[3] != second[3]:
            raise ConfigError(
                facts(
                    "splits",
                    found=f"{first[3]} and {second[3]} overlap on {first[0]} at {second[1]}",
                    expected="each base in one split",
                    fix="change splits.train, splits.valid or splits.test",
                )
            )


def _refuse_empty(config: SplitConfig, split: NDArray[np.object_]) -> None:
    for name in ("train", *_HELD_OUT):
        asked = bool(getattr(config, name)) or name == "train"
        if asked and not (split == name).any():
            raise ConfigError(
                facts(
                    f"splits.{name}",
                    found="no gene",
                    expected="at least one",
                    fix="choose regions that hold genes, or a smaller splits.buffer_bp",
                    count=0,
                )
            )


def leaking_pairs(genes: pd.DataFrame, *, window_bp: int) -> pd.DataFrame:
    """Return neighbouring genes of different splits whose windows share bases.

    Parameters
    ----------
    genes : DataFrame
        contig, tss, split, gene_id. Excluded genes do not count.
    window_bp : int
        Window length, centred on the TSS.

    Returns
    -------
    DataFrame
        gene_id, split, other_id, other_split, overlap_bp; empty when nothing leaks. A gene id in
        two splits is listed with itself.
    """
    used = genes[genes["split"] != "excluded"].sort_values(["contig", "tss", "gene_id"])
    rows: list[tuple[str, str, str, str, int]] = []
    for gene_id, same in used[used["gene_id"].duplicated(keep=False)].groupby("gene_id"):
        if same["split"].nunique() > 1:
            splits = list(same["split"])
            rows.append((str(gene_id), splits[0], str(gene_id), splits[1], window_bp))
    for _, here in used.groupby("contig"):
        rows += _leaks_on_contig(here, window_bp)
    columns = ["gene_id", "split", "other_id", "other_split", "overlap_bp"]
    return pd.DataFrame(rows, columns=columns)


def _leaks_on_contig(here: pd.DataFrame, window_bp: int) -> list[tuple[str, str, str, str, int]]:
    """Compare every gene with the last gene before it of each other split: the nearest one."""
    last: dict[str, tuple[str, int]] = {}
    rows = []
    for gene_id, tss, split in zip(here["gene_id"], here["tss"], here["split"], strict=True):
        for other, (other_id, other_tss) in last.items():
            overlap = window_bp - (tss - other_tss)
            if other != split and overlap > 0:
                rows.append((gene_id, split, other_id, other, int(overlap)))
        last[split] = (gene_id, tss)
    return rows
