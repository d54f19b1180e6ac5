"""Saturation mutagenesis of regions: from a run to a folder of effects, tracks and pictures.

All mutations of the regions become a VCF, which is scored as `seq2exp variants` scores one: by
`seq2exp.variants.engine.Engine`, in stretches that are kept as parts, so that a killed call
continues. Only what is made of the scores is different.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import seq2exp
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import (
    atomic_directory,
    file_lock,
    refuse_existing,
    require_space,
    write_json,
)
from seq2exp.core.progress import clock
from seq2exp.core.shards import remove_partial
from seq2exp.core.work import system_errors, terminate_as_interrupt, work_folders
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import has_mask
from seq2exp.training.run import TrainedRun
from seq2exp.variants.claim import Identity, Job, remove_work, require_same, store_of
from seq2exp.variants.command import EngineMaker, header_of, model_sha256
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import Engine, open_engine
from seq2exp.variants.execute import MakeScorer, estimated_bytes, execute
from seq2exp.variants.merge import Parts
from seq2exp.variants.mutants import Mutants, drawn_bases, make_mutants
from seq2exp.variants.outputs import write_outputs
from seq2exp.variants.parts import PartInfo, PartStore
from seq2exp.variants.regions import Region, usable_regions
from seq2exp.variants.saturation import Collector, Saturation
from seq2exp.variants.saturation_files import strongest_rows, write_arrays, write_tracks
from seq2exp.variants.saturation_plot import save_plots
from seq2exp.variants.source import VariantSource, open_source

__all__ = ["TABLES", "SaturationConfig", "saturate_regions", "saturation_scores"]

logger = logging.getLogger(__name__)

TABLES = ("vcf.gz", "vcf", "tsv.gz", "tsv", "parquet")
_STRETCH = 64
_TRIAL = 6
Regions = Sequence[tuple[Region, list[int]]]


@dataclass(frozen=True)
class SaturationConfig:
    """What is mutated, and what is made of the effects."""

    deletions: bool = False
    """Also delete each base."""
    insertion_bp: int = 0
    """Also insert so many bases before each base: the same ones everywhere, drawn with the seed."""
    tables: tuple[str, ...] = ()
    """Endings of tables of all mutations, of ``TABLES``."""
    num_plots: int = 8
    """Pictures of so many regions, genes and labels with the strongest effects."""
    max_passes: int = 1_000_000
    """Most windows that may go through a model."""

    def __post_init__(self) -> None:
        checks = {
            "insertions": (0 <= self.insertion_bp <= 1000, self.insertion_bp, "0 to 1000 bases"),
            "table": (
                set(self.tables) <= set(TABLES), ", ".join(self.tables), ", ".join(TABLES)
            ),
            "plots": (self.num_plots >= 0, self.num_plots, "0 or more"),
            "max-passes": (self.max_passes >= 1, self.max_passes, "1 or more"),
        }  # fmt: skip
        for name, (holds, found, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(f"--{name}", found=found, expected=expected, fix="change it")
                )


def saturation_scores(run: TrainedRun, *, method: str = "exact") -> tuple[str, ...]:
    """Return the names of the scores that saturation needs and that a run can give.

    Parameters
    ----------
    run : TrainedRun
    method : str
        As in `ScoreConfig`; the gradient gives no mask.
    """
    masked = method == "exact" and all(has_mask(model) for model in run.models)
    return ("expr_delta", "mask_delta") if masked else ("expr_delta",)


def saturate_regions(
    run: TrainedRun,
    dataset: Dataset,
    regions: Sequence[Region],
    out: Path,
    *,
    score: ScoreConfig,
    config: SaturationConfig,
    workers: int = 1,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Score all mutations of regions into a folder, whole or not at all; continues when killed.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    regions : sequence of Region
        As `seq2exp.variants.regions.find_regions` gives them.
    out : Path
        Folder to write; see `seq2exp.variants.saturation_files`.
    score : ScoreConfig
        How to score; its `scorers` are replaced by `saturation_scores`.
    config : SaturationConfig
    workers : int
        Processes.
    overwrite, restart : bool
        Replace an existing folder; throw the parts of an earlier call away.
    progress : bool

    Returns
    -------
    DataFrame
        Of `strongest_rows`.

    Raises
    ------
    InputError
        No gene or no known base in any region, an existing `out`, too many passes, unfinished work
        with other settings, a full disk.
    ConfigError
        The dataset does not fit the run; insertions or deletions by the gradient.
    """
    out = Path(out).absolute()
    refuse_existing(out, overwrite=overwrite)
    _require_sense(score, config)
    score = ScoreConfig(**{**asdict(score), "scorers": saturation_scores(run, method=score.method)})
    with (
        open_engine(run, dataset, score) as engine,
        TemporaryDirectory(prefix="seq2exp_saturate_") as folder,
    ):
        usable = usable_regions(regions, dataset, engine.index)
        inserted = drawn_bases(config.insertion_bp, seed=score.seed)
        mutants = make_mutants(
            [region for region, _ in usable], dataset, deletions=config.deletions, inserted=inserted
        )
        source = _source(mutants, dataset, Path(folder))
        work = _Work(engine, usable, mutants, source, out, config, inserted, workers)
        with system_errors(out), terminate_as_interrupt(), work.claimed(restart=restart) as store:
            infos = work.score(store, progress=progress)
            with atomic_directory(out, overwrite=overwrite) as partial:
                table = work.write(Parts(store, source.shards, infos), partial, progress=progress)
            remove_work(store.folder)
    return table


def _require_sense(score: ScoreConfig, config: SaturationConfig) -> None:
    if score.method == "gradient" and (config.deletions or config.insertion_bp):
        raise ConfigError(
            facts(
                "--method gradient",
                found="--deletions or --insertions",
                expected="substitutions only: a gradient knows no moved bases",
                fix="leave them out, or take --method exact",
            )
        )


def _source(mutants: Mutants, dataset: Dataset, folder: Path) -> VariantSource:
    path = folder / "mutations.vcf"
    path.write_text(mutants.text, encoding="ascii")
    return open_source(path, dataset=dataset, shard_size=_STRETCH, cache=folder)


@dataclass(frozen=True, eq=False)
class _Work:
    engine: Engine
    regions: Regions
    mutants: Mutants
    source: VariantSource
    out: Path
    config: SaturationConfig
    inserted: str
    workers: int

    @property
    def job(self) -> Job:
        """Parts are those of the same mutations, model and settings; pictures do not matter."""
        run, dataset = self.engine.run, self.engine.dataset
        echo = {**asdict(self.engine.config), "shard_size": self.source.shard_size}
        identity = Identity(
            self.source.sha256, model_sha256(run), dataset.manifest.checksum, echo
        )  # fmt: skip
        return Job([self.out], identity)

    @contextmanager
    def claimed(self, *, restart: bool) -> Iterator[PartStore]:
        """Lock the output and yield the parts."""
        job = self.job
        store = store_of(job)
        with file_lock(self.out.with_name(f".{self.out.name}.lock"), what=str(self.out)):
            if restart:
                for folder in work_folders(self.out):
                    remove_work(folder)
            require_same(job, self.out, store)
            num_left = len(store.missing(self.source.shards))
            self._require_small(num_left)
            parts = store.folder / "parts"
            parts.mkdir(parents=True, exist_ok=True)
            try:
                write_json(
                    {**job.identity.values(), "num_shards": self.source.num_shards},
                    store.folder / "manifest.json",
                )
                remove_partial(parts)
                yield store
            finally:
                if not any(parts.glob("*.parquet")):
                    shutil.rmtree(store.folder, ignore_errors=True)

    def _require_small(self, num_left: int) -> None:
        """Say how much work there is before it starts; refuse far too much."""
        genes = {gene for _, found in self.regions for gene in found}
        num_effects, members = self.num_effects, self.engine.num_members
        told = f"{members}"
        share = num_left / max(self.source.num_shards, 1)
        if self.engine.config.method == "gradient":
            # A forward pass per gene, and a backward pass per label.
            passes = len(genes) * members * (1 + len(self.engine.scoring.samples))
            duration = ""
        else:
            indels = self.engine.num_indel_members
            moved = self.count_effects(self.mutants.kind_V != 0)
            passes = (num_effects - moved) * members + moved * indels
            told += f", of moved bases {indels}" * (moved > 0)
            seconds = self._seconds_per_pass() * passes * share / self.workers if num_left else 0.0
            duration = f", about {clock(seconds)}"
        bases = sum(len(region) for region, _ in self.regions)
        size = (
            f"{len(self.regions)} region{'s' * (len(self.regions) > 1)}, {bases:,} bases, "
            f"{len(genes):,} gene{'s' * (len(genes) > 1)}: {num_effects:,} effects, {passes:,} "
            f"passes (members, strands and shifts: {told}){duration}"
        )
        if passes > self.config.max_passes:
            raise InputError(
                facts(
                    "regions",
                    found=size,
                    expected=f"at most {self.config.max_passes:,} passes",
                    fix="take smaller regions or fewer genes (--gene), or allow it with "
                    f"--max-passes {passes}",
                )
            )
        rest = f" ({num_left} of {self.source.num_shards} stretches are left)" if share < 1 else ""
        logger.info("%s%s", size, rest)
        num_columns = len(self.engine.columns)
        outputs = 1 + len(self.config.tables)
        require_space(
            self.out,
            estimated_bytes(num_effects, num_columns, num_outputs=outputs),
            fix="free disk space, or choose another --out",
        )

    @property
    def num_effects(self) -> int:
        """Pairs of a mutation and a gene whose window holds it."""
        return self.count_effects(np.ones(len(self.mutants.kind_V), dtype=np.bool_))

    def count_effects(self, chosen_V: NDArray[np.bool_]) -> int:
        """Count the pairs of some of the records."""
        count, here = 0, self.mutants
        # A record of substitutions has three alleles.
        size_V = np.where(here.kind_V == 0, 3, 1) * chosen_V
        for number, (region, genes) in enumerate(self.regions):
            of_V = here.region_V == number
            place_V, sizes = here.place_V[of_V] + region.start, size_V[of_V]
            for gene in genes:
                window = self.engine.index.windows[gene]
                count += int(sizes[(place_V >= window.start) & (place_V < window.end)].sum())
        return count

    def _seconds_per_pass(self) -> float:
        """Score a few mutations of the first gene twice, and time it the second time."""
        region, genes = self.regions[0]
        window = self.engine.index.windows[genes[0]]
        position_V = self.mutants.place_V + region.start
        inside = (position_V >= window.start) & (position_V < window.end)
        records = np.flatnonzero((self.mutants.region_V == 0) & inside)
        if not records.size:
            return 0.0
        record = int(records[records.size // 2])
        alleles = self.source.read(self.source.shard(record // self.source.shard_size))
        alleles = alleles[alleles["record"] >= record].head(_TRIAL).reset_index(drop=True)
        alleles["gene"] = str(self.engine.dataset.genes["gene_id"].iloc[genes[0]])
        self.engine.score(alleles.head(1))
        start = time.perf_counter()
        found = self.engine.score(alleles)
        return (time.perf_counter() - start) / max(int(found["num_members"].sum()), 1)

    def score(self, store: PartStore, *, progress: bool) -> list[PartInfo]:
        """Score the stretches that have no part yet."""
        engine = self.engine
        maker: MakeScorer = lambda worker: engine.score  # noqa: E731
        if self.workers > 1:
            maker = EngineMaker(
                engine.run.folder.absolute(), engine.dataset.root.absolute(), engine.config
            )
        return execute(self.source, maker, store, workers=self.workers, progress=progress)

    def write(self, parts: Parts, folder: Path, *, progress: bool) -> pd.DataFrame:
        """Write everything into a folder."""
        engine, run, dataset = self.engine, self.engine.run, self.engine.dataset
        header = header_of(run, dataset, model_sha256(run), engine.config)
        collector = Collector(
            self.mutants, self.regions, dataset, engine.columns, inserted=self.inserted
        )
        stream = _seen(parts, collector)
        outs = [folder / f"mutations.{ending}" for ending in dict.fromkeys(self.config.tables)]
        if outs:
            write_outputs(outs, self.source, stream, engine.columns, header, progress=progress)
        for _ in stream:
            pass
        found = list(collector.results())
        about = {name: str(value) for name, value in header.items()}
        about |= {"formula": engine.columns[0].formula, "num_members": str(engine.num_members)}
        about["num_indel_members"] = str(engine.num_indel_members)
        places = write_arrays(found, folder, about)
        num_tracks = write_tracks(found, folder / "tracks", dataset.manifest.contigs)
        save_plots(found, places, number=self.config.num_plots)
        table = strongest_rows(found)
        table.to_csv(folder / "genes.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(self._summary(found, num_tracks, header), folder / "summary.json")
        return table

    def _summary(
        self, found: Sequence[Saturation], num_tracks: int, header: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "version": seq2exp.__version__,
            "regions": [str(region) for region, _ in self.regions],
            "labels": list(found[0].labels),
            "unit": found[0].unit,
            "pairs_of_region_and_gene": len(found),
            "effects": self.num_effects,
            "members": self.engine.num_members,
            "members_of_indels": self.engine.num_indel_members,
            "tracks": num_tracks,
            "deletions": self.config.deletions,
            "inserted": self.inserted,
            "scoring": header,
        }


def _seen(parts: Parts, collector: Collector) -> Iterator[pd.DataFrame]:
    """Yield parts after they were collected."""
    for scores in parts:
        collector.add(scores)
        yield scores
