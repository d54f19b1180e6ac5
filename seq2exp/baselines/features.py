"""Plain features of a gene, as the gene reads them: words of DNA, track bins, scalars.

All windows are oriented along transcription, whatever the model does, and never reach further than
the model's window, so that a control knows no more of the genome than the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window, tss_window
from seq2exp.dataset.samples import CONTACT, SampleConfig
from seq2exp.dataset.store import Dataset

__all__ = [
    "GeneFeatures",
    "KmerSpan",
    "ScalarSpan",
    "TrackSpan",
    "codon_spans",
    "kmer_counts",
    "kmer_spans",
    "track_spans",
]

_KMER_HALVES = (500, 1000, 2000)
_TRACK_HALVES = (512, 1024, 2048, 4096, 16384, 65536)
_TRACK_BINS = (16, 64)
_PROMOTER_BP = 500
# Positions whose words are counted at once: keeps the temporary arrays near 100 MB.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class KmerSpan:
    """Which words are counted.

    Attributes
    ----------
    upstream, downstream : int
        Bases before the TSS, and from the TSS on.
    separate : bool
        Count the two sides in columns of their own; words across the TSS are then left out.
    root : bool
        Take the square root of the counts, which evens out their variance.
    k : int
        Word length.
    phased : bool
        Count words by the distance of their start from the window's start, modulo 3, in columns of
        their own: codons, where the TSS is a start codon.
    """

    upstream: int
    downstream: int
    separate: bool = False
    root: bool = False
    k: int = 5
    phased: bool = False


@dataclass(frozen=True)
class TrackSpan:
    """Which bins of the tracks are read: ``num_bins`` of ``bin_bp`` bases, centred on the TSS."""

    bin_bp: int
    num_bins: int


@dataclass(frozen=True)
class ScalarSpan:
    """How scalar features enter: as they are, or with their squares and products."""

    products: bool = False


def kmer_spans(window_bp: int) -> list[KmerSpan]:
    """Return the spans a control may choose from: those inside the model's window."""
    half = window_bp // 2
    sides = sorted({(min(size, half), min(size, half)) for size in _KMER_HALVES})
    if half >= 1000:
        sides.append((500, 1000))
    return [KmerSpan(up, down, separate=both) for up, down in sides for both in (False, True)]


def codon_spans(window_bp: int) -> list[KmerSpan]:
    """Return the spans from the TSS on in which 3-mers may be counted by reading phase."""
    sides = sorted({min(size, window_bp // 2) for size in _KMER_HALVES})
    return [KmerSpan(0, side, k=3, phased=True) for side in sides]


def track_spans(window_bp: int, *, bin_size: int) -> list[TrackSpan]:
    """Return the track extents a control may choose from, the model's whole window included.

    Parameters
    ----------
    window_bp : int
        Length of the model's window in bases.
    bin_size : int
        Bases per stored bin; finer bins would hold nothing new.
    """
    half = window_bp // 2
    halves = sorted({size for size in _TRACK_HALVES if size < half} | {half})
    spans = [TrackSpan(2 * size // num, num) for size in halves for num in _TRACK_BINS]
    useful = [span for span in spans if span.bin_bp >= bin_size]
    return useful or [TrackSpan(half, 2)]


def kmer_counts(
    codes: NDArray[np.uint8], *, k: int = 5, first: int = 0, step: int = 1
) -> NDArray[np.float32]:
    """Count the words of length ``k`` in every row, as read; words with N are skipped.

    Parameters
    ----------
    codes : uint8 array, shape (num_genes, num_bases)
        A0 C1 G2 T3, larger values are N.
    k : int
        Word length, at most 12.
    first, step : int
        Count the words that start at ``first``, ``first + step``, ...

    Returns
    -------
    float32 array, shape (num_genes, 4 ** k)
        Column ``sum(code_i * 4 ** (k - 1 - i))`` counts the word ``code_0 .. code_{k-1}``.
    """
    if not 1 <= k <= 12:
        raise InputError(facts("k", found=k, expected="between 1 and 12", fix="use 5"))
    num_genes, num_bases = codes.shape
    counts = np.zeros((num_genes, 4**k), dtype=np.float32)
    if num_bases < k:
        return counts
    chunk = max(_CHUNK // num_bases, 1)
    for start in range(0, num_genes, chunk):
        part = codes[start : start + chunk]
        counts[start : start + chunk] = _count_part(part, k, slice(first, None, step))
    return counts


def _count_part(codes: NDArray[np.uint8], k: int, starts: slice) -> NDArray[np.float32]:
    num_genes, num_bases = codes.shape
    num_words = num_bases - k + 1
    index = np.zeros((num_genes, num_words), dtype=np.int64)
    known = np.ones((num_genes, num_words), dtype=np.bool_)
    for i in range(k):
        base = codes[:, i : i + num_words]
        index *= 4
        index += base
        known &= base < 4
    index += np.arange(num_genes)[:, None] * 4**k
    index, known = index[:, starts], known[:, starts]
    counts = np.bincount(index[known], minlength=num_genes * 4**k)
    return counts.reshape(num_genes, 4**k).astype(np.float32)


class GeneFeatures:
    """Reads the plain features of genes from a dataset.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
        What the model was given. Its tracks and features are used; where it was given none, those
        of the dataset, because a control must not be weaker than the data allow.
    """

    def __init__(self, dataset: Dataset, config: SampleConfig) -> None:
        self.dataset = dataset
        self.window_bp = config.window_bp
        known = dataset.track_names
        self.tracks = [known.index(name) for name in config.tracks or () if name in known]
        self.tracks = self.tracks or list(range(len(known)))
        self.contacts = config.contacts and dataset.manifest.contacts.num_bins > 0
        names = [feature.name for feature in dataset.manifest.features]
        self.scalar_index = [names.index(name) for name in config.features or () if name in names]
        self.scalar_index = self.scalar_index or list(range(len(names)))
        genes = dataset.genes
        self._contig = genes["contig"].astype(str).to_numpy()
        self._tss = genes["tss"].to_numpy(np.int64)
        self._strand = genes["strand"].astype(str).to_numpy()

    def missing(self) -> dict[str, str]:
        """Return why a block of features cannot be made, for the blocks that cannot."""
        reasons = {}
        if not self.tracks:
            reasons["tracks"] = reasons["promoter"] = "the dataset has no tracks"
        if not self.scalar_index:
            reasons["scalars"] = "the dataset has no scalar features"
        return reasons

    def window(self, gene: int, *, half: int) -> Window:
        """Return the window of ``half`` bases before the TSS and ``half`` from it on."""
        contig = str(self._contig[gene])
        return tss_window(
            contig,
            int(self._tss[gene]),
            str(self._strand[gene]),
            length=2 * half,
            contig_length=self.dataset.manifest.contigs[contig],
        )

    def codes(
        self, rows: NDArray[np.int64], *, upstream: int, downstream: int
    ) -> NDArray[np.uint8]:
        """Return base codes around the TSS: uint8, shape (num_genes, upstream + downstream)."""
        half = max(upstream, downstream)
        out = np.empty((len(rows), upstream + downstream), dtype=np.uint8)
        for i, gene in enumerate(rows):
            codes = self.dataset.codes(self.window(int(gene), half=half))
            out[i] = codes[half - upstream : half + downstream]
        return out

    def kmers(self, rows: NDArray[np.int64], span: KmerSpan) -> NDArray[np.float32]:
        """Return word counts: float32, shape (num_genes, 4 ** k, twice or thrice that)."""
        codes = self.codes(rows, upstream=span.upstream, downstream=span.downstream)
        if span.separate:
            sides = (codes[:, : span.upstream], codes[:, span.upstream :])
            counts = np.concatenate([kmer_counts(side, k=span.k) for side in sides], axis=1)
        elif span.phased:
            phases = [kmer_counts(codes, k=span.k, first=phase, step=3) for phase in range(3)]
            counts = np.concatenate(phases, axis=1)
        else:
            counts = kmer_counts(codes, k=span.k)
        return np.sqrt(counts) if span.root else counts

    def track_bins(self, rows: NDArray[np.int64], span: TrackSpan) -> NDArray[np.float32]:
        """Return log-scaled track bins around the TSS.

        Tracks stored untransformed become ``sign(x) * log(1 + |x|)``. When the model reads the
        contact profile, it is the last track.

        Returns
        -------
        float32 array, shape (num_genes, num_bins * num_tracks)
            NaN where a bin has no data.
        """
        half = span.bin_bp * span.num_bins // 2
        num_tracks = len(self.tracks) + self.contacts
        out = np.empty((len(rows), span.num_bins, num_tracks), dtype=np.float32)
        for i, gene in enumerate(rows):
            window = self.window(int(gene), half=half)
            bins = self.dataset.track_bins(window, bin_size=span.bin_bp)
            out[i, :, : len(self.tracks)] = bins[:, self.tracks]
            if self.contacts:
                contact = self.dataset.contact_bins(int(gene), window, bin_size=span.bin_bp)
                out[i, :, -1] = contact
        for column, track in enumerate(self.tracks):
            if self.dataset.manifest.tracks[track].transform == "none":
                values = out[:, :, column]
                out[:, :, column] = np.sign(values) * np.log1p(np.abs(values))
        return out.reshape(len(rows), -1)

    def scalars(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return scalar features: float32, shape (num_genes, num_features)."""
        return self.dataset.features[rows][:, self.scalar_index]

    def promoter(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the promoter signal.

        That is every track's mean within 500 bp of the TSS, log-scaled, and the scalar features
        that were computed from tracks.

        Returns
        -------
        float32 array, shape (num_genes, num_tracks + num_track_features)
        """
        half = min(_PROMOTER_BP, self.window_bp // 2)
        signal = self.track_bins(rows, TrackSpan(2 * half, 1))[:, : len(self.tracks)]
        features = self.dataset.manifest.features
        derived = [i for i in self.scalar_index if features[i].source == "track"]
        return np.concatenate((signal, self.dataset.features[rows][:, derived]), axis=1)

    @property
    def scalar_names(self) -> list[str]:
        """Names of the scalar features in use."""
        return [self.dataset.manifest.features[i].name for i in self.scalar_index]

    @property
    def track_names(self) -> list[str]:
        """Names of the tracks in use."""
        names = [self.dataset.track_names[i] for i in self.tracks]
        return [*names, CONTACT] if self.contacts else names
