"""Delete, keep alone and swap called elements in silico, and compare with the mask.

docs/elements_check.md describes the methods, the files and the numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument(
        "--elements", required=True, type=Path, metavar="DIR", help="folder `elements` wrote"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="folder of a simulation: delete its candidates"
    )
    parser.add_argument(
        "--split", default="test", choices=("train", "valid", "test"), help="genes (%(default)s)"
    )
    parser.add_argument(
        "--genes", nargs="+", default=[], metavar="ID", help="these genes instead of a split"
    )
    parser.add_argument("--max-genes", type=int, metavar="N", help="draw so many genes")
    parser.add_argument(
        "--method", default="shuffle", choices=("shuffle", "n", "mask", "true-deletion"),
        help="what deletion means (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--shuffles", type=int, default=5, help="shuffles that are averaged (%(default)s)"
    )
    parser.add_argument(
        "--decoys", type=int, default=2, help="matched stretches per element (%(default)s)"
    )
    parser.add_argument(
        "--promoter-bp", type=int, default=2000, metavar="BP",
        help="central bases that stay, for models without a promoter of their own (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-sufficiency", action="store_true", help="leave this check out")
    parser.add_argument("--no-swap", action="store_true", help="leave this check out")
    parser.add_argument(
        "--batch-size", type=int, help="windows per pass (default: two million bases)"
    )
    parser.add_argument("--seed", type=options.seeded, default=0, help="of all draws (%(default)s)")
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.files import atomic_directory, refuse_existing
    from seq2exp.elements.folder import called_elements
    from seq2exp.elements.truth import read_simulated_truth
    from seq2exp.interpret.agreement import agreement_rows
    from seq2exp.interpret.check_files import check_text, write_check
    from seq2exp.interpret.check_truth import truth_rows
    from seq2exp.interpret.checks import CheckConfig, check_elements
    from seq2exp.interpret.deletion import DeletionConfig
    from seq2exp.interpret.sites import choose_genes
    from seq2exp.report.check_plot import write_check_plots
    from seq2exp.training.run import open_run

    refuse_existing(args.out, overwrite=args.overwrite)
    config = CheckConfig(
        DeletionConfig(args.method, args.shuffles, args.seed),
        decoys=args.decoys,
        sufficiency=not args.no_sufficiency,
        swap=not args.no_swap,
        promoter_bp=args.promoter_bp,
        batch_size=args.batch_size,
    )
    trained = open_run(args.run_folder)
    dataset = trained.open_dataset(args.data)
    called = called_elements(args.elements)
    called.check_dataset(dataset)
    truth = None
    if args.truth:
        truth = read_simulated_truth(args.truth, cells=tuple(trained.card.samples))
    rows = choose_genes(
        called.elements,
        dataset,
        split=args.split,
        genes=args.genes,
        max_genes=args.max_genes,
        seed=args.seed,
    )
    checked = check_elements(
        trained, dataset, called.elements, rows, config=config, truth=truth, progress=True
    )
    split = "chosen genes" if args.genes else args.split
    numbers = agreement_rows(checked, split=split, seed=args.seed)
    if truth is not None:
        numbers += truth_rows(checked, trained, dataset, split=split, seed=args.seed)
    origin = {
        "run": str(args.run_folder),
        "dataset": str(dataset.root),
        "elements": str(args.elements),
        "model_sha256": trained.card.weights_sha256,
        "elements_model_sha256": called.summary.get("model_sha256"),
    }
    with atomic_directory(args.out, overwrite=args.overwrite) as partial:
        write_check(checked, numbers, partial, config=config, origin=origin)
        write_check_plots(
            checked.sites,
            checked.swaps,
            checked.samples,
            partial / "plots",
            unit=f"{trained.card.expression_transform} {trained.card.expression_unit}",
        )
    options.write_rows(args, origin, numbers)
    print(f"{len(rows):,} genes, {len(checked.sites):,} sites in {args.out}")
    print(check_text(numbers))
