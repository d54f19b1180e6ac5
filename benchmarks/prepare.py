"""Track preparation against one plain pass of pyBigWig over one contig (target: 1.2x per track).

Ours does everything `prepare` does to a track: preflight, binning, refusal of values that are no
signal, coverage counts, shard with checksum, storage type, summary. The plain pass reads the dense
values and does nothing with them, in one call for the contig (`plain_whole`), as it is usually
written, and in pieces of a megabase that stay in the cache (`plain_pass`), the fastest way we
found; a third baseline also takes the bin means, which is the least that a dataset of bins needs.

    python benchmarks/prepare.py [--megabases 60] [--repeats 5]
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyBigWig

from data_prep.config import TrackConfig
from data_prep.shards import TrackTask
from data_prep.tracks import check_track, summarise, to_storage

PIECE = 1 << 20
RESULTS = Path(__file__).parent / "results"


def make_track(path: Path, length: int, *, seed: int = 0) -> None:
    """Write steps of 1 to 40 bases, some of them empty: 2 to 3 bits per base, like read depth."""
    random = np.random.default_rng(seed)
    edges = np.cumsum(random.integers(1, 40, length // 15))
    edges = edges[edges < length]
    starts, ends = edges[:-1], edges[1:]
    kept = random.random(len(starts)) < 0.85
    values = random.gamma(0.6, 4.0, len(starts)).round(2)[kept]
    handle = pyBigWig.open(str(path), "w")
    handle.addHeader([("chr1", length)])
    names = np.array(["chr1"] * int(kept.sum()))
    handle.addEntries(
        names.tolist(), starts[kept].tolist(), ends=ends[kept].tolist(), values=values.tolist()
    )
    handle.close()


def plain_pass(path: Path, length: int) -> float:
    with pyBigWig.open(str(path)) as handle:
        return sum(
            float(handle.values("chr1", start, min(start + PIECE, length), numpy=True)[0])
            for start in range(0, length, PIECE)
        )


def plain_whole(path: Path, length: int) -> float:
    with pyBigWig.open(str(path)) as handle:
        return float(handle.values("chr1", 0, length, numpy=True)[0])


def plain_bins(path: Path, length: int, bin_size: int) -> np.ndarray:
    parts = []
    step = PIECE // bin_size * bin_size
    with pyBigWig.open(str(path)) as handle:
        for start in range(0, length, step):
            dense = handle.values("chr1", start, min(start + step, length), numpy=True)
            np.nan_to_num(dense, copy=False)
            whole = len(dense) // bin_size * bin_size
            parts.append(dense[:whole].reshape(-1, bin_size).mean(axis=1, dtype=np.float64))
            if whole < len(dense):
                parts.append(dense[whole:].mean(dtype=np.float64, keepdims=True))
    return np.concatenate(parts)


def ours(path: Path, length: int, bin_size: int, target: Path) -> np.ndarray:
    config = TrackConfig(name="t", path=path.name)
    file = check_track(config, path, sizes={"chr1": length}, contigs=["chr1"])
    known = (np.array([0]), np.array([length]))
    task = TrackTask(file, config, "chr1", length, bin_size, known, "float16", target)
    task.run()
    values = np.load(target)
    stored = to_storage(values.astype(np.float64), config, contig="chr1", dtype="float16")
    summarise(config, path, [stored], covered_bases=0)
    return values


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabases", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bin-size", type=int, default=128)
    options = parser.parse_args()
    length = options.megabases * 1_000_000 + 77
    times: dict[str, list[float]] = {
        "ours": [],
        "plain_pass": [],
        "plain_whole": [],
        "plain_bins": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.bw"
        make_track(path, length)
        size = path.stat().st_size
        for repeat in range(options.repeats):
            # Interleaved, so that a busy moment of the machine hits all alike.
            target = Path(folder) / f"shard{repeat}.npy"
            seconds, bins = timed(ours, path, length, options.bin_size, target)
            times["ours"].append(seconds)
            times["plain_pass"].append(timed(plain_pass, path, length)[0])
            times["plain_whole"].append(timed(plain_whole, path, length)[0])
            seconds, expected = timed(plain_bins, path, length, options.bin_size)
            times["plain_bins"].append(seconds)
            np.testing.assert_allclose(bins, expected, rtol=1e-5, atol=1e-7)
    report(options, times, size)


def report(options: argparse.Namespace, times: dict[str, list[float]], size: int) -> None:
    medians = {name: float(np.median(values)) for name, values in times.items()}
    result = {
        "benchmark": "prepare",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "megabases": options.megabases,
        "bin_size": options.bin_size,
        "bigwig_bytes": size,
        "repeats": options.repeats,
        "median_seconds": medians,
        "min_seconds": {name: min(values) for name, values in times.items()},
        "ratio_to_plain_pass": medians["ours"] / medians["plain_pass"],
        "ratio_to_plain_whole": medians["ours"] / medians["plain_whole"],
        "ratio_to_plain_bins": medians["ours"] / medians["plain_bins"],
        "target_ratio_to_plain_pass": 1.2,
        "results_agree": "bins within 1e-5 of the mean of the dense values",
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_1_min": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("seq2exp", "pybigtools", "pyBigWig", "numpy")}
        | {"python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prepare.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
