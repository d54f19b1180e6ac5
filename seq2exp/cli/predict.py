"""Predict the expression of every gene of a dataset, labelled or not, into one Parquet table."""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="PARQUET", help="table to write")
    parser.add_argument(
        "--split", default="all", choices=("all", "train", "valid", "test", "excluded"),
        help="genes to predict (%(default)s)",
    )  # fmt: skip
    options.add_loading(parser)
    options.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.files import atomic_file, refuse_existing
    from seq2exp.dataset.edges import usable_rows
    from seq2exp.dataset.format import SPLITS, write_table
    from seq2exp.training.predict import gene_table, predict
    from seq2exp.training.run import open_run

    refuse_existing(args.out, overwrite=args.overwrite)
    trained = open_run(args.run_folder)
    dataset = trained.open_dataset(args.data)
    rows = dataset.gene_rows(SPLITS if args.split == "all" else (args.split,))
    rows = usable_rows(dataset, rows, trained.card.data, what=f"{args.split} genes")
    prediction = predict(
        trained, dataset, rows, batch_size=args.batch_size, workers=args.workers, progress=True
    )
    table = gene_table(trained, dataset, prediction)
    with atomic_file(args.out, overwrite=args.overwrite) as partial:
        write_table(table, partial, metadata={"seq2exp.schema": "predictions-1"})
    print(f"{len(table):,} genes in {args.out}")
