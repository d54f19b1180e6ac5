"""Train a model on a dataset; run again to continue after a kill.

docs/train.md describes the configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options
from seq2exp.core.errors import ConfigError, facts

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", action="append", required=True, type=Path, metavar="YAML", help="run settings"
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DATASET", help="dataset")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print parameters, memory, step time and the largest batch that fits; train nothing",
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue an unfinished run; never: refuse a folder in use (%(default)s)",
    )
    options.add_json(parser)
    parser.epilog = "Any setting may follow as --section.key value, such as --optim.lr 3e-4."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.training.config import TrainConfig
    from seq2exp.training.devices import is_leader
    from seq2exp.training.plan import require_room
    from seq2exp.training.trainer import dry_run, train

    config = options.load(TrainConfig, args)
    if args.dry_run:
        plan = dry_run(config, args.data)
        print(plan.text)
        options.write_rows(args, {"data": str(args.data)}, plan.rows())
        require_room(plan)
        return
    if args.out is None:
        raise ConfigError(
            facts("--out", found="nothing", expected="a run folder", fix="give --out RUN")
        )
    train(config, args.data, args.out, resume=args.resume)
    if is_leader(config):
        print(f"trained model in {args.out / 'model'}; next: seq2exp evaluate {args.out}")
