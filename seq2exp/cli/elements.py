"""Write the regulatory-element map of a run: BED, bigWig, BEDPE, summary and locus pictures.

docs/elements.md describes the files and how elements are called.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--split", action="append", choices=("train", "valid", "test", "excluded"),
        help="genes to map; may be repeated (default: all)",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, help="smallest mask of a called bin")
    parser.add_argument(
        "--budget", type=float, default=0.05, help="share of bins called (%(default)s)"
    )
    parser.add_argument("--gap", type=int, default=0, metavar="BP", help="join runs this close")
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
    from seq2exp.dataset.store import Dataset
    from seq2exp.elements.calling import CallConfig
    from seq2exp.elements.compare import compare_with_truth, write_comparison
    from seq2exp.elements.export import export_elements
    from seq2exp.elements.truth import read_simulated_truth
    from seq2exp.report.gallery import write_gallery
    from seq2exp.training.run import open_run

    trained = open_run(args.run_folder)
    dataset = Dataset(args.data or trained.dataset_path())
    truth = None
    if args.truth:
        truth = read_simulated_truth(args.truth, cells=tuple(trained.card.samples))
    result = export_elements(
        args.run_folder,
        args.out,
        data=dataset.root,
        splits=args.split or SPLITS,
        config=CallConfig(args.threshold, args.budget, args.gap, args.min_length),
        genes=args.gene,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=True,
        overwrite=args.overwrite,
    )
    rows, comparison = [], None
    print(f"{len(result.elements):,} elements of {len(result.masks):,} genes in {args.out}")
    if truth is not None:
        comparison = compare_with_truth(result.masks, dataset, truth)
        write_comparison(comparison, args.out / "comparison.json")
        rows = comparison.rows
        print(comparison.text)
    write_gallery(
        args.out, dataset, truth=truth, comparison=comparison, genes=args.gene, num_loci=args.plots
    )
    options.write_rows(args, {"run": str(args.run_folder), "data": str(dataset.root)}, rows)
