"""Tissue images, spots and counts -> cohort folder: everything is checked before it is written.

docs/spatial_cohort.md describes the configuration and the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", action="append", required=True, type=Path, metavar="YAML", help="cohort"
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="where the configuration's relative paths lie"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="COHORT", help="folder to write")
    options.add_overwrite(parser)
    parser.epilog = "Any setting of docs/spatial_cohort.md may follow as --key value."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from data_prep.histology.build import prepare_cohort
    from data_prep.histology.config import CohortConfig

    config = options.load(CohortConfig, args)
    source = args.source if args.source is not None else args.config[-1].parent
    manifest = prepare_cohort(
        config, source, args.out, overwrite=args.overwrite, progress=not args.quiet
    )
    patch = manifest.patch
    print(f"cohort {args.out}: {manifest.name}, patches of {patch.um:g} um in {patch.px} px")
    print(f"{'section':12} {'patient':10} {'spots':>6} {'left out':>8} {'genes':>7} {'um/px':>7}")
    for section in manifest.sections:
        left = sum(section.left_out.values())
        print(
            f"{section.name:12} {section.patient:10} {section.num_spots:6,} {left:8,} "
            f"{section.num_genes:7,} {section.um_per_px:7.3f}"
        )
