"""Print the metrics of a run beside every control, with bootstrap intervals over genes."""

from __future__ import annotations

import argparse

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument(
        "--split", default="test", choices=("train", "valid", "test"), help="genes (%(default)s)"
    )
    parser.add_argument(
        "--resamples",
        type=options.counted,
        default=1000,
        help="bootstrap resamples of genes (%(default)s)",
    )
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME",
        help="also fit this control (codon_ridge); may be repeated",
    )
    options.add_loading(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.baselines.controls import usual_controls
    from seq2exp.baselines.evaluate import evaluate, write_evaluation

    evaluation = evaluate(
        args.run_folder,
        args.data,
        split=args.split,
        batch_size=args.batch_size,
        workers=args.workers,
        num_resamples=args.resamples,
        controls=[*usual_controls(), *args.control],
        progress=True,
    )
    write_evaluation(evaluation, args.run_folder)
    options.write_rows(args, evaluation.inputs, evaluation.rows)
    print(evaluation.text)
