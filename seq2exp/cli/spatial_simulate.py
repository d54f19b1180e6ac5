"""Write simulated tissue: pictures, counts, and the gene programmes that both follow from.

docs/simulator.md describes the model. The folder is a source of `spatial prepare`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2exp.cli import options

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="YAML", help="settings"
    )
    parser.add_argument(
        "--prior", type=Path, metavar="H5AD", help="priors of genes: their embeddings drive w"
    )
    options.add_overwrite(parser)
    parser.epilog = "Any setting of docs/simulator.md, section 10, may follow OUT as --key value."


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import pandas as pd

    from data_prep.simulate.spatial import SpatialSimulationConfig, simulate_cohort
    from seq2exp.priors.prior import GenePrior

    config = options.load(SpatialSimulationConfig, args)
    z = None
    if args.prior:
        prior = GenePrior.load(args.prior)
        z = pd.DataFrame(prior.z[prior.present], index=prior.gene_id[prior.present])
    simulate_cohort(config, args.out, prior=z, overwrite=args.overwrite, progress=not args.quiet)
    print(
        f"tissue in {args.out}; next: seq2exp spatial prepare --config {args.out}/cohort.yaml "
        "--out COHORT"
    )
