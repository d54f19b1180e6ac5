"""Predicted expression of every spot of a cohort, as one AnnData per section.

The system is the one that was fitted on all spots of the training cohort.
docs/spatial_predictions.md describes the files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder `spatial train` wrote")
    parser.add_argument("--data", required=True, type=Path, metavar="COHORT", help="cohort folder")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--no-folds", action="store_true", help="leave out the spread across the fold systems"
    )
    options.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.files import refuse_existing
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.features import cohort_features
    from seq2exp.spatial.prediction import predict_cohort
    from seq2exp.spatial.run import open_spatial_run

    refuse_existing(args.out, overwrite=args.overwrite)
    found, cohort = open_spatial_run(args.run_folder), SpatialCohort(args.data)
    features = cohort_features(cohort, found.config.encoder, progress=not args.quiet)
    paths = predict_cohort(
        found,
        cohort,
        args.out,
        features=features,
        folds=not args.no_folds,
        overwrite=args.overwrite,
    )
    print(f"{len(paths)} sections in {args.out}")
