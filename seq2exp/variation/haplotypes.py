"""Sequences of haplotypes: a window of exactly L bases around a TSS that never moves.

Records are put into the reference in the order of the file. Which of those that touch each other
apply is the *overlap rule* (:data:`OVERLAPS`):

``first``
    A record is left out when it begins before the last REF base of the record put in before it. If
    it begins on that very base, it is put in only when it is an insertion or deletion anchored
    there, and the record before did not make the sequence longer. So an insertion or deletion may
    stand on a substituted base, which it leaves substituted, and right behind a deletion; a
    substitution on the anchor of an indel, a second insertion at one anchor, a second substitution
    of a base, and anything inside a deletion are left out. Records that touch without sharing a
    base never disturb each other. This is what ``bcftools consensus`` 1.16 does.
``longest``
    Of records that cannot stand together, as above, the one with the longest allele (REF or ALT)
    stays, then the longest of those that fit to it, and so on; of equally long ones the first.
``error``
    Such records are refused.

The sequence is built outwards from the TSS: insertions push bases out of the far ends, deletions
bring more reference in, and only beyond the contig there is N. Bases inserted before the TSS are
left of it, those inserted behind it are right of it. If the TSS itself is deleted, the next
remaining base downstream of the gene stands in its place.

An ALT that stands for several REF bases is laid beside them base by base from the left; what is
left over of ALT counts as inserted after them, what is left over of REF as deleted.

Shapes: H haplotypes, L bases of the window, M variants, G bases of the contig, S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.variation import coordinates, overlap_kernels
from seq2exp.variation import haplotype_kernels as kernels
from seq2exp.variation.table import Variants

__all__ = [
    "OVERLAPS",
    "Haplotypes",
    "build",
    "in_parts",
    "needed_interval",
    "read_only",
    "unique_haplotypes",
]

OVERLAPS = ("first", "longest", "error")
"""Rules for records of one haplotype that touch each other."""

Codes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Haplotypes:
    """Sequences of haplotypes in one window, in the direction in which the model reads.

    Attributes
    ----------
    codes_HL : uint8 array
        Codes A0 C1 G2 T3 N4, above them those of `seq2exp.variation.iupac`. This is the buffer that
        was given, so it changes when that is filled again.
    window : Window
        The window of the reference that was asked for.
    tss : int
        0-based position of the TSS.
    tss_index : int
        Where the TSS stands in every haplotype.
    segments : coordinates.Segments
        Where the bases came from.
    facts_HF : int64 array
        Columns as properties below.
    """

    codes_HL: Codes
    window: Window
    tss: int
    tss_index: int
    segments: coordinates.Segments
    facts_HF: Ints

    def __len__(self) -> int:
        return len(self.codes_HL)

    @property
    def anchor_H(self) -> Ints:
        """Reference position of the base at ``tss_index``: the TSS, unless it is deleted."""
        return self.facts_HF[:, 1]

    @property
    def tss_deleted_H(self) -> NDArray[np.bool_]:
        """Whether the TSS itself is deleted."""
        found: NDArray[np.bool_] = self.facts_HF[:, 2] != 0
        return found

    @property
    def num_applied_H(self) -> Ints:
        """Records that changed the sequence of the window."""
        return self.facts_HF[:, 3]

    @property
    def num_overlap_dropped_H(self) -> Ints:
        """Records inside the window that were left out by the overlap rule."""
        return self.facts_HF[:, 4]

    @property
    def pad_left_H(self) -> Ints:
        """Bases of N before the contig begins, in genome direction."""
        return self.facts_HF[:, 5]

    @property
    def pad_right_H(self) -> Ints:
        """Bases of N after the contig ends, in genome direction."""
        return self.facts_HF[:, 6]

    @property
    def span_H2(self) -> Ints:
        """Stretch of the reference of which each haplotype was made, 0-based half-open."""
        return self.facts_HF[:, 7:9]

    def reference_map(self) -> NDArray[np.int32]:
        """Return the reference position of every base, -1 for inserted bases and padding.

        Returns
        -------
        int32 array, shape (H, L), in model direction
        """
        return coordinates.reference_map(self.segments)

    def move_bins(
        self, bins_NT: NDArray[np.floating], *, start: int, bin_size: int, out_bin_size: int
    ) -> NDArray[np.float32]:
        """Return binned tracks of the reference on bins of the haplotypes.

        As :func:`seq2exp.variation.coordinates.move_bins`.
        """
        return coordinates.move_bins(
            self.segments, bins_NT, start=start, bin_size=bin_size, out_bin_size=out_bin_size
        )

    def masks_to_reference(
        self, values_HN: NDArray[np.floating], *, bin_size: int = 1, out_bin_size: int = 1
    ) -> NDArray[np.float32]:
        """Return masks or values of bases of the haplotypes on the window of the reference.

        As :func:`seq2exp.variation.coordinates.masks_to_reference`.
        """
        return coordinates.masks_to_reference(
            self.segments, values_HN, self.window, bin_size=bin_size, out_bin_size=out_bin_size
        )


def build(
    reference_codes: Codes,
    variants: Variants,
    actions_HM: NDArray[np.uint8],
    window: Window,
    tss: int,
    *,
    overlap: str = "first",
    gene_strand: str | None = None,
    known: tuple[int, int] | None = None,
    out_HL: Codes | None = None,
    threads: int = 1,
) -> Haplotypes:
    """Return the sequences of haplotypes in a window, exactly as long as it, around its TSS.

    Parameters
    ----------
    reference_codes : uint8 array, shape (G,)
        Codes of the whole contig; may be memory-mapped.
    variants : Variants
        Those that the haplotypes can need: :func:`needed_interval`.
    actions_HM : uint8 array
        What `seq2exp.variation.policies.resolve` says: 0 leave REF, 1 put ALT, 2 put N over what
        ALT would replace or delete, 3 put the code of "REF or ALT" (single bases only).
    window : Window
        Where the TSS has its place: moving the window moves the sequence by as many bases.
        Minus-strand windows are reverse-complemented.
    tss : int
        0-based position inside window and contig.
    overlap : str
        One of ``OVERLAPS``.
    gene_strand : str, optional
        Which way is downstream when the TSS is deleted; that of the window when None.
    known : (int, int), optional
        Interval of which ``variants`` holds every variant. If a haplotype turns out to need more,
        that is an error instead of a wrong sequence.
    out_HL : uint8 array, optional
        Buffer to fill, at least H rows of L.
    threads : int
        Threads that share the haplotypes among them.

    Raises
    ------
    InputError
        The TSS is outside, a variant leaves the contig, an action does not fit its variant, records
        overlap where they must not, or variants beyond ``known`` are needed.
    """
    length = window.length
    reference_G = read_only(reference_codes)
    actions = np.ascontiguousarray(actions_HM, dtype=np.uint8)
    _check(reference_G, variants, actions, window, tss, overlap)
    num = len(actions)
    out = np.empty((num, length), np.uint8) if out_HL is None else _buffer(out_HL, num, length)
    variant_arrays = (
        read_only(variants.position_M),
        read_only(variants.ref_length_M),
        read_only(variants.alt_offset_M1),
        read_only(variants.alt_codes_C),
    )
    if overlap == "longest":
        actions = actions.copy()
        members_M = np.empty(len(variants), np.int64)
        overlap_kernels.keep_longest(actions, reference_G, *variant_arrays, members_M)
    actions = read_only(actions)
    room_H1 = np.empty(num + 1, np.int64)
    most = kernels.make_room(
        actions, *variant_arrays[1:3], np.empty(len(variants), np.uint8), room_H1
    )
    hap_S, ref_S, size_S = np.empty((3, room_H1[-1]), np.int64)
    facts_HF = np.empty((num, 9), np.int64)
    before = tss - window.start
    to_right = (gene_strand or window.strand) != "-"

    def fill(first: int, last: int) -> None:
        kernels.fill_all(
            actions[first:last], reference_G, *variant_arrays, tss, before, to_right,
            window.reverse, np.empty((6, most), np.int64), room_H1[first : last + 1],
            hap_S, ref_S, size_S, facts_HF[first:last], out[first:last],
        )  # fmt: skip

    in_parts(fill, num, threads=threads)
    _check_built(facts_HF, variants, window, overlap, known)
    segments = coordinates.Segments(
        hap_S, ref_S, size_S, room_H1[:-1], facts_HF[:, 0], length, window.reverse
    )
    tss_index = length - 1 - before if window.reverse else before
    return Haplotypes(out, window, tss, tss_index, segments, facts_HF)


def needed_interval(
    window: Window,
    variants: Variants,
    *,
    overlap: str = "first",
    span: Callable[[int, int], tuple[int, int]] | None = None,
) -> tuple[int, int, int, int]:
    """Return the interval whose variants any haplotype of a window can need, and those variants.

    It is the window, longer on either side by what all variants in it could delete together.

    Parameters
    ----------
    window : Window
    variants : Variants
        All of the contig; may be memory-mapped.
    overlap : str
        With ``longest`` the interval ends where no variant reaches across.
    span : function, optional
        From an interval to the range of variants that touch it, back to the beginning of a cluster
        of overlapping ones: `seq2exp.dataset.genotypes.Genotypes.span` of the contig. Without it
        all variants before the window are looked at.

    Returns
    -------
    start, end : int
        0-based half-open, inside the contig.
    first, last : int
        Range of variants to pass to :func:`build`.
    """
    find = span or (lambda start, end: _touching(variants, start, end))
    start, end = window.clipped_start, window.clipped_end
    while True:
        first, last = find(start, end)
        part = variants.between(first, last)
        # A part of a memory map, looked at more than once.
        position_M, ref_length_M = np.asarray(part.position_M), np.asarray(part.ref_length_M)
        lost = int(np.maximum(ref_length_M - part.alt_length_M, 0).sum())
        new_start = max(window.clipped_start - lost, 0)
        new_end = min(window.clipped_end + lost, window.contig_length)
        if overlap == "longest" and last > first:
            new_end = max(new_end, int((position_M + ref_length_M).max()))
        if new_start >= start and new_end <= end:
            return start, end, first, last
        start, end = min(start, new_start), max(end, new_end)


def unique_haplotypes(actions_HM: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Return which haplotypes differ in what they carry, and which of those each one is.

    A model that runs the first of each need not run the others: ``y_H = y_U[inverse_H]``.

    Parameters
    ----------
    actions_HM : uint8 array

    Returns
    -------
    first_U : int64 array
        First haplotype of each kind, rising.
    inverse_H : int64 array
        Number of each haplotype's kind.
    """
    num, size = actions_HM.shape
    if size == 0 or num == 0:
        return np.zeros(min(num, 1), np.int64), np.zeros(num, np.int64)
    rows = np.ascontiguousarray(actions_HM, dtype=np.uint8)
    seen: dict[bytes, int] = {}
    inverse = np.fromiter((seen.setdefault(row.tobytes(), len(seen)) for row in rows), np.int64)
    first = np.full(len(seen), num, np.int64)
    np.minimum.at(first, inverse, np.arange(num))
    return first, inverse


def _touching(variants: Variants, start: int, end: int) -> tuple[int, int]:
    """Return the range of variants that touch an interval, back to the beginning of a cluster."""
    last = int(np.searchsorted(variants.position_M, end))
    reach = np.maximum.accumulate(variants.end_M[:last])
    first = int(np.searchsorted(reach, start, side="right"))
    while 0 < first < last and reach[first - 1] > variants.position_M[first]:
        first -= 1
    return first, last


def in_parts(work: Callable[[int, int], None], num: int, *, threads: int) -> None:
    """Call a function that leaves the interpreter with ranges of numbers, on some threads."""
    parts = max(1, min(threads, num))
    if parts == 1:
        work(0, num)
        return
    bounds = [num * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for _ in pool.map(work, bounds[:-1], bounds[1:]):
            pass


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a plain view that nothing is written to: one kind of array to compile for."""
    flags = array.flags
    if type(array) is np.ndarray and not flags.writeable and flags.c_contiguous:
        return array
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def _buffer(out_HL: Codes, num: int, length: int) -> Codes:
    fits = (
        out_HL.dtype == np.uint8
        and out_HL.ndim == 2
        and out_HL.shape[0] >= num
        and out_HL.shape[1] == length
        and out_HL.flags.c_contiguous
    )
    if not fits:
        raise InputError(
            facts(
                "buffer for haplotypes",
                found=f"{out_HL.dtype} array of shape {out_HL.shape}",
                expected=f"uint8 without gaps, at least {num} rows of {length}",
                fix="make it of that shape",
            )
        )
    return out_HL[:num]


def _check(
    reference_G: Codes,
    variants: Variants,
    actions_HM: NDArray[np.uint8],
    window: Window,
    tss: int,
    overlap: str,
) -> None:
    place = f"haplotypes on {window.contig}"
    if overlap not in OVERLAPS:
        raise InputError(
            facts(place, found=f"overlap {overlap!r}", expected=f"one of {OVERLAPS}", fix="use one")
        )
    if not (window.start <= tss < window.end and 0 <= tss < window.contig_length):
        raise InputError(
            facts(
                place,
                found=f"TSS {tss}",
                expected=f"a position in the window {window.start}-{window.end} and in the contig",
                fix="make the window around the TSS, or anchor it at a base that it holds",
            )
        )
    if len(reference_G) != window.contig_length or len(reference_G) >= 2**31:
        raise InputError(
            facts(
                place,
                found=f"a sequence of {len(reference_G)} bases",
                expected=f"{window.contig_length} as the window says, below 2^31",
                fix="give the sequence of the whole contig",
            )
        )
    if actions_HM.ndim != 2 or actions_HM.shape[1] != len(variants):
        raise InputError(
            facts(
                place,
                found=f"actions of shape {actions_HM.shape}",
                expected=f"haplotypes x {len(variants)} variants",
                fix="take both from one range of variants",
            )
        )


def _check_built(
    facts_HF: Ints,
    variants: Variants,
    window: Window,
    overlap: str,
    known: tuple[int, int] | None,
) -> None:
    place = f"haplotypes on {window.contig}"
    if len(facts_HF) and facts_HF[:, 0].min() < 0:
        refused = np.flatnonzero(facts_HF[:, 0] < 0)
        reason, variant = facts_HF[refused[0], :2]
        position = int(variants.position_M[variant])
        found, expected = {
            kernels.BAD_POSITION: ("a variant that leaves the contig", "variants of this assembly"),
            kernels.BAD_IUPAC: ("an insertion or deletion as a code", "codes for single bases"),
            kernels.BAD_ACTION: ("an unknown action", "0, 1, 2 or 3"),
        }[int(reason)]
        raise InputError(
            facts(
                f"{place}, position {position}",
                found=found,
                expected=expected,
                fix="make actions with seq2exp.variation.policies.resolve",
                count=refused.size,
            )
        )
    dropped_H = facts_HF[:, 4]
    if overlap == "error" and dropped_H.any():
        raise InputError(
            facts(
                f"{place}:{window.start}-{window.end}",
                found="records that overlap on one haplotype",
                expected="none",
                fix="choose overlap first or longest, or take out one of each pair",
                count=int(dropped_H.sum()),
                examples=[f"haplotype {h}" for h in np.flatnonzero(dropped_H)],
            )
        )
    if known is None or not len(facts_HF):
        return
    low, high = facts_HF[:, 7].min(), facts_HF[:, 8].max()
    if low < known[0] or high > known[1]:
        raise InputError(
            facts(
                place,
                found=f"variants of {known[0]}-{known[1]}",
                expected=f"those of {low}-{high}, because deletions make the window reach further",
                fix="ask seq2exp.variation.haplotypes.needed_interval which to read",
            )
        )
