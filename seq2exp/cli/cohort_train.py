"""Train a model on people: haplotypes of donors and their expression; run again to continue.

docs/cohort.md describes the configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", action="append", required=True, type=Path, metavar="YAML", help="run settings"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DATASET", help="dataset with donors"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue an unfinished run; never: refuse a folder in use (%(default)s)",
    )
    parser.epilog = "Any setting may follow as --section.key value, such as --loss.name pair_mse."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.cohort.config import CohortConfig
    from seq2exp.cohort.train import train_cohort

    config = options.load(CohortConfig, args)
    train_cohort(config, args.data, args.out, resume=args.resume)
    print(f"trained model in {args.out / 'model'}; next: seq2exp cohort evaluate {args.out}")
