"""Variants of a file scored with a run: from the input to its outputs, at any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

import seq2exp
from seq2exp.core.files import sha256
from seq2exp.core.work import fingerprint
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.training.run import TrainedRun, model_folders, open_run
from seq2exp.variants.background import Background
from seq2exp.variants.claim import names_pending
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import Engine, open_engine
from seq2exp.variants.execute import Scorer, Share, estimated_bytes
from seq2exp.variants.gradient import mask_gradient
from seq2exp.variants.made import WORK, made_of
from seq2exp.variants.merge import Parts
from seq2exp.variants.outputs import check_outputs, write_outputs
from seq2exp.variants.room import tell_memory
from seq2exp.variants.scale import Identity, Job, Outcome, idle_share, score_in_parts
from seq2exp.variants.shifts import with_shifts
from seq2exp.variants.significance import QCounts
from seq2exp.variants.source import VariantSource
from seq2exp.variants.summary import Summary

__all__ = [
    "EngineMaker",
    "KeptOpen",
    "Opened",
    "Scored",
    "genes_per_allele",
    "header_of",
    "identity_of",
    "model_sha256",
    "score_hash",
    "score_variants",
]


@dataclass(frozen=True)
class Scored:
    """What became of an input.

    Attributes
    ----------
    outcome : Outcome
        Of the work; without the merge there are no outputs yet.
    summary : Summary
        Counts of what this process is to answer for.
    columns : list of ScoreColumn
    """

    outcome: Outcome
    summary: Summary
    columns: list[ScoreColumn]


class Opened(NamedTuple):
    """What an engine is made of, read once in a process."""

    run: TrainedRun
    dataset: Dataset
    background: Background | None = None


@dataclass(frozen=True)
class EngineMaker:
    """Opens an engine in the process that scores; sends paths and settings only.

    Attributes
    ----------
    run_folder, data : Path
    config : ScoreConfig
    background : Path or None
    score_hash : str
        That the background must have.
    genotypes : Path or None
        Folder with the genotypes of the input.
    opened : Opened or None
        What is open in this process already; another one opens its own.
    """

    run_folder: Path
    data: Path
    config: ScoreConfig
    background: Path | None = None
    score_hash: str = ""
    genotypes: Path | None = None
    opened: Opened | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "opened": None}

    def __call__(self, worker: int) -> Scorer:
        """Return what scores tables of alleles, on the device of a worker."""
        engine, stack = self.open(worker)
        return KeptOpen(engine.score, stack)

    def open(self, worker: int) -> tuple[Engine, ExitStack]:
        """Return an engine on the device of a worker, and what keeps it open."""
        if torch.cuda.is_available():
            torch.cuda.set_device(worker % torch.cuda.device_count())
        # Open as long as the process lives.
        stack = ExitStack()
        opened = self.opened or self._open()
        engine = stack.enter_context(
            open_engine(
                opened.run,
                opened.dataset,
                self.config,
                background=opened.background,
                genotypes=None if self.genotypes is None else Genotypes(self.genotypes),
            )
        )
        return engine, stack

    def _open(self) -> Opened:
        common = None
        if self.background is not None:
            common = Background.load(self.background, model_hash=self.score_hash)
        return Opened(open_run(self.run_folder), Dataset(self.data), common)


@dataclass(frozen=True)
class KeptOpen:
    """What scores tables, and what keeps its engine open as long as it is there.

    Attributes
    ----------
    score : callable
    stack : ExitStack
    """

    score: Scorer
    stack: ExitStack

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the scores of a table."""
        return self.score(table)


def model_sha256(run: TrainedRun) -> str:
    """Return one checksum of the weights and settings of all members."""
    names = ("config.yaml", "model.safetensors")
    sums = [sha256(folder / name) for folder in model_folders(run.folder) for name in names]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def score_hash(weights: str, config: ScoreConfig) -> str:
    """Return what backgrounds are told apart by: the model, and how it makes a score.

    Parameters
    ----------
    weights : str
        `model_sha256`.
    config : ScoreConfig
        Which scores and variants it names does not count.
    """
    ways = ["method", "ensemble", "strands", "shifts", "indel_shifts", "mask_bp", "context"]
    if config.context != "reference":
        ways += ["carriers", "max_carriers", "phase", "seed"]
    text = "\t".join([weights, *(f"{name}={getattr(config, name)}" for name in ways)])
    return hashlib.sha256(text.encode()).hexdigest()


def score_variants(
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    outs: Sequence[Path],
    config: ScoreConfig,
    *,
    background: Path | None = None,
    genotypes: Path | None = None,
    long: bool = False,
    workers: int = 1,
    share: Share | None = None,
    overwrite: bool = False,
    restart: bool = False,
    keep_parts: bool = False,
    progress: bool = False,
) -> Scored:
    """Score all variants of a source and write the outputs; continues a killed call.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    source : VariantSource
    outs : sequence of Path
        The ending names the format.
    config : ScoreConfig
    background : Path, optional
        Scores of common variants, which `seq2exp variants background` wrote; adds quantiles.
    genotypes : Path, optional
        Folder with the genotypes of the input, for the haplotypes of its carriers.
    long : bool
        Tables with one row per score.
    workers : int
        Processes on this machine.
    share : Share, optional
        Only a part of the work; see `seq2exp.variants.scale`.
    overwrite, restart, keep_parts : bool
        Replace outputs; throw the parts of an earlier call away; keep those of this one.
    progress : bool

    Returns
    -------
    Scored

    Raises
    ------
    InputError, ConfigError, FormatError
        As `open_engine`, `check_outputs` and `score_in_parts` say.
    """
    config = with_shifts(config, run.card.data)
    identity = identity_of(run, dataset, source, config, background=background, long=long)
    weights, mark = identity.model_sha256, fingerprint(identity.values())
    made = partial(made_of, outs, mark)
    idle = None if share is None else idle_share(share, source.num_shards, made)
    if idle is not None:
        return Scored(idle, Summary(), [])
    check_outputs(outs, inputs=[source.path], overwrite=overwrite or names_pending(outs))
    ways = score_hash(weights, config)
    common = None if background is None else Background.load(background, model_hash=ways)
    calls = None if genotypes is None else Genotypes(genotypes)
    with open_engine(run, dataset, config, background=common, genotypes=calls) as engine:
        columns = engine.columns
        per_allele = genes_per_allele(engine, dataset)
        tell_memory(engine, processes=workers)
    header = {**header_of(run, dataset, weights, config), WORK: mark}

    def write(parts: Parts, targets: Mapping[Path, Path]) -> None:
        write_outputs(
            list(targets.values()),
            source,
            _with_q(parts, columns),
            columns,
            header,
            long=long,
            overwrite=True,
            progress=progress,
        )

    outcome = score_in_parts(
        source,
        EngineMaker(
            run.folder.absolute(),
            dataset.root.absolute(),
            config,
            None if background is None else background.absolute(),
            ways,
            None if genotypes is None else genotypes.absolute(),
            Opened(run, dataset, common),
        ),
        write,
        Job(
            outputs=outs,
            identity=identity,
            workers=workers,
            share=share,
            overwrite=overwrite,
            restart=restart,
            keep_parts=keep_parts,
            made=made,
            num_bytes=estimated_bytes(
                round(source.num_alleles * per_allele), len(columns), num_outputs=len(outs)
            ),
        ),
        progress=progress,
    )
    found = Summary.of(outcome.num_records, outcome.num_alleles, outcome.counts)
    return Scored(outcome, found, columns)


def identity_of(
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    config: ScoreConfig,
    *,
    background: Path | None = None,
    long: bool = False,
) -> Identity:
    """Return all that the outputs depend on; parameters are those of `score_variants`."""
    config = with_shifts(config, run.card.data)
    # What decides how many run at once decides the last bits too.
    echo = {**asdict(config), "long": long}
    echo |= {"shard_size": source.shard_size}
    echo |= {"background": "" if background is None else sha256(background)}
    return Identity(source.sha256, model_sha256(run), dataset.manifest.checksum, echo)


def genes_per_allele(engine: Engine, dataset: Dataset) -> float:
    """Return how many windows hold a base of the genome on average, 1 or more.

    Parameters
    ----------
    engine : Engine
    dataset : Dataset
    """
    bases = sum(dataset.manifest.contigs.values())
    return max(1.0, len(engine.index.windows) * engine.index.length / max(bases, 1))


def _with_q(parts: Parts, columns: Sequence[ScoreColumn]) -> Iterator[pd.DataFrame]:
    """Fill in the q-values, for which all p-values are read once before."""
    if not any(column.kind == "q" for column in columns):
        yield from parts
        return
    counts = QCounts(columns)
    for table in Parts(parts.store, parts.shards, parts.infos):
        counts.add(table)
    for table in parts:
        yield table.assign(**counts.columns(table))


def header_of(
    run: TrainedRun, dataset: Dataset, weights: str, config: ScoreConfig
) -> dict[str, Any]:
    """Return what the headers of all outputs say; nothing that depends on time or place.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
    weights : str
        `model_sha256`.
    config : ScoreConfig
    """
    settings = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }
    if config.method == "gradient":
        settings["gradient_through_mask"] = mask_gradient(run.models[0])
    return {
        "version": seq2exp.__version__,
        "model": run.folder.name,
        "model_sha256": weights,
        "score_hash": score_hash(weights, config),
        "assembly": dataset.manifest.assembly,
        "dataset_checksum": dataset.manifest.checksum,
        "label_unit": run.card.expression_unit,
        "label_transform": run.card.expression_transform,
        **{name: value for name, value in settings.items() if value not in ("", None)},
    }
