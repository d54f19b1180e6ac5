"""Write element maps as files that IGV, UCSC, bedtools and pandas open.

::

    OUT/elements.bed.gz, .tbi    per gene: BED6 + mean_mask max_mask summit gene_id symbol
                                 distance element_class and what stands behind the call
    OUT/elements.narrowPeak.gz   distal elements as ENCODE narrowPeak, .tbi
    OUT/union.bed.gz, .tbi       union over genes: BED6 + mean_mask max_mask num_genes genes class
    OUT/links.bedpe.gz, .tbi     element - TSS of its gene
    OUT/mask.bw                  per base, largest learned mask over genes; no forced promoters
    OUT/mask_mean.bw             per base, mean learned mask over genes
    OUT/mask_full.bw             per base, largest mask as the predictor saw it
    OUT/genes/<gene_id>.bw       the mask of one gene, for the genes asked for
    OUT/masks/                   masks of all genes (seq2exp.elements.masks)
    OUT/summary.json             settings, counts, column names
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyBigWig
from numpy.typing import NDArray

from seq2exp.core.bed import write_bed
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_directory, require_space, safe_name, write_json
from seq2exp.core.genes import find_genes
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.format import SPLITS
from seq2exp.dataset.store import Dataset
from seq2exp.elements.agreement import replicate_masks
from seq2exp.elements.calling import CallConfig, call_elements, merge_elements
from seq2exp.elements.evidence import add_evidence
from seq2exp.elements.fdr import fdr_curve, fdr_summary
from seq2exp.elements.folder import ElementMap
from seq2exp.elements.formats import LINK_COLUMNS, links_table, narrow_peaks
from seq2exp.elements.labels import LabelConfig, Labels, label_curve, label_summary, labelled_genes
from seq2exp.elements.masks import GeneMasks, gene_masks, load_masks
from seq2exp.elements.merged import merged_mask, run_lengths
from seq2exp.elements.nulls import NullConfig, null_masks
from seq2exp.elements.references import read_reference
from seq2exp.elements.summary import map_summary
from seq2exp.training.run import TrainedRun, open_run

__all__ = [
    "LINK_COLUMNS",
    "export_elements",
    "links_table",
    "narrow_peaks",
    "write_bigwig",
    "write_map",
]

logger = logging.getLogger(__name__)

_CHUNK = 500_000


def export_elements(
    run_folder: Path,
    out: Path,
    *,
    data: Path | None = None,
    splits: Sequence[str] = SPLITS,
    config: CallConfig | None = None,
    genes: Sequence[str] = (),
    null: NullConfig | None = None,
    labels: LabelConfig | None = None,
    replicates: Sequence[Path] = (),
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
) -> ElementMap:
    """Write the element map of a run; the folder appears whole or not at all.

    Parameters
    ----------
    run_folder : Path
        Folder of a finished run.
    out : Path
        Folder to write.
    data : Path, optional
        Dataset; the one of the training when not given.
    splits : sequence of str
        Splits whose genes are mapped; all by default.
    config : CallConfig, optional
        How elements are called.
    genes : sequence of str
        Ids or symbols of genes that get a bigWig of their own.
    null : NullConfig, optional
        Null masks to draw, for q-values; the default null when ``config`` asks for a level and
        there are no ``labels``.
    labels : LabelConfig, optional
        Elements whose action is known, from which q-values and the level are read instead.
    replicates : sequence of Path
        Folders of further runs whose agreement with this one is measured; without them that of
        the members of the run is.
    batch_size, workers, progress
        As in :func:`seq2exp.elements.masks.gene_masks`.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    InputError
        No gene in the splits, an unknown gene, or an existing ``out``.
    ConfigError
        The dataset does not fit the run, or the null does not; or both a null and labels.
    """
    run = open_run(run_folder)
    config = config or CallConfig()
    null = _null(run, config, null, labels)
    others = [open_run(folder) for folder in replicates]
    dataset = run.open_dataset(data)
    rows = dataset.gene_rows(tuple(splits))
    _require_genes(rows, splits, dataset)
    rows = usable_rows(dataset, rows, run.card.data, what="genes of the map")
    # A name that is wrong costs no pass over the genome.
    find_genes(dataset.genes.iloc[rows], genes, what="--gene", where="the map")
    known = _read_labels(run, dataset, rows, labels)
    loading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "progress": progress}
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        masks = gene_masks(run, dataset, rows, out=partial / "masks", members=True, **loading)
        # Other masks are needed for counting only; they lie on disk so that memory stays bounded.
        with TemporaryDirectory(dir=partial, prefix="scratch.") as scratch:
            elements, summary = write_map(
                masks,
                partial,
                contigs=dataset.manifest.contigs,
                config=config,
                genes=genes,
                nulls=_draws(run, dataset, rows, null, Path(scratch), loading),
                labels=known,
                replicates=[
                    gene_masks(other, dataset, rows, out=Path(scratch) / f"run_{i}", **loading)
                    for i, other in enumerate(others)
                ],
                extra=_origin(run, dataset, splits)
                | {
                    "null": asdict(null) if null else None,
                    "replicates": [str(folder) for folder in replicates],
                },
            )
    folder = Path(out).absolute()
    return ElementMap(folder, elements, summary, load_masks(folder / "masks"))


def _null(
    run: TrainedRun, config: CallConfig, null: NullConfig | None, labels: LabelConfig | None
) -> NullConfig | None:
    """Return the null to draw: the one given, or the default one where a level needs it."""
    if labels is not None:
        if null is not None:
            raise ConfigError(
                facts(
                    "elements",
                    found="a null and labels",
                    expected="one of them: each makes q-values of its own meaning",
                    fix="drop --null or --labels",
                )
            )
        return None
    if null is None and config.fdr is not None:
        null = NullConfig()
    return null.resolved(run) if null else None


def _read_labels(
    run: TrainedRun, dataset: Dataset, rows: NDArray[np.int64], labels: LabelConfig | None
) -> Labels | None:
    """Read labels, and refuse those of no gene of the map before the masks are made."""
    if labels is None:
        return None
    samples = tuple(run.card.samples)
    reference = read_reference(labels.path, dataset, config=labels.read, samples=samples)
    known = Labels(reference, labels.splits)
    labelled_genes(dataset.genes.iloc[rows], known)
    return known


def _draws(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    null: NullConfig | None,
    scratch: Path,
    loading: Mapping[str, Any],
) -> list[GeneMasks]:
    if null is None:
        return []
    return [
        null_masks(
            run,
            dataset,
            rows,
            kind=null.kind,
            seed=null.seed,
            draw=draw,
            out=scratch / f"null_{draw}",
            **loading,
        )
        for draw in range(null.draws)
    ]


def _require_genes(rows: NDArray[np.int64], splits: Sequence[str], dataset: Dataset) -> None:
    if rows.size == 0:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"no gene in split {', '.join(splits)}",
                expected="at least one",
                fix="choose other splits",
            )
        )


def _origin(run: TrainedRun, dataset: Dataset, splits: Sequence[str]) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "dataset": str(dataset.root),
        "dataset_checksum": dataset.manifest.checksum,
        "model_sha256": run.card.weights_sha256,
        "tracks": list(run.card.tracks),
        "samples": list(run.card.samples),
        "window_bp": run.card.data.window_bp,
        "splits": list(splits),
    }


def write_map(
    masks: GeneMasks,
    folder: Path,
    *,
    contigs: Mapping[str, int],
    config: CallConfig | None = None,
    genes: Sequence[str] = (),
    nulls: Sequence[GeneMasks] = (),
    labels: Labels | None = None,
    replicates: Sequence[GeneMasks] = (),
    extra: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Call elements and write every file except the masks themselves into an existing folder.

    Parameters
    ----------
    masks : GeneMasks
    folder : Path
    contigs : mapping of str to int
        Lengths, in the order of the bigWig headers.
    config : CallConfig, optional
    genes : sequence of str
        Genes that get a bigWig of their own.
    nulls : sequence of GeneMasks
        Null masks of the same genes, for q-values and for a level.
    labels : Labels, optional
        Known elements, for the same in place of null masks.
    replicates : sequence of GeneMasks
        Masks of the same genes from other runs.
    extra : mapping, optional
        Further entries of summary.json.
    """
    config = config or CallConfig()
    rule: dict[str, Any] = {"max_gap": config.gap, "min_length": config.min_length_bp}
    curve = None
    if labels is not None:
        curve = label_curve(masks, labels, **rule)
    elif nulls:
        curve = fdr_curve(masks, nulls, **rule)
    elements, threshold = call_elements(masks, config, curve=curve)
    elements, agreement = add_evidence(
        elements,
        masks,
        threshold=threshold,
        config=config,
        replicates=replicate_masks(masks, replicates),
        curve=curve,
    )
    write_bed(elements, folder / "elements.bed.gz")
    write_bed(narrow_peaks(elements), folder / "elements.narrowPeak.gz")
    union = merge_elements(elements)
    write_bed(union, folder / "union.bed.gz")
    links = links_table(elements, masks)
    write_bed(
        links.rename(columns={"chrom1": "chrom", "start1": "start", "end1": "end"}),
        folder / "links.bedpe.gz",
    )
    _write_merged(masks, folder, contigs)
    for gene in genes:
        row = masks.index(gene)
        (folder / "genes").mkdir(exist_ok=True)
        name = safe_name(str(masks.genes["gene_id"].iloc[row]))
        with write_bigwig(folder / "genes" / f"{name}.bw", contigs) as writer:
            writer.add(str(masks.genes["contig"].iloc[row]), *_gene_runs(masks, row))
    summary = map_summary(masks, elements, union, threshold, config) | dict(extra or {})
    summary["agreement"] = agreement
    if curve is not None:
        reached = threshold if np.isfinite(threshold) else None
        if labels is not None:
            summary["fdr"] = label_summary(curve, masks, elements, labels, threshold=reached)
        else:
            summary["fdr"] = fdr_summary(curve, masks, nulls, threshold=reached, **rule)
    write_json(summary, folder / "summary.json")
    return elements, summary


class BigWigWriter:
    """Adds stretches to an open bigWig in large pieces."""

    def __init__(self, handle: Any) -> None:  # noqa: ANN401
        self.handle = handle

    def add(
        self,
        contig: str,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        """Add sorted, disjoint stretches; contigs must come in the order of the header."""
        for first in range(0, len(starts), _CHUNK):
            piece = slice(first, first + _CHUNK)
            # Plain lists: the numpy path of some pyBigWig builds refuses int64.
            self.handle.addEntries(
                [contig] * len(starts[piece]),
                starts[piece].tolist(),
                ends=ends[piece].tolist(),
                values=values[piece].tolist(),
            )


@contextmanager
def write_bigwig(path: Path, contigs: Mapping[str, int]) -> Iterator[BigWigWriter]:
    """Open a bigWig for writing with a header of all contigs, and close it.

    Parameters
    ----------
    path : Path
    contigs : mapping of str to int
        Contig lengths in header order.
    """
    handle = pyBigWig.open(str(path), "w")
    try:
        handle.addHeader([(name, int(length)) for name, length in contigs.items()])
        yield BigWigWriter(handle)
    finally:
        handle.close()
    _require_whole(path)


def _require_whole(path: Path) -> None:
    """Compare the magic number at the end: the writer says nothing when the disk is full."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(-4, os.SEEK_END)
        end = file.read(4)
    if start != end:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _write_merged(masks: GeneMasks, folder: Path, contigs: Mapping[str, int]) -> None:
    # A full disk may crash the bigWig library, so it is asked for beforehand: at most one entry of
    # 12 bytes per bin in each of three files, and as much again for the zoom levels.
    require_space(folder, 2 * 3 * 12 * int(masks.mask.size))
    with (
        write_bigwig(folder / "mask.bw", contigs) as learned,
        write_bigwig(folder / "mask_mean.bw", contigs) as mean,
        write_bigwig(folder / "mask_full.bw", contigs) as full,
    ):
        for contig in contigs:
            for stretch in merged_mask(masks, contig):
                learned.add(contig, *run_lengths(stretch.learned, start=stretch.start))
                mean.add(contig, *run_lengths(stretch.mean, start=stretch.start))
                full.add(contig, *run_lengths(stretch.full, start=stretch.start))


def _gene_runs(
    masks: GeneMasks, gene: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    starts, ends = masks.intervals(gene)
    inside = ends > starts
    return starts[inside], ends[inside], np.asarray(masks.mask[gene], dtype=np.float64)[inside]
