"""Calling and export of elements, genes per second, and calling against MACS3 on the same arrays.

    python benchmarks/elements.py MAP [MAP ...] [--macs3 FOLDER] [--repeats 5] [--quick]

MAP is a folder that ``seq2exp elements`` wrote, of a simulated or a real genome. ``call`` is the
threshold at a budget of 5 % and the runs of every gene; ``export`` adds every file of a map but the
masks themselves.

The rival is ``call_peaks`` of MACS3, which is what ``macs3 bdgpeakcall`` runs, given the bins of
every gene as arrays; reading text and writing peaks are left out for both. Ours is
``call_runs`` on the same numbers. Where MACS3 cannot be imported (``--macs3`` names a folder that
``pip install --target`` filled), a plain loop written from its documented rule stands in, and the
result says so. Intervals and summits must be identical.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import circumstances, summary, wait_for_quiet, write_result

from seq2exp.core.files import read_json
from seq2exp.core.runs import call_runs
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig, budget_threshold, call_elements
from seq2exp.elements.export import write_map
from seq2exp.elements.masks import FREE, GeneMasks, load_masks

RULES = ((0, 100), (256, 100))
Peaks = list[tuple[int, int, int, int]]


def bins_of(masks: GeneMasks) -> dict[str, Any]:
    """Return the bins of all genes side by side; what was not learned is 0 for every caller."""
    starts, ends = masks.intervals_of(slice(None))
    values = np.where(np.asarray(masks.forced) == FREE, np.asarray(masks.mask, np.float32), 0)
    group = np.repeat(np.arange(len(masks)), masks.num_bins)
    return {"start": starts, "end": ends, "value": values, "group": group}


def ours(bins: dict[str, Any], cutoff: float, gap: int, length: int) -> Any:
    return call_runs(
        bins["start"].ravel(),
        bins["end"].ravel(),
        bins["value"].ravel(),
        cutoff=cutoff,
        max_gap=gap,
        min_length=length,
        groups=bins["group"],
    )


def our_peaks(runs: Any) -> Peaks:
    columns = (runs.group, runs.start, runs.end, runs.summit)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def macs3_caller(bins: dict[str, Any]) -> tuple[Callable[..., Any], Callable[[Any], Peaks]]:
    """Return the call to time and a reader of its result."""
    from MACS3.Signal.BedGraph import bedGraphTrackI  # type: ignore[import-not-found]

    track = bedGraphTrackI(baseline_value=0)
    names = [f"g{i:08d}".encode() for i in range(len(bins["start"]))]
    for name, start, end, value in zip(
        names, bins["start"], bins["end"], bins["value"], strict=True
    ):
        there = end > start
        # Positions are ends; a first stretch of 0 reaches to the start of the window.
        places = np.concatenate((start[there][:1], end[there])).astype(np.int32)
        values = np.concatenate(([0], value[there])).astype(np.float32)
        first = int(places[0] == 0)
        track.add_chrom_data(name, places[first:], values[first:])

    def call(cutoff: float, gap: int, length: int) -> Any:
        return track.call_peaks(cutoff=cutoff, min_length=length, max_gap=gap)

    def read(found: Any) -> Peaks:
        return [
            (number, peak["start"], peak["end"], peak["summit"])
            for number, name in enumerate(names)
            if name in found.get_chr_names()
            for peak in found.get_data_from_chrom(name)
        ]

    return call, read


def plain_caller(bins: dict[str, Any]) -> tuple[Callable[..., Any], Callable[[Any], Peaks]]:
    """Write the documented rule as a loop, where MACS3 cannot be had."""

    def call(cutoff: float, gap: int, length: int) -> Peaks:
        found: Peaks = []
        for gene in range(len(bins["start"])):
            run: list[tuple[int, int, float]] = []
            columns = [bins[name][gene].tolist() for name in ("start", "end", "value")]
            rows = zip(*columns, strict=True)
            for start, end, value in [*rows, (sys.maxsize, sys.maxsize, cutoff)]:
                if value < cutoff or (end <= start and start < sys.maxsize):
                    continue
                if run and start - run[-1][1] > gap:
                    if run[-1][1] - run[0][0] >= length:
                        top = max(part[2] for part in run)
                        tied = [part for part in run if part[2] == top]
                        low, high, _ = tied[(len(tied) + 1) // 2 - 1]
                        found.append((gene, run[0][0], run[-1][1], (low + high) // 2))
                    run = []
                run.append((start, end, value))
        return found

    return call, lambda found: found


def against_rival(masks: GeneMasks, repeats: int, folder: Path | None) -> dict[str, Any]:
    if folder is not None:
        sys.path.insert(0, str(folder))
    bins = bins_of(masks)
    try:
        call, read = macs3_caller(bins)
        rival = f"MACS3 {version('macs3')} call_peaks"
    except ImportError:
        call, read = plain_caller(bins)
        rival = "plain loop of the documented rule"
    cutoff = budget_threshold(masks, 0.05)
    result: dict[str, Any] = {"rival": rival, "num_bins": int(bins["value"].size)}
    for gap, length in RULES:
        times: dict[str, list[float]] = {"ours": [], "rival": []}
        for _ in range(repeats):
            started = time.perf_counter()
            runs = ours(bins, cutoff, gap, length)
            between = time.perf_counter()
            found = call(cutoff, gap, length)
            times["ours"].append(between - started)
            times["rival"].append(time.perf_counter() - between)
        theirs = read(found)
        ratio = [b / a for a, b in zip(times["ours"], times["rival"], strict=True)]
        result[f"gap {gap}, length {length}"] = {
            "peaks": len(theirs),
            "identical": our_peaks(runs) == theirs,
            "seconds": summary(times),
            "times_faster": {"median": float(np.median(ratio)), "min": min(ratio)},
        }
    return result


def one_map(folder: Path, repeats: int, macs3: Path | None) -> dict[str, Any]:
    masks = load_masks(folder / "masks")
    made = read_json(folder / "summary.json")
    contigs = Dataset(Path(made["dataset"])).manifest.contigs
    config = CallConfig()
    times: dict[str, list[float]] = {"call": [], "export": []}
    for _ in range(repeats):
        started = time.perf_counter()
        elements, _ = call_elements(masks, config)
        times["call"].append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            write_map(masks, Path(place), contigs=contigs, config=config)
            times["export"].append(time.perf_counter() - started)
    return {
        "assembly": made["assembly"],
        "genes": len(masks),
        "bins_per_gene": masks.num_bins,
        "elements": len(elements),
        "seconds": summary(times),
        "genes_per_second": {name: len(masks) / float(np.median(v)) for name, v in times.items()},
        "calling": against_rival(masks, repeats, macs3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("maps", nargs="+", type=Path, help="folders `seq2exp elements` wrote")
    parser.add_argument("--macs3", type=Path, help="folder with MACS3, if not installed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quiet-seconds", type=float, default=60, help="wait for an idle machine")
    parser.add_argument("--quick", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    idle = wait_for_quiet(args.quiet_seconds)
    result = circumstances("numpy", "pandas", "pyBigWig") | {"idle_share": idle}
    result["maps"] = [one_map(folder, args.repeats, args.macs3) for folder in args.maps]
    write_result("elements", result, quick=args.quick)


if __name__ == "__main__":
    main()
