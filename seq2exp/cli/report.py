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
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="Parquet of `predict` for the gene table (RUN/predictions.parquet)",
    )
    parser.add_argument(
        "--genes", nargs="+", default=[], metavar="ID", help="genes that get a locus page"
    )
    parser.add_argument("--loci", type=int, default=60, help="locus pages in all (%(default)s)")
    parser.add_argument("--pictures", type=int, default=3, help="static pictures (%(default)s)")
    parser.add_argument("--vcf", type=Path, metavar="FILE", help="variants to show in the loci")
    parser.add_argument("--annotation", type=Path, metavar="GTF", help="exons to show in the loci")
    parser.add_argument(
        "--igv", type=Path, metavar="FILE", help="igv.min.js (default: that of igv-notebook)"
    )
    parser.add_argument(
        "--sequence-bp",
        type=int,
        default=65_536,
        metavar="N",
        help="bases around each TSS whose letters are embedded (%(default)s)",
    )
    parser.add_argument(
        "--max-mb", type=float, default=15.0, help="size that locus pages may fill (%(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.errors import InputError, facts
    from seq2exp.elements.truth import read_simulated_truth
    from seq2exp.report.html import write_report
    from seq2exp.report.igv import MISSING, find_igv
    from seq2exp.report.material import LociConfig
    from seq2exp.training.run import open_run

    given = [("--predictions", args.predictions), ("--elements", args.elements)]
    missing = [f"{name} {path}" for name, path in given if path is not None and not path.exists()]
    if missing:
        raise InputError(
            facts(
                "report",
                found=f"no {', '.join(missing)}",
                expected="files that exist",
                fix="check the path, or leave the option out",
            )
        )
    truth = None
    if args.truth:
        cells = tuple(open_run(args.run_folder).card.samples)
        truth = read_simulated_truth(args.truth, cells=cells)
    igv = find_igv(args.igv)
    if igv is None:
        print(MISSING)
    loci = LociConfig(
        number=args.loci,
        genes=tuple(args.genes),
        pictures=args.pictures,
        vcf=args.vcf,
        annotation=args.annotation,
        igv=igv,
        sequence_bp=args.sequence_bp,
        max_bytes=int(args.max_mb * 1e6),
        progress=True,
    )
    page = write_report(
        args.run_folder,
        out=args.out,
        data=args.data,
        predictions=args.predictions,
        elements=args.elements,
        truth=truth,
        loci=loci,
    )
    print(f"report in {page} ({page.stat().st_size / 1e6:.1f} MB)")
