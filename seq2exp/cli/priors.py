"""Write what a run knows of every gene for models that know no sequence: priors.h5ad.

docs/priors.md describes the file and how it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="H5AD", help="file to write")
    parser.add_argument(
        "--layer", default="readout", choices=("readout", "head"),
        help="embedding: pooled states, or the last hidden layer of the head (%(default)s)",
    )  # fmt: skip
    options.add_loading(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.priors.export import export_priors

    prior = export_priors(
        args.run_folder,
        args.out,
        data=args.data,
        layer=args.layer,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=True,
        overwrite=args.overwrite,
    )
    print(len(prior), prior.z.shape, prior.reg_names, prior.meta)
