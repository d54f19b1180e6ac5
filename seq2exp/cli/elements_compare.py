"""Compare an element map with peaks, cCREs, links, CRISPRi tables or the truth of a simulation.

docs/elements_compare.md describes the files that are read, and what is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    from seq2exp.dataset.store import Dataset
    from seq2exp.elements.budget import BudgetCurve
    from seq2exp.elements.masks import GeneMasks
    from seq2exp.elements.suite import ReferenceResult
    from seq2exp.training.run import TrainedRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "elements", metavar="ELEMENTS", type=Path, help="folder `elements` wrote with --out"
    )
    parser.add_argument(
        "--with", dest="files", action="append", default=[], type=Path, metavar="FILE",
        help="file to compare with: BED, narrowPeak, BEDPE, a table of links or of CRISPRi "
        "tests, or the folder of a simulation; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--kind", default="auto",
        choices=("auto", "bed", "narrowpeak", "bedpe", "links", "crispri", "simulated"),
        help="layout of the files (default: by name and header)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DATASET", help="dataset (default: that of the element map)"
    )
    parser.add_argument(
        "--split", default="test", choices=("train", "valid", "test", "excluded", "all"),
        help="genes to score (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--distal-bp", type=int, default=1000, metavar="BP",
        help="bins nearer to the TSS are not scored, except by distance (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--cell", metavar="NAME", help="only rows of this cell type")
    parser.add_argument(
        "--direction", default="decrease", choices=("decrease", "increase", "any"),
        help="change of expression that makes a tested pair positive (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--alpha", type=float, metavar="P",
        help="largest adjusted p-value of a positive pair (default: as the file says, or 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--min-effect", type=float, default=0.0, metavar="SIZE",
        help="smallest effect of a positive pair (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-score", type=float, metavar="SCORE",
        help="links of a lower score count as pairs that do not act",
    )  # fmt: skip
    parser.add_argument(
        "--budget-curve", action="store_true",
        help="also the prediction error with the best 1 to 20 %% of the bins open only",
    )  # fmt: skip
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="run for --budget-curve (default: the map's own)"
    )
    parser.add_argument(
        "--resamples", type=options.counted, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=options.seeded, default=0, help="seed of the resamples (%(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for tables and pictures")
    options.add_loading(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import dataclasses

    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.core.files import refuse_existing
    from seq2exp.dataset.store import Dataset
    from seq2exp.elements.compare import CompareConfig
    from seq2exp.elements.folder import open_elements
    from seq2exp.elements.references import ReadConfig, read_reference
    from seq2exp.elements.suite import compare_reference
    from seq2exp.report.comparison import all_rows, write_comparison_folder

    if not args.files and not args.budget_curve:
        raise ConfigError(
            facts(
                "--with",
                found="no file",
                expected="at least one",
                fix="name one, or give --budget-curve",
            )
        )
    if args.out:
        refuse_existing(args.out, overwrite=args.overwrite)
    elements = open_elements(args.elements)
    dataset = Dataset(args.data or Path(elements.summary["dataset"]))
    elements.check_dataset(dataset)
    config = CompareConfig(
        split=args.split,
        distal_bp=args.distal_bp,
        num_resamples=args.resamples,
        seed=args.seed,
    )
    reading = ReadConfig(
        args.kind, args.direction, args.alpha, args.min_effect, args.min_score, args.cell
    )
    # All files are read before the first is scored, so that a bad one costs nothing.
    references = [
        read_reference(path, dataset, config=reading, samples=elements.summary["samples"])
        for path in args.files
    ]
    trained = _open_run(args, elements.summary) if args.budget_curve else None
    results = []
    for reference in references:
        results.append(compare_reference(elements, dataset, reference, config=config))
        print(results[-1].text, end="\n\n")
    curve = None
    if trained is not None:
        curve = _budget_curve(args, trained, dataset, elements.masks, results)
        print(curve.text)
    inputs = {
        "elements": str(args.elements),
        "data": str(dataset.root),
        "model_sha256": elements.summary.get("model_sha256"),
        "settings": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in (dataclasses.asdict(config) | dataclasses.asdict(reading)).items()
        },
    }
    if args.out:
        write_comparison_folder(
            args.out, results, curve=curve, inputs=inputs, overwrite=args.overwrite
        )
        print(f"comparison in {args.out}")
    options.write_rows(args, inputs, all_rows(results, curve))


def _open_run(args: argparse.Namespace, summary: dict[str, Any]) -> TrainedRun:
    """Open the run of the element map, before any work."""
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.elements.folder import other_origin
    from seq2exp.training.run import open_run

    trained = open_run(args.run or Path(summary["run"]))
    if other := other_origin(summary, run=trained):
        raise ConfigError(
            facts(
                f"run {trained.folder}",
                found=f"other weights than the element map was made with: {other[0]}",
                expected="the run of the map",
                fix="name it with --run, or map its elements first",
            )
        )
    return trained


def _budget_curve(
    args: argparse.Namespace,
    trained: TrainedRun,
    dataset: Dataset,
    masks: GeneMasks,
    results: list[ReferenceResult],
) -> BudgetCurve:
    """Rank by the rivals that the first comparison chose, or by the usual ones."""
    from seq2exp.elements.budget import BudgetConfig, budget_curve
    from seq2exp.elements.judging import choose_rivals
    from seq2exp.elements.rivals import Rivals

    chosen = next((result.bins.chosen for result in results if result.bins), None)
    return budget_curve(
        trained,
        dataset,
        masks,
        rivals=chosen or choose_rivals(Rivals(masks, dataset), None)[0],
        config=BudgetConfig(split=args.split, num_resamples=args.resamples, seed=args.seed),
        batch_size=args.batch_size,
        workers=args.workers,
        progress=True,
    )
