"""`seq2exp cohort benchmark`: models and linear baselines under one protocol; continues if killed.

::

    OUT/config.yaml, manifest.json   what was asked for, of which dataset
    OUT/split.json                   sets of donors and genes, with hashes
    OUT/expression.parquet           targets of every gene and donor
    OUT/predictions/NAME.parquet     gene_id, donor, value (and level, difference of a model)
    OUT/linear.parquet               per gene and linear model: variants, penalty, status
    OUT/heritability.parquet         per gene, by REML and Haseman-Elston
    OUT/runs/NAME/                   run of each model
    OUT/table.tsv, table.json        every number, with intervals
    OUT/genes.parquet                accuracy per gene and model

Every file is made once and renamed into place; a second run makes what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.cohort.benchmark_config import BenchmarkConfig, model_config
from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.heritability import cis_heritability
from seq2exp.cohort.judging import SPLITS, judge, read_predictions
from seq2exp.cohort.linear import LinearConfig
from seq2exp.cohort.linear_genes import LinearResults, fit_genes
from seq2exp.cohort.losses import LOSSES
from seq2exp.cohort.other_tools import fit_predictions
from seq2exp.cohort.predict import PeoplePrediction, open_cohort_run, predict_people
from seq2exp.cohort.report_table import BenchmarkPlan
from seq2exp.cohort.train import Cohort, open_cohort, train_cohort, untrained_run
from seq2exp.core.config import require_known
from seq2exp.core.files import atomic_file, file_lock, write_json
from seq2exp.core.progress import track
from seq2exp.dataset.format import read_table, write_table
from seq2exp.dataset.store import Dataset
from seq2exp.training.fitting import settle
from seq2exp.training.metrics import Row
from seq2exp.training.run import TrainedRun
from seq2exp.training.run_folder import claim_folder, clean_start, finish_folder, refuse_occupied

__all__ = [
    "Benchmark",
    "BenchmarkResult",
    "evaluate_run",
    "run_benchmark",
]

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """What a benchmark found.

    Attributes
    ----------
    rows : list of dict
        name, metric, split, value, low, high, n, stratum.
    genes : DataFrame
        One row per split, gene and model.
    notes : list of str
        What a reader must know of the protocol.
    """

    rows: list[Row]
    genes: pd.DataFrame
    notes: list[str]


class Benchmark:
    """The files of a benchmark, and the steps that make them.

    Parameters
    ----------
    config : BenchmarkConfig
    dataset : Dataset
    out : Path
    progress : bool
    """

    def __init__(
        self, config: BenchmarkConfig, dataset: Dataset, out: Path, *, progress: bool = False
    ) -> None:
        self.config, self.dataset, self.out, self.progress = config, dataset, out, progress
        self.cohort: Cohort = open_cohort(config.cohort, dataset)
        self.gene_ids = dataset.genes["gene_id"].astype(str).to_numpy()
        self.donors = list(self.cohort.targets.split.donors)
        # Seen genes and tested ones; validation genes only help to choose the epoch.
        tested = np.zeros(len(self.gene_ids), dtype=bool)
        for name in ("train", *SPLITS):
            tested |= self.cohort.cells(name).any(axis=1)
        self.rows = np.flatnonzero(tested)

    def make(self, others: Mapping[str, pd.DataFrame]) -> BenchmarkResult:
        """Make what is missing, and judge it beside predictions that others made."""
        (self.out / "predictions").mkdir(parents=True, exist_ok=True)
        if not (self.out / "split.json").is_file():
            self.cohort.targets.split.write(self.out / "split.json")
        self._once("expression.parquet", self._expression)
        self._once("heritability.parquet", self._heritability)
        names = self._linear()
        self._models()
        names += list(self.config.models)
        names += ["untrained"] if self.config.untrained and self.config.models else []
        tables = {name: read_table(self.out / "predictions" / f"{name}.parquet") for name in names}
        h2 = read_table(self.out / "heritability.parquet").set_index("gene_id")
        rows, genes = judge(self.cohort, {**tables, **others}, h2, self.config)
        return BenchmarkResult(rows, genes, self._notes())

    def _notes(self) -> list[str]:
        counts = self.cohort.targets.split.counts()
        listed = ", ".join(f"{number} {name}" for name, number in counts.items())
        block = self.config.block_bp or self.config.cohort.data.window_bp
        return [
            *self.cohort.targets.processed.notes,
            f"split: {listed}",
            f"intervals: bootstrap over genes, those in one block of {block:,} bases together",
            "undefined correlations count as 0",
            self._h2_note(),
        ]

    def _h2_note(self) -> str:
        """Say on whom h2 was estimated: a yardstick that has seen the tested people."""
        cells = self.cohort.cells("A")
        num = int(cells.any(axis=0).sum())
        return (
            f"h2: REML in all {len(self._h2_people())} people of the training populations, the "
            f"{num} tested ones of A among them, also for B and C; no model and no choice of genes "
            "sees it, strata by h2 do. The share of h2 is corrected for what chance adds to r^2 in "
            "few people"
        )

    def _h2_people(self) -> NDArray[np.int64]:
        sets = self.cohort.targets.split.donor_sets
        return np.flatnonzero([kind in ("train", "valid", "test") for kind in sets])

    def _once(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a table of the folder; make it where it is not there."""
        path = self.out / name
        if not path.is_file():
            frame = make()
            with atomic_file(path) as unfinished:
                write_table(frame, unfinished)
        return read_table(path)

    def _expression(self) -> pd.DataFrame:
        targets, rows = self.cohort.targets, self.rows
        gene, donor = np.nonzero(np.isfinite(targets.raw_GD[rows]))
        return pd.DataFrame(
            {
                "gene_id": self.gene_ids[rows][gene],
                "donor": np.array(self.donors)[donor],
                "raw": targets.raw_GD[rows][gene, donor],
                "corrected": targets.corrected_GD[rows][gene, donor],
            }
        )

    def _heritability(self) -> pd.DataFrame:
        """Estimate h2 of every gene in all people of the training populations."""
        targets, people = self.cohort.targets, self._h2_people()
        found = []
        for gene in track(
            self.rows.tolist(), total=len(self.rows), label="heritability", enabled=self.progress
        ):
            dosage, snv = self.cohort.personal.dosage(gene, people)
            estimate = cis_heritability(
                dosage[:, snv],
                targets.corrected_GD[gene, people].astype(np.float64),
                min_maf=self.config.linear.min_maf,
                ploidy=self.cohort.personal.genotypes.ploidy,
            )
            found.append({"gene_id": self.gene_ids[gene], **vars(estimate)})
        return pd.DataFrame(found)

    def _linear(self) -> list[str]:
        """Fit the linear baselines on training people, or shares of them, and predict everyone."""
        names = []
        for share in (1.0, *self.config.learning_curve):
            suffix = "" if share == 1 else f"@{share:g}"
            chosen = [name for name in self.config.linear.models if not (suffix and name == "mean")]
            names += [f"{name}{suffix}" for name in chosen]
            paths = [self.out / "predictions" / f"{name}{suffix}.parquet" for name in chosen]
            table = f"linear{suffix}.parquet"
            if all(path.is_file() for path in (*paths, self.out / table)):
                continue
            found = self._fitted(replace(self.config.linear, models=chosen), share)
            for name, path in zip(chosen, paths, strict=True):
                with atomic_file(path, overwrite=True) as unfinished:
                    write_table(self._long(found.predictions[name]), unfinished)
            self._once(table, partial(_table_of, found))
        return names

    def _fitted(self, config: LinearConfig, share: float) -> LinearResults:
        targets, personal = self.cohort.targets, self.cohort.personal
        everyone = np.arange(len(self.donors))
        row_of = dict(zip(self.gene_ids[self.rows], self.rows.tolist(), strict=True))
        steps = track(
            range(len(self.rows)),
            total=len(self.rows),
            label="linear models" if share == 1 else f"linear models, {share:g} of the people",
            enabled=self.progress,
        )

        def one_more(gene: str) -> None:
            next(steps, None)

        found = fit_genes(
            list(row_of),
            lambda gene: personal.dosage(row_of[gene], everyone)[0],
            targets.corrected_GD[self.rows],
            train=self.cohort.training_cells(share)[self.rows],
            valid=self.cohort.cells("valid")[self.rows],
            load_snps=lambda gene: personal.dosage(row_of[gene], everyone[:1])[1],
            config=config,
            ploidy=personal.genotypes.ploidy,
            on_gene=one_more,
        )
        # A gene is counted when the next one is asked for: the last one now.
        one_more("")
        return found

    def _long(self, values_GD: Floats) -> pd.DataFrame:
        gene, donor = np.nonzero(np.isfinite(values_GD))
        return pd.DataFrame(
            {
                "gene_id": self.gene_ids[self.rows][gene],
                "donor": np.array(self.donors)[donor],
                "value": values_GD[gene, donor],
            }
        )

    def _models(self) -> None:
        names = list(self.config.models)
        for place, name in enumerate(names):
            run_folder = self.out / "runs" / name
            settings = model_config(
                self.config, name, known=names[:place], runs=str(self.out / "runs")
            )
            path = self.out / "predictions" / f"{name}.parquet"
            if path.is_file():
                continue
            logger.info("model %s (%d of %d)", name, place + 1, len(names))
            train_cohort(settings, self.dataset.root, run_folder)
            run, _ = open_cohort_run(run_folder)
            self.predict(run, settings, name)
        if self.config.untrained and names:
            path = self.out / "predictions" / "untrained.parquet"
            if not path.is_file():
                settings = model_config(
                    self.config, names[0], known=[], runs=str(self.out / "runs")
                )
                self.predict(untrained_run(settings, self.dataset), settings, "untrained")

    def predict(self, run: TrainedRun, settings: CohortConfig, name: str) -> pd.DataFrame:
        """Return predictions for all people that validate or test, made once."""
        (self.out / "predictions").mkdir(parents=True, exist_ok=True)
        return self._once(f"predictions/{name}.parquet", lambda: self._table(run, settings, name))

    def _table(self, run: TrainedRun, settings: CohortConfig, name: str) -> pd.DataFrame:
        # Threads as in training, so that a continued benchmark rounds like an unbroken one.
        settle(settings.fit, settings.seed)
        # A model may read other windows than the linear baselines.
        personal = open_cohort(settings, self.dataset).personal
        people = np.zeros((len(self.rows), len(self.donors)), dtype=bool)
        for split in ("valid", *SPLITS):
            people |= self.cohort.cells(split)[self.rows]
        found = predict_people(
            run,
            personal,
            self.rows,
            people,
            progress=self.progress,
            label=f"predict {name}",
        )
        return model_table(found, settings.loss.name, self.dataset.genes, self.donors)


def _table_of(found: LinearResults) -> pd.DataFrame:
    return found.table


def model_table(
    found: PeoplePrediction, loss: str, genes: pd.DataFrame, donors: list[str]
) -> pd.DataFrame:
    """Return predictions with the column ``value``: the output that ranks people.

    A level that the loss does not train is left out.
    """
    kind, table = LOSSES[loss], found.table(genes, donors)
    table["value"] = table[kind.people]
    return table if kind.level else table.drop(columns="level")


def run_benchmark(
    config: BenchmarkConfig,
    data: Path,
    out: Path,
    *,
    tables: Mapping[str, Path] | None = None,
    resume: str = "auto",
    progress: bool = False,
) -> BenchmarkResult:
    """Train, predict and judge everything of a configuration; continue where it was killed.

    Parameters
    ----------
    config : BenchmarkConfig
    data : Path
        Dataset with genotypes and expression of donors.
    out : Path
    tables : mapping of str to Path, optional
        Predictions of other tools by name: TSV or Parquet with columns gene (or gene_id), donor,
        value.
    resume : {"auto", "never"}
    progress : bool

    Raises
    ------
    InputError
        The folder holds another benchmark; a table of predictions does not fit.
    """
    dataset, out = Dataset(data), Path(out).absolute()
    names = [*config.linear.models, *config.models, "untrained"]
    others = {name: read_predictions(path) for name, path in (tables or {}).items()}
    if config.plan.reference != BenchmarkPlan().reference:
        names += tables or {}
        require_known(
            "plan.reference", config.plan.reference, names, expected="a name of this table"
        )
    refuse_occupied(out, resume)
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", what=f"benchmark {out}"), clean_start(out):
        claim_folder(config, config.cohort.seed, dataset, out)
        benchmark = Benchmark(config, dataset, out, progress=progress)
        own = {*config.linear.models, *config.models, "untrained"}
        tested = np.any([benchmark.cohort.cells(split) for split in SPLITS], axis=0)
        others = {
            name: fit_predictions(
                table,
                name,
                genes=benchmark.gene_ids.tolist(),
                donors=benchmark.donors,
                tested_GD=tested,
                taken=own,
            )
            for name, table in others.items()
        }
        found = benchmark.make(others)
        _write(found, out)
        finish_folder(out)
    return found


def evaluate_run(
    run_folder: Path, *, data: Path | None, out: Path, progress: bool = False
) -> BenchmarkResult:
    """Judge a finished run of `seq2exp cohort train` beside the linear baselines.

    Parameters
    ----------
    run_folder : Path
    data : Path, optional
        Dataset; that of the training when not given.
    out : Path
        Folder of the numbers; what it holds already is not computed again.
    progress : bool

    Raises
    ------
    InputError
        There is no such run, or the folder holds numbers of another one.
    """
    run, settings = open_cohort_run(run_folder)
    dataset = run.open_dataset(data)
    config = BenchmarkConfig(cohort=settings, plan=BenchmarkPlan(reference="model"))
    out = Path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", what=f"evaluation {out}"), clean_start(out):
        claim_folder(config, settings.seed, dataset, out)
        benchmark = Benchmark(config, dataset, out, progress=progress)
        table = benchmark.predict(run, settings, "model")
        found = benchmark.make({"model": table})
        _write(found, out)
        finish_folder(out)
    return found


def _write(found: BenchmarkResult, out: Path) -> None:
    with atomic_file(out / "genes.parquet", overwrite=True) as unfinished:
        write_table(found.genes, unfinished)
    with atomic_file(out / "table.tsv", overwrite=True) as unfinished:
        pd.DataFrame(found.rows).to_csv(unfinished, sep="\t", index=False)
    write_json({"rows": found.rows, "notes": found.notes}, out / "table.json")
