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
    from seq2exp.spatial.config import EncoderConfig

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--data", required=True, type=Path, metavar="COHORT", help="cohort folder")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of runs and tables"
    )
    parser.add_argument(
        "--suite", choices=("systems", "hescape"), default="systems",
        help="what is compared: systems by their predictions, or the towers of HESCAPE by how "
        "they align (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--config", action="append", type=Path, metavar="YAML",
        help="protocol (default: the shipped configs/spatial/compare.yaml, or that of the suite)",
    )  # fmt: skip
    parser.add_argument(
        "--systems", type=_names, metavar="A,B", default=[],
        help="only these systems, in this order (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--config-of", action="append", type=options.named_file, metavar="NAME=FILE", default=[],
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


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.errors import InputError, facts
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.compare.folder import write_tables

    cohort = SpatialCohort(args.data)
    features = _features(cohort, quiet=args.quiet)
    suite = _hescape if args.suite == "hescape" else _systems
    found, text, about = suite(args, features)
    about = {"data": str(cohort.root), "cohort": found.cohort, "failed": found.failed, **about}
    write_tables(args.out, rows=found.rows, costs=found.costs, text=text, about=about)
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


def _config(cls: type[Any], args: argparse.Namespace, shipped: Path) -> Any:  # noqa: ANN401
    """Return the settings of files and flags; without a file, those that are shipped."""
    from seq2exp.core.config import load_config, merge, parse_overrides

    overrides = parse_overrides(args.overrides)
    if args.seeds is not None:
        overrides = merge(overrides, {"num_seeds": args.seeds})
    return load_config(cls, args.config or [shipped], overrides=overrides)


def _systems(args: argparse.Namespace, features: Any) -> tuple[Any, str, dict[str, Any]]:  # noqa: ANN401
    """Compare systems; return what was found, its text, and what was compared."""
    from seq2exp.core.config import to_dict
    from seq2exp.report.spatial_plot import plot_systems
    from seq2exp.report.style import save_figure
    from seq2exp.spatial.compare.config import CompareConfig, contenders, plain_protocol
    from seq2exp.spatial.compare.systems import compare_systems
    from seq2exp.spatial.compare.text import comparison_text

    shipped = options.shipped_configs() / "spatial"
    config = _config(CompareConfig, args, shipped / "compare.yaml")
    systems = contenders(config, shipped=shipped, chosen=args.systems, files=dict(args.config_of))
    # An encoder that cannot be made is no fault of a system.
    features(systems[0].config)
    found = compare_systems(config, systems, data=args.data, out=args.out, features=features)
    names = [cost.name for cost in found.costs]
    if names:
        picture = plot_systems(
            found.rows, names, reference=config.reference, note=_note(found.cohort, config)
        )
        save_figure(picture, args.out / "comparison", formats=("png",))
    about = {
        "protocol": plain_protocol(config),
        "systems": {
            each.name: {key: to_dict(each.config)[key] for key in ("system", "fit")}
            for each in systems
        },
        "reference": config.reference,
        "notes": found.notes,
    }
    return found, comparison_text(found), about


def _hescape(args: argparse.Namespace, features: Any) -> tuple[Any, str, dict[str, Any]]:  # noqa: ANN401
    """Run the suite of HESCAPE; return what was found, its text, and what was compared."""
    from seq2exp.core.config import to_dict
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.report.spatial_plot import plot_recall
    from seq2exp.report.style import save_figure
    from seq2exp.spatial.compare.hescape import compare_hescape
    from seq2exp.spatial.compare.hescape_config import HescapeSuiteConfig
    from seq2exp.spatial.compare.hescape_text import hescape_text, shown_recall

    if args.systems or args.config_of:
        raise ConfigError(
            facts(
                "--suite hescape",
                found="--systems or --config-of",
                expected="encoders, genes, objectives and negatives",
                fix="leave them out, or the suite",
            )
        )
    shipped = options.shipped_configs() / "spatial" / "compare_hescape.yaml"
    config = _config(HescapeSuiteConfig, args, shipped)
    found = compare_hescape(config, data=args.data, out=args.out, features=features)
    rows = shown_recall(found)
    if rows:
        note = _note(found.cohort, config)
        picture = plot_recall(rows, title=rows[0]["metric"], note=note)
        save_figure(picture, args.out / "comparison", formats=("png",))
    return found, hescape_text(found), {"suite": to_dict(config)}


def _note(cohort: dict[str, Any], config: Any) -> str:  # noqa: ANN401
    """Return what a picture rests on, in a line."""
    leaky = ", leaky" if cohort["leaky"] else ""
    return (
        f"{cohort['name']}: folds by {config.folds.kind}{leaky}; patients: "
        f"{cohort['num_patients']}, sections: {cohort['num_sections']}; 95 % intervals; "
        f"{config.panel.kind}-{config.panel.num_genes}"
    )


def _features(cohort: SpatialCohort, *, quiet: bool) -> Any:  # noqa: ANN401
    """Return what gives the features of a run, computed once per encoder."""
    from functools import cache

    from seq2exp.spatial.features import cohort_features

    @cache
    def by_encoder(encoder: EncoderConfig) -> Any:  # noqa: ANN401
        return cohort_features(cohort, encoder, progress=not quiet)

    return lambda config: by_encoder(config.encoder)
