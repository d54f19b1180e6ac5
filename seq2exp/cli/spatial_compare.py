"""Compare systems under one protocol: same folds, genes and spots; run again to continue.

docs/spatial_compare.md describes the files, how to read them, and how to add a system.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    from seq2exp.spatial.cohort import SpatialCohort

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--data", required=True, type=Path, metavar="COHORT", help="cohort folder")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of runs and tables"
    )
    parser.add_argument(
        "--config", action="append", type=Path, metavar="YAML",
        help="protocol (default: the shipped configs/spatial/compare.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--systems", type=_names, metavar="A,B", default=[],
        help="only these systems, in this order (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--config-of", action="append", type=_pair, metavar="NAME=FILE", default=[],
        help="settings of a system; may be repeated",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of every system")
    options.add_json(parser)
    parser.epilog = (
        "Any setting may follow as --section.key value, such as --folds.kind section or "
        "--systems.stnet.fit.max_epochs 20."
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _pair(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        message = f"{text!r} is not NAME=FILE"
        raise argparse.ArgumentTypeError(message)
    return name, Path(path)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.config import load_config, merge, parse_overrides
    from seq2exp.core.errors import InputError, facts
    from seq2exp.report.spatial_plot import plot_systems
    from seq2exp.report.style import save_figure
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.compare.config import CompareConfig, contenders, plain_protocol
    from seq2exp.spatial.compare.folder import write_tables
    from seq2exp.spatial.compare.systems import compare_systems
    from seq2exp.spatial.compare.text import comparison_text

    shipped = options.shipped_configs() / "spatial"
    overrides = parse_overrides(args.overrides)
    if args.seeds is not None:
        overrides = merge(overrides, {"num_seeds": args.seeds})
    config = load_config(
        CompareConfig, args.config or [shipped / "compare.yaml"], overrides=overrides
    )
    systems = contenders(config, shipped=shipped, chosen=args.systems, files=dict(args.config_of))
    cohort = SpatialCohort(args.data)
    features = _features(cohort, quiet=args.quiet)
    features(systems[0].config)
    found = compare_systems(config, systems, data=args.data, out=args.out, features=features)
    text = comparison_text(found)
    about = {
        "data": str(cohort.root),
        "cohort": found.cohort,
        "protocol": plain_protocol(config),
        "systems": {each.name: {"system": each.config.system} for each in systems},
        "reference": config.reference,
        "failed": found.failed,
        "notes": found.notes,
    }
    write_tables(args.out, rows=found.rows, costs=found.costs, text=text, about=about)
    names = [cost.name for cost in found.costs]
    if names:
        leaky = ", leaky" if found.cohort["leaky"] else ""
        note = (
            f"{found.cohort['name']}: folds by {config.folds.kind}{leaky}; "
            f"{found.cohort['num_patients']} patients, {found.cohort['num_sections']} sections; "
            f"95 % intervals; {config.panel.kind}-{config.panel.num_genes}"
        )
        picture = plot_systems(found.rows, names, reference=config.reference, note=note)
        save_figure(picture, args.out / "comparison", formats=("png",))
    options.write_rows(args, about, found.rows)
    print(text)
    if found.failed:
        raise InputError(
            facts(
                "systems",
                found="; ".join(f"{key}: {error}" for key, error in found.failed.items()),
                expected="every system to be fitted and judged",
                fix="mend or leave out what failed and run the same command; the rest is kept",
                count=len(found.failed),
            )
        )


def _features(cohort: SpatialCohort, *, quiet: bool) -> Any:  # noqa: ANN401
    """Return what gives the features of a run, computed once per encoder."""
    from functools import cache

    from seq2exp.spatial.features import cohort_features

    @cache
    def by_encoder(encoder: str) -> Any:  # noqa: ANN401
        return cohort_features(cohort, encoder, progress=not quiet)

    return lambda config: by_encoder(config.encoder)
