"""What the trainings of a comparison took, and what they were judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.compare.entries import Outcome
from seq2exp.spatial.folds import Fold

__all__ = ["SystemCost", "cohort_facts", "system_costs"]


@dataclass(frozen=True)
class SystemCost:
    """What a system took; of several trainings the mean, and the largest memory."""

    name: str
    """System."""
    fit_seconds: float
    """Fitting all folds and the final system, features left out."""
    predict_seconds: float
    """Predicting the held-out spots of all folds, features left out."""
    num_parameters: float
    """Numbers fitted in one fold, the mean over folds."""
    peak_mb: float | None
    """Largest resident memory of the process while fitting; None where it is not told."""
    num_seeds: int
    """Trainings."""


def system_costs(names: Sequence[str], outcomes: Sequence[Outcome]) -> list[SystemCost]:
    """Return the costs of every system that was judged.

    Parameters
    ----------
    names : sequence of str
    outcomes : sequence of Outcome
        Judged with the numbers ``predict_seconds`` and ``num_parameters``.
    """
    found = []
    for name in names:
        pairs = [
            (each.run.costs().values(), each.judged.numbers)
            for each in outcomes
            if each.entry.name == name and each.run is not None and each.judged is not None
        ]
        if not pairs:
            continue
        peaks = [cost.peak_bytes for costs, _ in pairs for cost in costs]
        known = [peak for peak in peaks if peak is not None]
        found.append(
            SystemCost(
                name,
                float(np.mean([sum(cost.seconds for cost in costs) for costs, _ in pairs])),
                float(np.mean([numbers["predict_seconds"] for _, numbers in pairs])),
                float(np.mean([numbers["num_parameters"] for _, numbers in pairs])),
                max(known) / 1e6 if known else None,
                len(pairs),
            )
        )
    return found


def cohort_facts(cohort: SpatialCohort, folds: Sequence[Fold]) -> dict[str, Any]:
    """Return name, sections (patient and held-out spots), their numbers, and leaky."""
    spots: dict[str, int] = {}
    for fold in folds:
        for name, rows in fold.test.items():
            spots[name] = spots.get(name, 0) + len(rows)
    patients = cohort.patients
    return {
        "name": cohort.manifest.name,
        "sections": {name: {"patient": patients[name], "spots": n} for name, n in spots.items()},
        "num_patients": len({patients[name] for name in spots}),
        "num_sections": len(spots),
        "num_spots": sum(spots.values()),
        "leaky": any(fold.leaky for fold in folds),
    }
