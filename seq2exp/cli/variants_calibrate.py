"""Compare the p-values of scored variants with what chance gives: a table and a picture.

docs/variant_scores.md says what the numbers mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "table", metavar="PARQUET", type=Path,
        help="variants that `seq2exp variants --null shuffle` scored",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME",
        help="score, such as expr_delta:K562; may be repeated (default: all with p-values)",
    )  # fmt: skip
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.report.variant_calibration import write_calibration

    rows = write_calibration(args.table, args.out, names=args.column, overwrite=args.overwrite)
    for row in rows:
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{row['name']:<32} {row['metric']:<16} {row['value']:.3f} {interval} n={row['n']:,}")
    options.write_rows(args, {"table": str(args.table)}, rows)
