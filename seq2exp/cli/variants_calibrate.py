"""Compare the p-values of scored variants with what chance gives: a table and a picture.

docs/variant_scores.md says what the numbers mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    import pandas as pd


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
    from seq2exp.core.files import refuse_existing
    from seq2exp.report.variant_calibration import write_calibration
    from seq2exp.variants.scored import open_scored, p_values

    refuse_existing(args.out, overwrite=args.overwrite)
    frame, step = p_values(open_scored(args.table), args.column)
    values = {name: frame[name].to_numpy() for name in step}
    table = write_calibration(values, args.out, step=step, groups=frame["gene_id"].to_numpy())
    print(table.to_string(index=False, float_format="{:.3f}".format))
    options.write_rows(args, {"table": str(args.table)}, _rows(table))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": row["name"],
            "metric": f"share_below_{row['level']:g}",
            "split": "",
            **{key: float(row[key]) for key in ("low", "high")},
            "value": float(row["observed"]),
            "n": int(row["n"]),
        }
        for row in table.to_dict("records")
    ]
