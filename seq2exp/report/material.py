"""What exists of a run: the parts that its report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.errors import ConfigError, FormatError, facts
from seq2exp.core.files import read_json
from seq2exp.dataset.format import read_table
from seq2exp.dataset.store import Dataset
from seq2exp.elements.folder import open_elements, other_origin
from seq2exp.elements.masks import GeneMasks
from seq2exp.elements.truth import Truth
from seq2exp.report.igv import IgvScript
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["LociConfig", "Material", "gather"]


@dataclass(frozen=True)
class LociConfig:
    """Which loci the report shows, and how."""

    number: int = 60
    """Locus pages, those asked for included."""
    genes: tuple[str, ...] = ()
    """Ids or symbols that get a page."""
    pictures: int = 3
    """Static pictures; also what a report without igv.js has in place of the pages."""
    vcf: Path | None = None
    """Variants to draw."""
    annotation: Path | None = None
    """GTF with the exons of the genes."""
    igv: IgvScript | None = None
    """The genome browser; None when it is not installed."""
    sequence_bp: int = 65_536
    """Bases around each TSS whose letters are embedded."""
    max_bytes: int = 15_000_000
    """Size of the report that locus pages may fill."""
    progress: bool = False
    """Show progress."""

    def __post_init__(self) -> None:
        checks = {
            "--loci": (self.number, 0),
            "--pictures": (self.pictures, 0),
            "--sequence-bp": (self.sequence_bp, 0),
            "--max-mb": (self.max_bytes, 1),
        }
        wrong = [f"{name} {value}" for name, (value, least) in checks.items() if value < least]
        if wrong:
            raise ConfigError(
                facts("report", found=", ".join(wrong), expected="0 or more", fix="change it")
            )


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
    manifest: Mapping[str, Any]
    loci: LociConfig

    @cached_property
    def mapped(self) -> frozenset[str]:
        """Ids of the genes that have a mask."""
        return frozenset() if self.masks is None else frozenset(self.masks.genes["gene_id"])


def gather(
    run_folder: Path,
    *,
    data: Path | None,
    evaluation: Path,
    predictions: Path,
    folder: Path,
    comparison: Path,
    truth: Truth | None,
    loci: LociConfig,
) -> Material:
    """Read what exists; the arguments are those of `write_report`, defaults filled in.

    Raises
    ------
    ConfigError
        The element map is that of another run or dataset.
    """
    run = open_run(run_folder)
    root = Path(data) if data else run.dataset_path()
    metrics = [*sorted(run_folder.glob("members/*/metrics.csv")), run_folder / "metrics.csv"]
    table = next((path for path in metrics if path.is_file()), None)
    mapped = open_elements(folder) if (folder / "summary.json").is_file() else None
    dataset = Dataset(root) if (root / "manifest.json").is_file() else None
    if dataset is not None:
        run.check_dataset(dataset)
    if mapped is not None:
        _refuse_others(mapped.summary, folder, run, dataset)
    manifest = run_folder / "manifest.json"
    return Material(
        run=run,
        dataset=dataset,
        evaluation=read_json(evaluation) if evaluation.is_file() else None,
        predictions=_read_predictions(predictions, run) if predictions.is_file() else None,
        metrics=pd.read_csv(table) if table else None,
        folder=folder if mapped else None,
        summary=mapped.summary if mapped else None,
        masks=mapped.masks if mapped else None,
        elements=mapped.elements if mapped else None,
        comparison=read_json(comparison) if comparison.is_file() else None,
        truth=truth,
        manifest=read_json(manifest) if manifest.is_file() else {},
        loci=loci,
    )


def _read_predictions(path: Path, run: TrainedRun) -> pd.DataFrame:
    """Read the table of `evaluate` or `predict`; it must be one of this model's samples."""
    table = read_table(path)
    wanted = ["gene_id", *(f"predicted:{name}" for name in run.card.samples)]
    missing = [name for name in wanted if name not in table]
    if missing or table["gene_id"].duplicated().any():
        raise FormatError(
            facts(
                str(path),
                found=f"no column {', '.join(missing[:3])}" if missing else "genes that come twice",
                expected="one row per gene and a prediction of every sample of the run",
                fix="write it again with `seq2exp predict` or `seq2exp evaluate`",
            )
        )
    return table


def _refuse_others(
    summary: dict[str, Any], folder: Path, run: TrainedRun, dataset: Dataset | None
) -> None:
    """Refuse a map of another model or dataset: its elements would stand beside wrong tracks."""
    if wrong := other_origin(summary, run=run, dataset=dataset):
        raise ConfigError(
            facts(
                str(folder),
                found="the element map of another run or dataset: " + ", ".join(wrong),
                expected=f"one made from {run.folder}",
                fix="run `seq2exp elements` for this run, or give its folder with --elements",
            )
        )
