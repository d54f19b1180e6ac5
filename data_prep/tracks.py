"""bigWig to bins: whole contigs in pieces of about one megabase, straight from pybigtools.

Values equal the exact mean (or maximum) of the bases of a bin. What a base without an entry means
is the user's choice, never the library's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from data_prep.bigwig import BigWigHeader, check_bigwig
from data_prep.config import TrackConfig
from seq2exp.core.contigs import compare_sizes, match_contigs
from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, facts
from seq2exp.core.intervals import complement, coverage_mask, intersect

__all__ = [
    "MAX_SIGNAL",
    "BinnedContig",
    "TrackFile",
    "apply_transform",
    "bin_contig",
    "check_track",
    "known_intervals",
    "summarise",
    "to_storage",
]

MAX_SIGNAL = 1e9
"""No assay gives more; larger values are the 1e30 of a failed conversion."""

_PIECE = 1 << 20
_MAX_FLOAT16 = 65504.0
_SUMMARY_VALUES = 50_000_000

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class TrackFile:
    """A checked bigWig."""

    path: Path
    names: dict[str, str]
    """Name in the file of every contig that it holds."""
    header: BigWigHeader


@dataclass(frozen=True)
class BinnedContig:
    """One track on one contig."""

    values: NDArray[np.float64]
    """Mean or maximum per bin, in the file's unit; NaN where nothing is known."""
    covered_bases: int
    """Known bases with an entry."""
    known_bases: int
    """Bases that are neither masked nor outside the assay's coverage."""


def check_track(
    config: TrackConfig, path: Path, *, sizes: dict[str, int], contigs: Sequence[str]
) -> TrackFile:
    """Check one track before any work: structure, contig names, contig lengths, any signal.

    Parameters
    ----------
    config : TrackConfig
    path : Path
        Where its file lies.
    sizes : dict of str to int
        Contig lengths of the FASTA.
    contigs : sequence of str
        Contigs that will be stored.

    Raises
    ------
    InputError
        Missing file, no bigWig, no shared contig, or the same value everywhere.
    AssemblyError
        Contig lengths differ from those of the FASTA.
    FormatError
        Truncated or damaged file.
    """
    header = check_bigwig(path)
    compare_sizes(sizes, header.sizes, what=str(path))
    names = match_contigs(contigs, header.sizes, what=str(path))
    constant = header.minimum == header.maximum and config.nan == "missing"
    if not config.allow_constant and (header.covered_bases == 0 or constant or _all_zero(header)):
        raise _constant(config.name, path)
    with _reader(path, "header") as handle:
        handle.chroms()
    return TrackFile(path, names, header)


def _all_zero(header: BigWigHeader) -> bool:
    return header.minimum == 0 == header.maximum


def _constant(name: str, path: Path) -> InputError:
    return InputError(
        facts(
            f"track {name} ({path})",
            found="one value everywhere, or no data",
            expected="a signal that varies",
            fix="check the file, or set allow_constant: true",
        )
    )


def known_intervals(length: int, masked: Intervals, covered: Intervals | None) -> Intervals:
    """Return the bases of a contig that are covered by the assay and not masked.

    Parameters
    ----------
    length : int
        Contig length.
    masked : (starts, ends)
        Excluded intervals.
    covered : (starts, ends), optional
        Intervals the assay covers; the whole contig when None.
    """
    kept = complement(*masked, length=length)
    return kept if covered is None else intersect(kept, covered, length=length)


def bin_contig(
    track: TrackFile,
    contig: str,
    *,
    length: int,
    bin_size: int,
    config: TrackConfig,
    known: Intervals,
) -> BinnedContig:
    """Return one track on one contig, binned on the genome grid.

    Bin ``i`` spans ``[i * bin_size, (i + 1) * bin_size)``, cut at the contig end. Only known bases
    count; a bin without any is NaN. Among known bases, one without an entry counts as 0 (``nan:
    zero``), is left out (``missing``), or is an error.

    Parameters
    ----------
    track : TrackFile
    contig : str
        Name in the FASTA.
    length : int
        Contig length in bases.
    bin_size : int
        Bin width in bases.
    config : TrackConfig
    known : (starts, ends)
        Merged intervals that count, see :func:`known_intervals`.

    Raises
    ------
    FormatError
        A block cannot be read, or a stored value is NaN, infinite or absurdly large.
    InputError
        ``nan: error`` and a base without an entry.
    """
    values = np.full(-(-length // bin_size), np.nan)
    known_bases = int((known[1] - known[0]).sum())
    if contig not in track.names:
        covered = 0
        if config.nan == "zero":
            _fill_known(values, known, bin_size, length)
    else:
        name = track.names[contig]
        covered = 0
        with _reader(track.path, f"contig {contig}") as handle:
            query = _Query(handle, track.path, name, config)
            for first, last in _whole_pieces(known, bin_size):
                values[first:last] = query.bins(first, last, bin_size)
            for index in _edge_bins(known, bin_size, length):
                values[index] = query.edge(index, bin_size, length, known)
            covered = query.covered(known, length, track.header.covered.get(name))
    if config.nan == "error" and covered != known_bases:
        raise InputError(
            facts(
                f"track {config.name} ({track.path}) contig {contig}",
                found="bases without an entry",
                expected="a value at every base, because nan is error",
                fix="use nan: zero or nan: missing, or give the covered intervals",
                count=known_bases - covered,
            )
        )
    return BinnedContig(values, covered, known_bases)


def _fill_known(values: NDArray[np.float64], known: Intervals, bin_size: int, length: int) -> None:
    for first, last in _whole_pieces(known, bin_size):
        values[first:last] = 0.0
    values[_edge_bins(known, bin_size, length)] = 0.0


def _whole_pieces(known: Intervals, bin_size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of bins that lie wholly inside known intervals, about a megabase each."""
    step = max(_PIECE // bin_size, 1)
    for start, end in zip(*known, strict=True):
        first, last = -(-int(start) // bin_size), int(end) // bin_size
        for piece in range(first, last, step):
            yield piece, min(piece + step, last)


def _edge_bins(known: Intervals, bin_size: int, length: int) -> list[int]:
    """Return the bins that are known in part, the cut last bin of the contig among them."""
    starts = {int(start) // bin_size for start in known[0] if start % bin_size}
    ends = {int(end) // bin_size for end in known[1] if end % bin_size}
    return sorted(index for index in starts | ends if index * bin_size < length)


class _Query:
    """Reads one contig of one file, and refuses values that cannot be signal."""

    def __init__(self, handle: Any, path: Path, name: str, config: TrackConfig) -> None:  # noqa: ANN401
        self.handle = handle
        self.path = path
        self.name = name
        self.config = config

    def bins(self, first: int, last: int, bin_size: int) -> NDArray[np.float64]:
        start, end, num_bins = first * bin_size, last * bin_size, last - first
        zero = 0.0 if self.config.nan == "zero" else None
        values = self._values(start, end, num_bins, self.config.statistic, zero)
        wrong = np.abs(values) > MAX_SIGNAL
        if zero is not None:
            wrong |= np.isnan(values)
        if wrong.any() or self._hides_values(start, end):
            self._refuse_bin(start, end, num_bins, wrong)
        return values

    def _hides_values(self, start: int, end: int) -> bool:
        """Return whether the piece holds a NaN that looks like no entry, or a masked -1e30."""
        if self.config.nan == "zero" and self.config.statistic == "mean":
            return False  # both would show in the mean
        if self._whole(start, end, "min") < -MAX_SIGNAL:
            return True
        finite = np.isfinite(self._whole(start, end, "sum"))
        return not finite and self._count(start, end) > 0

    def _refuse_bin(
        self, start: int, end: int, num_bins: int, wrong: NDArray[np.bool_]
    ) -> NoReturn:
        """Find the bin to name; slow, but only once."""
        means = self._values(start, end, num_bins, "mean", None)
        covered = np.nan_to_num(self._values(start, end, num_bins, "bases_covered", None))
        wrong = wrong | (~np.isfinite(means) & (covered > 0)) | (np.abs(means) > MAX_SIGNAL)
        index, size = int(np.argmax(wrong)), (end - start) // num_bins
        self._refuse(means[index], start + index * size, start + (index + 1) * size)

    def _whole(self, start: int, end: int, summary: str) -> float:
        return float(self._values(start, end, 1, summary, None)[0])

    def covered(self, known: Intervals, length: int, total: int | None) -> int:
        """Return the known bases with an entry.

        Reading all blocks again would cost as much as the bins did. Where the file tells the total
        of the contig, only the bases that are not known are read, and subtracted.
        """
        unknown = complement(*known, length=length)
        few = (unknown[1] - unknown[0]).sum() < length // 2
        if total is not None and few and self.config.nan != "error":
            return total - self._count_all(unknown)
        return self._count_all(known)

    def _count_all(self, intervals: Intervals) -> int:
        return sum(
            self._count(at, min(at + _PIECE, int(end)))
            for start, end in zip(*intervals, strict=True)
            for at in range(int(start), int(end), _PIECE)
        )

    def _count(self, start: int, end: int) -> int:
        return int(np.nan_to_num(self._whole(start, end, "bases_covered")))

    def edge(self, index: int, bin_size: int, length: int, known: Intervals) -> float:
        start, end = index * bin_size, min((index + 1) * bin_size, length)
        dense = self._values(start, end, None, "mean", None)
        finite = np.isfinite(dense)
        if (
            self._count(start, end) != int(finite.sum())
            or (np.abs(dense[finite]) > MAX_SIGNAL).any()
        ):
            self._refuse(float(np.nanmax(dense)) if finite.any() else np.nan, start, end)
        inside = coverage_mask(*known, start, end)
        if self.config.nan == "zero":
            chosen = np.where(finite, dense, 0.0)[inside]
        else:
            chosen = dense[inside & finite]
        if not chosen.size:
            return float("nan")
        reduced = chosen.mean() if self.config.statistic == "mean" else chosen.max()
        return float(reduced)

    def _values(
        self, start: int, end: int, bins: int | None, summary: str, uncovered: float | None
    ) -> NDArray[np.float64]:
        options = {} if bins is None else {"bins": bins, "summary": summary, "exact": True}
        with _foreign_errors(self.path, f"{self.name}:{start}-{end}"):
            values: NDArray[np.float64] = self.handle.values(
                self.name, start, end, uncovered=uncovered, fillna=None, **options
            )
        return values

    def _refuse(self, value: float, start: int, end: int) -> NoReturn:
        raise FormatError(
            facts(
                f"track {self.config.name} ({self.path}) at {self.name}:{start}-{end}",
                found=f"the value {value}",
                expected=f"finite values below {MAX_SIGNAL:g} in size",
                fix="make the bigWig again without NaN, Inf and placeholder values",
            )
        )


@contextmanager
def _reader(path: Path, where: str) -> Iterator[Any]:
    import pybigtools

    with _foreign_errors(path, where):
        handle = pybigtools.open(str(path))
    try:
        yield handle
    finally:
        handle.close()


@contextmanager
def _foreign_errors(path: Path, where: str) -> Iterator[None]:
    """Turn what pybigtools raises, its panics included, into an error with path and place."""
    try:
        yield
    except (Seq2ExpError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # A Rust panic is a BaseException whose class cannot be imported; it is known by name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = re.sub(r"\s+", " ", str(error))[:200]
        raise FormatError(
            facts(
                f"{path} at {where}",
                found=f"data that cannot be read ({type(error).__name__}: {text})",
                expected="a whole bigWig",
                fix="copy or download it again",
            )
        ) from None


def apply_transform(values: NDArray[np.float64], transform: str) -> NDArray[np.float64]:
    """Return ``values``, ``log(1 + values)`` or ``arcsinh(values)``; NaN stays NaN."""
    if transform == "log1p":
        return np.log1p(values)
    return np.arcsinh(values) if transform == "arcsinh" else values


def to_storage(
    values: NDArray[np.float64], config: TrackConfig, *, contig: str, dtype: str
) -> NDArray[np.floating[Any]]:
    """Transform binned values and cast them to the storage type.

    Raises
    ------
    InputError
        Negative values under log1p, or values that float16 cannot hold.
    """
    what = f"track {config.name} contig {contig}"
    if config.transform == "log1p" and (values < 0).any():
        raise InputError(
            facts(
                what,
                found=f"the value {np.nanmin(values):g}",
                expected="no negative value, because transform is log1p",
                fix="use transform: arcsinh or none",
                count=int((values < 0).sum()),
            )
        )
    changed = apply_transform(values, config.transform)
    if dtype == "float16" and (np.abs(changed) > _MAX_FLOAT16).any():
        raise InputError(
            facts(
                what,
                found=f"the value {np.nanmax(np.abs(changed)):g}",
                expected=f"at most {_MAX_FLOAT16:g}, the largest float16",
                fix="use track_dtype: float32, or transform: log1p",
            )
        )
    return changed.astype(dtype)


def summarise(
    config: TrackConfig, path: Path, contigs: Sequence[NDArray[Any]], *, covered_bases: int
) -> dict[str, float]:
    """Return the summary of a track over all stored contigs.

    Parameters
    ----------
    config : TrackConfig
    path : Path
        For the message.
    contigs : sequence of float arrays, shape (num_bins,)
        Stored values.
    covered_bases : int
        Known bases with an entry.

    Returns
    -------
    dict
        mean, std, min, max, quantile_50, quantile_99 of the known bins; zero_fraction of them;
        known_fraction of all bins; covered_bases.

    Raises
    ------
    InputError
        All known bins have the same value, and ``allow_constant`` is off.
    """
    num_bins = sum(len(values) for values in contigs)
    stride = num_bins // _SUMMARY_VALUES + 1
    every = np.concatenate([np.asarray(values[::stride], dtype=np.float64) for values in contigs])
    known = every[np.isfinite(every)]
    if not known.size or known.min() == known.max():
        if not config.allow_constant:
            raise _constant(config.name, path)
        known = known if known.size else np.zeros(1)
    middle, high = np.quantile(known, [0.5, 0.99])
    return {
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known.min()),
        "max": float(known.max()),
        "quantile_50": float(middle),
        "quantile_99": float(high),
        "zero_fraction": float((known == 0).mean()),
        "known_fraction": float(np.isfinite(every).mean()),
        "covered_bases": float(covered_bases),
    }
