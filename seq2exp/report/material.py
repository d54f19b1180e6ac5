"""What exists of a run: the parts that its report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.files import read_json
from seq2exp.dataset.format import read_table
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import ELEMENT_COLUMNS
from seq2exp.elements.masks import GeneMasks, load_masks
from seq2exp.elements.truth import Truth
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["Material", "gather"]


@dataclass(frozen=True, eq=False)
class Material:
    """What exists of a run; anything but the run may be missing."""

    run: TrainedRun
    dataset: Dataset | None
    evaluation: Mapping[str, Any] | None
    predictions: pd.DataFrame | None
    metrics: pd.DataFrame | None
    folder: Path | None
    summary: Mapping[str, Any] | None
    masks: GeneMasks | None
    elements: pd.DataFrame | None
    comparison: Mapping[str, Any] | None
    truth: Truth | None
    num_loci: int


def gather(
    run_folder: Path,
    *,
    data: Path | None,
    evaluation: Path,
    predictions: Path,
    folder: Path,
    comparison: Path,
    truth: Truth | None,
    num_loci: int,
) -> Material:
    """Read what exists; the arguments are those of `write_report`, defaults filled in."""
    run = open_run(run_folder)
    root = Path(data) if data else run.dataset_path()
    metrics = [*sorted(run_folder.glob("members/*/metrics.csv")), run_folder / "metrics.csv"]
    table = next((path for path in metrics if path.is_file()), None)
    mapped = (folder / "summary.json").is_file()
    bed = folder / "elements.bed.gz"
    return Material(
        run=run,
        dataset=Dataset(root) if (root / "manifest.json").is_file() else None,
        evaluation=read_json(evaluation) if evaluation.is_file() else None,
        predictions=read_table(predictions) if predictions.is_file() else None,
        metrics=pd.read_csv(table) if table else None,
        folder=folder if mapped else None,
        summary=read_json(folder / "summary.json") if mapped else None,
        masks=load_masks(folder / "masks") if mapped else None,
        elements=pd.read_csv(bed, sep="\t", names=list(ELEMENT_COLUMNS)) if mapped else None,
        comparison=read_json(comparison) if comparison.is_file() else None,
        truth=truth,
        num_loci=num_loci,
    )
