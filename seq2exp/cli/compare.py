"""Put several trained runs side by side on the same genes, with paired bootstrap differences."""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run_folders", metavar="RUN", type=Path, nargs="+", help="folders `train` wrote"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DATASET", help="dataset (default: that of the first run)"
    )
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="name in the table, once per run in their order (default: folder names)",
    )
    parser.add_argument(
        "--reference", metavar="NAME", help="run the others are compared with (default: the first)"
    )
    parser.add_argument(
        "--control",
        action="append",
        metavar="NAME",
        help="fitted control beside the runs; may be repeated (default: mean, all_ridge)",
    )
    parser.add_argument(
        "--split", default="test", choices=("train", "valid", "test"), help="genes (%(default)s)"
    )
    parser.add_argument(
        "--resamples",
        type=options.counted,
        default=1000,
        help="bootstrap resamples of genes (%(default)s)",
    )
    options.add_loading(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.baselines.compare import compare

    found = compare(
        args.run_folders,
        args.data,
        names=args.name,
        reference=args.reference,
        controls=args.control or ("mean", "all_ridge"),
        split=args.split,
        batch_size=args.batch_size,
        workers=args.workers,
        num_resamples=args.resamples,
        progress=True,
    )
    options.write_rows(args, found.inputs, found.rows)
    print(found.text)
