"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = [
    "add_json",
    "add_loading",
    "add_overwrite",
    "add_run",
    "add_views",
    "counted",
    "load",
    "named_file",
    "require_distinct",
    "seeded",
    "share",
    "shipped_configs",
    "whole_numbers",
    "write_rows",
]


def counted(text: str) -> int:
    """Read a whole number of 1 or more (a ``type`` of argparse)."""
    return _at_least(text, 1)


def seeded(text: str) -> int:
    """Read a seed: a whole number of 0 or more."""
    return _at_least(text, 0)


def share(text: str) -> float:
    """Read a share: a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        message = f"found {text!r}, expected a number from 0 to 1"
        raise argparse.ArgumentTypeError(message)
    return number


def _at_least(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number of {lowest} or more"
        )
    return number


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers with commas (a ``type`` of argparse)."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        message = f"found {text!r}, expected whole numbers with commas, such as 1,0,-1"
        raise argparse.ArgumentTypeError(message) from error


def named_file(text: str) -> tuple[str, Path]:
    """Read NAME=FILE."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        message = f"{text!r} is not NAME=FILE"
        raise argparse.ArgumentTypeError(message)
    return name, Path(path)


def require_distinct(flag: str, names: list[str]) -> None:
    """Raise ConfigError where a flag that may be repeated gives one name twice."""
    from seq2exp.core.errors import ConfigError, facts

    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ConfigError(
            facts(
                flag,
                found=f"{double[0]} twice",
                expected="each name once",
                fix="rename one of them",
            )
        )


def add_run(parser: argparse.ArgumentParser, *, data: bool = True) -> None:
    """Add the run folder, and the dataset when it may differ from the training one."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder `train` wrote")
    if data:
        parser.add_argument(
            "--data", type=Path, metavar="DATASET", help="dataset (default: the training one)"
        )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add batch size and loader processes."""
    parser.add_argument("--batch-size", type=int, default=16, help="genes per batch (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (%(default)s)")


def add_views(group: argparse._ArgumentGroup) -> None:
    """Add the strands and shifts that scores of variants are averaged over."""
    group.add_argument(
        "--strands", default="auto", choices=("auto", "forward", "both"),
        help="strands that are averaged; auto: both where the model was made for both",
    )  # fmt: skip
    group.add_argument(
        "--shifts", type=whole_numbers, default=(), metavar="BP,...",
        help="shifts of the window that are averaged, such as 1,0,-1; 0 for none (default: a third "
        "of a bin both ways, if training moved windows)",
    )  # fmt: skip
    group.add_argument(
        "--indel-shifts", type=whole_numbers, default=(), metavar="BP,...",
        help="the same for insertions and deletions (default: --shifts if given, else 16 over a "
        "bin)",
    )  # fmt: skip


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add permission to replace an output."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add a machine-readable copy of the printed numbers."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON too")


def write_rows(
    args: argparse.Namespace, inputs: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    """Write ``{"command", "inputs", "rows"}`` to ``--json`` when it was given."""
    from seq2exp.core.files import write_json

    if args.json:
        write_json({"command": args.command, "inputs": inputs, "rows": rows}, args.json)


def shipped_configs() -> Path:
    """Return the folder of the shipped configurations: inside a wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load(cls: type[Any], args: argparse.Namespace) -> Any:  # noqa: ANN401
    """Return the configuration of ``--config`` files and flags."""
    from seq2exp.core.config import load_config, parse_overrides

    return load_config(cls, args.config, overrides=parse_overrides(args.overrides))
