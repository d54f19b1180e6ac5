"""Personal expression on simulated donors: what heritability allows, what training on people adds.

    python benchmarks/cohort.py WORK [--seed 3]

simulates a genome with donors, prepares it, runs the shipped benchmark (all of it continues where
it was killed) and compares

- linear models with what the planted heritability allows. With genotypes Z standardised by the
  training donors and K = Z Z^T / M, a BLUP that knows h2 predicts the genetic value of a test donor
  t with reliability k_t^T (K + (1 - h2) / h2 I)^-1 k_t / k_tt (Henderson 1975, Biometrics 31:423);
  so the formula for its correlation with expression is c sqrt(mean reliability), where c, at most
  sqrt(h2), is the correlation of the true genetic value with the expression that is predicted;
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
from seq2exp.cohort.benchmark import run_benchmark
from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.cohort.judging import judge
from seq2exp.cohort.splits import read_split
from seq2exp.cohort.train import Cohort, open_cohort
from seq2exp.core.config import load_config
from seq2exp.dataset.format import read_table
from seq2exp.dataset.store import Dataset

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RESAMPLES = 2000
MIN_MAF = 0.05


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


def allowed(source: Path, out: Path, cohort: Cohort) -> dict[str, Any]:
    """Compare linear models on A with what the planted heritability allows."""
    genes = pd.read_parquet(out / "genes.parquet")
    truth = pd.read_csv(source / "truth" / "donor_genes.tsv", sep="\t").set_index("gene_id")
    ceiling, reliability = _ceiling(source, out), _reliability(truth["heritability"], cohort)
    found: dict[str, Any] = {}
    for name in ("enet", "blup"):
        part = genes[(genes["split"] == "A") & (genes["name"] == name)].set_index("gene")
        reached = part["pearson"].fillna(0.0).to_numpy()
        perfect = np.nan_to_num(ceiling.reindex(part.index).to_numpy())
        expected = perfect * np.sqrt(reliability.reindex(part.index).to_numpy())
        h2 = truth["heritability"].reindex(part.index).to_numpy()
        found[name] = {
            "pearson": estimate(reached),
            "expected_by_formula": estimate(expected),
            "pearson_minus_expected": estimate(reached - expected),
            "true_genetic_value": estimate(perfect),
            "sqrt_h2": float(np.sqrt(h2).mean()),
        }
    return found


def _reliability(heritability: pd.Series, cohort: Cohort) -> pd.Series:
    """Return the mean reliability of BLUP for the test donors of each seen gene."""
    sets = np.array(cohort.targets.split.donor_sets)
    train, test = np.flatnonzero(sets == "train"), np.flatnonzero(sets == "test")
    names, found = cohort.dataset.genes["gene_id"].to_numpy(), {}
    for gene in np.flatnonzero(cohort.cells("A").any(axis=1)):
        dosage, snv = cohort.personal.dosage(int(gene), np.concatenate([train, test]))
        share = dosage[: len(train)].mean(axis=0) / 2
        part = dosage[:, snv & (np.minimum(share, 1 - share) >= MIN_MAF)]
        h2 = float(heritability[names[gene]])
        if part.shape[1] == 0 or h2 <= 0:
            found[names[gene]] = 0.0
            continue
        z = (part - part[: len(train)].mean(axis=0)) / part[: len(train)].std(axis=0)
        k = z @ z.T / z.shape[1]
        inner = k[: len(train), : len(train)] + (1 - h2) / h2 * np.eye(len(train))
        across = k[: len(train), len(train) :]
        known = (across * np.linalg.solve(inner, across)).sum()
        found[names[gene]] = float(known / np.diag(k)[len(train) :].sum())
    return pd.Series(found)


def _ceiling(source: Path, out: Path) -> pd.Series:
    """Return per seen gene the correlation of the true genetic value with what is predicted.

    The target is expression after factors were estimated and removed, so this is below sqrt(h2).
    """
    split = read_split(out / "split.json")
    people = [d for d, kind in zip(split.donors, split.donor_sets, strict=True) if kind == "test"]
    genes = [g for g, kind in zip(split.genes, split.gene_sets, strict=True) if kind == "seen"]
    genetic = pd.read_csv(source / "truth" / "donor_genetic.tsv.gz", sep="\t").set_index("gene_id")
    table = pd.read_parquet(out / "expression.parquet")
    observed = table.pivot_table(index="gene_id", columns="donor", values="corrected")
    first, second = genetic.loc[genes, people], observed.loc[genes, people]
    varies = first.std(axis=1) > 1e-4
    return first.T.corrwith(second.T).where(varies)


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
            "planted_heritability": allowed(source, out, cohort),
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
