"""From a gene to what the model sees: window, sample, batch.

Windows are oriented along transcription when ``strand`` is ``gene``: minus-strand genes arrive
reverse-complemented, tracks and masks mirrored with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.intervals import Window, tss_window

if TYPE_CHECKING:
    from seq2exp.dataset.store import Dataset

__all__ = ["CONTACT", "Batch", "GeneSamples", "Sample", "SampleConfig", "collate", "gene_window"]

CONTACT = "contact"


@dataclass(frozen=True)
class SampleConfig:
    """Which window of which genes the model sees."""

    window_bp: int = 16384
    """Window length in bases, centred on the TSS; a multiple of bin_size."""
    bin_size: int = 64
    """Bases per bin of the model: 1, 16, 32, 64 or 128."""
    strand: str = "gene"
    """gene: read along transcription; plus: always the plus strand."""
    edge: str = "pad"
    """Windows that reach beyond a contig end. pad: with N; skip: their genes are left out of
    training, evaluation, prediction and maps."""
    contacts: bool = False
    """Append the contact profile as a last track."""
    tracks: list[str] | None = None
    """Tracks to use, in this order; all of the dataset when not given."""
    samples: list[str] | None = None
    """Label columns to predict; all of the dataset when not given."""
    features: list[str] | None = None
    """Scalar gene features to use; all of the dataset when not given."""
    elements: str | None = None
    """Set of candidate elements that comes with the windows; none when not given."""
    jitter_bp: int = 0
    """Training windows are shifted by up to this many bases in either direction."""
    shuffle_tracks: bool = False
    """Control: every gene gets the tracks, contacts, track-derived features and candidate elements
    of another gene of its split."""

    def __post_init__(self) -> None:
        if self.bin_size < 1 or self.window_bp < 1 or self.window_bp % self.bin_size:
            raise ConfigError(
                facts(
                    "data.window_bp",
                    found=f"{self.window_bp} with bin_size {self.bin_size}",
                    expected="a positive multiple of data.bin_size",
                    fix="change data.window_bp or data.bin_size",
                )
            )
        if self.strand not in ("gene", "plus"):
            raise ConfigError(
                facts("data.strand", found=self.strand, expected="gene or plus", fix="use one")
            )
        if self.edge not in ("pad", "skip"):
            raise ConfigError(
                facts("data.edge", found=self.edge, expected="pad or skip", fix="use one")
            )
        if self.jitter_bp < 0:
            raise ConfigError(
                facts("data.jitter_bp", found=self.jitter_bp, expected=">= 0", fix="use 0")
            )


@dataclass(frozen=True)
class Sample:
    """One gene, in model direction."""

    codes: NDArray[np.uint8]
    """Base codes, shape (window_bp,)."""
    signal: NDArray[np.float32]
    """Tracks in stored units, shape (num_bins, num_tracks); NaN where there is no data."""
    features: NDArray[np.float32]
    """Scalar features, shape (num_features,)."""
    expression: NDArray[np.float32]
    """Transformed labels, shape (num_samples,); NaN where unknown."""
    blacklist: NDArray[np.bool_]
    """Bins in excluded regions, shape (num_bins,)."""
    valid: NDArray[np.bool_]
    """Bins inside the contig, shape (num_bins,)."""
    elements: NDArray[np.int32] | None
    """Candidate elements that overlap the window, shape (num_elements, 2): half-open base pairs
    from its first base, not clipped to it, nearest to the TSS first. None when no set was asked
    for."""
    index: int
    """Row of the gene in genes.parquet."""


@dataclass(frozen=True)
class Batch:
    """Samples stacked as tensors; B genes, L bases, N bins, T tracks, F features, K labels.

    R is the number of elements of the gene that has most, at least 1, and 0 when no set was asked
    for; rows of `elements_BR2` that are left over are -1.
    """

    codes_BL: torch.Tensor
    signal_BNT: torch.Tensor
    features_BF: torch.Tensor
    expression_BK: torch.Tensor
    blacklist_BN: torch.Tensor
    valid_BN: torch.Tensor
    elements_BR2: torch.Tensor
    index_B: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(
            **{
                item.name: getattr(self, item.name).to(device, non_blocking=True)
                for item in fields(self)
            }
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (called by the data loader)."""
        return Batch(**{item.name: getattr(self, item.name).pin_memory() for item in fields(self)})

    def __len__(self) -> int:
        return self.codes_BL.shape[0]


def gene_window(dataset: Dataset, gene: int, config: SampleConfig, *, shift: int = 0) -> Window:
    """Return the window of a gene as the model sees it.

    Parameters
    ----------
    dataset : Dataset
    gene : int
        Row of the gene table.
    config : SampleConfig
    shift : int
        Bases by which the window is moved in genome direction.
    """
    contig, tss, strand = dataset.sites[gene]
    window = tss_window(
        contig,
        tss,
        strand,
        length=config.window_bp,
        contig_length=dataset.manifest.contigs[contig],
        oriented=config.strand == "gene",
    )
    if not shift:
        return window
    return Window(
        contig, window.start + shift, window.end + shift, window.strand, window.contig_length
    )


class GeneSamples(TorchDataset[Sample]):
    """Samples of chosen genes, in a fixed order.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
    rows : int64 array, shape (num_genes,)
        Rows of the gene table.
    jitter : bool
        Shift windows at random (training only). The shift depends on ``seed``, the epoch and the
        gene, never on the worker, so that worker counts do not change batches.
    seed : int
    """

    def __init__(
        self,
        dataset: Dataset,
        config: SampleConfig,
        rows: Sequence[int] | NDArray[np.int64],
        *,
        jitter: bool = False,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.rows = np.asarray(rows, dtype=np.int64)
        self.jitter = jitter
        self.seed = seed
        self.epoch = 0
        self.track_index = _choose(dataset.track_names, config.tracks, "data.tracks")
        self.all_tracks = self.track_index == list(range(dataset.num_tracks))
        self.label_index = _choose(
            dataset.manifest.expression.samples, config.samples, "data.samples"
        )
        names = [feature.name for feature in dataset.manifest.features]
        self.feature_index = _choose(names, config.features, "data.features")
        self.from_track = np.array(
            [dataset.manifest.features[i].source == "track" for i in self.feature_index], dtype=bool
        )
        self.donor = _shuffled_within_splits(dataset) if config.shuffle_tracks else None
        _require_set(dataset, config.elements)
        if config.contacts and not dataset.manifest.contacts.num_bins:
            raise ConfigError(
                facts(
                    "data.contacts",
                    found="a dataset without contacts",
                    expected="contacts",
                    fix="prepare it with a contacts section or set data.contacts to false",
                )
            )

    @property
    def track_names(self) -> list[str]:
        """Names of the tracks in the samples, the contact profile last."""
        names = [self.dataset.track_names[i] for i in self.track_index]
        return [*names, CONTACT] if self.config.contacts else names

    @property
    def sample_names(self) -> list[str]:
        """Names of the labels."""
        return [self.dataset.manifest.expression.samples[i] for i in self.label_index]

    @property
    def feature_names(self) -> list[str]:
        """Names of the scalar features."""
        return [self.dataset.manifest.features[i].name for i in self.feature_index]

    def set_epoch(self, epoch: int) -> None:
        """Choose the shifts of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return int(self.rows.size)

    def __getitem__(self, item: int) -> Sample:
        gene = int(self.rows[item])
        return self.sample(gene, self._window(gene))

    def sample(self, gene: int, window: Window) -> Sample:
        """Return a gene as it is seen in a window.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        window : Window
            Of the length that the configuration says.
        """
        data, bin_size = self.dataset, self.config.bin_size
        other = gene if self.donor is None else int(self.donor[gene])
        other_window = window if other == gene else self._window(other)
        features = data.features[gene][self.feature_index]
        borrowed = data.features[other][self.feature_index]
        return Sample(
            codes=data.codes(window),
            signal=self.signal(other, other_window),
            features=np.where(self.from_track, borrowed, features),
            expression=data.expression[gene][self.label_index],
            blacklist=np.ascontiguousarray(data.excluded_bins(window, bin_size=bin_size)),
            valid=np.ascontiguousarray(data.inside_bins(window, bin_size=bin_size)),
            elements=self._elements(other, other_window),
            index=gene,
        )

    def _elements(self, gene: int, window: Window) -> NDArray[np.int32] | None:
        name = self.config.elements
        if name is None:
            return None
        return self.dataset.window_elements(window, self.dataset.sites[gene][1], name=name)

    def _window(self, gene: int) -> Window:
        return gene_window(self.dataset, gene, self.config, shift=self._shift(gene))

    def signal(self, gene: int, window: Window) -> NDArray[np.float32]:
        """Return the chosen tracks of any window, and the contact profile of a gene beside them.

        Parameters
        ----------
        gene : int
            Row of the gene table.
        window : Window

        Returns
        -------
        float32 array, shape (num_bins, num_tracks)
            Stored units, in model direction; NaN where there is no data.
        """
        bin_size = self.config.bin_size
        signal = self.dataset.track_bins(window, bin_size=bin_size)
        if not self.all_tracks:
            signal = signal[:, self.track_index]
        if self.config.contacts:
            contact = self.dataset.contact_bins(gene, window, bin_size=bin_size)
            signal = np.concatenate((signal, contact[:, None]), axis=1)
        return np.ascontiguousarray(signal)

    def _shift(self, gene: int) -> int:
        limit = self.config.jitter_bp
        if not self.jitter or not limit:
            return 0
        random = np.random.default_rng((self.seed, self.epoch, gene))
        return int(random.integers(-limit, limit + 1))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch."""

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))

    return Batch(
        codes_BL=stack("codes"),
        signal_BNT=stack("signal"),
        features_BF=stack("features"),
        expression_BK=stack("expression"),
        blacklist_BN=stack("blacklist"),
        valid_BN=stack("valid"),
        elements_BR2=_stack_elements([sample.elements for sample in samples]),
        index_B=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
    )


def _stack_elements(elements: Sequence[NDArray[np.int32] | None]) -> torch.Tensor:
    found = [pairs for pairs in elements if pairs is not None]
    rows = max([1, *map(len, found)]) if found else 0
    stacked = np.full((len(elements), rows, 2), -1, dtype=np.int32)
    for padded, pairs in zip(stacked, found or elements, strict=True):
        if pairs is not None:
            padded[: len(pairs)] = pairs
    return torch.from_numpy(stacked)


def _require_set(dataset: Dataset, name: str | None) -> None:
    if name is not None and name not in dataset.elements:
        known = ", ".join(dataset.elements) or "nothing (the dataset has none)"
        raise ConfigError(
            facts(
                "data.elements",
                found=repr(name),
                expected=f"one of {known}",
                fix="use a set of the dataset, or prepare it with an elements section",
            )
        )


def _shuffled_within_splits(dataset: Dataset) -> NDArray[np.int64]:
    """Return, for each gene, another gene of its split; fixed by the dataset alone."""
    random = np.random.default_rng(0)
    donor = np.arange(len(dataset.genes), dtype=np.int64)
    for rows in dataset.genes.groupby("split").indices.values():
        order = random.permutation(np.asarray(rows))
        donor[order] = np.roll(order, 1)
    return donor


def _choose(available: list[str], wanted: list[str] | None, key: str) -> list[int]:
    if wanted is None:
        return list(range(len(available)))
    missing = [name for name in wanted if name not in available]
    if missing:
        raise ConfigError(
            facts(
                key,
                found=f"names the dataset lacks: {', '.join(missing)}",
                expected=f"some of {', '.join(available) or 'nothing (the dataset has none)'}",
                fix="use the names that `seq2exp inspect` prints",
                count=len(missing),
            )
        )
    return [available.index(name) for name in wanted]
