"""Write the regulatory-element map of a run: BED, bigWig, BEDPE, summary and locus pictures.

docs/elements.md describes the files and how elements are called.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    from seq2exp.elements.folder import ElementMap
    from seq2exp.elements.labels import LabelConfig
    from seq2exp.elements.nulls import NullConfig
    from seq2exp.elements.truth import Truth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--split", action="append", choices=("train", "valid", "test", "excluded"),
        help="genes to map; may be repeated (default: all)",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, help="smallest mask of a called bin")
    parser.add_argument("--budget", type=float, help="share of bins called (default: 0.05)")
    parser.add_argument(
        "--fdr",
        type=float,
        metavar="LEVEL",
        help="share of called distal elements that may be false, from a null or from --labels",
    )
    parser.add_argument(
        "--null",
        choices=("background", "mean", "median", "shuffled", "sequence"),
        help="inputs without evidence (default with --fdr: background); also fills q-values",
    )
    parser.add_argument(
        "--null-draws", type=int, default=3, metavar="N", help="draws of the null (%(default)s)"
    )
    parser.add_argument("--null-seed", type=int, default=0, metavar="SEED", help="(%(default)s)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="read the level and q-values from elements whose action is known, in place of a null: "
        "any file that `elements compare --with` reads",
    )
    parser.add_argument(
        "--label-split", action="append", choices=("train", "valid", "test", "excluded"),
        help="genes whose labels count; may be repeated (default: train and valid)",
    )  # fmt: skip
    parser.add_argument(
        "--replicates",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="runs whose agreement is measured (default: the members of RUN)",
    )
    parser.add_argument(
        "--gap", type=int, metavar="BP", help="join runs this close (default: 0; with --fdr: 256)"
    )
    parser.add_argument(
        "--min-length", type=int, default=100, metavar="BP", help="drop shorter runs (%(default)s)"
    )
    parser.add_argument(
        "--gene",
        action="append",
        default=[],
        metavar="ID",
        help="also a bigWig of this gene's mask",
    )
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="folder of a simulation: score against its truth"
    )
    parser.add_argument("--plots", type=int, default=3, help="locus pictures (%(default)s)")
    options.add_loading(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.dataset.format import SPLITS
    from seq2exp.elements.calling import CallConfig
    from seq2exp.elements.compare import compare_with_truth, write_comparison
    from seq2exp.elements.export import export_elements
    from seq2exp.elements.truth import read_simulated_truth
    from seq2exp.report.gallery import write_gallery
    from seq2exp.training.run import open_run

    trained = open_run(args.run_folder)
    dataset = trained.open_dataset(args.data)
    truth = None
    if args.truth:
        truth = read_simulated_truth(args.truth, cells=tuple(trained.card.samples))
    result = export_elements(
        args.run_folder,
        args.out,
        data=dataset.root,
        splits=args.split or SPLITS,
        config=CallConfig(args.threshold, args.budget, args.gap, args.min_length, args.fdr),
        genes=args.gene,
        null=_null(args),
        labels=_labels(args),
        replicates=args.replicates,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=True,
        overwrite=args.overwrite,
    )
    rows, comparison = _level_rows(result, truth), None
    print(f"{len(result.elements):,} elements of {len(result.masks):,} genes in {args.out}")
    if truth is not None:
        comparison = compare_with_truth(result.masks, dataset, truth)
        write_comparison(comparison, args.out / "comparison.json")
        rows += comparison.rows
        print(comparison.text)
    write_gallery(
        args.out, dataset, truth=truth, comparison=comparison, genes=args.gene, num_loci=args.plots
    )
    options.write_rows(args, {"run": str(args.run_folder), "data": str(dataset.root)}, rows)


def _labels(args: argparse.Namespace) -> LabelConfig | None:
    """Return where labels are read from."""
    from seq2exp.elements.labels import LABEL_SPLITS, LabelConfig

    if args.labels is None:
        return None
    return LabelConfig(args.labels, splits=tuple(args.label_split or LABEL_SPLITS))


def _null(args: argparse.Namespace) -> NullConfig | None:
    """Return the null asked for; --fdr alone takes the default one."""
    from seq2exp.elements.nulls import NullConfig

    if args.null is None and (args.fdr is None or args.labels is not None):
        return None
    return NullConfig(args.null, args.null_seed, args.null_draws)


def _level_rows(result: ElementMap, truth: Truth | None) -> list[dict[str, Any]]:
    """Print and return the stated false-discovery level and, where known, the true ones."""
    if "fdr" not in result.summary:
        return []
    from seq2exp.elements.calibration import level_rows

    rows = level_rows(result.masks, result.elements, result.summary["fdr"], truth=truth)
    for row in rows:
        interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{row['metric']:24} {row['split']:8} {row['value']:.3f}{interval} n={row['n']}")
    return rows
