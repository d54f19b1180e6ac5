"""Train and judge models of personal expression beside linear baselines; run again to continue.

docs/cohort.md describes the files and how to read them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", action="append", required=True, type=Path, metavar="YAML", help="protocol"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DATASET", help="dataset with donors"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of runs and numbers"
    )
    parser.add_argument(
        "--predictions", action="append", type=options.named_file, metavar="NAME=FILE", default=[],
        help="predictions of another tool, a table with gene, donor, value; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue an unfinished benchmark; never: refuse a folder in use (%(default)s)",
    )
    options.add_json(parser)
    parser.epilog = "Any setting may follow as --section.key value, such as --cohort.seed 1."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.cohort.benchmark import run_benchmark
    from seq2exp.cohort.benchmark_config import BenchmarkConfig
    from seq2exp.cohort.text import benchmark_text
    from seq2exp.report.cohort import write_cohort_page

    config = options.load(BenchmarkConfig, args)
    options.require_distinct("--predictions", [name for name, _ in args.predictions])
    found = run_benchmark(
        config,
        args.data,
        args.out,
        tables=dict(args.predictions),
        resume=args.resume,
        progress=not args.quiet,
    )
    write_cohort_page(args.out)
    options.write_rows(args, {"data": str(args.data), "out": str(args.out)}, found.rows)
    print(benchmark_text(found.rows, notes=[*found.notes, f"page: {args.out / 'report.html'}"]))
