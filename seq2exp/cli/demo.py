"""Run the whole engine on a simulated genome: a few minutes on two CPU cores.

simulate -> prepare -> train -> evaluate -> elements -> report, with the settings of
configs/data/simulated.yaml and configs/train/demo.yaml.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="folder to write (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="seed of the genome (%(default)s)"
    )
    options.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import shutil

    from seq2exp.core.files import refuse_existing

    refuse_existing(args.out, overwrite=args.overwrite)
    if args.out.exists():
        shutil.rmtree(args.out)
    started = time.monotonic()
    steps = _steps(args.out, args.seed)
    for number, (name, command) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] seq2exp {name}", flush=True)
        command()
    minutes = (time.monotonic() - started) / 60
    print(f"\ndone in {minutes:.1f} minutes. Open {(args.out / 'report.html').absolute()}")


def _steps(out: Path, seed: int) -> list[tuple[str, Callable[[], None]]]:
    """Return the commands of the demo as a user would type them, and how to run each."""
    configs = options.shipped_configs()
    genome, dataset, trained = (str(out / name) for name in ("genome", "dataset", "run"))
    lines = (
        ["simulate", genome, "--seed", str(seed)],
        ["prepare", "--config", str(configs / "data" / "simulated.yaml"), "--source", genome,
         "--out", dataset],
        ["train", "--config", str(configs / "train" / "demo.yaml"), "--data", dataset, "--out",
         trained],
        ["evaluate", trained, "--json", str(out / "evaluation.json")],
        ["elements", trained, "--out", str(out / "elements"), "--truth", genome, "--json",
         str(out / "elements.json")],
        ["report", trained, "--elements", str(out / "elements"), "--truth", genome, "--out",
         str(out / "report.html")],
    )  # fmt: skip
    return [(" ".join(line), lambda line=line: _call(line)) for line in lines]  # type: ignore[misc]


def _call(line: list[str]) -> None:
    import importlib

    from seq2exp.cli.main import build_parser

    args, rest = build_parser(line[0]).parse_known_args(line)
    args.overrides = rest
    importlib.import_module(f"seq2exp.cli.{line[0]}").run(args)
