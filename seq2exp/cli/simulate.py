"""Write a simulated genome with genes, tracks, expression and the truth behind them.

docs/simulator.md gives the generative model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--seed", type=options.seeded, help="same seed, same files (0)")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="YAML",
        help="simulation settings",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    parser.epilog = "Any setting of docs/simulator.md may follow OUT as --key value."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from data_prep.simulate import SimulationConfig, simulate
    from seq2exp.core.config import load_config, parse_overrides
    from seq2exp.core.files import refuse_existing

    refuse_existing(args.out, overwrite=args.overwrite)
    overrides = parse_overrides(args.overrides)
    if args.seed is not None:
        overrides["seed"] = args.seed
    config = load_config(SimulationConfig, args.config, overrides=overrides)
    print(simulate(config, args.out, overwrite=args.overwrite, progress=not args.quiet))
