"""Write what a run knows of every gene for models that know no sequence: priors.h5ad.

docs/priors.md describes the file and how it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="H5AD", help="file to write")
    parser.add_argument(
        "--layer", default="readout", choices=("readout", "head"),
        help="embedding: pooled states, or the last hidden layer of the head (%(default)s)",
    )  # fmt: skip
    options.add_loading(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.dataset.store import Dataset
    from seq2exp.priors.export import export_priors
    from seq2exp.priors.probe import probe_rows
    from seq2exp.training.run import open_run

    data = args.data or open_run(args.run_folder).dataset_path()
    prior = export_priors(
        args.run_folder,
        args.out,
        data=data,
        layer=args.layer,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=True,
        overwrite=args.overwrite,
    )
    rows = probe_rows(prior, Dataset(data))
    print(f"{prior.text}\n\n{_table(rows)}\n\nwritten to {args.out}")
    options.write_rows(args, {"run": str(args.run_folder), "data": str(data)}, rows)


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the probes for people, controls beside the prior."""
    if not rows:
        return "no probe: fewer than 20 labelled genes in train, or in both valid and test"
    lines = ["R2 on genes the model did not train on, from the embedding alone [95% interval]"]
    for row in rows:
        if not row["metric"].endswith("_difference"):
            place = f"{row['split']:<6} {row['target']:<12} {row['metric']:<9} {row['name']:<9}"
            value, low, high = (_number(row[key]) for key in ("value", "low", "high"))
            lines.append(f"{place} {value} [{low}, {high}]  n={row['n']}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.3f}"
