"""What a mask has to beat: scores per bin that need no model.

All scores lie on the bins of the gene masks, in genome direction, higher meaning more likely an
element of the gene.

* ``peaks``: a peak caller on the accessibility track. The run-length rule of
  :mod:`seq2exp.core.runs` on the stored bins of whole contigs; a bin scores the summit of
  the peak it overlaps, 0 outside peaks. The cutoff is chosen on the validation genes.
* ``signal <track>`` and ``signal <accessibility> x H3K27ac``: the signal itself.
* ``distance``: minus the distance of the bin's centre from the TSS.
* ``contact x activity``: activity-by-contact (Fulco et al. 2019): the geometric mean of
  accessibility and H3K27ac (or accessibility alone) times the contact with the TSS, as a share of
  the gene's total. Contact is the dataset's profile, or else ``max(d, 1 kb) ** -0.87``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.core.runs import call_runs
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import GeneMasks

__all__ = ["PEAK_QUANTILES", "Rivals"]

PEAK_QUANTILES = (0.80, 0.90, 0.95, 0.98, 0.99)
_PEAK_MIN_LENGTH = 150
_POWER_LAW = 0.87
_NEAREST_BP = 1000
_ACCESSIBLE = re.compile(r"dnase|dhs|atac|access|faire", re.IGNORECASE)
_ACETYLATED = re.compile(r"k27ac", re.IGNORECASE)
_INVERSE: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": lambda x: x,
    "log1p": np.expm1,
    "arcsinh": np.sinh,
}

Peaks = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class Rivals:
    """Scores of the rivals for the genes of some masks.

    Parameters
    ----------
    masks : GeneMasks
    dataset : Dataset

    Raises
    ------
    InputError
        The genes of the masks stand in other rows of the dataset.
    """

    def __init__(self, masks: GeneMasks, dataset: Dataset) -> None:
        _require_rows(masks, dataset)
        self.masks = masks
        self.dataset = dataset
        self.tracks = dataset.track_names
        self.accessible = self._find(_ACCESSIBLE)
        self.acetylated = self._find(_ACETYLATED)
        self._peaks: dict[tuple[str, float], Peaks] = {}
        self._contigs: dict[str, NDArray[np.float32]] = {}

    def _find(self, pattern: re.Pattern[str]) -> int | None:
        for index, info in enumerate(self.dataset.manifest.tracks):
            if pattern.search(info.assay) or pattern.search(info.name):
                return index
        return None

    @property
    def signal_names(self) -> list[str]:
        """Names of the strongest-signal rivals."""
        names = [f"signal {name}" for name in self.tracks]
        return [*names, self._product_name] if self._has_product else names

    @property
    def peak_names(self) -> list[str]:
        """Names of the peak callers, one per cutoff; empty without an accessibility track."""
        if self.accessible is None:
            return []
        return [f"peaks {self.tracks[self.accessible]} q{q:g}" for q in PEAK_QUANTILES]

    @property
    def _has_product(self) -> bool:
        return None not in (self.accessible, self.acetylated)

    @property
    def _product_name(self) -> str:
        first, second = self.accessible or 0, self.acetylated or 0
        return f"signal {self.tracks[first]} x {self.tracks[second]}"

    def scores(self, gene: int) -> dict[str, NDArray[np.float64]]:
        """Return every score of a gene, each of shape (num_bins,)."""
        window = self._window(gene)
        signal = self._linear(self.dataset.track_bins(window, bin_size=self.masks.bin_size))
        distance = self._distance(gene)
        scores = {f"signal {name}": signal[:, t] for t, name in enumerate(self.tracks)}
        if self._has_product:
            scores[self._product_name] = signal[:, self.accessible] * signal[:, self.acetylated]
        scores["distance"] = -distance
        if self.accessible is not None:
            scores["contact x activity"] = self._abc(gene, window, signal, distance)
            for quantile, name in zip(PEAK_QUANTILES, self.peak_names, strict=True):
                scores[name] = self._peak_bins(window, quantile)
        return scores

    def _window(self, gene: int) -> Window:
        row = self.masks.genes.iloc[gene]
        start = int(row["start"])
        end = start + self.masks.num_bins * self.masks.bin_size
        return Window(str(row["contig"]), start, end, "+", int(row["contig_length"]))

    def _distance(self, gene: int) -> NDArray[np.float64]:
        row = self.masks.genes.iloc[gene]
        centre = np.arange(self.masks.num_bins) * self.masks.bin_size + self.masks.bin_size / 2
        distance: NDArray[np.float64] = np.abs(int(row["start"]) + centre - int(row["tss"]) - 0.5)
        return distance

    def _linear(self, signal: NDArray[np.float32]) -> NDArray[np.float64]:
        """Undo the stored transform; no data counts as no signal."""
        columns = [
            _INVERSE[info.transform](signal[:, t].astype(np.float64))
            for t, info in enumerate(self.dataset.manifest.tracks)
        ]
        if not columns:
            return np.zeros((len(signal), 0))
        linear: NDArray[np.float64] = np.nan_to_num(np.stack(columns, axis=1)).clip(min=0)
        return linear

    def parts(self, gene: int) -> dict[str, NDArray[np.float64]]:
        """Return what the activity-by-contact score is made of, each of shape (num_bins,).

        ``activity`` is missing without an accessibility track.
        """
        window = self._window(gene)
        signal = self._linear(self.dataset.track_bins(window, bin_size=self.masks.bin_size))
        parts = {"contact": self._contact(gene, window, self._distance(gene))}
        if self.accessible is not None:
            parts["activity"] = self._activity(signal)
        return parts

    def _activity(self, signal: NDArray[np.float64]) -> NDArray[np.float64]:
        activity: NDArray[np.float64] = signal[:, self.accessible]
        if self.acetylated is not None:
            activity = np.sqrt(activity * signal[:, self.acetylated])
        return activity

    def _contact(
        self, gene: int, window: Window, distance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if not self.dataset.manifest.contacts.num_bins:
            near: NDArray[np.float64] = np.maximum(distance, _NEAREST_BP) ** -_POWER_LAW
            return near
        row = int(self.masks.genes["row"].iloc[gene])
        stored = self.dataset.contact_bins(row, window, bin_size=self.masks.bin_size)
        return np.nan_to_num(stored.astype(np.float64))

    def _abc(
        self,
        gene: int,
        window: Window,
        signal: NDArray[np.float64],
        distance: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        score = self._activity(signal) * self._contact(gene, window, distance)
        total = float(score.sum())
        share: NDArray[np.float64] = score / total if total > 0 else score
        return share

    def _peak_bins(self, window: Window, quantile: float) -> NDArray[np.float64]:
        starts, ends, heights = self._contig_peaks(window.contig, quantile)
        low = np.arange(window.start, window.end, self.masks.bin_size)
        high = low + self.masks.bin_size
        score = np.zeros(low.size)
        first, last = np.searchsorted(ends, low, side="right"), np.searchsorted(starts, high)
        overlapped = first < last
        # Bins are mostly shorter than peaks; of several peaks in one bin the higher one counts.
        score[overlapped] = np.maximum(heights[first[overlapped]], heights[last[overlapped] - 1])
        return score

    def _contig_peaks(self, contig: str, quantile: float) -> Peaks:
        if (contig, quantile) not in self._peaks:
            signal = self._contig_signal(contig)
            size = self.dataset.manifest.bin_size
            starts = np.arange(signal.size, dtype=np.int64) * size
            runs = call_runs(
                starts,
                np.minimum(starts + size, self.dataset.manifest.contigs[contig]),
                signal,
                cutoff=max(self._cutoffs[quantile], float(np.finfo(np.float32).tiny)),
                max_gap=size,
                min_length=_PEAK_MIN_LENGTH,
            )
            self._peaks[contig, quantile] = (runs.start, runs.end, runs.height)
        return self._peaks[contig, quantile]

    def _contig_signal(self, contig: str) -> NDArray[np.float32]:
        if contig not in self._contigs:
            size = self.dataset.manifest.bin_size
            length = self.dataset.manifest.contigs[contig]
            window = Window(contig, 0, -(-length // size) * size, "+", length)
            stored = self.dataset.track_bins(window, bin_size=size)[:, self.accessible]
            self._contigs[contig] = np.nan_to_num(stored)
        return self._contigs[contig]

    @cached_property
    def _cutoffs(self) -> dict[float, float]:
        """One cutoff per quantile for all contigs with genes, as a peak caller would have."""
        contigs = self.masks.genes["contig"].unique()
        signal = np.concatenate([self._contig_signal(str(contig)) for contig in contigs])
        values = np.quantile(signal, PEAK_QUANTILES)
        return dict(zip(PEAK_QUANTILES, map(float, values), strict=True))


def _require_rows(masks: GeneMasks, dataset: Dataset) -> None:
    """Refuse a dataset of other genes: contacts and labels are read by row."""
    ours = dataset.genes["gene_id"].reindex(masks.genes["row"]).to_numpy()
    wrong = masks.genes["gene_id"].to_numpy() != ours
    if wrong.any():
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found="other genes than those of the element map, or in another order",
                expected="the dataset that the elements were mapped on",
                fix="name it with --data, or map the elements again",
                count=int(wrong.sum()),
                examples=masks.genes["gene_id"][wrong].head(3).tolist(),
            )
        )
