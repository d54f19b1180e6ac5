"""Accuracy of a spatial run on held-out tissue beside its controls, with intervals.

docs/spatial.md describes the protocol and the metrics.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from seq2exp.cli import options

SHOWN = ("pearson", "pearson HEG", "pearson_partial", "spearman", "mse", "rvd")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder `spatial train` wrote")
    parser.add_argument(
        "--data", type=Path, metavar="COHORT", help="cohort (default: the training one)"
    )
    parser.add_argument(
        "--resamples", type=options.counted, default=1000, help="bootstrap (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="of the bootstrap (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="TSV", help="write the table of all sections and genes"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import pandas as pd

    from seq2exp.core.files import atomic_file
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.evaluation import evaluation_rows
    from seq2exp.spatial.features import cohort_features
    from seq2exp.spatial.run import evaluate_run, open_spatial_run

    found = open_spatial_run(args.run_folder)
    data = args.data or Path(found.manifest["cohort"])
    features = cohort_features(SpatialCohort(data), found.config.encoder, progress=not args.quiet)
    results = evaluate_run(found, features=features, data=data)
    rows = evaluation_rows(results, num_resamples=args.resamples, seed=args.seed)
    config = found.config
    print(
        f"system {config.system['name']}; labels {config.recipe}; panel {config.panel.kind}-"
        f"{config.panel.num_genes}; folds by {config.folds.kind}"
    )
    print(_table(rows))
    if found.manifest["leaky"]:
        print("\nleaky: sections of a patient are on both sides; says nothing of other patients")
    if args.out:
        tables = [
            table.assign(name=name) for result in results for name, table in result.tables.items()
        ]
        with atomic_file(args.out, overwrite=True) as partial:
            pd.concat(tables, ignore_index=True).to_csv(partial, sep="\t", index=False)
    options.write_rows(args, {"run": str(args.run_folder), "data": str(data)}, rows)


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the main numbers, one line per model or control."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    cells = {(row["name"], row["metric"]): row for row in rows}
    lines = [" " * 18 + "".join(f"{metric:>25}" for metric in SHOWN)]
    for name in names:
        shown = [_cell(cells.get((name, metric))) for metric in SHOWN]
        lines.append(f"{name:18}" + "".join(f"{cell:>25}" for cell in shown))
    lines.append("")
    for row in rows:
        if str(row["metric"]).endswith("_difference"):
            what = f"model minus {row['name']}, {str(row['metric']).removesuffix('_difference')}"
            lines.append(f"{what:50} {_cell(row)}")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None or math.isnan(row["value"]):
        return "n/a"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
