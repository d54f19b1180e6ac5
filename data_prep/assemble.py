"""From finished shards to the dataset folder: arrays, tables, manifest."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.config import DataConfig, TrackConfig
from data_prep.contacts import contact_profiles
from data_prep.elements import element_table
from data_prep.features import length_features, promoter_signal, sequence_features
from data_prep.preflight import Plan
from data_prep.shards import SequenceTask, ShardTask, TrackTask, write_array
from data_prep.tracks import summarise, to_storage
from data_prep.variants.store import Genotyped, write_genotypes
from seq2exp import __version__
from seq2exp.core.config import to_dict
from seq2exp.core.errors import Seq2ExpWarning, facts
from seq2exp.core.files import write_json
from seq2exp.core.shards import shard_info
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.format import (
    ContactInfo,
    ExpressionInfo,
    FeatureInfo,
    Manifest,
    SourceFile,
    TrackInfo,
)
from seq2exp.dataset.format_genotypes import GenotypeInfo

__all__ = ["assemble"]

_TEXT_COLUMNS = ("gene_id", "symbol", "contig", "strand", "biotype", "split", "status")


def assemble(
    config: DataConfig,
    plan: Plan,
    tasks: Sequence[ShardTask],
    sources: Sequence[SourceFile],
    root: Path,
    *,
    genotyped: Genotyped | None = None,
) -> Manifest:
    """Write the dataset of finished shards into ``root`` and return its manifest.

    Parameters
    ----------
    config : DataConfig
    plan : Plan
    tasks : sequence
        All tasks; their shards are finished.
    sources : sequence of SourceFile
    root : Path
        Folder to make.
    genotyped : Genotyped, optional
        Finished shards of genotypes, where the plan has any.
    """
    root.mkdir()
    sequence = {task.contig: task for task in tasks if isinstance(task, SequenceTask)}
    tracks = [task for task in tasks if isinstance(task, TrackTask)]
    ambiguous = _place_sequence(sequence, root)
    infos = _write_tracks(config.track_dtype, plan, tracks, root)
    features = _write_genes(config, plan, sequence, tracks, root)
    expression = _write_expression(config, plan, root)
    contacts = _write_contacts(config, plan, root)
    if len(plan.regions):
        layout.write_table(plan.regions, layout.regions_path(root))
    elements = _write_elements(config, plan, root)
    if plan.skipped:
        _write_skipped(config, plan, root)
    genotypes = _write_donors(config, plan, genotyped, root)
    manifest = Manifest(
        assembly=config.assembly,
        contigs=plan.contigs,
        bin_size=config.bin_size,
        tracks=infos,
        track_dtype=config.track_dtype,
        expression=expression,
        contacts=contacts,
        features=features,
        sources=list(sources),
        config=to_dict(config),
        counts={
            **plan.counts,
            "ambiguous_bases": ambiguous,
            **elements,
            **({"tracks_skipped": len(plan.skipped)} if plan.skipped else {}),
        },
        package_version=__version__,
        genotypes=genotypes,
    )
    return layout.finish_manifest(root, manifest)


def _place_sequence(tasks: dict[str, SequenceTask], root: Path) -> int:
    (root / "sequence").mkdir()
    total = 0
    for contig, task in tasks.items():
        target = layout.sequence_path(root, contig)
        try:
            # A link costs nothing and leaves the shard where a continued run looks for it.
            os.link(task.target, target)
        except OSError:
            shutil.copyfile(task.target, target)
        total += _info(task)["ambiguous"]
    return total


def _write_elements(config: DataConfig, plan: Plan, root: Path) -> dict[str, int]:
    """Write the sets of candidate elements and count them."""
    if not config.elements:
        return {}
    table = element_table(
        config,
        plan.elements,
        root=root,
        contigs=plan.contigs,
        sizes=plan.genome.sizes,
        genes=plan.genes,
        tracks=[track.config.name for track in plan.tracks],
    )
    if table.empty:
        return {}
    layout.write_table(table, layout.elements_path(root))
    counts = table["set"].value_counts(sort=False)
    return {f"elements {name}": int(count) for name, count in counts.items()}


def _write_donors(
    config: DataConfig, plan: Plan, genotyped: Genotyped | None, root: Path
) -> GenotypeInfo | None:
    """Write genotypes, donors and their expression, where there are any."""
    if plan.genotypes is None or genotyped is None:
        return None
    stored = None if config.donors is None else config.donors.expression
    info = write_genotypes(
        plan.genotypes,
        genotyped,
        root,
        expression_unit="" if stored is None else stored.stored_unit,
        expression_counts=plan.donor_counts,
    )
    if plan.donor_expression is not None:
        layout.write_table(
            plan.donor_expression,
            places.donor_expression_path(root),
            metadata={"unit": info.expression_unit},
        )
    return info


def _write_skipped(config: DataConfig, plan: Plan, root: Path) -> None:
    """List the tracks that are left out."""
    rows = [
        {"track": track.name, "path": track.path, "problem": plan.skipped[track.name]}
        for track in config.tracks
        if track.name in plan.skipped
    ]
    write_json(rows, layout.skipped_tracks_path(root))


def _write_tracks(
    dtype: str, plan: Plan, tasks: Sequence[TrackTask], root: Path
) -> list[TrackInfo]:
    if not plan.tracks:
        return []
    (root / "tracks").mkdir()
    for contig in plan.contigs:
        columns = [
            to_storage(_shard(task), task.config, contig=contig, dtype=dtype)
            for task in tasks
            if task.contig == contig
        ]
        write_array(layout.tracks_path(root, contig), np.stack(columns, axis=1))
    stored = [layout.load_array(layout.tracks_path(root, contig)) for contig in plan.contigs]
    return [
        _track_info(track.config, number, [t for t in tasks if t.config is track.config], stored)
        for number, track in enumerate(plan.tracks)
    ]


def _track_info(
    track: TrackConfig, number: int, tasks: Sequence[TrackTask], stored: list[NDArray[Any]]
) -> TrackInfo:
    infos = {task.contig: _info(task) for task in tasks}
    bare = [contig for contig, info in infos.items() if info["known"] and not info["covered"]]
    if bare:
        warnings.warn(
            facts(
                f"track {track.name}",
                found="contigs without any data",
                expected="data on each stored contig",
                fix="nothing, if the assay leaves them out; else exclude or mask them",
                count=len(bare),
                examples=bare,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    columns = [array[:, number] for array in stored]
    covered = sum(info["covered"] for info in infos.values())
    unit = track.unit or "signal"
    return TrackInfo(
        name=track.name,
        assay=track.assay or track.name,
        biosample=track.biosample,
        unit=unit if track.transform == "none" else f"{track.transform}({unit})",
        statistic=track.statistic,
        nan=track.nan,
        transform=track.transform,
        summary=summarise(track, tasks[0].track.path, columns, covered_bases=covered),
    )


def _write_genes(
    config: DataConfig,
    plan: Plan,
    sequence: dict[str, SequenceTask],
    tasks: Sequence[TrackTask],
    root: Path,
) -> list[FeatureInfo]:
    wanted = config.features
    frames: list[pd.DataFrame] = []
    infos: list[FeatureInfo] = []
    if wanted.lengths:
        _add(length_features(plan.genes), frames, infos)
    if wanted.gc:
        codes = {contig: layout.load_array(task.target) for contig, task in sequence.items()}
        _add(sequence_features(plan.genes, plan.cds, codes), frames, infos)
    if wanted.promoter and tasks:
        bins = _ContigBins(tasks)
        used = [track.config for track in plan.tracks]
        result = promoter_signal(
            plan.genes, bins, used, wanted, bin_size=config.bin_size, sizes=plan.contigs
        )
        _add(result, frames, infos)
    columns = [*layout.GENE_COLUMNS, "status", "gene_start", "gene_end"]
    table = pd.concat([plan.genes[columns], *frames], axis=1)
    table = table.astype(dict.fromkeys(_TEXT_COLUMNS, str))
    layout.write_table(table, layout.genes_path(root), metadata={"assembly": config.assembly})
    return infos


def _add(
    result: tuple[pd.DataFrame, list[FeatureInfo]],
    frames: list[pd.DataFrame],
    infos: list[FeatureInfo],
) -> None:
    frames.append(result[0])
    infos.extend(result[1])


def _write_expression(config: DataConfig, plan: Plan, root: Path) -> ExpressionInfo:
    if plan.expression is None or config.expression is None:
        return ExpressionInfo()
    unit, transform = config.expression.unit, config.expression.transform
    layout.write_table(
        plan.expression,
        layout.expression_path(root),
        metadata={"unit": unit, "transform": transform},
    )
    samples = [str(name) for name in plan.expression.columns.drop("gene_id")]
    return ExpressionInfo(unit=unit, transform=transform, samples=samples)


def _write_contacts(config: DataConfig, plan: Plan, root: Path) -> ContactInfo:
    if config.contacts.source == "none":
        return ContactInfo()
    profiles = contact_profiles(plan.genes, config.contacts, plan.contact_file)
    write_array(layout.contacts_path(root), profiles)
    return ContactInfo(
        source=config.contacts.source,
        bin_size=config.contacts.bin_size,
        num_bins=config.contacts.num_bins,
        unit="log10(1 + contact + pseudocount)",
    )


class _ContigBins(Mapping[str, NDArray[np.float64]]):
    """Untransformed bins by contig; holds one contig at a time, because all may not fit."""

    def __init__(self, tasks: Sequence[TrackTask]) -> None:
        self._tasks = tasks
        self._held: tuple[str, NDArray[np.float64]] | None = None

    def __getitem__(self, contig: str) -> NDArray[np.float64]:
        if self._held is None or self._held[0] != contig:
            columns = [_shard(task) for task in self._tasks if task.contig == contig]
            self._held = contig, np.stack(columns, axis=1)
        return self._held[1]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(task.contig for task in self._tasks))

    def __len__(self) -> int:
        return len({task.contig for task in self._tasks})


def _shard(task: TrackTask) -> NDArray[np.float64]:
    values: NDArray[np.float64] = layout.load_array(task.target).astype(np.float64)
    return values


def _info(task: ShardTask) -> dict[str, int]:
    return shard_info(task.target)
