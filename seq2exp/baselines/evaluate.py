"""`seq2exp evaluate`: a trained run beside every control, on the same genes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.baselines.controls import FittedControl, fit_controls, require_controls
from seq2exp.baselines.scoring import MODEL, Row, mean_row, score
from seq2exp.baselines.table import render
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import atomic_file, write_json
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.format import SPLITS, write_table
from seq2exp.dataset.store import Dataset
from seq2exp.training.config import CONTROLS as TRAINED_CONTROLS
from seq2exp.training.predict import Prediction, gene_table, predict
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["Evaluation", "evaluate", "write_evaluation"]

_FEW_GENES = 10
_TRAINED_TITLES = {
    "sequence_only": "same model, trained without tracks",
    "shuffled_tracks": "same model, trained on tracks of other genes",
}


@dataclass(frozen=True)
class Evaluation:
    """What `seq2exp evaluate` found; nothing is written yet.

    Attributes
    ----------
    rows : list of dict
        name, metric, split, sample, value, low, high, n; see :func:`score`.
    genes : DataFrame
        One row per gene of the split: identity, observed, predicted and control predictions.
    controls : list of FittedControl
        Settings of each control, or why it is not applicable.
    notes : list of str
        What a reader must know before concluding anything.
    inputs : dict
        Run, dataset, split, bootstrap, settings of the controls and the notes, as in the JSON file.
    """

    rows: list[Row]
    genes: pd.DataFrame
    controls: list[FittedControl]
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the table for people."""
        return render(self.rows, self.controls, notes=self.notes, split=self.inputs["split"])

    def document(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return {"command": "evaluate", "inputs": self.inputs, "rows": self.rows}


def evaluate(
    run_folder: Path,
    dataset_path: Path | None = None,
    *,
    split: str = "test",
    batch_size: int = 16,
    workers: int = 0,
    num_resamples: int = 1000,
    controls: list[str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a run and its controls across the genes of a split.

    Parameters
    ----------
    run_folder : Path
    dataset_path : Path, optional
        The dataset the run was trained on when not given.
    split : str
        test, valid or train.
    batch_size, workers : int
        Change speed, not numbers.
    num_resamples : int
        Bootstrap resamples of genes.
    controls : list of str, optional
        Fitted controls to include; all but the extra ones when not given.
    progress : bool
        Show progress.

    Raises
    ------
    InputError
        The split is unknown or has no labelled gene.
    ConfigError
        The dataset does not fit the run.
    """
    require_controls(controls or [])
    run = open_run(Path(run_folder))
    dataset = run.open_dataset(dataset_path)
    samples = _shared_samples(run, dataset)
    rows = _rows(dataset, split, samples)
    rows = usable_rows(dataset, rows, run.card.data, what=f"{split} genes")
    options = {"batch_size": batch_size, "workers": workers, "progress": progress}
    prediction = predict(run, dataset, rows, **options)  # type: ignore[arg-type]
    genes = gene_table(run, dataset, prediction)
    predicted = {MODEL: _columns(prediction, run, samples)}
    ratios = {MODEL: prediction.mask_ratio}
    found = fit_controls(dataset, run.card.data, samples, names=controls, progress=progress)
    for control in found:
        if not control.reason:
            predicted[control.name] = control.predict(rows)
    for name in TRAINED_CONTROLS:
        control, other = _trained(run, name, dataset)
        found.append(control)
        if other is not None:
            result = predict(other, dataset, rows, **options)  # type: ignore[arg-type]
            predicted[name] = _columns(result, other, samples)
            ratios[name] = result.mask_ratio
    index = [dataset.manifest.expression.samples.index(name) for name in samples]
    observed = dataset.expression[rows][:, index].astype(np.float64)
    table = score(observed, predicted, samples=samples, split=split, num_resamples=num_resamples)
    table += [mean_row(name, "mask_ratio", ratio, split=split) for name, ratio in ratios.items()]
    for name, values in predicted.items():
        if name != MODEL:
            for k, sample in enumerate(samples):
                genes[f"control:{name}:{sample}"] = values[:, k].astype(np.float32)
    notes = _notes(run, dataset, observed, split)
    return Evaluation(
        rows=table,
        genes=genes,
        controls=found,
        notes=notes,
        inputs={
            "run": str(Path(run_folder)),
            "dataset": str(dataset.root),
            "dataset_checksum": dataset.manifest.checksum,
            "split": split,
            "samples": samples,
            "num_resamples": num_resamples,
            "level": 0.95,
            "controls": {control.name: _settings(control) for control in found},
            "notes": notes,
        },
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write the rows as JSON and the predictions as Parquet, each whole or not at all.

    The test split goes into ``evaluation.json`` and ``predictions.parquet``, another split into
    ``evaluation.SPLIT.json`` and ``predictions.SPLIT.parquet``. Older files are replaced.

    Parameters
    ----------
    evaluation : Evaluation
    folder : Path
        Run folder, or any other.

    Returns
    -------
    (Path, Path)
        JSON file, Parquet file.

    Raises
    ------
    FormatError
        A gene has two rows, or a prediction is not a number.
    """
    split = evaluation.inputs["split"]
    part = "" if split == "test" else f".{split}"
    json_path = Path(folder) / f"evaluation{part}.json"
    target = Path(folder) / f"predictions{part}.parquet"
    _check_genes(evaluation.genes)
    with atomic_file(target, overwrite=True) as partial:
        write_table(evaluation.genes, partial, metadata={"seq2exp.schema": "predictions-1"})
    write_json(evaluation.document(), json_path)
    return json_path, target


def _settings(control: FittedControl) -> dict[str, Any]:
    if control.reason:
        return {"not_applicable": control.reason}
    return {"title": control.title, **control.settings}


def _shared_samples(run: TrainedRun, dataset: Dataset) -> list[str]:
    known = dataset.manifest.expression.samples
    samples = [name for name in run.card.samples if name in known]
    if not samples:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"samples {', '.join(known) or 'none'}",
                expected=f"some of {', '.join(run.card.samples)}",
                fix="evaluate on a dataset with the labels the model predicts",
            )
        )
    return samples


def _rows(dataset: Dataset, split: str, samples: list[str]) -> NDArray[np.int64]:
    if split not in SPLITS:
        raise InputError(
            facts("--split", found=split, expected=f"one of {', '.join(SPLITS)}", fix="use test")
        )
    rows = dataset.gene_rows((split,))
    index = [dataset.manifest.expression.samples.index(name) for name in samples]
    if not np.isfinite(dataset.expression[rows][:, index]).any():
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"no labelled gene in split {split!r}",
                expected="at least one",
                fix="choose another --split, or change the splits of the data configuration",
            )
        )
    return rows


def _columns(prediction: Prediction, run: TrainedRun, samples: list[str]) -> NDArray[np.float64]:
    index = [run.card.samples.index(name) for name in samples]
    return prediction.expression[:, index].astype(np.float64)


def _trained(
    run: TrainedRun, name: str, dataset: Dataset
) -> tuple[FittedControl, TrainedRun | None]:
    """Open a trained control of a run, or say why it is not there."""
    title, folder = _TRAINED_TITLES.get(name, name), run.folder / "controls" / name
    reason = ""
    if not folder.is_dir():
        reason = f"not trained (add {name} to `controls` of the training configuration)"
        if not run.card.tracks:
            reason = "the model reads no tracks"
        return FittedControl(name, title, reason=reason), None
    try:
        other = open_run(folder)
    except InputError:
        return FittedControl(name, title, reason="its training has not finished"), None
    other.check_dataset(dataset)
    return FittedControl(name, title, {"run": f"controls/{name}"}), other


def _notes(
    run: TrainedRun, dataset: Dataset, observed: NDArray[np.float64], split: str
) -> list[str]:
    notes = []
    num_genes = int(np.isfinite(observed).any(axis=1).sum())
    if num_genes < _FEW_GENES:
        notes.append(f"too few genes to conclude: {num_genes} labelled in split {split}")
    if split != "test":
        notes.append(
            f"split {split} took part in fitting or choosing the model and the controls; "
            "only the test split is held out"
        )
    genes = dataset.genes
    train = set(genes.loc[genes["split"] == "train", "contig"].astype(str))
    shared = sorted(train & set(genes.loc[genes["split"] == split, "contig"].astype(str)))
    if shared and split != "train":
        notes.append(
            f"split by region, not by contig: {', '.join(shared[:3])} hold(s) genes of train and "
            f"of {split}, and neighbouring genes share regulatory elements"
        )
    if dataset.manifest.checksum != run.card.dataset_checksum:
        notes.append(
            "this is not the dataset the run was trained on; controls were fitted on the train "
            "split of this one"
        )
    return notes


def _check_genes(genes: pd.DataFrame) -> None:
    twice = genes["gene_id"][genes["gene_id"].duplicated()].tolist()
    columns = [name for name in genes.columns if name.startswith(("predicted:", "control:"))]
    broken = [name for name in columns if not np.isfinite(genes[name]).all()]
    if twice or broken:
        raise FormatError(
            facts(
                "predictions",
                found="genes with two rows" if twice else "predictions that are not numbers",
                expected="one finite prediction per gene",
                fix="look for duplicate gene ids in the dataset, or NaN in the model",
                count=len(twice) or len(broken),
                examples=twice or broken,
            )
        )
