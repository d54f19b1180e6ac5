"""Check raw files, then write them once as a dataset directory.

docs/prepare.md describes the configuration, docs/dataset_format.md the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", action="append", required=True, type=Path, metavar="YAML", help="data settings"
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="where the configuration's relative paths lie"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DATASET", help="folder to write"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    parser.add_argument(
        "--skip-bad-tracks",
        action="store_true",
        help="leave out tracks that cannot be used, and list them (bad_tracks: skip)",
    )
    options.add_overwrite(parser)
    parser.epilog = "Any setting of docs/prepare.md may follow as --key value."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from data_prep.build import DataConfig, prepare
    from seq2exp.cli.inspect import describe

    if args.skip_bad_tracks:
        args.overrides = [*args.overrides, "--bad_tracks", "skip"]
    config = options.load(DataConfig, args)
    source = args.source if args.source is not None else args.config[-1].parent
    prepare(config, source=source, out=args.out, workers=args.workers, overwrite=args.overwrite)
    print(describe(args.out))
