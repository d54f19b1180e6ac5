"""Is the stated false-discovery level the true one? On simulated genomes, whose truth is known.

    python benchmarks/elements_fdr.py FOLDER [FOLDER ...] [--draws 3] [--splits test] [--quick]

FOLDER holds ``genome``, ``run`` and, where the run does not record it, ``dataset``, as ``seq2exp
demo`` leaves them. Masks and null masks of all genes are made once per folder; every source of a
level is then read at several levels and judged on the genes of ``--splits``. ``stated`` is the
estimate at the chosen threshold (that of the judged splits, as summary.json has it, where it comes
from a null), ``no_element`` and ``not_causal`` are the true rates (docs/elements.md), with 95 %
intervals over genes. ``labels`` takes the truth of the training and validation genes as its labels;
what it states is ``not_causal``. ``pooled`` has all folders together.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import circumstances, write_result

from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calibration import false_calls, false_rate
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.fdr import FdrCurve, fdr_curve, fdr_summary
from seq2exp.elements.labels import Labels, label_curve
from seq2exp.elements.masks import GeneMasks, gene_masks
from seq2exp.elements.nulls import null_masks
from seq2exp.elements.references import read_reference
from seq2exp.training.run import TrainedRun, open_run

LEVELS = {
    "background": (0.01, 0.02, 0.03, 0.04, 0.05, 0.1),
    "labels": (0.1, 0.2, 0.3, 0.4, 0.5),
}


def one_folder(folder: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Return one row per source, level and called distal element of the judged genes."""
    run = open_run(folder / "run")
    dataset = run.open_dataset(args.data)
    reference = read_reference(folder / "genome", dataset, samples=tuple(run.card.samples))
    rows = dataset.gene_rows(("train", "valid", "test"))
    masks = gene_masks(run, dataset, rows)
    judged = set(masks.genes.loc[masks.genes["split"].isin(args.splits), "gene_id"])
    rule: dict[str, Any] = {"max_gap": CallConfig(fdr=0.1).gap, "min_length": 100}
    found = []
    for source in args.sources:
        if source == "labels":
            curve = label_curve(masks, Labels(reference), **rule)
        else:
            nulls = draw_nulls(run, dataset, rows, source, args.draws)
            curve = fdr_curve(masks, nulls, **rule)
        for level in LEVELS.get(source, LEVELS["background"]):
            elements, threshold = call_elements(masks, CallConfig(fdr=level), curve=curve)
            calls = false_calls(elements, reference.truth)
            calls = calls[calls["gene_id"].isin(judged)]
            if not np.isfinite(threshold):
                continue
            if source == "labels":
                stated = curve.value(threshold)
            else:
                stated = stated_rate(curve, masks, nulls, threshold, rule, args.splits)
            found.append(calls.assign(source=source, level=level, stated=stated))
    every = pd.concat(found, ignore_index=True)
    every["gene_id"] = folder.name + "/" + every["gene_id"]
    return every.assign(folder=folder.name, num_genes=len(judged))


def stated_rate(
    curve: FdrCurve,
    masks: GeneMasks,
    nulls: list[GeneMasks],
    threshold: float,
    rule: dict[str, Any],
    splits: list[str],
) -> float:
    """Return what summary.json states of the judged splits: genes differ in what is called."""
    summary = fdr_summary(curve, masks, nulls, threshold=threshold, **rule)
    parts = [summary["by_split"][split] for split in splits if split in summary["by_split"]]
    observed = np.array([part["observed"] for part in parts], dtype=float)
    rates = np.array([part["fdr"] or 0.0 for part in parts])
    return float((observed * rates).sum() / max(observed.sum(), 1.0))


def draw_nulls(
    run: TrainedRun, dataset: Dataset, rows: Any, kind: str, draws: int
) -> list[GeneMasks]:
    return [null_masks(run, dataset, rows, kind=kind, draw=draw) for draw in range(draws)]


def judge(calls: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per source and level."""
    entries = []
    for (source, level), here in calls.groupby(["source", "level"], sort=False):
        num_genes = int(here.drop_duplicates("folder")["num_genes"].sum())
        entry: dict[str, Any] = {"source": source, "level": level, "called": len(here)}
        entry["stated"] = float(here["stated"].mean())
        for name in ("no_element", "not_causal"):
            rate = false_rate(here, name, num_genes=num_genes)
            entry[name] = {"value": rate.value, "low": rate.low, "high": rate.high}
        meant = entry["not_causal" if source == "labels" else "no_element"]["value"]
        entry["stated_over_true"] = entry["stated"] / meant if meant else None
        entries.append(entry)
        print(source, level, f"{entry['stated']:.3f}", entry["stated_over_true"], len(here))
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="dataset, where it is not the recorded one")
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--sources", nargs="+", default=["background", "labels"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", Seq2ExpWarning)
    result: dict[str, Any] = circumstances("numpy", "torch") | {
        "splits": args.splits,
        "draws": args.draws,
        "folders": {},
    }
    parts = []
    for folder in args.folders:
        print(folder)
        parts.append(one_folder(folder, args))
        result["folders"][folder.name] = judge(parts[-1])
    print("pooled")
    result["pooled"] = judge(pd.concat(parts, ignore_index=True))
    write_result("elements_fdr", result, quick=args.quick)


if __name__ == "__main__":
    main()
