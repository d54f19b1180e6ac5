"""Do attributions find the bases that matter, and seqlets the planted sites, on simulated data?

Truth: a base is positive for a gene when its strongest substitution changes the true log expression
by 0.05 or more (`load_base_effects`). Score: average precision per gene over the bases of its
window, averaged over genes, with 95 % bootstrap intervals over genes; the same for the bases of
distal elements and decoys alone, where distance and tracks can no longer tell elements from the
rest. Controls: distance, track signal, mask, the attributions shuffled inside their bins.
Seqlets: the share that overlaps a planted site, beside the same stretches moved by 20 to 100 bp.

    python benchmarks/attribution.py DEMO [--split test] [--genes 100] [--quick]

DEMO is the folder of `seq2exp demo`. Results go into results/attribution.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import circumstances, write_result

from data_prep.simulate.load import gene_base_effects, load_base_effects, load_effects
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import load_masks
from seq2exp.elements.precision import average_precision
from seq2exp.interpret.attribution import AttributionConfig, GeneAttribution, attributions
from seq2exp.interpret.attribution_files import write_attributions
from seq2exp.interpret.motifs import MotifConfig, enrich_motifs
from seq2exp.interpret.seqlets import SeqletConfig, call_seqlets
from seq2exp.interpret.target import output_of
from seq2exp.training.metrics import interval
from seq2exp.training.run import TrainedRun, open_run

POSITIVE = 0.05
CELL = "blood"
# Integrals cost tens of passes per gene.
IG_GENES = 12
METHODS: dict[str, tuple[dict[str, Any], int]] = {
    # Settings, and the largest number of genes that is worth the time.
    "gradient_x_input": ({}, 1000),
    "gradient_x_input, fixed mask": ({"mask": "fixed"}, 1000),
    "integrated_gradients, uniform": (
        {"method": "integrated_gradients", "steps": 16}, IG_GENES),
    "integrated_gradients, N": (
        {"method": "integrated_gradients", "baseline": "n", "steps": 16}, IG_GENES),
    "integrated_gradients, 2 shuffles": (
        {"method": "integrated_gradients", "baseline": "shuffled", "num_shuffles": 2, "steps": 16},
        IG_GENES),
}  # fmt: skip


def truth_of(one: GeneAttribution, effects: pd.DataFrame, gene_id: str) -> np.ndarray:
    window = one.window
    found = gene_base_effects(effects, gene_id, start=window.start, end=window.end, cell=CELL)
    return np.abs(found) >= POSITIVE


def inside_elements(one: GeneAttribution, pairs: pd.DataFrame) -> np.ndarray:
    """Bases of the distal elements and decoys of a gene."""
    inside = np.zeros(one.window.length, dtype=bool)
    for start, end in zip(pairs["start"], pairs["end"], strict=True):
        low, high = start - one.window.start, end - one.window.start
        inside[max(low, 0) : max(high, 0)] = True
    return inside


def control_scores(
    one: GeneAttribution, dataset: Dataset, masks: Any, random: np.random.Generator
) -> dict[str, np.ndarray]:
    window, size = one.window, masks.bin_size
    tss = dataset.sites[one.row][1]
    here = np.arange(window.start, window.end)
    plus = type(window)(window.contig, window.start, window.end, "+", window.contig_length)
    bins = dataset.track_bins(plus, bin_size=size)
    names = dataset.track_names
    signal = {name: np.repeat(bins[:, names.index(name)], size) for name in ("DNase", "H3K27ac")}
    mask = masks.mask[int(np.flatnonzero(masks.genes["row"] == one.row)[0])].astype(np.float32)
    shuffled = np.abs(one.share).reshape(-1, size)
    return {
        "distance": -np.abs(here - tss).astype(np.float32),
        "DNase": signal["DNase"],
        "DNase x H3K27ac": signal["DNase"] * signal["H3K27ac"],
        "mask": np.repeat(mask, size),
        "shuffled in bins": random.permuted(shuffled, axis=1).ravel(),
        "chance": np.zeros(window.length, dtype=np.float32),
    }


def estimate(values: list[float], seed: int = 0) -> dict[str, Any]:
    kept = np.array([value for value in values if np.isfinite(value)])
    random = np.random.default_rng(seed)
    draws = kept[random.integers(0, kept.size, (1000, kept.size))].mean(1)
    found = interval(float(kept.mean()), draws, n=kept.size)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def accuracy(
    run: TrainedRun, dataset: Dataset, rows: np.ndarray, demo: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    effects, pairs = load_base_effects(demo / "genome"), load_effects(demo / "genome")
    pairs = pairs[pairs["kind"] != "promoter"]
    masks = load_masks(demo / "elements" / "masks")
    output = output_of(run, CELL)
    results: dict[str, Any] = {}
    completeness: dict[str, Any] = {}
    for name, (settings, most) in METHODS.items():
        config = AttributionConfig(**{"tracks": False, **settings})
        scores: dict[str, dict[str, list[float]]] = {"window": {}, "distal elements": {}}
        errors, sizes, start = [], [], time.monotonic()
        for one in attributions(run, dataset, rows[:most], config, output=output):
            gene_id = str(dataset.genes["gene_id"].iloc[one.row])
            random = np.random.default_rng(one.row)
            label = truth_of(one, effects, gene_id)
            own = inside_elements(one, pairs[pairs["gene_id"] == gene_id])
            found = {name: np.abs(one.share)}
            if name == next(iter(METHODS)):
                found |= control_scores(one, dataset, masks, random)
            for score, values in found.items():
                for place, chosen in (("window", np.ones_like(own)), ("distal elements", own)):
                    known = label[chosen]
                    ap = average_precision(known, values[chosen]) if known.any() else np.nan
                    scores[place].setdefault(score, []).append(ap)
            errors.append(abs(one.bases.error))
            sizes.append(abs(one.bases.difference))
        for place, table in scores.items():
            for score, values in table.items():
                results.setdefault(place, {})[score] = estimate(values)
        completeness[name] = {
            "relative_error": sum(errors) / sum(sizes),
            "seconds_per_gene": (time.monotonic() - start) / len(errors),
            "n": len(errors),
        }
    return results, completeness


def seqlet_sites(run: TrainedRun, dataset: Dataset, rows: np.ndarray, demo: Path) -> dict[str, Any]:
    """Share of seqlets that overlap a planted site by at least half, beside moved stretches."""
    columns = ["chrom", "start", "end", "tf", "score", "strand", "occupancy", "element"]
    sites = pd.read_csv(demo / "genome" / "truth" / "sites.bed.gz", sep="\t", names=columns)
    sites = sites[sites["occupancy"] >= 0.3]
    config = AttributionConfig(tracks=False)
    output = output_of(run, CELL)
    with tempfile.TemporaryDirectory() as folder:
        write_attributions(
            attributions(run, dataset, rows, config, output=output), Path(folder), run, dataset
        )
        seqlets = call_seqlets(
            run, dataset, rows, Path(folder), config, seqlets=SeqletConfig(fdr=0.05), output=output
        )
    covered = {}
    for contig, length in dataset.manifest.contigs.items():
        mask = np.zeros(length, dtype=bool)
        for start, end in sites.loc[sites["chrom"] == contig, ["start", "end"]].to_numpy():
            mask[start:end] = True
        covered[contig] = np.concatenate(([0], np.cumsum(mask)))
    random = np.random.default_rng(0)

    def hits(shift: np.ndarray) -> np.ndarray:
        found = []
        moves = zip(seqlets["chrom"], seqlets["start"], seqlets["end"], shift, strict=True)
        for chrom, start, end, move in moves:
            total = covered[chrom]
            low, high = np.clip([start + move, end + move], 0, total.size - 1)
            found.append(total[high] - total[low] >= 0.5 * (end - start))
        return np.array(found)

    moved = random.integers(20, 101, len(seqlets)) * random.choice([-1, 1], len(seqlets))
    table = seqlets[["gene_id"]].assign(
        seqlets=hits(np.zeros(len(seqlets), dtype=int)), moved=hits(moved)
    )
    per_gene = table.groupby("gene_id")[["seqlets", "moved"]].mean()
    result = {name: estimate(per_gene[name].tolist()) for name in ("seqlets", "moved")}
    result["seqlets - moved"] = estimate((per_gene["seqlets"] - per_gene["moved"]).tolist())
    return {**result, "num_seqlets": len(seqlets), "genes": len(rows)}


def enriched(demo: Path, split: str) -> list[dict[str, Any]]:
    """Enrichment of the simulator's own motifs in called distal elements."""
    with tempfile.TemporaryDirectory() as folder:
        frame = enrich_motifs(
            demo / "elements",
            demo / "genome" / "truth" / "motifs.meme",
            Path(folder) / "motifs",
            data=demo / "dataset",
            splits=(split,),
            config=MotifConfig(),
        )
    columns = ["motif", "elements", "fraction_elements", "fraction_background", "log2_odds_ratio",
               "low", "high", "q"]  # fmt: skip
    return frame[columns].to_dict("records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a few genes, nothing written")
    options = parser.parse_args()
    run, dataset = open_run(options.demo / "run"), Dataset(options.demo / "dataset")
    rows = dataset.gene_rows((options.split,))
    rows = rows[:4] if options.quick else rows[: options.genes]
    average, completeness = accuracy(run, dataset, rows, options.demo)
    result = {
        **circumstances("torch", "numpy"),
        "split": options.split,
        "genes": len(rows),
        "positive": f"|effect on ln expression| >= {POSITIVE} ({CELL})",
        "average_precision": average,
        "completeness": completeness,
        "seqlets_on_planted_sites": seqlet_sites(run, dataset, rows, options.demo),
        "motif_enrichment": enriched(options.demo, options.split),
    }
    name = "attribution" if options.split == "test" else f"attribution_{options.split}"
    write_result(name, result, quick=options.quick)


if __name__ == "__main__":
    main()
