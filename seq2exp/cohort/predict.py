"""What a trained model says of people: level and difference for every gene and person.

Shapes: G genes asked for, D donors of the dataset, K outputs, U sequences, P haplotypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.module import DIFFERENCE, LEVEL, OUTPUTS
from seq2exp.cohort.personal import HaplotypePlan, PersonalGenes, stack_haplotypes
from seq2exp.cohort.targets import REFERENCE
from seq2exp.core.config import bind, load_yaml
from seq2exp.core.errors import InputError, facts
from seq2exp.core.progress import track
from seq2exp.training.module import forward_batch
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["PeoplePrediction", "open_cohort_run", "predict_people"]


@dataclass(frozen=True, eq=False)
class PeoplePrediction:
    """Predictions for people, mean over haplotypes and members.

    Attributes
    ----------
    rows : int64 array, shape (G,)
        Rows of the gene table.
    level_GD, difference_GD : float32 arrays
        NaN for people who were not asked for.
    level_G, difference_G : float32 arrays
        For the sequence of the reference.
    """

    rows: NDArray[np.int64]
    level_GD: NDArray[np.float32]
    difference_GD: NDArray[np.float32]
    level_G: NDArray[np.float32]
    difference_G: NDArray[np.float32]

    def table(self, genes: pd.DataFrame, donors: list[str]) -> pd.DataFrame:
        """Return one row per gene and person asked for: gene_id, donor, level, difference.

        The sequence of the reference is the person ``reference``.
        """
        ids = genes["gene_id"].astype(str).to_numpy()[self.rows]
        gene, person = np.nonzero(np.isfinite(self.level_GD))
        people = pd.DataFrame(
            {
                "gene_id": ids[gene],
                "donor": np.array(donors)[person],
                "level": self.level_GD[gene, person],
                "difference": self.difference_GD[gene, person],
            }
        )
        reference = pd.DataFrame(
            {
                "gene_id": ids,
                "donor": REFERENCE,
                "level": self.level_G,
                "difference": self.difference_G,
            }
        )
        return pd.concat([people, reference], ignore_index=True)


def open_cohort_run(folder: Path) -> tuple[TrainedRun, CohortConfig]:
    """Open a finished run of `seq2exp cohort train`.

    Raises
    ------
    InputError
        The folder holds no finished run, or one of `seq2exp train`.
    """
    run = open_run(folder)
    if tuple(run.card.samples) != OUTPUTS:
        raise InputError(
            facts(
                str(folder),
                found=f"a run that predicts {', '.join(run.card.samples[:3])}",
                expected="a run of `seq2exp cohort train`",
                fix="name such a run; a run of `seq2exp train` can be its start_from",
            )
        )
    return run, bind(CohortConfig, load_yaml(run.folder / "config.yaml"), where="config.yaml")


def predict_people(
    run: TrainedRun,
    personal: PersonalGenes,
    rows: NDArray[np.int64],
    people_GD: NDArray[np.bool_],
    *,
    batch_size: int = 16,
    progress: bool = False,
    label: str = "predict",
) -> PeoplePrediction:
    """Predict people with a run; each distinct haplotype is run once per gene.

    Parameters
    ----------
    run : TrainedRun
    personal : PersonalGenes
    rows : int64 array, shape (G,)
        Rows of the gene table.
    people_GD : bool array
        Whom to predict.
    batch_size : int
        Sequences at once; changes speed, not numbers.
    progress : bool
    label : str
        Of the progress.
    """
    people_GD = np.asarray(people_GD, dtype=bool)
    shape = people_GD.shape
    people = np.full((*shape, len(OUTPUTS)), np.nan, dtype=np.float32)
    reference = np.full((shape[0], len(OUTPUTS)), np.nan, dtype=np.float32)
    with run.evaluating() as device, torch.no_grad():
        for number, gene in enumerate(
            track(rows.tolist(), total=len(rows), label=label, enabled=progress)
        ):
            asked = np.flatnonzero(people_GD[number])
            plan = personal.plan(gene, asked)
            output_UK = _outputs(run.models, personal, plan, device, batch_size)
            people[number, asked] = output_UK[plan.row_DP].mean(axis=1)
            reference[number] = output_UK[plan.reference]
    return PeoplePrediction(
        rows=np.asarray(rows, dtype=np.int64),
        level_GD=people[..., LEVEL],
        difference_GD=people[..., DIFFERENCE],
        level_G=reference[:, LEVEL],
        difference_G=reference[:, DIFFERENCE],
    )


def _outputs(
    models: list[nn.Module],
    personal: PersonalGenes,
    plan: HaplotypePlan,
    device: str,
    batch_size: int,
) -> NDArray[np.float32]:
    """Return the outputs of all sequences of a plan; a batch of them is held at a time."""
    parts = []
    for first in range(0, len(plan), batch_size):
        some = personal.sequences(plan, first, first + batch_size)
        part = stack_haplotypes([some]).to(device)
        outputs = [forward_batch(model, part).expression_BK.float() for model in models]
        parts.append(torch.stack(outputs).mean(dim=0).cpu().numpy())
    found: NDArray[np.float32] = np.concatenate(parts)
    return found
