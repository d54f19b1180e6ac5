"""Linear baselines of many genes against scikit-learn's ElasticNetCV, on two processors.

Genes have dosages in linkage: haplotypes are mosaics of founders, 100 to 600 variants with a
frequency of 0.05 or more, 1 to 4 of them causal, h2 0.1 to 0.4. 320 of 400 donors train. In
blocks of genes, in turn, so that other load on the machine meets everybody:

- ``enet_and_ridge``: our elastic net and ridge, defaults (the path ends by patience)
- ``enet_and_ridge_whole_path``: the same, all 100 penalties walked in every fold
- ``scikit_learn``: ElasticNetCV alone per gene, as a user would: standardised dosages, 100
  penalties, its defaults, genes in two joblib processes, the same folds. Its tolerance, 1e-4, is
  wider than ours, 1e-7.

Everybody chooses among the same penalties and refits. Accuracy: Pearson r on the 80 test donors.

    python benchmarks/linear.py [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from common import circumstances, wait_for_quiet, write_result
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNetCV

from seq2exp.cohort.linear import LinearConfig, assign_folds
from seq2exp.cohort.linear_design import make_design
from seq2exp.cohort.linear_genes import fit_genes
from seq2exp.cohort.metrics import across_donors
from seq2exp.training.metrics import interval, resample_counts

DONORS, TRAIN, CORES, FOLDS = 400, 320, 2, 5
ALL_LINEAR = ["top1", "blup", "lasso", "enet"]
OURS = {
    "enet_and_ridge": LinearConfig(models=["enet", "ridge_cv"]),
    "enet_and_ridge_whole_path": LinearConfig(models=["enet", "ridge_cv"], patience=0),
}


@dataclass(frozen=True)
class Gene:
    """Dosages (donors, variants) and expression of one gene."""

    dosage: NDArray[np.float32]
    y: NDArray[np.float64]


def make_gene(seed: int) -> Gene:
    random = np.random.default_rng([seed, 6])
    wanted = int(random.integers(100, 601))
    # Rare alleles are many: about a third of the variants pass the frequency filter.
    raw, founders = 4 * wanted, 60
    frequency = np.clip(random.beta(0.4, 1.2, size=raw), 0.01, 0.99)
    pool = random.random((founders, raw)) < frequency
    # A third of the variants repeat their neighbour's history: perfect linkage, as in real windows.
    repeats = np.flatnonzero(random.random(raw - 1) < 0.33) + 1
    for k in repeats:
        pool[:, k] = pool[:, k - 1] ^ (random.random() < 0.5)
    jump = random.random((2 * DONORS, raw)) < 0.01
    jump[:, repeats], jump[:, 0] = False, True
    place = np.maximum.accumulate(np.where(jump, np.arange(raw), 0), axis=1)
    source = np.take_along_axis(random.integers(founders, size=jump.shape), place, axis=1)
    haplotypes = pool[source, np.arange(raw)]
    dosage = haplotypes.reshape(DONORS, 2, raw).sum(axis=1).astype(np.float32)
    allele = dosage[:TRAIN].mean(axis=0) / 2
    dosage = dosage[:, np.minimum(allele, 1 - allele) >= 0.05][:, :wanted]
    causal = random.choice(dosage.shape[1], int(random.integers(1, 5)), replace=False)
    genetic = dosage[:, causal] @ random.normal(size=causal.size)
    genetic = (genetic - genetic.mean()) / genetic.std()
    h2 = random.uniform(0.1, 0.4)
    noise = random.normal(size=DONORS)
    return Gene(dosage, np.sqrt(h2) * genetic + np.sqrt(1 - h2) * noise)


def run_ours(genes: list[Gene], config: LinearConfig) -> dict[str, NDArray[np.float64]]:
    train = np.arange(DONORS) < TRAIN
    names = [str(k) for k in range(len(genes))]
    y = np.array([gene.y for gene in genes])
    found = fit_genes(
        names, lambda name: genes[int(name)].dosage, y, train=train, config=config, workers=CORES
    )
    penalty = found.table.set_index(["name", "gene_id"])["penalty"]
    alphas = {f"{name}.penalty": penalty[name].to_numpy() for name in config.models}
    return found.predictions | alphas


def sklearn_gene(dosage, y, cuts):
    train = dosage[:TRAIN].astype(np.float64)
    mean, scale = train.mean(axis=0), train.std(axis=0)
    model = ElasticNetCV(l1_ratio=0.5, alphas=100, cv=cuts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit((train - mean) / scale, y[:TRAIN])
    unmet = sum(issubclass(w.category, ConvergenceWarning) for w in caught)
    return model.predict((dosage - mean) / scale), model.alpha_, unmet


def run_sklearn(genes: list[Gene], pool: Parallel) -> dict[str, NDArray[np.float64]]:
    folds = assign_folds(np.arange(DONORS) < TRAIN, num_folds=FOLDS, seed=0)[:TRAIN]
    cuts = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(FOLDS)]
    found = pool(delayed(sklearn_gene)(gene.dosage, gene.y, cuts) for gene in genes)
    guess, alpha, unmet = zip(*found, strict=True)
    return {
        "enet": np.array(guess), "enet.penalty": np.array(alpha), "unmet": np.array(unmet),
    }  # fmt: skip


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def mean_with_interval(values: NDArray[np.float64]) -> dict[str, float]:
    counts = resample_counts(np.random.default_rng(0), 1000, values.size)
    estimate = interval(float(values.mean()), counts @ values / values.size, n=values.size)
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def accuracy(genes: list[Gene], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    """r across test donors, undefined as 0."""
    y = np.array([gene.y for gene in genes])[:, TRAIN:]
    table = across_donors(y, guess[:, TRAIN:], genes=[str(k) for k in range(len(genes))])
    return table["pearson"].fillna(0.0).to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--peer-genes", type=int, default=60, help="of them by scikit-learn too")
    parser.add_argument("--block", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few genes, nothing written")
    options = parser.parse_args()
    if options.quick:
        options.genes, options.peer_genes, options.block = 12, 8, 4
    genes = [make_gene(seed) for seed in range(options.genes)]
    sizes = [make_design(gene.dosage[:TRAIN], min_maf=0.05) for gene in genes]
    for config in OURS.values():
        run_ours(genes[:2], config)  # compiles
    times: dict[str, list[float]] = {name: [] for name in (*OURS, "scikit_learn")}
    made: dict[str, list[dict[str, NDArray[np.float64]]]] = {name: [] for name in times}
    quiet = []
    with Parallel(n_jobs=CORES) as pool:
        run_sklearn(genes[:2], pool)  # starts the processes
        for first in range(0, options.peer_genes, options.block):
            part = genes[first : first + options.block]
            quiet.append(wait_for_quiet(20))
            works = {name: lambda c=config, p=part: run_ours(p, c) for name, config in OURS.items()}
            works["scikit_learn"] = lambda p=part: run_sklearn(p, pool)
            for name, work in works.items():
                spent, result = seconds(work)
                times[name].append(spent)
                made[name].append(result)
    wait_for_quiet(20)
    all_models = LinearConfig(models=ALL_LINEAR)
    spent_all, _ = seconds(lambda: run_ours(genes, all_models))
    spent_all_ridge, _ = seconds(lambda: run_ours(genes, OURS["enet_and_ridge"]))
    peers = genes[: options.peer_genes]
    joined = {
        name: {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for name, parts in made.items()
    }
    theirs = joined["scikit_learn"]
    r = {name: accuracy(peers, found["enet"]) for name, found in joined.items()}
    total = {name: sum(values) for name, values in times.items()}
    write_result(
        "linear",
        {
            "what": f"{options.genes} genes, {TRAIN} of {DONORS} donors train, {CORES} processors; "
            f"scikit-learn on the first {options.peer_genes}",
            "variants_median": float(np.median([d.num_variants for d in sizes])),
            "different_columns_median": float(np.median([d.copies_P.size for d in sizes])),
            "seconds_per_gene": {name: t / options.peer_genes for name, t in total.items()},
            "ratio_to_scikit_learn": {
                name: {
                    "all_blocks": total["scikit_learn"] / total[name],
                    "median_of_blocks": float(
                        np.median(np.array(times["scikit_learn"]) / np.array(times[name]))
                    ),
                }
                for name in OURS
            },
            "seconds_all_genes_top1_blup_lasso_enet": spent_all,
            "seconds_all_genes_enet_ridge_cv": spent_all_ridge,
            "test_pearson_enet": {name: mean_with_interval(values) for name, values in r.items()},
            "test_pearson_ridge_cv": mean_with_interval(
                accuracy(peers, joined["enet_and_ridge"]["ridge_cv"])
            ),
            "test_pearson_difference_to_scikit_learn": {
                name: mean_with_interval(r[name] - r["scikit_learn"]) for name in OURS
            },
            "same_penalty_as_scikit_learn": {
                name: float(np.isclose(joined[name]["enet.penalty"], theirs["enet.penalty"]).mean())
                for name in OURS
            },
            "largest_prediction_difference_in_sd_of_expression": {
                name: {
                    "median_of_genes": float(np.median(worst)),
                    "largest": float(worst.max()),
                }
                for name in OURS
                if (worst := np.abs(joined[name]["enet"] - theirs["enet"]).max(axis=1)).size
            },
            "genes_where_scikit_learn_warned_of_convergence": int((theirs["unmet"] > 0).sum()),
            "idle_share_before_blocks": quiet,
            **circumstances("numpy", "scipy", "numba", "scikit-learn", "joblib"),
        },
        quick=options.quick,
    )


if __name__ == "__main__":
    main()
