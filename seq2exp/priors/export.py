"""`seq2exp priors`: one row per gene of a dataset, from one pass of a trained run.

Shapes: B batch, G genes, D embedding width, K samples, L base pairs, N bins, A assays.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import refuse_existing, sha256
from seq2exp.dataset.samples import Batch
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.masks import gene_masks
from seq2exp.models.registry import has_mask
from seq2exp.priors.algebra import joint_embedding
from seq2exp.priors.identity import combined_hash, id_system
from seq2exp.priors.origin import QUALITY, gene_quality, model_splits, sources_of, why_absent
from seq2exp.priors.prior import GenePrior, describe
from seq2exp.priors.summary import (
    assay_columns,
    band_names,
    bands_of_bins,
    gc_fraction,
    mask_summary,
    sequence_columns,
    signal_in_bands,
)
from seq2exp.training.module import forward_batch
from seq2exp.training.predict import iterate
from seq2exp.training.run import TrainedRun, model_folders, open_run

__all__ = ["LAYERS", "export_priors", "make_prior"]

LAYERS = {
    "readout": "pooled states of the predictor, as the head reads them, without scalar features",
    "head": "last hidden layer of the head, which has read the scalar features too",
}
"""Layers that can be the embedding of a gene."""


def export_priors(
    run_folder: Path,
    out: Path,
    *,
    data: Path | None = None,
    layer: str = "readout",
    calling: CallConfig | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
) -> GenePrior:
    """Write ``priors.h5ad`` of a run and return what it holds.

    Parameters
    ----------
    run_folder : Path
        Folder that ``seq2exp train`` wrote.
    out : Path
    data : Path, optional
        Dataset; the one of the training when not given.
    layer : str
        A key of `LAYERS`.
    calling : CallConfig, optional
        How elements are called for the element summary.
    batch_size, workers : int
        Change speed, not numbers.
    progress, overwrite : bool

    Raises
    ------
    InputError
        The output exists, the run is unfinished, or no gene has a usable window.
    ConfigError
        The dataset does not fit the run, or the name of the output ends in something else than
        .h5ad, by which scanpy knows the format.
    """
    if Path(out).suffix != ".h5ad":
        raise ConfigError(
            facts(
                f"--out {out}",
                found=f"a name that ends in {Path(out).suffix or 'nothing'}",
                expected="a name that ends in .h5ad",
                fix=f"use {Path(out).with_suffix('.h5ad')}",
            )
        )
    refuse_existing(Path(out), overwrite=overwrite)
    run = open_run(Path(run_folder))
    dataset = run.open_dataset(data)
    prior = make_prior(
        run,
        dataset,
        layer=layer,
        calling=calling,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    prior.save(out, overwrite=overwrite)
    return prior


def make_prior(
    run: TrainedRun,
    dataset: Dataset,
    *,
    layer: str = "readout",
    calling: CallConfig | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
) -> GenePrior:
    """Return the prior of every gene of a dataset; nothing is sampled.

    The arguments and errors are those of `export_priors`.
    """
    run.check_dataset(dataset)
    reason = why_absent(run, dataset)
    rows = np.flatnonzero(reason == "").astype(np.int64)
    _require_genes(dataset, reason, rows)
    seen = _Collector(run, dataset, layer)
    options = {"batch_size": batch_size, "workers": workers, "progress": progress}
    summary, notes = _run(seen, rows, calling, options)
    split, split_source = model_splits(run, dataset)
    members = [np.concatenate(parts) for parts in seen.embedding]
    _require_finite(dataset, rows, members)
    present = reason == ""
    z = joint_embedding(members, split[rows] == "train")
    expr = np.concatenate(seen.expression)
    reg = np.stack(list(summary.values()), axis=1).astype(np.float32)
    genes = dataset.genes
    gene_ids = genes["gene_id"].astype(str).to_numpy(dtype=object)
    meta = describe(
        **_model_meta(run, dataset),
        **sources_of(dataset),
        id_system=id_system(gene_ids),
        layer=f"{layer}: {LAYERS[layer]}",
        quality=QUALITY,
        split_source=split_source,
        absent=[f"{count} {text}" for text, count in sorted(Counter(reason[~present]).items())],
        notes=notes,
    )
    return GenePrior(
        gene_id=gene_ids,
        symbol=genes["symbol"].fillna("").astype(str).to_numpy(dtype=object),
        contig=genes["contig"].astype(str).to_numpy(dtype=object),
        tss=genes["tss"].to_numpy(np.int64),
        strand=genes["strand"].astype(str).to_numpy(dtype=object),
        split=split,
        present=present,
        quality=_quality(run, dataset, rows, expr, split),
        z=_spread(z, rows, len(genes)),
        expr=_spread(expr, rows, len(genes)),
        expr_names=tuple(run.card.samples),
        reg=_spread(reg, rows, len(genes)),
        reg_names=tuple(summary),
        meta=meta,
    )


@dataclass
class _Collector:
    """Runs members on batches and keeps, in gene order, what a prior needs of each pass."""

    run: TrainedRun
    dataset: Dataset
    layer: str
    embedding: list[list[NDArray[np.float32]]] = field(default_factory=list)
    expression: list[NDArray[np.float32]] = field(default_factory=list)
    gc: list[NDArray[np.float64]] = field(default_factory=list)
    signal: list[NDArray[np.float64]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise InputError(
                facts(
                    "layer",
                    found=repr(self.layer),
                    expected="one of " + ", ".join(LAYERS),
                    fix="choose one of them",
                )
            )
        self.embedding = [[] for _ in self.run.models]
        self.assays = assay_columns(self.dataset, self.run.card.tracks)

    def __call__(self, model: nn.Module, batch: Batch) -> Any:  # noqa: ANN401
        """Run one member; after the last one, keep what is common to all."""
        output = _with_hidden(model, batch) if self.layer == "head" else forward_batch(model, batch)
        member = len(self.outputs)
        self.embedding[member].append(output.embedding_BD.float().cpu().numpy())
        self.outputs.append(output)
        if len(self.outputs) == len(self.run.models):
            self._keep(batch)
            self.outputs = []
        return output

    def _keep(self, batch: Batch) -> None:
        stack = torch.stack([output.expression_BK.float() for output in self.outputs])
        self.expression.append(stack.mean(0).cpu().numpy())
        self.gc.append(gc_fraction(batch.codes_BL.cpu().numpy()))
        if not self.assays:
            return
        mask_BN = torch.stack([o.mask_BN.float() for o in self.outputs]).mean(0).cpu().numpy()
        signal_BNT = batch.signal_BNT.cpu().numpy()
        signal_BNA = np.stack(
            [_mean_known(signal_BNT[..., columns]) for columns in self.assays.values()], axis=-1
        )
        bin_size = self.run.card.data.bin_size
        self.signal.append(signal_in_bands(mask_BN, signal_BNA, bin_size=bin_size))


def _with_hidden(model: Any, batch: Batch) -> Any:  # noqa: ANN401
    """Run a model with the input of its output layer as the embedding, mean over strands."""
    seen: list[torch.Tensor] = []
    handle = model.head.output_layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        output = forward_batch(model, batch)
    finally:
        handle.remove()
    return replace(output, embedding_BD=torch.stack(seen).mean(0))


def _mean_known(values_BNT: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean over the known tracks, shape (batch, bins); NaN where none is known."""
    known = np.isfinite(values_BNT)
    count = known.sum(axis=-1)
    total = np.where(known, values_BNT, 0).sum(axis=-1, dtype=np.float64)
    mean = np.full(count.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _run(
    seen: _Collector,
    rows: NDArray[np.int64],
    calling: CallConfig | None,
    options: dict[str, Any],
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Run the pass and return the element summary, and what it lacks and why."""
    run, dataset = seen.run, seen.dataset
    columns: dict[str, NDArray[np.float64]] = {}
    notes: list[str] = []
    if not all(has_mask(model) for model in run.models):
        for _ in iterate(run, dataset, rows, forward=seen, **options):
            pass
        notes.append("no columns of the mask: the model reads its window without one")
    else:
        # Masks of all genes do not fit in memory with bins of one base.
        with tempfile.TemporaryDirectory(prefix="seq2exp_priors_") as folder:
            out = Path(folder) / "masks"
            masks = gene_masks(run, dataset, rows, out=out, forward=seen, **options)
            columns, threshold = mask_summary(masks, calling)
            del masks
        notes.append(f"elements are called at mask >= {threshold:.6g}")
        columns |= _assay_columns(run, seen, notes)
    columns |= sequence_columns(dataset, rows, np.concatenate(seen.gc))
    unknown = [name for name, values in columns.items() if not np.isfinite(values).any()]
    for name in unknown:
        del columns[name]
        notes.append(f"no column {name}: unknown for every gene of the dataset")
    return columns, notes


def _assay_columns(
    run: TrainedRun, seen: _Collector, notes: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Name the signal in the bands that the window reaches."""
    if not seen.assays:
        notes.append("no columns by assay: the model reads no tracks")
        return {}
    data = run.card.data
    bands_KN = bands_of_bins(data.window_bp // data.bin_size, data.bin_size)
    reached = [bool(bins.any()) for bins in bands_KN]
    names = band_names()
    beyond = [name for name, inside in zip(names, reached, strict=True) if not inside]
    if beyond:
        notes.append(f"no columns of {', '.join(beyond)}: the window has {data.window_bp} bp")
    signal_GAK = np.concatenate(seen.signal)
    return {
        f"{assay} {name}": signal_GAK[:, a, k]
        for a, assay in enumerate(seen.assays)
        for k, name in enumerate(names)
        if reached[k]
    }


def _quality(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    expr: NDArray[np.float32],
    split: NDArray[np.object_],
) -> NDArray[np.float32]:
    known = dataset.manifest.expression.samples
    shared = [name for name in run.card.samples if name in known]
    quality = np.full(len(dataset.genes), np.nan, dtype=np.float32)
    if shared:
        observed = dataset.expression[rows][:, [known.index(name) for name in shared]]
        predicted = expr[:, [run.card.samples.index(name) for name in shared]]
        quality[rows] = gene_quality(observed, predicted, split[rows])
    return quality


def _spread(
    values: NDArray[np.floating], rows: NDArray[np.int64], num_genes: int
) -> NDArray[np.float32]:
    """Return rows of all genes, 0 for those without a usable window."""
    full = np.zeros((num_genes, values.shape[1]), dtype=np.float32)
    full[rows] = values
    return full


def _model_meta(run: TrainedRun, dataset: Dataset) -> dict[str, Any]:
    card = run.card
    hashes = [sha256(place / "model.safetensors") for place in model_folders(run.folder)]
    encoder = card.model.get("encoder")
    transform = card.expression_transform
    unit = card.expression_unit if transform == "none" else f"{transform}({card.expression_unit})"
    return {
        "model": str(card.model["name"]) + (f"/{encoder}" if encoder else ""),
        "model_sha256": combined_hash(hashes),
        "member_sha256": hashes,
        "members": len(hashes),
        "assembly": dataset.manifest.assembly,
        "window_bp": card.data.window_bp,
        "expr_unit": unit,
        "dataset_checksum": dataset.manifest.checksum,
        "train_dataset_checksum": card.dataset_checksum,
        "train_contigs": list(card.train_contigs),
        "package_version": card.package_version,
    }


def _require_genes(dataset: Dataset, reason: NDArray[np.object_], rows: NDArray[np.int64]) -> None:
    if not rows.size:
        counts = Counter(reason).most_common()
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found="no gene with a usable window",
                expected="at least one",
                fix="prepare a dataset whose genes the model can read",
                count=len(reason),
                examples=[f"{count} {text}" for text, count in counts],
            )
        )


def _require_finite(
    dataset: Dataset, rows: NDArray[np.int64], members: list[NDArray[np.float32]]
) -> None:
    holes = ~np.logical_and.reduce([np.isfinite(member).all(axis=1) for member in members])
    if holes.any():
        raise InputError(
            facts(
                "embedding",
                found="NaN or Inf from the model",
                expected="finite numbers",
                fix="check the tracks and features of these genes, or train the model again",
                count=int(holes.sum()),
                examples=dataset.genes["gene_id"].to_numpy()[rows[holes]].tolist(),
            )
        )
