"""Write one self-contained HTML page about a run; parts that do not exist are left out."""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument(
        "--out", type=Path, metavar="HTML", help="page to write (default: RUN/report.html)"
    )
    parser.add_argument(
        "--elements", type=Path, metavar="DIR", help="folder `elements` wrote (RUN/elements)"
    )
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="folder of a simulation, to show its truth"
    )
    parser.add_argument("--loci", type=int, default=3, help="locus pictures (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.elements.truth import read_simulated_truth
    from seq2exp.report.html import write_report
    from seq2exp.training.run import open_run

    truth = None
    if args.truth:
        cells = tuple(open_run(args.run_folder).card.samples)
        truth = read_simulated_truth(args.truth, cells=cells)
    page = write_report(
        args.run_folder,
        out=args.out,
        data=args.data,
        elements=args.elements,
        truth=truth,
        num_loci=args.loci,
    )
    print(f"report in {page}")
