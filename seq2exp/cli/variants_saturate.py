"""Saturation mutagenesis: every substitution of a region, for every gene whose window holds it.

docs/variants_saturate.md describes the arrays, tracks and pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "A run folder that is called saturate is scored with `seq2exp variants ./saturate`."
    )
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--region", action="append", default=[], metavar="CONTIG:FIRST-LAST",
        help="such as chr6:1000-1500, counted from 1, both ends included; may be repeated",
    )  # fmt: skip
    parser.add_argument("--bed", type=Path, metavar="FILE", help="regions as BED")
    parser.add_argument(
        "--gene", action="append", default=[], metavar="ID",
        help="id or symbol; may be repeated (default: all whose window reaches into a region)",
    )  # fmt: skip
    parser.add_argument(
        "--sample", action="append", default=[], metavar="NAME",
        help="label that is scored; may be repeated (default: all)",
    )  # fmt: skip
    parser.add_argument("--deletions", action="store_true", help="also delete each base")
    parser.add_argument(
        "--insertions", type=int, default=0, metavar="BP",
        help="also insert so many bases before each base, the same ones everywhere (0: none)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="draws the inserted bases (%(default)s)"
    )
    parser.add_argument(
        "--table", action="append", default=[],
        choices=("vcf.gz", "vcf", "tsv.gz", "tsv", "parquet"),
        help="also all mutations as `seq2exp variants` writes them; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--plots", type=int, default=8, metavar="N",
        help="pictures of the N strongest regions, genes and labels (%(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--method", default="exact", choices=("exact", "gradient"),
        help="exact: a pass per mutation; gradient: first order, a whole window at once",
    )  # fmt: skip
    options.add_views(group)
    group.add_argument(
        "--mask-bp", type=int, default=501, metavar="BP",
        help="width around a base in which masks are compared (%(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("work")
    group.add_argument(
        "--batch-size", type=options.counted, default=16, help="sequences per pass (%(default)s)"
    )
    group.add_argument("--workers", type=options.counted, default=1, help="processes (%(default)s)")
    group.add_argument(
        "--max-passes", type=options.counted, default=1_000_000, metavar="N",
        help="most windows that may go through a model (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--restart", action="store_true", help="throw the parts of an earlier run away"
    )
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.training.run import open_run
    from seq2exp.variants.config import ScoreConfig
    from seq2exp.variants.regions import find_regions
    from seq2exp.variants.saturate import SaturationConfig, saturate_regions

    config = SaturationConfig(
        deletions=args.deletions,
        insertion_bp=args.insertions,
        tables=tuple(args.table),
        num_plots=args.plots,
        max_passes=args.max_passes,
    )
    score = ScoreConfig(
        samples=tuple(args.sample),
        genes=tuple(args.gene),
        method=args.method,
        strands=args.strands,
        shifts=args.shifts,
        indel_shifts=args.indel_shifts,
        mask_bp=args.mask_bp,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    trained = open_run(args.run_folder)
    dataset = trained.open_dataset(args.data)
    table = saturate_regions(
        trained,
        dataset,
        find_regions(args.region, args.bed, dataset=dataset),
        args.out,
        score=score,
        config=config,
        workers=args.workers,
        overwrite=args.overwrite,
        restart=args.restart,
        progress=not args.quiet,
    )
    records = table.to_dict("records")
    for one in records[:_SHOWN]:
        place = f"{one['region']}, {one['symbol'] or one['gene_id']}, {one['label']}"
        print(f"{place}: {one['strongest']} {one['effect']:+.4g} ({one['unit']})")
    more = f"{len(records) - _SHOWN} more in genes.tsv; " if len(records) > _SHOWN else ""
    print(f"{more}wrote {args.out}")
    rows = [
        {
            "name": f"{one['region']} {one['gene_id']} {one['label']}",
            "metric": f"largest effect, {one['strongest']}",
            "split": "",
            "value": one["effect"] if one["strongest"] else None,
            "low": None,
            "high": None,
            "n": one["scored_bases"],
        }
        for one in records
    ]
    options.write_rows(args, {"run": str(args.run_folder), "data": str(dataset.root)}, rows)
