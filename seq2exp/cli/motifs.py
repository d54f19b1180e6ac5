"""Which motifs of a file occur in elements more often than in matched background, with FDR.

docs/motifs.md describes formats, background, tests and files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", metavar="ELEMENTS", type=Path, help="folder of `elements`, or a BED file"
    )
    parser.add_argument(
        "--motifs", required=True, type=Path, metavar="FILE", help="MEME, JASPAR or TRANSFAC file"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DATASET", help="dataset with the sequence"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--split", action="append", default=[], choices=("train", "valid", "test", "excluded"),
        help="elements of genes of this split only; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--class", dest="kind", default="distal", choices=("distal", "promoter", "all"),
        help="class of elements (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--p-value", type=float, default=1e-4, help="largest p-value of a site (%(default)s)"
    )
    parser.add_argument(
        "--pseudocount", type=float, default=0.1, help="sites added to a column (%(default)s)"
    )
    parser.add_argument(
        "--background", default="matched", choices=("matched", "shuffled"),
        help="matched regions, or dinucleotide shuffles (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--per-element", type=int, default=5, help="background regions each (%(default)s)"
    )
    parser.add_argument(
        "--around", type=int, default=10_000, metavar="BP",
        help="with a BED file: distance to its background (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="draws the background (%(default)s)"
    )
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.interpret.motifs import MotifConfig, enrich_motifs

    config = MotifConfig(
        p_value=args.p_value,
        pseudocount=args.pseudocount,
        background=args.background,
        per_element=args.per_element,
        around_bp=args.around,
        kind=args.kind,
        seed=args.seed,
    )
    frame = enrich_motifs(
        args.source,
        args.motifs,
        args.out,
        data=args.data,
        splits=args.split,
        config=config,
        overwrite=args.overwrite,
    )
    shown = ["motif", "fraction_elements", "fraction_background", "log2_odds_ratio", "low", "high",
             "q"]  # fmt: skip
    print(frame[shown].head(20).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    print(f"{len(frame):,} motifs in {args.out}")
    options.write_rows(args, {"source": str(args.source), "motifs": str(args.motifs)}, [
        {
            "name": row["motif"],
            "metric": "log2_odds_ratio",
            "split": ",".join(args.split) or None,
            "value": row["log2_odds_ratio"],
            "low": row["low"],
            "high": row["high"],
            "n": int(row["elements"]),
        }
        for row in frame.to_dict("records")
    ])  # fmt: skip
