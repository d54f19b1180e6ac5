"""Compare an element map with peaks, cCREs, links, CRISPRi tables or the truth of a simulation.

docs/elements_compare.md describes the files that are read, and what is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


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
        "--resamples", type=int, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for tables and pictures")
    options.add_loading(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.dataset.store import Dataset
    from seq2exp.elements.compare import CompareConfig
    from seq2exp.elements.references import ReadConfig, read_reference
    from seq2exp.elements.suite import compare_reference, open_elements

    elements = open_elements(args.elements)
    dataset = Dataset(args.data or Path(elements.summary["dataset"]))
    config = CompareConfig(split=args.split, num_resamples=args.resamples, seed=args.seed)
    reading = ReadConfig(
        args.kind, args.direction, args.alpha, args.min_effect, args.min_score, args.cell
    )
    # All files are read before the first is scored, so that a bad one costs nothing.
    references = [
        read_reference(path, dataset, config=reading, samples=elements.summary["samples"])
        for path in args.files
    ]
    rows = []
    for reference in references:
        result = compare_reference(elements, dataset, reference, config=config)
        rows += result.rows
        if result.bins:
            print(result.bins.text)
        if result.pairs:
            print(result.pairs.info)
    options.write_rows(args, {"elements": str(args.elements)}, rows)
