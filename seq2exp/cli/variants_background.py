"""Collect the scores of common variants, among which others get their quantiles.

docs/variant_scores.md says how quantiles are made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "tables", metavar="PARQUET", nargs="+", type=Path,
        help="common variants that `seq2exp variants` scored with one run, in one way",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="background to write, .parquet"
    )
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.variants.scored import make_background

    background = make_background(args.tables, args.out, overwrite=args.overwrite)
    rows = [
        {
            "name": f"{group} {band}", "metric": "pairs", "split": "", "value": num,
            "low": None, "high": None, "n": num,
        }
        for group, band, num in background.sizes()
    ]  # fmt: skip
    for row in rows:
        print(f"{row['name']:<24} {row['value']:>9,}")
    print(f"{background.num_pairs:,} pairs of variant and gene in {args.out}")
    options.write_rows(args, {"tables": [str(path) for path in args.tables]}, rows)
