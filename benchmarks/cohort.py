"""Personal expression on simulated donors: what heritability allows, what training on people adds.

    python benchmarks/cohort.py WORK [--seed 3]

simulates a genome with donors, prepares it, runs the shipped benchmark (all of it continues where
it was killed) and compares

- the elastic net with what the planted heritability allows: at most sqrt(h2) per gene; for many
  small effects sqrt(h2) sqrt(N h2 / (N h2 + M_e)) (Daetwyler et al. 2008, PLoS ONE 3:e3395), with
  the planted h2, N training donors, and M_e independent variants of the window;
- training on pairs of people with training on single people and with the reference alone, paired by
  gene, on new people (A), a new population (B) and unseen genes (C).

Intervals: percentile bootstrap over genes.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import circumstances, write_result

from data_prep.build import prepare
from data_prep.config import DataConfig
from data_prep.simulate import SimulationConfig, simulate
from seq2exp.cohort.benchmark import judge, run_benchmark
from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.cohort.heritability import expected_pearson
from seq2exp.cohort.train import open_cohort
from seq2exp.core.config import load_config
from seq2exp.dataset.format import read_table
from seq2exp.dataset.store import Dataset

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RESAMPLES = 2000


def make(work: Path, seed: int) -> tuple[Path, Path, Path, BenchmarkConfig]:
    """Return folders of simulation, dataset and benchmark, made where they are not there."""
    source, data, out = work / "simulated", work / "dataset", work / "benchmark"
    if not source.is_dir():
        config = load_config(
            SimulationConfig, [CONFIGS / "cohort" / "simulation.yaml"], overrides={"seed": seed}
        )
        simulate(config, source, progress=True)
    if not data.is_dir():
        config = load_config(DataConfig, [CONFIGS / "data" / "simulated_cohort.yaml"])
        prepare(config, source=source, out=data)
    protocol = load_config(BenchmarkConfig, [CONFIGS / "cohort" / "simulated.yaml"])
    run_benchmark(protocol, data, out, progress=True)
    return source, data, out, protocol


def estimate(values: np.ndarray) -> dict[str, float]:
    """Return mean and bootstrap interval over genes."""
    random = np.random.default_rng(0)
    draws = random.choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)
    }  # fmt: skip


def allowed(source: Path, out: Path, num_train: int) -> dict[str, Any]:
    """Compare the elastic net on A with what the planted heritability allows."""
    genes = pd.read_parquet(out / "genes.parquet")
    truth = pd.read_csv(source / "truth" / "donor_genes.tsv", sep="\t").set_index("gene_id")
    variants = pd.read_parquet(out / "heritability.parquet").set_index("gene_id")
    found: dict[str, Any] = {}
    for name in ("enet", "blup"):
        part = genes[(genes["split"] == "A") & (genes["name"] == name)].set_index("gene")
        h2 = truth["heritability"].reindex(part.index).to_numpy()
        independent = variants["effective_variants"].reindex(part.index).to_numpy()
        expected = np.array(
            [
                expected_pearson(value, num_donors=num_train, effective_variants=number)
                for value, number in zip(h2, independent, strict=True)
            ]
        )
        r = part["pearson"].fillna(0.0).to_numpy()
        found[name] = {
            "pearson": estimate(r),
            "bound_sqrt_h2": float(np.sqrt(h2).mean()),
            "expected_many_small_effects": float(expected.mean()),
            "pearson_minus_expected": estimate(r - expected),
            "share_of_bound": float(r.mean() / np.sqrt(h2).mean()),
        }
    return found


def compared(out: Path, data: Path, protocol: BenchmarkConfig, reference: str) -> list[dict]:  # type: ignore[type-arg]
    """Return accuracy on every test, and differences of ``reference`` to every other model."""
    plan = dataclasses.replace(protocol.plan, reference=reference, num_permutations=0)
    config = dataclasses.replace(protocol, plan=plan)
    cohort = open_cohort(config.cohort, Dataset(data))
    tables = {path.stem: read_table(path) for path in sorted((out / "predictions").iterdir())}
    h2 = read_table(out / "heritability.parquet").set_index("gene_id")
    rows, _ = judge(cohort, tables, h2, config)
    wanted = ("pearson_mean", "pearson_difference", "across_genes_pearson_mean")
    return [
        {key: row[key] for key in ("name", "metric", "split", "value", "low", "high", "n")}
        for row in rows
        if row["metric"] in wanted and row["stratum"] is None
    ]


def main() -> None:
    """Run the benchmark and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    start = time.monotonic()
    source, data, out, protocol = make(args.work, args.seed)
    cohort = open_cohort(protocol.cohort, Dataset(data))
    num_train = cohort.targets.split.donor_sets.count("train")
    write_result(
        "cohort",
        {
            "what": f"simulated donors, seed {args.seed}: {num_train} train; "
            f"{cohort.targets.split.counts()}",
            "planted_heritability": allowed(source, out, num_train),
            "pairs_minus_others": compared(out, data, protocol, "pairs"),
            "joint_minus_others": [
                row
                for row in compared(out, data, protocol, "joint")
                if row["metric"] == "pearson_difference"
            ],
            "seconds_of_this_call": round(time.monotonic() - start),
            **circumstances("torch", "numpy"),
        },
    )


if __name__ == "__main__":
    main()
