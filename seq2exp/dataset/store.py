"""Read a dataset: memory-mapped sequence and tracks, one window at a time.

Handles are opened lazily and per process, so a :class:`Dataset` can be sent to worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.genes import find_genes
from seq2exp.core.intervals import Window, coverage_mask
from seq2exp.core.sequence import N_CODE, reverse_complement
from seq2exp.dataset import format as layout
from seq2exp.dataset.format import Manifest
from seq2exp.dataset.genotypes import Genotypes, read_donor_expression, read_donors

__all__ = ["Dataset"]


class Dataset:
    """A prepared dataset, opened read-only.

    Parameters
    ----------
    root : Path
        Folder that ``seq2exp prepare`` wrote.
    verify_checksums : bool
        Compare the SHA-256 of every file (reads everything). Sizes are always compared.

    Raises
    ------
    FormatError
        The folder is no dataset, or a file is missing or damaged.
    """

    def __init__(self, root: Path, *, verify_checksums: bool = False) -> None:
        self.root = Path(root).absolute()
        self.manifest: Manifest = layout.read_manifest(self.root)
        layout.verify(self.root, self.manifest, checksums=verify_checksums)
        self._arrays: dict[tuple[Any, ...], NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Gene table, one row per gene; the row number is the gene's index everywhere."""
        frame = layout.read_table(layout.genes_path(self.root))
        features = [feature.name for feature in self.manifest.features]
        path = layout.genes_path(self.root)
        _require_columns(frame, [*layout.GENE_COLUMNS, *features], path)
        unknown = sorted(set(frame["contig"].astype(str)) - set(self.manifest.contigs))
        if unknown:
            raise FormatError(
                facts(
                    str(path),
                    found=f"genes on contig {', '.join(unknown[:3])}",
                    expected="contigs of the manifest only",
                    fix="restore both from one copy or prepare the dataset again",
                )
            )
        return frame

    @cached_property
    def sites(self) -> list[tuple[str, int, str]]:
        """Contig, TSS and strand of every gene; a row of the table takes fifty times as long."""
        columns = (self.genes[name].tolist() for name in ("contig", "tss", "strand"))
        return list(zip(*columns, strict=True))

    @cached_property
    def expression(self) -> NDArray[np.float32]:
        """Transformed labels, shape (num_genes, num_samples); NaN where unknown."""
        samples = self.manifest.expression.samples
        if not samples:
            return np.full((len(self.genes), 0), np.nan, dtype=np.float32)
        path = layout.expression_path(self.root)
        frame = layout.read_table(path)
        _require_columns(frame, ["gene_id", *samples], path)
        frame = frame.set_index("gene_id")
        values = frame.reindex(self.genes["gene_id"])[samples].to_numpy(dtype=np.float32)
        return np.ascontiguousarray(values)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """Scalar gene features in manifest order, shape (num_genes, num_features)."""
        names = [feature.name for feature in self.manifest.features]
        return self.genes[names].to_numpy(dtype=np.float32)

    @cached_property
    def excluded_regions(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Excluded intervals by contig: (starts, ends), 0-based half-open."""
        path = layout.regions_path(self.root)
        if not path.is_file():
            return {}
        frame = layout.read_table(path)
        return {
            str(contig): (group["start"].to_numpy(np.int64), group["end"].to_numpy(np.int64))
            for contig, group in frame.groupby("contig")
        }

    @cached_property
    def elements(self) -> dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]]:
        """Candidate elements by set and contig: (starts, ends), sorted and disjoint."""
        path = layout.elements_path(self.root)
        if not path.is_file():
            return {}
        frame = layout.read_table(path)
        _require_columns(frame, layout.ELEMENT_COLUMNS, path)
        sets: dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        for (name, contig), group in frame.groupby(["set", "contig"], sort=False):
            starts, ends = group["start"].to_numpy(np.int64), group["end"].to_numpy(np.int64)
            length = self._length(str(contig))
            edges = np.stack((starts, ends), axis=1).ravel()
            if (
                (ends <= starts).any()
                or (np.diff(edges) < 0).any()
                or not (edges[0] >= 0 and edges[-1] <= length)
            ):
                raise FormatError(
                    facts(
                        str(path),
                        found=f"intervals of set {name} on {contig} that overlap or lie outside",
                        expected=f"sorted, disjoint intervals within {length} bases",
                        fix="restore it from a copy or prepare the dataset again",
                    )
                )
            sets.setdefault(str(name), {})[str(contig)] = (starts, ends)
        return sets

    @cached_property
    def genotypes(self) -> Genotypes | None:
        """Genotypes of donors, or None when the dataset has none."""
        return None if self.manifest.genotypes is None else Genotypes(self.root)

    @cached_property
    def donors(self) -> pd.DataFrame:
        """Donors in the order of their genotypes; no row when the dataset has none."""
        return read_donors(self.root)

    @cached_property
    def donor_expression(self) -> pd.DataFrame | None:
        """Expression of the donors as it was given, or None when the dataset has none.

        The index is the gene id, measured genes only, in the order of the gene table; one float32
        column per donor.
        """
        return read_donor_expression(self.root)

    @property
    def track_names(self) -> list[str]:
        """Track names in array order."""
        return [track.name for track in self.manifest.tracks]

    @property
    def num_tracks(self) -> int:
        """Number of tracks, contacts not counted."""
        return len(self.manifest.tracks)

    def contig_codes(self, contig: str) -> NDArray[np.uint8]:
        """Return the base codes of a whole contig, memory-mapped, shape (contig_length,)."""
        return self._contig_array(layout.sequence_path, contig)

    def contig_tracks(self, contig: str) -> NDArray[np.floating]:
        """Return the stored bins of a whole contig, memory-mapped, shape (bins, num_tracks).

        Stored units, NaN where there is no data; bins of ``manifest.bin_size`` from position 0.
        """
        return self._contig_array(layout.tracks_path, contig)

    def codes(self, window: Window) -> NDArray[np.uint8]:
        """Return the base codes of a window in model direction; padding is N.

        Returns
        -------
        uint8 array, shape (window.length,)
        """
        stored = self._contig_array(layout.sequence_path, window.contig)
        out = np.empty(window.length, dtype=np.uint8)
        stop = window.length - window.pad_right
        out[: window.pad_left] = out[stop:] = N_CODE
        out[window.pad_left : stop] = stored[window.clipped_start : window.clipped_end]
        return reverse_complement(out) if window.reverse else out

    def track_bins(self, window: Window, *, bin_size: int) -> NDArray[np.float32]:
        """Return binned tracks of a window in model direction.

        Stored bins lie on the genome grid, window bins start at the window. A window bin is the
        mean of the stored bins it overlaps, weighted by the overlap, so windows stay centred on
        the TSS to the base. Where a stored bin is NaN (no data) the weights of the others count.

        Parameters
        ----------
        window : Window
            Its length must be a multiple of ``bin_size``.
        bin_size : int
            Bases per returned bin; need not equal the stored one.

        Returns
        -------
        float32 array, shape (window.length // bin_size, num_tracks)
            Padding is 0; NaN where a bin has no data at all.
        """
        if window.length % bin_size:
            raise InputError(
                facts(
                    "window",
                    found=f"{window.length} bases",
                    expected=f"a multiple of bin_size {bin_size}",
                    fix="change window_bp or bin_size",
                )
            )
        bins = np.zeros((window.length // bin_size, self.num_tracks), dtype=np.float32)
        if self.num_tracks and window.clipped_end > window.clipped_start:
            stored = self._contig_array(layout.tracks_path, window.contig)
            _rebin(stored, self.manifest.bin_size, window, bin_size, out=bins)
        return np.flip(bins, axis=0) if window.reverse else bins

    def contact_bins(self, gene: int, window: Window, *, bin_size: int) -> NDArray[np.float32]:
        """Return a gene's contact profile on the bins of its window, in model direction.

        Returns
        -------
        float32 array, shape (window.length // bin_size,)
            0 outside the stored profile and in padding.
        """
        info = self.manifest.contacts
        stored = self._contacts()[gene]
        tss = self.sites[gene][1]
        centre = np.arange(window.start, window.end, bin_size) + bin_size / 2 - tss
        index = np.floor(centre / info.bin_size).astype(np.int64) + info.num_bins // 2
        known = (index >= 0) & (index < info.num_bins)
        values = np.where(known, stored[index.clip(0, info.num_bins - 1)], 0).astype(np.float32)
        values[~self.inside_bins(window, bin_size=bin_size, model_direction=False)] = 0
        return values[::-1] if window.reverse else values

    def inside_bins(
        self, window: Window, *, bin_size: int, model_direction: bool = True
    ) -> NDArray[np.bool_]:
        """Return which bins of a window touch the contig."""
        starts = np.arange(window.start, window.end, bin_size)
        inside = np.logical_and(starts < window.contig_length, starts + bin_size > 0)
        return np.flip(inside) if model_direction and window.reverse else inside

    def excluded_bins(self, window: Window, *, bin_size: int) -> NDArray[np.bool_]:
        """Return which bins of a window touch an excluded region, in model direction."""
        starts, ends = self.excluded_regions.get(window.contig, (np.empty(0), np.empty(0)))
        touched = (np.asarray(starts) < window.end) & (np.asarray(ends) > window.start)
        num_bins = window.length // bin_size
        if not touched.any():
            return np.zeros(num_bins, dtype=np.bool_)
        bases = coverage_mask(starts[touched], ends[touched], window.start, window.end)
        bins = bases.reshape(num_bins, bin_size).max(axis=1)
        return np.flip(bins, axis=0) if window.reverse else bins

    def window_elements(self, window: Window, tss: int, *, name: str) -> NDArray[np.int32]:
        """Return the elements of a set that overlap a window, in model direction.

        Parameters
        ----------
        window : Window
        tss : int
            0-based base of the genome from which distances count.
        name : str
            A set of :attr:`elements`.

        Returns
        -------
        int32 array, shape (num_elements, 2)
            Start and end from the first base of the window, half-open, not clipped: an element
            may begin before 0 and end beyond the window. The one whose centre is nearest to the
            TSS comes first.
        """
        here = self.elements[name].get(window.contig)
        if here is None:
            return np.empty((0, 2), dtype=np.int32)
        # Disjoint and sorted, so starts and ends both ascend.
        first = np.searchsorted(here[1], window.start, side="right")
        last = np.searchsorted(here[0], window.end, side="left")
        pairs = np.stack((here[0][first:last], here[1][first:last]), axis=1)
        distance = np.abs(pairs.sum(axis=1) - (2 * tss + 1))
        pairs = window.end - pairs[:, ::-1] if window.reverse else pairs - window.start
        order = np.lexsort((pairs[:, 0], distance))
        return np.ascontiguousarray(pairs[order].astype(np.int32))

    def gene_rows(self, splits: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the row numbers of the genes of the named splits."""
        return np.flatnonzero(self.genes["split"].isin(splits)).astype(np.int64)

    def find_genes(self, names: Sequence[str], *, what: str) -> NDArray[np.int64]:
        """Return the rows of genes given by id or symbol; see `seq2exp.core.genes.find_genes`.

        Parameters
        ----------
        names : sequence of str
        what : str
            The option that named them, for the message.

        Raises
        ------
        InputError
            Names of no gene, or of several.
        """
        return find_genes(self.genes, names, what=what, where=self.root.name)

    def labelled(self) -> NDArray[np.bool_]:
        """Return which genes have at least one label, shape (num_genes,)."""
        return np.asarray(np.isfinite(self.expression).any(axis=1), dtype=np.bool_)

    def _contig_array(self, place: Callable[[Path, str], Path], contig: str) -> NDArray[Any]:
        array = self._arrays.get((place, contig))
        if array is None:
            length = self._length(contig)
            num_bins = -(-length // self.manifest.bin_size)
            shape = (length,) if place is layout.sequence_path else (num_bins, self.num_tracks)
            array = self._arrays[place, contig] = _open(place(self.root, contig), shape)
        return array

    def _contacts(self) -> NDArray[Any]:
        array = self._arrays.get(("contacts",))
        if array is None:
            shape = (len(self.genes), self.manifest.contacts.num_bins)
            array = self._arrays["contacts",] = _open(layout.contacts_path(self.root), shape)
        return array

    def _length(self, contig: str) -> int:
        if contig not in self.manifest.contigs:
            raise InputError(
                facts(
                    f"dataset {self.root.name}",
                    found=f"no contig {contig!r}",
                    expected=f"one of {', '.join(list(self.manifest.contigs)[:5])}",
                    fix="prepare the dataset with this contig",
                )
            )
        return self.manifest.contigs[contig]


def _open(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    # A plain view of the map: slices of np.memmap cost several microseconds each.
    array = np.asarray(layout.load_array(path))
    if array.shape != shape:
        raise FormatError(
            facts(
                str(path),
                found=f"shape {array.shape}",
                expected=f"{shape}, as the manifest says",
                fix="restore both from one copy or prepare the dataset again",
            )
        )
    return array


def _require_columns(frame: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise FormatError(
            facts(
                str(path),
                found=f"no column {', '.join(missing)}",
                expected="the columns that the manifest and docs/dataset_format.md name",
                fix="prepare the dataset again",
            )
        )


def _rebin(
    stored: NDArray[Any],
    stored_size: int,
    window: Window,
    bin_size: int,
    *,
    out: NDArray[np.float32],
) -> None:
    """Fill ``out`` with overlap-weighted means of ``stored``, in genome direction."""
    if bin_size == stored_size and window.start % stored_size == 0:
        first = window.start // stored_size
        low, high = max(first, 0), min(first + out.shape[0], stored.shape[0])
        out[low - first : high - first] = stored[low:high]
        return
    if bin_size == stored_size and not (window.pad_left or window.pad_right):
        first, late = divmod(window.start, stored_size)
        values = stored[first : first + out.shape[0] + 1].astype(np.float32)
        if np.isfinite(values).all():
            # Every bin overlaps two stored ones: the usual case, without the integral.
            share = np.float32(late / stored_size)
            np.multiply(values[:-1], 1 - share, out=out)
            out += share * values[1:]
            return
    # The integral of the stored signal, read at the edges of the window's bins, gives both the sum
    # and the covered length of every bin, whatever the two grids are.
    first = max(window.clipped_start // stored_size, 0)
    last = min(-(-window.clipped_end // stored_size), stored.shape[0])
    values = np.asarray(stored[first:last], dtype=np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    edges = np.arange(window.start, window.end + 1, bin_size)
    edges = edges.clip(window.clipped_start, window.clipped_end)
    sums = _integral(filled, first, stored_size, edges)
    covered = np.diff(edges)[:, None]
    if known.all():
        means = sums / np.maximum(covered, 1)
    else:
        weight = _integral(known.astype(np.float64), first, stored_size, edges)
        means = np.divide(sums, weight, out=np.full_like(sums, np.nan), where=weight > 0)
    out[:] = np.where(covered > 0, means, 0.0)


def _integral(
    values: NDArray[np.float64], first: int, stored_size: int, edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    cumulative = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)))
    position = edges / stored_size - first
    whole = np.minimum(position.astype(np.int64), values.shape[0])
    rest = (position - whole)[:, None]
    following = values[np.minimum(whole, values.shape[0] - 1)]
    result: NDArray[np.float64] = (
        np.diff(cumulative[whole] + rest * following, axis=0) * stored_size
    )
    return result
