"""`seq2exp compare`: several trained runs on the same genes, with paired differences."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.baselines.controls import fit_controls, require_controls
from seq2exp.baselines.scoring import Row, mean_row, score
from seq2exp.baselines.table import align, best_of, heading, interval_text, number_text
from seq2exp.core.config import load_yaml
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.samples import CONTACT
from seq2exp.dataset.store import Dataset
from seq2exp.training.predict import predict
from seq2exp.training.run import TrainedRun, model_folders, open_run

__all__ = ["Comparison", "RunFacts", "compare"]

_METRICS = ("mse", "mae", "r2", "pearson", "spearman")
_WITH_INTERVAL = ("mse", "pearson")


@dataclass(frozen=True)
class RunFacts:
    """What a reader must know about a run to call a comparison fair."""

    name: str
    """Name in the table."""
    folder: str
    """Run folder."""
    model: str
    """Registry name of the model, and of its encoder or mask."""
    parameters: int
    """Trainable parameters of one member."""
    members: int
    """Ensemble members whose predictions are averaged."""
    epochs: int
    """Most epochs of one member."""
    updates: int
    """Optimiser steps of the member that took most, by its metrics.csv; 0 without that file."""
    window_bp: int
    """Window in bases."""
    bin_size: int
    """Bin in bases."""
    tracks: list[str]
    """Tracks it reads."""


@dataclass(frozen=True)
class Comparison:
    """What `seq2exp compare` found; nothing is written.

    Attributes
    ----------
    rows : list of dict
        As of `seq2exp evaluate`; differences are in favour of the reference.
    runs : list of RunFacts
        In the order of the table.
    reference : str
        Name of the run that the others are compared with.
    notes : list of str
        Why the comparison may not be a fair one.
    inputs : dict
        Dataset, split, bootstrap and runs, as in the JSON file.
    """

    rows: list[Row]
    runs: list[RunFacts]
    reference: str
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the table for people."""
        return _render(self)


def compare(
    folders: Sequence[Path],
    dataset_path: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    reference: str | None = None,
    controls: Sequence[str] = ("mean", "all_ridge"),
    split: str = "test",
    batch_size: int = 16,
    workers: int = 0,
    num_resamples: int = 1000,
    progress: bool = False,
) -> Comparison:
    """Predict the same genes with several runs and compare them on the same resamples.

    Parameters
    ----------
    folders : sequence of Path
        Finished runs.
    dataset_path : Path, optional
        The dataset the first run was trained on when not given.
    names : sequence of str, optional
        Names in the table, one per run; the folders' names when left out.
    reference : str, optional
        Name of the run that the others are compared with; the first one when left out.
    controls : sequence of str
        Fitted controls to put beside them, on the windows and tracks of the reference.
    split : str
        test, valid or train.
    batch_size, workers : int
        Change speed, not numbers.
    num_resamples : int
        Bootstrap resamples of genes.
    progress : bool
        Show progress.

    Raises
    ------
    InputError
        Two runs of one name, an unknown reference, or no gene that all runs can read.
    ConfigError
        The dataset does not fit a run, or the runs predict no common label.
    """
    require_controls(list(controls))
    labels = _labels(folders, names)
    chosen = _reference(labels, reference)
    runs = [open_run(Path(folder)) for folder in folders]
    dataset = runs[0].open_dataset(dataset_path)
    for run in runs[1:]:
        run.check_dataset(dataset)
    samples = _common_samples(runs, dataset)
    rows = _common_rows(runs, dataset, split, samples)
    predicted: dict[str, NDArray[np.float64]] = {}
    ratios = {}
    for label, run in zip(labels, runs, strict=True):
        found = predict(
            run, dataset, rows, batch_size=batch_size, workers=workers, progress=progress
        )
        index = [run.card.samples.index(name) for name in samples]
        predicted[label] = found.expression[:, index].astype(np.float64)
        ratios[label] = found.mask_ratio
    data = runs[labels.index(chosen)].card.data
    fitted = fit_controls(dataset, data, samples, names=list(controls), progress=progress)
    for control in fitted:
        if not control.reason:
            predicted[f"control {control.name}"] = control.predict(rows)
    columns = [dataset.manifest.expression.samples.index(name) for name in samples]
    observed = dataset.expression[rows][:, columns].astype(np.float64)
    table = score(
        observed,
        predicted,
        samples=samples,
        split=split,
        num_resamples=num_resamples,
        reference=chosen,
    )
    table += [mean_row(name, "mask_ratio", ratio, split=split) for name, ratio in ratios.items()]
    about = [_facts(label, run) for label, run in zip(labels, runs, strict=True)]
    notes = _notes(about, runs, dataset)
    return Comparison(
        rows=table,
        runs=about,
        reference=chosen,
        notes=notes,
        inputs={
            "dataset": str(dataset.root),
            "dataset_checksum": dataset.manifest.checksum,
            "split": split,
            "samples": samples,
            "num_resamples": num_resamples,
            "level": 0.95,
            "reference": chosen,
            "runs": [dataclasses.asdict(item) for item in about],
            "notes": notes,
        },
    )


def _labels(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    labels = list(names or [Path(folder).resolve().name for folder in folders])
    if len(labels) != len(folders):
        raise InputError(
            facts(
                "--name",
                found=f"{len(labels)} names for {len(folders)} runs",
                expected="one name per run, or none",
                fix="give --name once per run, in their order",
            )
        )
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(
            facts(
                "runs",
                found="runs of the same name",
                expected="names that differ",
                fix="give each run a --name",
                count=len(twice),
                examples=twice,
            )
        )
    return labels


def _reference(labels: list[str], wanted: str | None) -> str:
    if wanted is None:
        return labels[0]
    if wanted not in labels:
        raise InputError(
            facts(
                "--reference",
                found=wanted,
                expected=f"one of {', '.join(labels)}",
                fix="use the name of a run",
            )
        )
    return wanted


def _common_samples(runs: list[TrainedRun], dataset: Dataset) -> list[str]:
    known = dataset.manifest.expression.samples
    samples = [
        name
        for name in runs[0].card.samples
        if name in known and all(name in run.card.samples for run in runs)
    ]
    if not samples:
        raise ConfigError(
            facts(
                "runs",
                found="no label that all of them predict and the dataset has",
                expected="at least one",
                fix="compare runs that were trained on the same data.samples",
                examples=["; ".join(", ".join(run.card.samples[:3]) for run in runs[:3])],
            )
        )
    return samples


def _common_rows(
    runs: list[TrainedRun], dataset: Dataset, split: str, samples: list[str]
) -> NDArray[np.int64]:
    """Labelled genes of the split whose window every run can read."""
    rows = dataset.gene_rows((split,))
    columns = [dataset.manifest.expression.samples.index(name) for name in samples]
    rows = rows[np.isfinite(dataset.expression[rows][:, columns]).any(axis=1)]
    for data in {run.card.data.window_bp: run.card.data for run in runs}.values():
        rows = usable_rows(dataset, rows, data, what=f"{split} genes")
    if not rows.size:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"no labelled gene in split {split!r} that all runs can read",
                expected="at least one",
                fix="choose another --split",
            )
        )
    return rows


def _facts(label: str, run: TrainedRun) -> RunFacts:
    settings = load_yaml(run.folder / "config.yaml")
    model = run.card.model
    kind = model.get("encoder") or f"{model.get('trunk', 'bimamba')}, mask {model.get('mask')}"
    return RunFacts(
        name=label,
        folder=str(run.folder),
        model=f"{model.get('name')}: {kind}",
        parameters=sum(p.numel() for p in run.models[0].parameters() if p.requires_grad),
        members=len(run.models),
        epochs=settings["fit"]["max_epochs"],
        updates=max(_steps(place.parent / "metrics.csv") for place in model_folders(run.folder)),
        window_bp=run.card.data.window_bp,
        bin_size=run.card.data.bin_size,
        tracks=[name for name in run.card.tracks if name != CONTACT],
    )


def _steps(metrics: Path) -> int:
    if not metrics.is_file():
        return 0
    with metrics.open(newline="", encoding="utf-8") as rows:
        return max((int(row["step"]) for row in csv.DictReader(rows)), default=0)


def _notes(about: list[RunFacts], runs: list[TrainedRun], dataset: Dataset) -> list[str]:
    notes = []
    if len({item.updates for item in about}) > 1:
        notes.append("the runs were trained for different numbers of steps")
    if len({item.members for item in about}) > 1:
        notes.append("ensembles stand beside single models")
    sizes = [item.parameters for item in about]
    if max(sizes) > 2 * max(min(sizes), 1):
        notes.append(f"the runs differ in size: {min(sizes):,} to {max(sizes):,} parameters")
    if len({tuple(run.card.train_contigs) for run in runs}) > 1:
        notes.append("the runs were trained on different contigs")
    elsewhere = [
        item.name
        for item, run in zip(about, runs, strict=True)
        if run.card.dataset_checksum != dataset.manifest.checksum
    ]
    if elsewhere:
        notes.append(f"trained on another dataset than this one: {', '.join(elsewhere)}")
    return notes


def _render(found: Comparison) -> str:
    overall = {(row["name"], row["metric"]): row for row in found.rows if row["sample"] is None}
    names = list(dict.fromkeys(name for name, metric in overall if metric == "mse"))
    about = {item.name: item for item in found.runs}
    best = {metric: best_of(overall, names, metric) for metric in _METRICS}
    num_genes = overall[(names[0], "mse")]["n"]
    header = ["", "parameters", "updates", "window", "MSE", "MAE", "R2", "Pearson", "Spearman"]
    table = [[*header, "mask", "MSE difference"]]
    for name in names:
        item = about.get(name)
        cells = [name + (" (reference)" if name == found.reference else "")]
        cells += (
            [f"{item.parameters:,}", f"{item.updates:,}", f"{item.window_bp:,}"]
            if item
            else ["", "", ""]
        )
        for metric in _METRICS:
            row = overall[(name, metric)]
            text = interval_text(row) if metric in _WITH_INTERVAL else number_text(row["value"])
            cells.append(text + ("*" if name == best[metric] else " "))
        ratio, paired = overall.get((name, "mask_ratio")), overall.get((name, "mse_difference"))
        cells.append(number_text(ratio["value"]) if ratio else "")
        cells.append(interval_text(paired) if paired else "")
        table.append(cells)
    lines = [
        heading(
            found.inputs["split"], num_genes=num_genes, num_samples=len(found.inputs["samples"])
        ),
        "",
        *align(table),
        "",
        f"* best of its column. MSE difference: MSE of the row minus MSE of {found.reference}, on",
        f"the same genes and resamples: above 0, {found.reference} is better. updates: most",
        "optimiser steps of one member.",
    ]
    if found.notes:
        lines += ["", *(f"Note: {note}." for note in found.notes)]
    return "\n".join(lines) + "\n"
