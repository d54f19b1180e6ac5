"""Fit a system on every fold of a cohort, and on all of it for new tissue; run again to continue.

docs/spatial.md describes systems, folds, labels and panels.
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
    parser.add_argument("--data", required=True, type=Path, metavar="COHORT", help="cohort folder")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="run folder")
    parser.epilog = "Any setting may follow as --section.key value, such as --folds.kind section."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.config import SpatialConfig
    from seq2exp.spatial.features import cohort_features
    from seq2exp.spatial.run import train_run

    config = options.load(SpatialConfig, args)
    cohort = SpatialCohort(args.data)
    features = cohort_features(cohort, config.encoder, progress=not args.quiet)
    found = train_run(config, args.data, args.out, features=features)
    print(f"{len(found.fold_names)} folds in {args.out}; next: seq2exp spatial evaluate {args.out}")
