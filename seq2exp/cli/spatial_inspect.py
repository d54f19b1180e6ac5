"""What a cohort holds, or what a spatial run learnt: a table, warnings and, with --out, pictures.

docs/spatial_inspect.md describes them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    import pandas as pd

    from seq2exp.report.tissue import Tissue
    from seq2exp.spatial.cohort import Section, SpatialCohort

logger = logging.getLogger(__name__)
_PICTURE_PX = 1200
_MARGIN_UM = 600.0
_NUM_PATCHES = 8
_COHORT_METRICS = ("spots", "left_out", "genes", "median_counts", "median_genes", "um_per_px",
                   "saturation_on", "saturation_off")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", metavar="COHORT|RUN", type=Path, help="what `spatial prepare` or `train` wrote"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for pictures and tables")
    parser.add_argument(
        "--section", action="append", metavar="NAME", help="only this one (again for more)"
    )
    parser.add_argument(
        "--genes", metavar="A,B", help="of a run of nsl: whose concentrations are drawn"
    )
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.files import refuse_existing

    if args.out:
        refuse_existing(args.out, overwrite=args.overwrite)
    if (args.folder / "config.yaml").is_file():
        from seq2exp.cli.spatial_inspect_run import inspect_run

        inspect_run(args)
        return
    _inspect_cohort(args)


def _inspect_cohort(args: argparse.Namespace) -> None:
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.overview import cohort_table, cohort_warnings, common_genes

    if args.genes:
        raise ConfigError(
            facts(
                "--genes",
                found="a cohort",
                expected="a run of nsl",
                fix="leave --genes out; `spatial plot` draws genes of predictions",
            )
        )
    cohort = SpatialCohort(args.folder)
    names = chosen_sections(cohort, args.section)
    table = cohort_table(cohort)
    manifest = cohort.manifest
    print(
        f"cohort {manifest.name}; patients: {table['patient'].nunique()}, sections: {len(table)}, "
        f"spots: {table['spots'].sum():,}\ngenes by {manifest.gene_ids}, {common_genes(cohort):,} "
        f"in every section; patches of {manifest.patch.um:g} um in {manifest.patch.px} px, stain "
        f"{manifest.patch.stain}\n"
    )
    print(cohort_text(table[table["section"].isin(names)]))
    for line in cohort_warnings(cohort, table):
        print(f"note: {line}")
    if args.out:
        _draw_sections(cohort, names, args)
    rows = [
        {"name": row["section"], "metric": metric, "split": "", "value": _number(row[metric]),
         "low": None, "high": None, "n": row["spots"]}
        for row in table.to_dict("records")
        for metric in _COHORT_METRICS
    ]  # fmt: skip
    options.write_rows(args, {"cohort": str(args.folder)}, rows)


def _number(value: Any) -> float | None:  # noqa: ANN401
    import math

    return None if math.isnan(value) else float(value)


def chosen_sections(cohort: SpatialCohort, names: list[str] | None) -> list[str]:
    """Return the sections asked for, all by default; refuse unknown ones."""
    from seq2exp.core.config import require_known

    for name in names or []:
        require_known("--section", name, cohort.names, expected="a section of the cohort")
    return list(dict.fromkeys(names or cohort.names))


def cohort_text(table: pd.DataFrame) -> str:
    """Return the table of sections as text."""
    head = (
        f"{'section':12} {'patient':10} {'spots':>7} {'left out':>8} {'genes':>7} {'counts':>8} "
        f"{'genes/spot':>10} {'um/px':>7} {'saturation on/off':>18}"
    )
    lines = [head]
    for row in table.to_dict("records"):
        colour = f"{row['saturation_on']:.0f} / {row['saturation_off']:.0f}".replace("nan", "-")
        lines.append(
            f"{row['section']:12} {row['patient']:10} {row['spots']:7,} {row['left_out']:8,} "
            f"{row['genes']:7,} {row['median_counts']:8,.0f} {row['median_genes']:10,.0f} "
            f"{row['um_per_px']:7.3f} {colour:>18}"
        )
    return "\n".join([*lines, "counts and genes/spot: medians over spots"])


def _draw_sections(cohort: SpatialCohort, names: list[str], args: argparse.Namespace) -> None:
    from seq2exp.core.errors import Seq2ExpError
    from seq2exp.core.files import atomic_directory, safe_name
    from seq2exp.core.progress import track
    from seq2exp.report.style import save_figure

    drawn = 0
    with atomic_directory(args.out, overwrite=args.overwrite) as partial:
        for name in track(names, total=len(names), label="pictures", enabled=not args.quiet):
            try:
                figure = section_figure(cohort, cohort.section(name))
            except Seq2ExpError as error:
                logger.warning("section %s is not drawn: %s", name, error)
                continue
            save_figure(figure, partial / safe_name(name), formats=("png",))
            drawn += 1
    print(f"pictures in {args.out}: {drawn}")


def section_figure(cohort: SpatialCohort, section: Section) -> Any:  # noqa: ANN401
    """Return the picture of a section: tissue, spots and some patches."""
    import numpy as np

    from seq2exp.report.section import plot_section
    from seq2exp.report.tissue import MICROMETRE
    from seq2exp.spatial.overview import spread_rows

    rows = spread_rows(len(section), _NUM_PATCHES)
    lost = [f"{count:,} with {reason}" for reason, count in section.info.left_out.items() if count]
    info = section.info
    return plot_section(
        section_tissue(section, around_px=_PICTURE_PX),
        section.total_N,
        patches=np.stack([section.patches[row] for row in rows]),
        rows=rows,
        patch_um=cohort.manifest.patch.um,
        title=f"section {info.name}, patient {info.patient}",
        note=f"{info.width:,} x {info.height:,} px at {info.um_per_px:.3f} {MICROMETRE}; "
        f"left out and not shown: {', '.join(lost) or 'no spot'}",
    )


def section_tissue(section: Section, *, around_px: int, margin_um: float = _MARGIN_UM) -> Tissue:
    """Return the picture around the spots of a section, about ``around_px`` pixels long."""
    import numpy as np

    from seq2exp.core.thumbnail import read_thumbnail
    from seq2exp.report.tissue import Tissue
    from seq2exp.spatial.prediction_file import drawn_diameter_um

    info = section.info
    shown = float(np.ptp(section.xy_N2, axis=0).max()) + 2 * margin_um / info.um_per_px
    whole = max(info.width, info.height)
    small = read_thumbnail(section.image_path, max_px=round(around_px * max(1.0, whole / shown)))
    um_per_px = info.um_per_px / small.scale
    diameter = drawn_diameter_um(section)
    tissue = Tissue(small.pixels_HW3, section.xy_N2 * small.scale, diameter / um_per_px, um_per_px)
    return tissue.cropped(margin=margin_um / diameter)
