"""Lines of a VCF, and what becomes of their alleles: kept in their normal form, or why not.

Shapes: R records of one contig, A alleles of these records, D donors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.donor_config import GenotypeConfig
from data_prep.variants.calls import ABSENT, UNCALLED, Calls
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.textfile import SeekableText, text_lines
from seq2exp.variation.alleles import CLASSES, SEQUENCE_CLASSES, STATUSES, normalise_all

__all__ = [
    "Alleles",
    "Line",
    "Planes",
    "allele_planes",
    "call_counts",
    "read_lines",
    "split_alleles",
    "strand_hints",
]

_FIXED = 9
_USABLE = frozenset(SEQUENCE_CLASSES) - {"same"}


@dataclass(frozen=True)
class Line:
    """A record: its fixed columns as text, its genotypes as bytes."""

    number: int
    """Number within the part of the file that is read."""
    contig: str
    position: int
    """0-based."""
    id: str
    ref: str
    alts: list[str]
    filter: str
    format: bytes
    columns: bytes


def read_lines(handle: SeekableText, start: int, end: int, *, name: str) -> Iterator[list[Line]]:
    """Yield the records whose lines begin at ``start`` to ``end - 1``, some megabytes at a time.

    Parameters
    ----------
    handle : SeekableText
    start, end : int
        Offsets in the text; need not be the beginnings of lines.
    name : str
        The file, for messages.

    Raises
    ------
    FormatError
        A line is no record.
    """
    number = 0
    for _, raw in text_lines(handle, start, end, name=name):
        lines = []
        for line in raw:
            text = line.rstrip(b"\r")
            if text:
                lines.append(_line(text, number, name))
                number += 1
        if lines:
            yield lines


def _line(text: bytes, number: int, name: str) -> Line:
    parts = text.split(b"\t", _FIXED)
    if len(parts) <= _FIXED or not parts[1].isdigit() or not parts[3] or not parts[4]:
        raise _broken(name, text, _what_is_wrong(parts, text))
    contig, position, label, ref, alt, _, filters, _, form, columns = parts
    return Line(
        number,
        contig.decode("utf-8", "replace"),
        int(position) - 1,
        label.decode("utf-8", "replace"),
        ref.decode("ascii", "replace"),
        alt.decode("ascii", "replace").split(","),
        filters.decode("utf-8", "replace"),
        form,
        columns,
    )


def _what_is_wrong(parts: list[bytes], text: bytes) -> str:
    if text.startswith(b"#"):
        return "a header line among the records (files put together without `bcftools concat`?)"
    if len(parts) <= _FIXED:
        return f"{len(parts)} columns"
    if not parts[1].isdigit():
        return f"position {parts[1][:20].decode('ascii', 'replace')!r}"
    return "an empty REF or ALT"


def _broken(name: str, text: bytes, found: str) -> FormatError:
    return FormatError(
        facts(
            f"{name} at {text[:40].decode('ascii', 'replace')!r}",
            found=found,
            expected="a record: contig, position, id, REF, ALT, QUAL, FILTER, INFO, FORMAT and "
            "genotypes, tabs between them",
            fix="the file is damaged or was cut: restore it",
        )
    )


@dataclass(frozen=True, eq=False)
class Alleles:
    """Alleles of some records of one contig, in file order, one per ALT.

    Attributes
    ----------
    record_A, allele_A : int arrays
        Row of the record, and 1 for its first ALT.
    position_A : int64 array
        0-based, in normal form where the allele is kept.
    refs, alts : lists of str
    reason_A : list of str
        Why an allele is left out; empty for those that are kept.
    changed_A : bool array
        Normalising moved or cut it.
    hints : dict
        Of substitutions with a wrong REF, how many there are and how many are those of the other
        strand.
    """

    record_A: NDArray[np.int64]
    allele_A: NDArray[np.int64]
    position_A: NDArray[np.int64]
    refs: list[str]
    alts: list[str]
    reason_A: list[str]
    changed_A: NDArray[np.bool_]
    hints: dict[str, int]


def split_alleles(
    lines: list[Line], problems: list[str], codes: NDArray[np.uint8], config: GenotypeConfig
) -> Alleles:
    """Return one allele per ALT, normalised, with the reason where it cannot be kept.

    Parameters
    ----------
    lines : list of Line
        Of one contig.
    problems : list of str
        Of each record, why its genotypes cannot be used, or empty.
    codes : uint8 array
        Base codes of the contig.
    config : GenotypeConfig
    """
    record = np.repeat(np.arange(len(lines)), [len(line.alts) for line in lines])
    allele = np.concatenate([np.arange(1, len(line.alts) + 1) for line in lines])
    refs = [line.ref for line in lines for _ in line.alts]
    alts = [alt for line in lines for alt in line.alts]
    given = np.array([lines[row].position for row in record], dtype=np.int64)
    found = normalise_all(given, refs, alts, reference_codes=codes)
    reasons = []
    for row, kind_number, status_number, ref, alt in zip(
        record, found.class_M, found.status_M, found.refs, found.alts, strict=True
    ):
        kind, status = CLASSES[kind_number], STATUSES[status_number]
        if problems[row]:
            reasons.append(problems[row])
        elif kind not in _USABLE:
            reasons.append("alt_equals_ref" if kind == "same" else kind)
        elif status != "ok":
            reasons.append(status)
        elif abs(len(alt) - len(ref)) > config.max_indel:
            reasons.append("too_long")
        else:
            reasons.append("")
    hints = strand_hints(reasons, given, refs, codes)
    return Alleles(
        record, allele, found.position_M, found.refs, found.alts, reasons, found.changed_M, hints
    )


def strand_hints(
    reasons: Sequence[str],
    given: Sequence[int] | NDArray[np.int64],
    refs: Sequence[str],
    codes: NDArray[np.uint8],
) -> dict[str, int]:
    """Return how many single bases are wrong, and for how many of them the other strand fits."""
    other = {"A": "T", "C": "G", "G": "C", "T": "A"}
    wrong = [
        (refs[i].upper(), int(given[i]))
        for i, reason in enumerate(reasons)
        if reason in ("mismatch", "swapped") and len(refs[i]) == 1
    ]
    fits = sum("ACGTN"[codes[position]] == other.get(ref) for ref, position in wrong)
    return {"wrong_single": len(wrong), "other_strand": fits}


@dataclass(frozen=True, eq=False)
class Planes:
    """Packed genotypes of the alleles that are kept (K of them).

    Attributes
    ----------
    alleles_KW : uint8 array
        Bits of 2 D haplotypes, donor-major.
    missing_KW : uint8 array
    unphased_KV : uint8 array
        Bits of D donors.
    sets_KD : int32 array or None
    ac_K, an_K : int64 arrays
        Alleles that are ALT, alleles that were called; a haploid call counts once.
    haploid_K : bool array
        Some call is haploid.
    """

    alleles_KW: NDArray[np.uint8]
    missing_KW: NDArray[np.uint8]
    unphased_KV: NDArray[np.uint8]
    sets_KD: NDArray[np.int32] | None
    ac_K: NDArray[np.int64]
    an_K: NDArray[np.int64]
    haploid_K: NDArray[np.bool_]


def allele_planes(alleles: Alleles, calls: Calls) -> Planes:
    """Return the genotypes of the kept alleles as bits.

    A haplotype with another ALT of the same record has REF here. Both haplotypes of a haploid call
    get its allele. A call of two different alleles written with ``/`` is unphased, also where one
    of them is missing.
    """
    kept = np.flatnonzero([not reason for reason in alleles.reason_A])
    rows, wanted = alleles.record_A[kept], alleles.allele_A[kept]
    called = calls.alleles_RD2[rows]
    first, second = called[..., 0], called[..., 1]
    haploid = second == ABSENT
    both = np.stack((first, np.where(haploid, first, second)), axis=2)
    missing = both == UNCALLED
    alt = both == wanted[:, None, None].astype(np.int16)
    differs = (alt[..., 0] != alt[..., 1]) | (missing[..., 0] != missing[..., 1])
    unphased = differs & ~calls.phased_RD[rows]
    # The second haplotype of a haploid call is a copy.
    called_HK = ~missing[..., 0], ~missing[..., 1] & ~haploid
    alt_HK = alt[..., 0], alt[..., 1] & ~haploid
    ac = sum(np.count_nonzero(slot, axis=1) for slot in alt_HK)
    an = sum(np.count_nonzero(slot, axis=1) for slot in called_HK)
    sets = None
    if calls.phase_set_RD is not None:
        sets = np.where(differs & calls.phased_RD[rows], calls.phase_set_RD[rows], 0)
        sets = np.ascontiguousarray(sets, dtype=np.int32)
    size = len(kept), 2 * first.shape[1]
    return Planes(
        np.packbits(alt.reshape(size), axis=1),
        np.packbits(missing.reshape(size), axis=1),
        np.packbits(unphased, axis=1),
        sets,
        np.asarray(ac, dtype=np.int64),
        np.asarray(an, dtype=np.int64),
        (haploid & (first != UNCALLED)).any(axis=1),
    )


def call_counts(calls: Calls) -> Counter[str]:
    """Return how many calls of the donors there are by kind.

    ``calls``: all; ``calls_missing``: nothing was called; ``calls_half``: one of two alleles;
    ``calls_haploid`` and ``calls_diploid``: something was called, of one or two alleles;
    ``calls_heterozygous_phased`` and ``_unphased``: two different alleles.
    """
    usable = [not problem for problem in calls.problem_R]
    called = calls.alleles_RD2[usable]
    phased = calls.phased_RD[usable]
    first, second = called[..., 0], called[..., 1]
    diploid = second != ABSENT
    no_first, no_second = first == UNCALLED, second == UNCALLED
    both = diploid & ~no_first & ~no_second
    differ = both & (first != second)
    counts = {
        "calls": first.size,
        "calls_missing": (no_first & (no_second | ~diploid)).sum(),
        "calls_half": (diploid & (no_first != no_second)).sum(),
        "calls_haploid": (~diploid & ~no_first).sum(),
        "calls_diploid": (diploid & ~(no_first & no_second)).sum(),
        "calls_heterozygous_phased": (differ & phased).sum(),
        "calls_heterozygous_unphased": (differ & ~phased).sum(),
    }
    return Counter({name: int(count) for name, count in counts.items()})
