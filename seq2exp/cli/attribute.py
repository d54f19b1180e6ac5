"""What each base and each track bin contributes to a gene's predicted expression, as bigWig.

docs/attribute.md describes methods, baselines, completeness errors and files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

# TF-MoDISco leaves out a sign with 100 seqlets or fewer.
_FEWEST_SEQLETS = 101
METHODS = ("gradient_x_input", "integrated_gradients", "saturation", "deeplift_shap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--gene", action="append", default=[], metavar="ID", help="id or symbol; may be repeated"
    )
    parser.add_argument(
        "--split", action="append", default=[], choices=("train", "valid", "test", "excluded"),
        help="all genes of a split; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--elements", type=Path, metavar="DIR",
        help="map of `elements`: its genes, and its elements as regions",
    )  # fmt: skip
    parser.add_argument(
        "--method", default="gradient_x_input", choices=METHODS, help="default: %(default)s"
    )
    parser.add_argument(
        "--baseline", default="uniform", choices=("uniform", "shuffled", "zero", "n"),
        help="what bases are compared with (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--shuffles", type=int, default=4, help="shuffled baselines per gene (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=64, help="points of an integral (%(default)s)")
    parser.add_argument(
        "--mask", default="recomputed", choices=("recomputed", "fixed"),
        help="whether the mask follows the inputs (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--sample", metavar="NAME", help="label to explain (default: mean of all)")
    parser.add_argument("--no-tracks", action="store_true", help="attribute to the bases only")
    parser.add_argument(
        "--span", type=int, default=1000, metavar="BP",
        help="bases around the TSS for saturation without --elements (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gene-bigwigs", action="store_true", help="also one bigWig of each gene alone"
    )
    parser.add_argument("--logos", type=int, default=3, help="logos of so many genes (%(default)s)")
    parser.add_argument("--seqlets", action="store_true", help="call seqlets with an FDR")
    parser.add_argument(
        "--seqlet-fdr", type=float, default=0.05, help="largest FDR of a seqlet (%(default)s)"
    )
    parser.add_argument(
        "--modisco-bp", type=int, default=0, metavar="BP",
        help="also write regions of this width for TF-MoDISco (0: none)",
    )  # fmt: skip
    parser.add_argument(
        "--tfmodisco", action="store_true",
        help="run TF-MoDISco on them (needs the extra modisco)",
    )  # fmt: skip
    parser.add_argument(
        "--max-seqlets", type=int, default=5000, metavar="N",
        help="seqlets per sign that TF-MoDISco clusters (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--known-motifs", type=Path, metavar="FILE",
        help="MEME, JASPAR or TRANSFAC file to compare its patterns with",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="draws shuffles (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="windows per pass (%(default)s)")
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.interpret.attribute import Extras, attribute_run
    from seq2exp.interpret.attribution import AttributionConfig
    from seq2exp.interpret.attribution_files import completeness_rows
    from seq2exp.interpret.seqlets import SeqletConfig

    if not (args.gene or args.split or args.elements):
        raise ConfigError(
            facts(
                "genes",
                found="none of --gene, --split and --elements",
                expected="genes to explain",
                fix="add one of them, such as --split test",
            )
        )
    if args.known_motifs is not None and not args.tfmodisco:
        raise ConfigError(
            facts(
                "--known-motifs",
                found="no --tfmodisco",
                expected="patterns to compare with the file",
                fix="add --tfmodisco, or use `seq2exp motifs` for the elements",
            )
        )
    if args.max_seqlets < _FEWEST_SEQLETS:
        raise ConfigError(
            facts(
                "--max-seqlets",
                found=args.max_seqlets,
                expected=f"{_FEWEST_SEQLETS} or more",
                fix="leave it out",
            )
        )
    config = AttributionConfig(
        method=args.method,
        baseline=args.baseline,
        num_shuffles=args.shuffles,
        steps=args.steps,
        mask=args.mask,
        tracks=not args.no_tracks,
        span_bp=args.span,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    extras = Extras(
        gene_bigwigs=args.gene_bigwigs,
        num_logos=args.logos,
        seqlets=SeqletConfig(fdr=args.seqlet_fdr) if args.seqlets else None,
        modisco_bp=args.modisco_bp or (400 if args.tfmodisco else 0),
        tfmodisco=args.tfmodisco,
        max_seqlets=args.max_seqlets,
        known_motifs=args.known_motifs,
    )
    table = attribute_run(
        args.run_folder,
        args.out,
        config=config,
        data=args.data,
        genes=args.gene,
        splits=args.split,
        elements=args.elements,
        sample=args.sample,
        extras=extras,
        progress=True,
        overwrite=args.overwrite,
    )
    rows = completeness_rows(table)
    print(f"{len(table):,} genes in {args.out}")
    for row in rows:
        print(f"{row['name']:<7}{row['metric']:<16}{_number(row)}")
    if args.tfmodisco:
        print(_patterns(args.out / "modisco" / "patterns.tsv"))
    options.write_rows(args, {"run": str(args.run_folder), "method": args.method}, rows)


def _patterns(path: Path) -> str:
    """Return the table of patterns for people."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    if table.empty:
        return "TF-MoDISco found no pattern"
    return f"\n{table.to_string(index=False)}"


def _number(row: dict[str, float | None]) -> str:
    if row["value"] is None or row["low"] is None or row["high"] is None:
        return "not defined"
    return f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
