"""`seq2exp cohort train`: a model trained on people, in a run folder, resumable at any moment.

::

    RUN/                as of `seq2exp train` (seq2exp.training.run)
    RUN/split.json      sets of donors and genes, with hashes
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.genes import chosen_genes
from seq2exp.cohort.groups import GroupPlan
from seq2exp.cohort.module import OUTPUTS, CohortModule
from seq2exp.cohort.personal import PersonalGenes
from seq2exp.cohort.report_table import nested_donors
from seq2exp.cohort.samples import (
    GroupBatch,
    GroupSample,
    PeopleSamples,
    TrainingGroups,
    collate_groups,
)
from seq2exp.cohort.start import start_model
from seq2exp.cohort.targets import CohortTargets, cohort_targets
from seq2exp.core.errors import InputError, facts
from seq2exp.core.files import file_lock
from seq2exp.core.pool import run_tasks
from seq2exp.dataset.datamodule import SeededSampler
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import build_model
from seq2exp.training.checkpoint import ModelCard, save_model
from seq2exp.training.devices import is_leader, memory_errors, require_devices
from seq2exp.training.fitting import best_weights, fit_module, settle
from seq2exp.training.run import TrainedRun
from seq2exp.training.run_folder import (
    claim_folder,
    clean_start,
    finish_folder,
    refuse_occupied,
    sweep_folder,
)
from seq2exp.training.setup import filled_params, make_card, scale_inputs

__all__ = ["Cohort", "CohortData", "open_cohort", "train_cohort", "untrained_run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Everything about people that a configuration and a dataset decide.

    Attributes
    ----------
    config : CohortConfig
    dataset : Dataset
    targets : CohortTargets
    personal : PersonalGenes
    genes_G : bool array
        Genes that are used, of the gene table.
    """

    config: CohortConfig
    dataset: Dataset
    targets: CohortTargets
    personal: PersonalGenes
    genes_G: NDArray[np.bool_]

    def cells(self, name: str) -> NDArray[np.bool_]:
        """Return the cells of a set of the split with a target and of a used gene, (G, D)."""
        cells: NDArray[np.bool_] = self.targets.trainable(name) & self.genes_G[:, None]
        return cells

    def training_cells(self, share: float) -> NDArray[np.bool_]:
        """Return the training cells of a share of the people, nested in those of larger shares."""
        split = self.targets.split
        free = [
            name
            for name, kind in zip(split.donors, split.donor_sets, strict=True)
            if kind == "train"
        ]
        chosen = set(nested_donors(free, [share], seed=self.config.splits.seed)[share])
        kept = np.array([name in chosen for name in split.donors])
        return np.asarray(self.cells("train") & kept)


def open_cohort(config: CohortConfig, dataset: Dataset) -> Cohort:
    """Split, process the expression, and choose the genes; nothing of it sees a test person.

    Parameters
    ----------
    config : CohortConfig
    dataset : Dataset

    Raises
    ------
    InputError
        The dataset has no donors, or nothing to train on.
    """
    targets = cohort_targets(
        dataset, config.expression, config.splits, covariates=config.covariates
    )
    people = np.array([kind == "train" for kind in targets.split.donor_sets])
    personal = PersonalGenes(dataset, config.data, config.genotypes, train=np.flatnonzero(people))
    genes_G = chosen_genes(config.genes, targets, personal)
    cohort = Cohort(config, dataset, targets, personal, genes_G)
    if not cohort.cells("train").any():
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found="no seen gene with expression of a training person",
                expected="one or more",
                fix="check splits, and the genes of the expression table",
            )
        )
    return cohort


class CohortData(pl.LightningDataModule):
    """Groups of training people, and the validation people of every gene.

    Parameters
    ----------
    cohort : Cohort
    seed : int
        Decides groups, order and shifts.
    """

    def __init__(self, cohort: Cohort, *, seed: int) -> None:
        super().__init__()
        self.cohort, config = cohort, cohort.config
        known = cohort.training_cells(config.people_share)
        rows = np.flatnonzero(known.any(axis=1))
        plan = GroupPlan(rows, known[rows], config.groups, seed=seed)
        self.train = TrainingGroups(
            cohort.personal,
            cohort.targets,
            plan,
            jitter_bp=config.data.jitter_bp,
            reference_only=config.loss.name == "reference",
        )
        self.valid = _validation(cohort, rows)
        self.sampler = SeededSampler(len(self.train), seed=seed)

    def train_dataloader(self) -> DataLoader[GroupSample]:
        """Return the groups of the current epoch."""
        if self.trainer is not None:
            self.train.set_epoch(self.trainer.current_epoch)
            self.sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(self.train, sampler=self.sampler)

    def val_dataloader(self) -> DataLoader[GroupSample]:
        """Return the validation people of seen genes, and validation genes, in table order."""
        return self._loader(self.valid)

    def _loader(self, samples: Any, **options: Any) -> DataLoader[GroupSample]:  # noqa: ANN401
        fit = self.cohort.config.fit
        return DataLoader(
            samples,
            batch_size=fit.batch_size,
            num_workers=fit.workers,
            collate_fn=collate_groups,
            **options,
        )

    def transfer_batch_to_device(
        self, batch: GroupBatch, device: torch.device, dataloader_idx: int
    ) -> GroupBatch:
        """Move a batch (Lightning calls it)."""
        return batch.to(device)


def _validation(cohort: Cohort, seen: NDArray[np.int64]) -> PeopleSamples:
    """Return validation people of the genes trained on; and unseen genes, for their level only."""
    people, genes = cohort.cells("valid"), cohort.cells("valid_genes")
    held = seen[people[seen].any(axis=1)]
    unseen = np.flatnonzero(genes.any(axis=1))
    if not len(held):
        raise InputError(
            facts(
                "splits",
                found="no validation person with expression of a seen gene",
                expected="one or more, who choose the best epoch",
                fix="set splits.valid_share above 0",
            )
        )
    rows = np.concatenate([held, unseen])
    # The level of a gene is that of the reference: nobody's haplotypes are needed.
    nobody = np.zeros((len(unseen), people.shape[1]), dtype=bool)
    asked = people[held] & (cohort.config.loss.name != "reference")
    cells = np.concatenate([asked, nobody])
    flags = np.arange(len(rows)) >= len(held)
    return PeopleSamples(cohort.personal, cohort.targets, rows, cells, flags)


def train_cohort(config: CohortConfig, data: Path, out: Path, *, resume: str = "auto") -> None:
    """Train every member of a configuration on people; continue where a killed run stopped.

    Parameters
    ----------
    config : CohortConfig
    data : Path
        Dataset directory, with genotypes and expression of donors.
    out : Path
        Run folder.
    resume : {"auto", "never"}
        ``auto`` continues an unfinished run of the same configuration and dataset; ``never``
        refuses a folder that holds anything.

    Raises
    ------
    InputError
        The folder holds another run, or the dataset nothing to train on.
    ConfigError
        The configuration does not fit the dataset.
    """
    require_devices(config)
    dataset, out = Dataset(data), Path(out).absolute()
    seeds = range(config.seed, config.seed + config.fit.seeds)
    jobs = [_Member(config, dataset.root, member_folder(config, out, seed), seed) for seed in seeds]
    if not is_leader(config):
        # Another rank of the same run; the first one owns the folder.
        for job in jobs:
            job.run()
        return
    refuse_occupied(out, resume)
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", what=f"run {out}"), clean_start(out):
        claim_folder(config, config.seed, dataset, out)
        if not (out / "split.json").is_file():
            open_cohort(config, dataset).targets.split.write(out / "split.json")
        for _ in run_tasks(jobs, config.fit.parallel):
            pass
        finish_folder(out)


def member_folder(config: CohortConfig, out: Path, seed: int) -> Path:
    """Return where a member of a run is written."""
    return out / "members" / f"seed_{seed}" if config.fit.seeds > 1 else out


@dataclass(frozen=True)
class _Member:
    """One model to train."""

    config: CohortConfig
    dataset: Path
    folder: Path
    seed: int

    @property
    def label(self) -> str:
        return f"cohort, seed {self.seed}"

    def run(self) -> None:
        _train_member(self)


def _train_member(job: _Member) -> None:
    config, folder = job.config, job.folder
    if (folder / "model" / "config.yaml").is_file():
        logger.info("%s is already finished", folder)
        return
    settle(config.fit, job.seed)
    cohort = open_cohort(config, Dataset(job.dataset))
    data = CohortData(cohort, seed=job.seed)
    samples = GeneSamples(cohort.dataset, config.data, data.train.plan.genes)
    if config.start_from:
        model, params = start_model(config, samples)
    else:
        params = filled_params(config.model, config.data, samples, len(OUTPUTS))
        model = build_model(str(params["name"]), {k: v for k, v in params.items() if k != "name"})
        scale_inputs(model, samples)
    _scale_outputs(model, cohort, started=bool(config.start_from))
    if is_leader(config):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        sweep_folder(folder)
    fit = config.fit
    per_epoch = math.ceil(len(data.train) / (fit.batch_size * fit.devices * fit.num_nodes))
    ploidy = cohort.personal.genotypes.ploidy
    module = CohortModule(
        model,
        config.optim,
        config.loss,
        total_steps=math.ceil(per_epoch / fit.accumulate) * fit.max_epochs,
        gene_ids=cohort.dataset.genes["gene_id"].astype(str).tolist(),
        sample_masks=config.sample_masks,
        # As many as a training batch has at most, and the reference of each gene.
        sequences_at_once=fit.batch_size * (ploidy * config.groups.people + 1),
    )
    with memory_errors(config):
        fit_module(module, data, fit, folder, seed=job.seed, label=job.label)
    if not is_leader(config):
        return
    model.load_state_dict(best_weights(folder))
    save_model(model, _card(config, params, samples), folder / "model")


def untrained_run(config: CohortConfig, dataset: Dataset) -> TrainedRun:
    """Return a run of the same model with the weights that training would begin with.

    Without ``start_from``: a model that has learnt nothing at all.
    """
    settle(config.fit, config.seed)
    cohort = open_cohort(config, dataset)
    rows = np.flatnonzero(cohort.cells("train").any(axis=1))
    samples = GeneSamples(dataset, config.data, rows)
    params = filled_params(config.model, config.data, samples, len(OUTPUTS))
    model = build_model(str(params["name"]), {k: v for k, v in params.items() if k != "name"})
    scale_inputs(model, samples)
    _scale_outputs(model, cohort, started=False)
    return TrainedRun(Path(), [model.eval()], _card(config, params, samples))


def _card(config: CohortConfig, params: dict[str, Any], samples: GeneSamples) -> ModelCard:
    return make_card(
        params,
        config.data,
        samples,
        outputs=OUTPUTS,
        unit=config.expression.unit,
        transform=config.expression.transform,
    )


def _scale_outputs(model: nn.Module, cohort: Cohort, *, started: bool) -> None:
    """Start the level from the moments of the training genes; the difference is in SDs."""
    mean = cohort.targets.mean_G[cohort.cells("train").any(axis=1)]
    mean = mean[np.isfinite(mean)].astype(np.float64)
    if not started:
        centre, spread = torch.tensor([mean.mean(), 0.0]), torch.tensor([mean.std(), 1.0])
        model.set_output_scaling(centre, spread)  # type: ignore[operator]
