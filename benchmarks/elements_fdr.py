"""Is the stated false-discovery level the true one? On simulated genomes, whose truth is known.

    python benchmarks/elements_fdr.py FOLDER [FOLDER ...] [--draws 3] [--splits test] [--quick]

FOLDER holds ``run`` and ``genome``, as ``seq2exp demo`` leaves them. Masks and null masks are made
once per folder; every null is then read at several levels. ``stated`` is the estimate at the chosen
threshold, ``no_element`` and ``not_causal`` are the true rates (docs/elements.md), with 95 %
intervals over genes.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common import circumstances, write_result

from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.elements.calibration import level_rows
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.fdr import fdr_curve, fdr_summary
from seq2exp.elements.masks import gene_masks
from seq2exp.elements.nulls import null_masks
from seq2exp.elements.truth import read_simulated_truth
from seq2exp.training.run import open_run

LEVELS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)


def one_folder(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    run = open_run(folder / "run")
    dataset = run.open_dataset(args.data)
    truth = read_simulated_truth(folder / "genome", cells=tuple(run.card.samples))
    rows = dataset.gene_rows(tuple(args.splits))
    masks = gene_masks(run, dataset, rows)
    found = []
    for kind in args.nulls:
        nulls = [null_masks(run, dataset, rows, kind=kind, draw=d) for d in range(args.draws)]
        for level in LEVELS:
            config = CallConfig(fdr=level)
            rule: dict[str, Any] = {"max_gap": config.gap, "min_length": config.min_length_bp}
            curve = fdr_curve(masks, nulls, **rule)
            elements, threshold = call_elements(masks, config, curve=curve)
            entry = {"folder": folder.name, "null": kind, "level": level, "pi0": curve.pi0}
            if np.isfinite(threshold):
                stated = fdr_summary(curve, masks, nulls, threshold=threshold, **rule)
                rates = level_rows(masks, elements, stated, truth=truth)
                entry |= {"threshold": threshold, "stated_all": curve.value(threshold)}
                entry["rows"] = rows_without_name(rates)
            found.append(entry)
    return found


def rows_without_name(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "name"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="dataset, where it is not the recorded one")
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--nulls", nargs="+", default=["background"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", Seq2ExpWarning)
    result: dict[str, Any] = circumstances("numpy", "torch") | {
        "splits": args.splits,
        "draws": args.draws,
        "levels": [],
    }
    for folder in args.folders:
        result["levels"] += one_folder(folder, args)
    write_result("elements_fdr", result, quick=args.quick)


if __name__ == "__main__":
    main()
