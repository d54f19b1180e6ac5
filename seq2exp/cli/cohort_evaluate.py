"""Judge a run of `cohort train` on held-out people and genes, beside linear baselines.

docs/cohort.md describes the tests, docs/cohort_statistics.md the numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder `cohort train` wrote")
    parser.add_argument(
        "--data", type=Path, metavar="DATASET", help="dataset (default: the training one)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the numbers (default: RUN/evaluation)"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.cohort.benchmark import evaluate_run
    from seq2exp.cohort.text import benchmark_text
    from seq2exp.report.cohort import write_cohort_page

    out = args.out or args.run_folder / "evaluation"
    found = evaluate_run(args.run_folder, data=args.data, out=out, progress=not args.quiet)
    write_cohort_page(out)
    options.write_rows(args, {"run": str(args.run_folder), "out": str(out)}, found.rows)
    print(benchmark_text(found.rows, notes=[*found.notes, f"page: {out / 'report.html'}"]))
