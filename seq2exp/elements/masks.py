"""Per-gene masks in genome direction, streamed from a run to memory or to a folder.

Window bins need not lie on the genome grid: bin ``i`` of a gene covers
``[start + i * bin_size, start + (i + 1) * bin_size)``, clipped to the contig. Bins of minus-strand
genes are flipped back, so index 0 is always the lowest position.

Folder::

    genes.parquet   one row per gene: identity, window start, contig length
    mask.npy        float16, shape (num_genes, num_bins)
    alpha.npy       float16, the same shape; absent when the model has no Beta
    beta.npy        float16, the same shape
    forced.npy      uint8, the same shape; see FREE, PROMOTER, EXCLUDED
    member_mask.npy, member_alpha.npy, member_beta.npy
                    float16, shape (num_members, num_genes, num_bins): the same for each member
                    of a run with several, where they were asked for
    masks.json      bin size, promoter width, member count, assembly
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import atomic_directory, read_json, write_json
from seq2exp.core.genes import find_genes
from seq2exp.dataset.format import load_array, read_table, write_table
from seq2exp.dataset.samples import Batch, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.models.masking import central_span
from seq2exp.training.module import forward_batch
from seq2exp.training.predict import iterate
from seq2exp.training.run import TrainedRun

__all__ = ["EXCLUDED", "FREE", "PROMOTER", "GeneMasks", "gene_masks", "load_masks"]

FREE = 0
"""The mask of the bin was learned."""
PROMOTER = 1
"""The mask of the bin is 1 by construction."""
EXCLUDED = 2
"""The mask of the bin is 0 by construction: excluded region, or outside the contig."""

_FORMAT = 1
_COLUMNS = ["gene_id", "symbol", "contig", "tss", "strand", "split"]
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class GeneMasks:
    """Masks of genes in genome direction.

    Attributes
    ----------
    genes : DataFrame
        One row per gene: row (of the dataset's gene table), gene_id, symbol, contig, tss, strand,
        split, start (of the window, 0-based, may be negative), contig_length.
    mask : float16 array, shape (num_genes, num_bins)
        Mean of the mask over the run's members. Where nothing is forced it is the mean of the
        posterior, also for models that round their mask to 0 or 1: rounding would tie the ranks.
        Masks that are not learned (retrain, peaks, abc) are what they are, 0 or 1.
    forced : uint8 array, shape (num_genes, num_bins)
        ``FREE``, ``PROMOTER`` or ``EXCLUDED``. A forced value is no evidence.
    alpha, beta : float16 arrays, shape (num_genes, num_bins), or None
        Parameters of the Beta before anything is forced, averaged over members.
    bin_size : int
        Bases per bin.
    info : dict
        assembly, num_members, promoter_bp.
    members : dict of float16 arrays, shape (num_members, num_genes, num_bins), or None
        ``mask`` and, where there is a Beta, ``alpha`` and ``beta`` of every member. None for a run
        of one member, and where they were not asked for.
    """

    genes: pd.DataFrame
    mask: NDArray[np.float16]
    forced: NDArray[np.uint8]
    alpha: NDArray[np.float16] | None
    beta: NDArray[np.float16] | None
    bin_size: int
    info: dict[str, Any]
    members: dict[str, NDArray[np.float16]] | None = None

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def num_bins(self) -> int:
        """Bins per window."""
        return int(self.mask.shape[1])

    def member_masks(self) -> NDArray[np.float16]:
        """Return the mask of every member, shape (num_members, num_genes, num_bins)."""
        return self.mask[None] if self.members is None else self.members["mask"]

    def member_posteriors(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Return alpha and beta of every member, shape (num_members, num_genes, num_bins).

        Raises
        ------
        InputError
            The masks were not learned, so there is no posterior.
        """
        if self.members is not None and "alpha" in self.members:
            return self.members["alpha"], self.members["beta"]
        if self.alpha is None or self.beta is None:
            raise InputError(
                facts(
                    "masks",
                    found="no alpha and beta: the masks were not learned",
                    expected="the posterior of a learned mask",
                    fix="use a run with mask: soft or hard",
                )
            )
        return self.alpha[None], self.beta[None]

    def intervals(self, gene: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return starts and ends of a gene's bins, clipped to the contig.

        Bins outside the contig have equal start and end.
        """
        starts, ends = self.intervals_of(np.array([gene]))
        return starts[0], ends[0]

    def intervals_of(
        self, genes: NDArray[np.int64] | slice
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return clipped starts and ends for several genes, shape (num_chosen, num_bins)."""
        first = self.genes["start"].to_numpy(np.int64)[genes, None]
        length = self.genes["contig_length"].to_numpy(np.int64)[genes, None]
        starts = first + np.arange(self.num_bins, dtype=np.int64) * self.bin_size
        return starts.clip(0, length), (starts + self.bin_size).clip(0, length)

    def bin_span(
        self, gene: int, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the half-open spans of a gene's bins that intervals overlap."""
        starts, ends = self.intervals(gene)
        first = np.searchsorted(ends, start, side="right").astype(np.int64)
        return first, np.searchsorted(starts, end, side="left").astype(np.int64)

    def index(self, gene: str) -> int:
        """Return the row of a gene given by id or symbol.

        Raises
        ------
        InputError
            No such gene, or a symbol that several genes share.
        """
        return int(find_genes(self.genes, [gene], what=f"gene {gene!r}", where="the map")[0])

    def chunks(self, *, size: int = 256) -> Iterator[NDArray[np.int64]]:
        """Yield row numbers in pieces, so that memory stays bounded."""
        for first in range(0, len(self), size):
            yield np.arange(first, min(first + size, len(self)), dtype=np.int64)


class _Arrays:
    """Arrays to fill, in memory or memory-mapped in a folder."""

    def __init__(
        self, num_genes: int, values: dict[str, NDArray[Any]], *, folder: Path | None
    ) -> None:
        self.values = {name: self._empty(name, num_genes, v, folder) for name, v in values.items()}

    @staticmethod
    def _empty(
        name: str, num_genes: int, values: NDArray[Any], folder: Path | None
    ) -> NDArray[Any]:
        shape = (*values.shape[:-2], num_genes, values.shape[-1])
        if folder is None:
            return np.zeros(shape, values.dtype)
        return np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=values.dtype, shape=shape
        )

    def finish(self) -> None:
        for array in self.values.values():
            if isinstance(array, np.memmap):
                array.flush()


def gene_masks(
    run: TrainedRun,
    dataset: Dataset,
    rows: Sequence[int] | NDArray[np.int64],
    *,
    out: Path | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    forward: Callable[[nn.Module, Batch], object] = forward_batch,
    members: bool = False,
) -> GeneMasks:
    """Return the masks of genes in genome direction; nothing is sampled.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    rows : int array, shape (num_genes,)
        Rows of the gene table; the masks keep this order.
    out : Path, optional
        Folder to write; the arrays then stay on disk and memory use does not grow with the number
        of genes. Without it they are kept in memory.
    batch_size, workers
        Change speed, not numbers.
    progress : bool
        Show progress.
    overwrite : bool
        Replace an existing folder.
    forward : callable
        Applied to each member and batch; replace it to see masks of changed
        inputs, or to keep more of the same pass.
    members : bool
        Keep the masks of every member of a run with several beside their mean.

    Raises
    ------
    InputError
        No gene was asked for, or the model has no mask.
    ConfigError
        The dataset does not fit the run.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    if chosen.size == 0:
        raise InputError(
            facts("masks", found="no gene", expected="at least one", fix="choose other splits")
        )
    _require_mask(run)
    stream = iterate(
        run,
        dataset,
        chosen,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        forward=forward,
    )
    if out is None:
        arrays, info = _fill(stream, run, dataset, chosen, folder=None, members=members)
        return _assemble(run, dataset, chosen, arrays, info)
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        arrays, info = _fill(stream, run, dataset, chosen, folder=partial, members=members)
        arrays.finish()
        masks = _assemble(run, dataset, chosen, arrays, info)
        write_table(masks.genes, partial / "genes.parquet")
        write_json({**info, "bin_size": masks.bin_size, "format": _FORMAT}, partial / "masks.json")
        del arrays, masks
    return load_masks(Path(out))


def load_masks(folder: Path) -> GeneMasks:
    """Open a folder that :func:`gene_masks` wrote; the arrays are memory-mapped.

    Raises
    ------
    FormatError
        A file is missing, damaged, or of another shape than the gene table says.
    """
    folder = Path(folder)
    if not (folder / "masks.json").is_file():
        raise FormatError(
            facts(
                str(folder),
                found="no masks.json",
                expected="a masks folder",
                fix="give the `masks` folder that `seq2exp elements` wrote",
            )
        )
    info = read_json(folder / "masks.json")
    genes = read_table(folder / "genes.parquet")
    names = ("mask", "forced", "alpha", "beta", "member_mask", "member_alpha", "member_beta")
    arrays = {
        name: load_array(folder / f"{name}.npy")
        for name in names
        if name in ("mask", "forced") or (folder / f"{name}.npy").is_file()
    }
    shape = (len(genes), arrays["mask"].shape[-1])
    wrong = [f"{name} {array.shape}" for name, array in arrays.items() if array.shape[-2:] != shape]
    if wrong or info.get("format") != _FORMAT:
        raise FormatError(
            facts(
                str(folder),
                found=f"arrays {', '.join(wrong) or 'of an unknown format'}",
                expected=f"format {_FORMAT}, shape {shape}",
                fix="run `seq2exp elements` again",
            )
        )
    return GeneMasks(
        genes=genes,
        mask=arrays["mask"],
        forced=arrays["forced"],
        alpha=arrays.get("alpha"),
        beta=arrays.get("beta"),
        bin_size=int(info["bin_size"]),
        info={key: info[key] for key in ("assembly", "num_members", "promoter_bp")},
        members=_members(arrays),
    )


def _members(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float16]] | None:
    found = {
        name.removeprefix("member_"): array
        for name, array in arrays.items()
        if name.startswith("member_")
    }
    return found or None


def _fill(
    stream: Iterator[tuple[Batch, list[Any]]],
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    folder: Path | None,
    members: bool,
) -> tuple[_Arrays, dict[str, Any]]:
    """Write every batch to its place."""
    arrays: _Arrays | None = None
    promoter, promoter_bp = _promoter_span(run)
    done = 0
    for batch, outputs in stream:
        values = _average(batch, outputs, promoter)
        if members and len(outputs) > 1:
            parts = [_average(batch, [output], promoter) for output in outputs]
            names = [name for name in values if name != "forced"]
            values |= {f"member_{name}": np.stack([part[name] for part in parts]) for name in names}
        if arrays is None:
            arrays = _Arrays(rows.size, values, folder=folder)
        here = rows[done : done + len(batch)]
        flip = np.array([gene_window(dataset, int(g), run.card.data).reverse for g in here])
        for name, array in arrays.values.items():
            value = values[name]
            value[..., flip, :] = value[..., flip, ::-1]
            array[..., done : done + len(here), :] = value
        done += len(here)
    if arrays is None:
        raise InputError(
            facts("masks", found="no gene", expected="at least one", fix="choose other splits")
        )
    info = {
        "assembly": dataset.manifest.assembly,
        "num_members": len(run.models),
        "promoter_bp": promoter_bp,
    }
    return arrays, info


def _promoter_span(run: TrainedRun) -> tuple[tuple[int, int], int]:
    """Return the forced bins of the model and their width; models without a mask have none."""
    config = getattr(run.models[0], "config", None)
    width = int(getattr(config, "promoter_bp", 0))
    data = run.card.data
    span = central_span(data.window_bp // data.bin_size, bin_size=data.bin_size, central_bp=width)
    return span, width


def _average(batch: Batch, outputs: list[Any], promoter: tuple[int, int]) -> dict[str, Any]:
    """Average members; bins in model direction."""
    excluded = (batch.blacklist_BN | ~batch.valid_BN).cpu().numpy()
    forced = np.where(excluded, np.uint8(EXCLUDED), np.uint8(FREE))
    forced[:, slice(*promoter)] = PROMOTER
    # The promoter wins over exclusion inside the model, but nothing lies outside the contig.
    forced[~batch.valid_BN.cpu().numpy()] = EXCLUDED
    mean = _member_mean(outputs, "mean_BN")
    mask = np.select([forced == PROMOTER, forced == EXCLUDED], [1.0, 0.0], default=mean)
    values = {"mask": mask.astype(np.float16), "forced": forced}
    for name in ("alpha", "beta"):
        if getattr(outputs[0], f"{name}_BN") is not None:
            found = _member_mean(outputs, f"{name}_BN")
            values[name] = found.clip(0, _LARGEST).astype(np.float16)
    return values


def _member_mean(outputs: list[Any], name: str) -> NDArray[np.float32]:
    stacked = torch.stack([getattr(output, name).float() for output in outputs])
    mean: NDArray[np.float32] = stacked.mean(dim=0).cpu().numpy()
    return mean


def _require_mask(run: TrainedRun) -> None:
    """Refuse models without a mask; one of candidate elements or of a mask model is exported."""
    modes = {str(getattr(model.config, "mask", "soft")) for model in run.models}
    if "none" in modes:
        raise InputError(
            facts(
                f"run {run.folder}",
                found="a model without a mask (mask: none)",
                expected="a model that reads the window through a mask",
                fix="train a model with another mask, such as mask: soft",
            )
        )


def _assemble(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    arrays: _Arrays,
    info: dict[str, Any],
) -> GeneMasks:
    windows = [gene_window(dataset, int(row), run.card.data) for row in rows]
    genes = dataset.genes.iloc[rows][_COLUMNS].reset_index(drop=True)
    genes.insert(0, "row", rows)
    genes["start"] = np.array([window.start for window in windows], dtype=np.int64)
    genes["contig_length"] = np.array([w.contig_length for w in windows], dtype=np.int64)
    return GeneMasks(
        genes=genes,
        mask=arrays.values["mask"],
        forced=arrays.values["forced"],
        alpha=arrays.values.get("alpha"),
        beta=arrays.values.get("beta"),
        bin_size=run.card.data.bin_size,
        info=info,
        members=_members(arrays.values),
    )
