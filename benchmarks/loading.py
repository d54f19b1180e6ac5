"""One gene sample (200 kb, 3 tracks) from a dataset against reading the raw files per window.

Everybody delivers base codes and three tracks in bins of 128 bp for the same windows, in the same
process, in blocks of 20 genes in turn:

- ``dataset``: `GeneSamples`, which also looks up scalar features, labels and excluded regions.
- ``pyfaidx_pybigwig``: pyfaidx for the bases, `pyBigWig.values(numpy=True)` for each track.
- ``pyfaidx_pybigtools``: the same with pybigtools, dense or straight to bins, whichever is faster.
- ``naive``: one-hot by a dictionary look-up per base, tracks as lists of floats into a tensor: what
  a first script does. Its counterpart is ``dataset_one_hot``, the sample plus its one-hot matrix.

The dataset is prepared from the same files by `data_prep.build.prepare`. Stored bins lie on the
genome grid, so the bins of a window between two grid lines are overlap-weighted means of stored
ones. Half of the genes lie on the grid: there all paths must agree within float16 rounding. For the
other half ours is checked against that definition, worked out base by base from the dense values.

    python benchmarks/loading.py [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pybigtools
import pyBigWig
import pyfaidx
import torch
from common import circumstances, summary, write_result
from prepare import make_track
from torch.utils.data import DataLoader

from data_prep.build import prepare
from data_prep.config import (
    AnnotationConfig,
    ContactConfig,
    DataConfig,
    ExpressionConfig,
    FeatureConfig,
    TrackConfig,
)
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import encode, one_hot, reverse_complement
from seq2exp.dataset.samples import GeneSamples, Sample, SampleConfig, collate, gene_window
from seq2exp.dataset.store import Dataset

BIN = 128
WINDOW = 1563 * BIN  # 200,064 bases, the shortest multiple of the bin that holds 200 kb
NUM_TRACKS = 3
BLOCK = 20
TARGETS = {"pyfaidx_pybigwig": 20.0, "naive": 100.0}
COLUMN = {"A": 0, "C": 1, "G": 2, "T": 3}


class Arrays(NamedTuple):
    """Bases (codes or one-hot rows) and binned tracks of a window, in model direction."""

    sequence: Any
    signal: Any


class RawFiles:
    """Open handles of the raw files, as a loader would keep them."""

    def __init__(self, folder: Path) -> None:
        self.fasta = pyfaidx.Fasta(
            str(folder / "genome.fa"), as_raw=True, sequence_always_upper=True
        )
        names = [folder / f"track_{i}.bw" for i in range(NUM_TRACKS)]
        self.bigwigs = [pyBigWig.open(str(name)) for name in names]
        self.readers = [pybigtools.open(str(name)) for name in names]

    def codes(self, window: Window) -> np.ndarray:
        codes = encode(self.fasta["chr1"][window.start : window.end])
        return reverse_complement(codes) if window.reverse else codes

    def with_pybigwig(self, window: Window) -> Arrays:
        signal = np.empty((WINDOW // BIN, NUM_TRACKS), np.float32)
        for i, handle in enumerate(self.bigwigs):
            dense = handle.values("chr1", window.start, window.end, numpy=True)
            np.nan_to_num(dense, copy=False)
            signal[:, i] = dense.reshape(-1, BIN).mean(axis=1)
        return Arrays(self.codes(window), signal[::-1] if window.reverse else signal)

    def with_pybigtools(self, window: Window) -> Arrays:
        signal = np.empty((WINDOW // BIN, NUM_TRACKS), np.float32)
        for i, handle in enumerate(self.readers):
            dense = handle.values("chr1", window.start, window.end, fillna=0.0, uncovered=0.0)
            signal[:, i] = dense.reshape(-1, BIN).mean(axis=1)
        return Arrays(self.codes(window), signal[::-1] if window.reverse else signal)

    def with_pybigtools_bins(self, window: Window) -> Arrays:
        signal = np.empty((WINDOW // BIN, NUM_TRACKS), np.float32)
        for i, handle in enumerate(self.readers):
            signal[:, i] = handle.values(
                "chr1",
                window.start,
                window.end,
                bins=WINDOW // BIN,
                summary="mean",
                exact=True,
                uncovered=0.0,
                fillna=0.0,
            )
        return Arrays(self.codes(window), signal[::-1] if window.reverse else signal)

    def naively(self, window: Window) -> Arrays:
        letters = self.fasta["chr1"][window.start : window.end]
        rows = np.zeros((len(letters), 4), np.float32)
        for i, base in enumerate(letters):
            if base in COLUMN:
                rows[i, COLUMN[base]] = 1.0
        sequence = torch.from_numpy(rows)
        tracks = []
        for handle in self.bigwigs:
            values = torch.tensor(handle.values("chr1", window.start, window.end))
            tracks.append(torch.nan_to_num(values).reshape(-1, BIN).mean(dim=1))
        signal = torch.stack(tracks, dim=1)
        if window.reverse:
            return Arrays(sequence.flip(0, 1), signal.flip(0))
        return Arrays(sequence, signal)

    def by_definition(self, window: Window) -> np.ndarray:
        """Return what the stored bins say, base by base: the slow, obvious way."""
        first, last = window.start // BIN * BIN, -(-window.end // BIN) * BIN
        signal = np.empty((WINDOW // BIN, NUM_TRACKS))
        for i, handle in enumerate(self.bigwigs):
            dense = np.nan_to_num(handle.values("chr1", first, last, numpy=True)).astype(np.float64)
            grid = dense.reshape(-1, BIN).mean(axis=1)
            bases = np.repeat(grid, BIN)[window.start - first : window.end - first]
            signal[:, i] = bases.reshape(-1, BIN).mean(axis=1)
        return signal[::-1] if window.reverse else signal


def write_files(folder: Path, *, length: int, num_genes: int) -> DataConfig:
    """Write one contig, its genes, three bigWigs and labels; return how to read them."""
    random = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)[random.integers(0, 4, length)]
    letters[5_000_000:5_010_000] = ord("N")
    with (folder / "genome.fa").open("wb") as out:
        out.write(b">chr1\n")
        padded = np.concatenate((letters, np.full(-length % 60, ord("N"), np.uint8)))
        rows = np.full((padded.size // 60, 61), ord("\n"), np.uint8)
        rows[:, :60] = padded.reshape(-1, 60)
        out.write(rows.tobytes())
    for i in range(NUM_TRACKS):
        make_track(folder / f"track_{i}.bw", padded.size, seed=i)
    ids, tss, strands = place_genes(num_genes, padded.size, random)
    rows = []
    for name, site, strand in zip(ids, tss, strands, strict=True):
        # GTF is 1-based and inclusive; the gene runs 1 kb from its TSS.
        start, end = (site + 1, site + 1000) if strand == "+" else (site - 998, site + 1)
        for kind in ("gene", "transcript", "exon"):
            notes = f'gene_id "{name}"; transcript_id "{name}t"; gene_biotype "protein_coding";'
            rows.append(f"chr1\tmade\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{notes}\n")
    (folder / "genes.gtf").write_text("".join(rows))
    labels = pd.DataFrame({"gene_id": ids, "cell": random.gamma(1.0, 5.0, num_genes)})
    labels.to_csv(folder / "labels.tsv", sep="\t", index=False)
    return DataConfig(
        assembly="made",
        fasta="genome.fa",
        annotation=AnnotationConfig(gtf="genes.gtf"),
        tracks=[TrackConfig(name=f"t{i}", path=f"track_{i}.bw") for i in range(NUM_TRACKS)],
        expression=ExpressionConfig(path="labels.tsv", transform="log1p"),
        contacts=ContactConfig(source="none"),
        features=FeatureConfig(lengths=False),
        bin_size=BIN,
    )


def place_genes(
    num_genes: int, length: int, random: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return ids, TSSs and strands; the windows of the first half start on the grid."""
    starts = np.sort(random.choice((length - WINDOW) // BIN, num_genes, replace=False)) * BIN
    random.shuffle(starts)
    strands = np.where(random.random(num_genes) < 0.5, "-", "+")
    off = np.arange(num_genes) >= num_genes // 2
    starts = starts + np.where(off, random.integers(1, BIN, num_genes), 0)
    tss = starts + WINDOW // 2 - (strands == "-")
    ids = [f"{'off' if is_off else 'on'}_{i}" for i, is_off in enumerate(off)]
    return ids, tss, strands


def compare(dataset: Dataset, samples: GeneSamples, raw: RawFiles, rows: Sequence[int]) -> dict:
    """Check that all paths agree; return the largest difference of each."""
    worst = {"on_grid_vs_pybigwig": 0.0, "off_grid_vs_definition": 0.0, "raw_paths": 0.0}
    off_grid_moved = []
    for row in rows:
        window = gene_window(dataset, row, samples.config)
        sample, plain = samples[row], raw.with_pybigwig(window)
        naive = raw.naively(window)
        np.testing.assert_array_equal(sample.codes, plain.sequence)
        np.testing.assert_array_equal(one_hot(sample.codes), naive.sequence.numpy())
        for other in (raw.with_pybigtools(window), raw.with_pybigtools_bins(window), naive):
            difference = np.abs(np.asarray(other.signal) - plain.signal).max()
            worst["raw_paths"] = max(worst["raw_paths"], float(difference))
        # Stored as float16: 11 bits of mantissa.
        expected = raw.by_definition(window)
        np.testing.assert_allclose(sample.signal, expected, rtol=2**-10, atol=1e-6)
        if window.start % BIN == 0:
            difference = relative(sample.signal, plain.signal)
            worst["on_grid_vs_pybigwig"] = max(worst["on_grid_vs_pybigwig"], difference)
        else:
            difference = relative(sample.signal, expected)
            worst["off_grid_vs_definition"] = max(worst["off_grid_vs_definition"], difference)
            off_grid_moved.append(np.corrcoef(sample.signal.ravel(), plain.signal.ravel())[0, 1])
    assert worst["raw_paths"] < 1e-3
    assert worst["on_grid_vs_pybigwig"] < 2**-10
    return {**worst, "off_grid_correlation_with_exact_bins": float(np.median(off_grid_moved))}


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(value - expected) / np.maximum(np.abs(expected), 1e-3)).max())


def measure(
    paths: dict[str, Callable[[int], object]], rows: Sequence[int], *, seconds: float
) -> dict[str, list[float]]:
    """Time all paths in turn, a block of genes each, until the time is up; CPU milliseconds.

    CPU time of the process, because on a shared machine wall time lets others into the long paths
    and not into the short ones, which would flatter ours.

    A block, because a loader reads sample after sample: a path that runs once behind another one
    that filled the caches would be timed for the other's sake. Every path reads other genes in
    every block, the same ones as the others.
    """
    times: dict[str, list[float]] = {name: [] for name in paths}
    names = list(paths)
    stop = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < stop:
        block = np.take(rows, range(turn * BLOCK, (turn + 1) * BLOCK), mode="wrap")
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for row in block[: BLOCK // 10] if name == "naive" else block:
                start = time.process_time()
                paths[name](int(row))
                times[name].append(1000 * (time.process_time() - start))
        turn += 1
    return times


def resident() -> dict[str, float]:
    """Return resident memory of this process in megabytes: its own, and mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "own_mb": int(values["RssAnon"].split()[0]) / 1024,
        "mapped_files_mb": int(values["RssFile"].split()[0]) / 1024,
    }


def watched_collate(items: list[Sample]) -> dict[str, float]:
    """Collate as in training, then report the memory of the worker that did it."""
    collate(items)
    return resident()


def worker_memory(samples: GeneSamples, *, num_samples: int) -> dict[str, Any]:
    """Return the memory of a loader worker while it makes samples."""
    many = GeneSamples(samples.dataset, samples.config, np.resize(samples.rows, num_samples))
    loader = DataLoader(
        many,
        batch_size=10,
        num_workers=1,
        collate_fn=watched_collate,
        multiprocessing_context="spawn",
    )
    readings = list(loader)
    marks = {0.05, 0.25, 0.5, 0.75, 1.0}
    places = {round(mark * (len(readings) - 1)) for mark in marks}
    return {
        "num_samples": num_samples,
        "by_sample": {str((i + 1) * 10): readings[i] for i in sorted(places)},
        "own_growth_after_5_percent_mb": readings[-1]["own_mb"]
        - readings[round(0.05 * (len(readings) - 1))]["own_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="8 Mb, seconds; writes no result")
    options = parser.parse_args()
    length, num_genes = (8_000_040, 60) if options.quick else (60_000_000, 1000)
    seconds, num_samples = (8, 500) if options.quick else (90, 10_000)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_files(folder, length=length, num_genes=num_genes)
        prepare(config, source=folder, out=folder / "dataset", workers=1, progress=False)
        dataset = Dataset(folder / "dataset")
        rows = list(range(len(dataset.genes)))
        samples = GeneSamples(dataset, SampleConfig(window_bp=WINDOW, bin_size=BIN), rows)
        raw = RawFiles(folder)
        agreement = compare(dataset, samples, raw, rows[:: len(rows) // 20])
        windows = [gene_window(dataset, row, samples.config) for row in rows]
        buffer = np.empty((WINDOW, 4), np.float32)
        gc.disable()
        times = measure(
            {
                "dataset": samples.__getitem__,
                "dataset_one_hot": lambda row: one_hot(samples[row].codes, out=buffer),
                "pyfaidx_pybigwig": lambda row: raw.with_pybigwig(windows[row]),
                "pyfaidx_pybigtools": lambda row: raw.with_pybigtools(windows[row]),
                "pyfaidx_pybigtools_bins": lambda row: raw.with_pybigtools_bins(windows[row]),
                "naive": lambda row: raw.naively(windows[row]),
            },
            rows,
            seconds=seconds,
        )
        gc.enable()
        memory = worker_memory(samples, num_samples=num_samples)
    milliseconds = summary(times)
    ours = milliseconds["dataset"]["median"]
    result = {
        "what": f"{WINDOW} bp, {NUM_TRACKS} tracks, bins of {BIN} bp, {length} bp contig",
        "cpu_milliseconds": milliseconds,
        "ratio_of_medians": {
            name: milliseconds[name]["median"] / ours for name in times if name != "dataset"
        },
        "ratio_naive_to_dataset_one_hot": milliseconds["naive"]["median"]
        / milliseconds["dataset_one_hot"]["median"],
        "target_ratio": TARGETS,
        "results_agree": {
            "codes": "equal",
            "tolerance": "relative 2**-10 (float16 store); raw paths among themselves 1e-3",
            "largest_difference": agreement,
        },
        "worker_memory": memory,
        **circumstances("numpy", "torch", "pyfaidx", "pyBigWig", "pybigtools"),
    }
    write_result("loading", result, quick=options.quick)


if __name__ == "__main__":
    main()
