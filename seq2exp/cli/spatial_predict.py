"""Predicted expression of every spot of a cohort, or of a tissue image, as AnnData.

The system is the one that was fitted on all spots of the training cohort. An image needs no counts:
its spots are a table, or a grid over the tissue. docs/spatial_predictions.md describes the files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seq2exp.cli import options

if TYPE_CHECKING:
    from seq2exp.spatial.run import SpatialRun

_GRID_UM = 100.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder `spatial train` wrote")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="COHORT", help="cohort folder")
    source.add_argument("--image", type=Path, metavar="FILE", help="image or slide, H&E")
    spots = parser.add_mutually_exclusive_group()
    spots.add_argument(
        "--spots", type=Path, metavar="TSV", help="where to predict on the image: x, y in pixels"
    )
    spots.add_argument(
        "--grid-um",
        type=float,
        metavar="UM",
        help=f"or the distance of places on a grid over the tissue (default: {_GRID_UM:g})",
    )
    parser.add_argument(
        "--um-per-px",
        type=float,
        metavar="UM",
        help="micrometres per pixel of the image (default: what a TIFF or slide says)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--no-folds", action="store_true", help="leave out the spread across the fold systems"
    )
    options.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import tempfile

    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.core.files import refuse_existing
    from seq2exp.spatial.run import open_spatial_run

    refuse_existing(args.out, overwrite=args.overwrite)
    found = open_spatial_run(args.run_folder)
    if args.data is not None:
        given = [f"--{name}" for name in ("spots", "grid-um", "um-per-px")
                 if getattr(args, name.replace("-", "_")) is not None]  # fmt: skip
        if given:
            raise ConfigError(
                facts(
                    "spatial predict",
                    found=f"{', '.join(given)} with --data",
                    expected="them with --image",
                    fix="leave them out: a cohort has its spots",
                )
            )
        _predict(found, args.data, args)
        return
    with tempfile.TemporaryDirectory(prefix="seq2exp_") as folder:
        cohort = Path(folder) / "cohort"
        _prepare(found, args, cohort)
        _predict(found, cohort, args)


def _prepare(found: SpatialRun, args: argparse.Namespace, out: Path) -> None:
    """Write a cohort of the one image, with patches as the run was trained on."""
    from data_prep.histology.build import prepare_cohort
    from data_prep.histology.config import CohortConfig, PatchConfig, SectionConfig
    from seq2exp.core.errors import InputError, facts

    patch = found.patch
    if patch is None or patch.stain != "none":
        raise InputError(
            facts(
                f"run {found.folder}",
                found="no record of its patches"
                if patch is None
                else "patches with colours brought to those of the first training section",
                expected="a run that says how an image is to be cut",
                fix="prepare a cohort with layout image"
                + ("" if patch is None else ", that section first")
                + ", and give it as --data",
            )
        )
    asked = _GRID_UM if args.grid_um is None else args.grid_um
    section = SectionConfig(
        name=args.image.stem,
        layout="image",
        image=str(args.image.absolute()),
        spots=str(args.spots.absolute()) if args.spots else "",
        grid_um=None if args.spots else asked,
        um_per_px=args.um_per_px,
    )
    config = CohortConfig(
        "image", [section], patch=PatchConfig(patch.um, patch.px), images="reference"
    )
    prepare_cohort(config, Path(), out)


def _predict(found: SpatialRun, data: Path, args: argparse.Namespace) -> None:
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.features import cohort_features
    from seq2exp.spatial.prediction import predict_cohort

    cohort = SpatialCohort(data)
    found.require_patches(cohort.manifest.patch, what=f"cohort {data}")
    features = cohort_features(cohort, found.config.encoder, progress=not args.quiet)
    paths = predict_cohort(
        found,
        cohort,
        args.out,
        features=features,
        folds=not args.no_folds,
        overwrite=args.overwrite,
    )
    num_spots = sum(section.num_spots for section in cohort.manifest.sections)
    print(f"{len(paths)} sections, {num_spots:,} spots in {args.out}")
