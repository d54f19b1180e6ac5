"""Alleles as files write them, brought to the one form in which they are kept and compared.

Shapes: M alleles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import ALPHABET, N_CODE, decode, encode

__all__ = [
    "CLASSES",
    "SEQUENCE_CLASSES",
    "STATUSES",
    "Allele",
    "Normalised",
    "Record",
    "classify",
    "normalise",
    "normalise_all",
    "ref_status",
    "split",
]

SEQUENCE_CLASSES = ("snv", "mnv", "ins", "del", "delins", "same")
"""Classes of alleles that are two sequences; ``same`` is an ALT equal to its REF."""

CLASSES = (
    *SEQUENCE_CLASSES,
    "symbolic",
    "star",
    "missing_alt",
    "ref_block",
    "allele_non_acgt",
)
"""What :func:`classify` can answer; those that are no sequences can be neither normalised nor put
into one."""

STATUSES = ("ok", "swapped", "mismatch", "ref_has_n", "no_contig", "out_of_bounds")
"""What :func:`ref_status` can answer."""

Codes = NDArray[np.uint8]

_ALPHABET = frozenset(ALPHABET)
_GAP = "-"
_OK = STATUSES.index("ok")


class Allele(NamedTuple):
    """One ALT of a record beside its REF.

    Attributes
    ----------
    position : int
        0-based position of the first base of REF. With ``-`` as REF, inserted bases stand before
        the base at this position.
    ref, alt : str
        As written, or upper case and anchored after :func:`normalise`.
    """

    position: int
    ref: str
    alt: str


class Record(NamedTuple):
    """A line of a VCF file: 0-based position of the first base of REF, REF and every ALT."""

    position: int
    ref: str
    alts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Normalised:
    """What became of M alleles, in the order in which they were given.

    Attributes
    ----------
    position_M : int64 array
        0-based, after normalisation.
    refs, alts : lists of str
        After normalisation; as given where the class is none of ``SEQUENCE_CLASSES`` or REF is not
        what the genome says.
    class_M : uint8 array
        Index into ``CLASSES``.
    status_M : uint8 array
        Index into ``STATUSES``, of the REF as it was given.
    changed_M : bool array
        Position or a letter differs from what was given (case alone does not count).
    """

    position_M: NDArray[np.int64]
    refs: list[str]
    alts: list[str]
    class_M: NDArray[np.uint8]
    status_M: NDArray[np.uint8]
    changed_M: NDArray[np.bool_]


def split(record: Record) -> list[Allele]:
    """Return the alleles of a record, one per ALT in the order of the file, not yet normalised.

    A haplotype that carries one ALT carries REF for the others.
    """
    return [Allele(record.position, record.ref, alt) for alt in record.alts]


def classify(ref: str, alt: str) -> str:
    """Return the class of an allele, one of ``CLASSES``, from its letters alone.

    Sequences are compared after the bases that both share at the end and at the beginning were
    removed: ``snv`` one base for one, ``mnv`` several for as many, ``ins`` and ``del`` only added
    or removed bases, ``delins`` any other pair, ``same`` nothing left. ``ref_block`` is the ALT of
    genomic VCF for "anything else" (``<*>``, ``<NON_REF>``), ``star`` a base that an overlapping
    deletion removed, ``symbolic`` any other ``<NAME>`` and breakends, ``missing_alt`` a dot or
    nothing. Letters other than A, C, G, T make an ``allele_non_acgt``.
    """
    if len(ref) == 1 == len(alt):
        ref, alt = ref.upper(), alt.upper()
        if ref in _ALPHABET and alt in _ALPHABET:
            return "snv" if ref != alt else "same"
    other = _class_without_sequence(alt)
    if other:
        return other
    ref, alt = _letters(ref), _letters(alt)
    if not (_ALPHABET.issuperset(ref) and _ALPHABET.issuperset(alt)):
        return "allele_non_acgt"
    _, ref, alt = _trimmed(0, ref, alt)
    if not ref or not alt:
        return "del" if ref else "ins" if alt else "same"
    if len(ref) == len(alt):
        return "snv" if len(ref) == 1 else "mnv"
    return "delins"


def normalise(allele: Allele, reference_codes: Codes) -> Allele:
    """Return the same change in upper case, trimmed, and as far left as the genome allows.

    Shared bases are removed at the end, then at the beginning. What only inserts or deletes is then
    moved left while the sequence stays the same, and begins with the reference base before it; at
    the start of a contig and behind N, where there is none, it ends with the base after it. Two
    alleles make the same sequence if and only if they are equal in this form (Tan, Abecasis & Kang
    2015, but for N).

    Parameters
    ----------
    allele : Allele
        REF must be what the genome says (:func:`ref_status`).
    reference_codes : uint8 array
        Codes of the whole contig; may be memory-mapped.

    Raises
    ------
    InputError
        The allele is of a class that is no sequence, or lies outside the contig.
    """
    position, ref, alt = allele.position, allele.ref.upper(), allele.alt.upper()
    kind = classify(ref, alt)
    if kind not in SEQUENCE_CLASSES:
        raise InputError(
            facts(
                f"allele {allele.ref}>{allele.alt} at position {position}",
                found=kind,
                expected="two sequences of A, C, G, T",
                fix="leave out what is no sequence before normalising",
            )
        )
    if kind == "snv" and len(ref) == 1:
        return Allele(position, ref, alt)
    ref, alt = _letters(ref), _letters(alt)
    if position < 0 or position + len(ref) > len(reference_codes):
        raise InputError(
            facts(
                f"allele {allele.ref}>{allele.alt}",
                found=f"position {position}",
                expected=f"inside a contig of {len(reference_codes)} bases",
                fix="check that variants and genome are of the same assembly",
            )
        )
    if kind == "same":
        # Nothing changes, so one base says all; a gap on both sides has not even that.
        return Allele(position, ref[:1], ref[:1])
    position, ref, alt = _trimmed(position, ref, alt)
    if ref and alt:
        return Allele(position, ref, alt)
    position, moved = _leftmost(position, ref or alt, reference_codes)
    after = position + (len(moved) if ref else 0)
    if _anchored_behind(position, after, reference_codes):
        anchor = decode(reference_codes[after : after + 1])
        pair = (moved + anchor, anchor)
    else:
        position -= 1
        anchor = decode(reference_codes[position : position + 1])
        pair = (anchor + moved, anchor)
    return Allele(position, *(pair if ref else pair[::-1]))


def ref_status(allele: Allele, reference_codes: Codes | None) -> str:
    """Return whether REF is what the genome says, one of ``STATUSES``.

    ``swapped`` means that ALT is what the genome says and REF is not; a deletion whose anchor alone
    fits is told apart from a mismatch by nothing else, so treat swapped indels with care.
    ``ref_has_n``: the genome has N, or a letter that became N, where REF stands.

    Parameters
    ----------
    allele : Allele
        In any case, not necessarily normalised.
    reference_codes : uint8 array or None
        Codes of the whole contig; None for a contig that the genome lacks.
    """
    if reference_codes is None:
        return "no_contig"
    position, ref = allele.position, _letters(allele.ref)
    if position < 0 or position + max(len(ref), 1) > len(reference_codes):
        return "out_of_bounds"
    if len(ref) == 1:
        here = int(reference_codes[position])
        if here < N_CODE and ALPHABET[here] == ref.upper():
            return "ok"
    span = reference_codes[position : position + len(ref)]
    if np.any(span == N_CODE):
        return "ref_has_n"
    if np.array_equal(span, encode(ref)):
        return "ok"
    alt = _letters(allele.alt)
    if alt and not _class_without_sequence(allele.alt):
        span = reference_codes[position : position + len(alt)]
        if np.array_equal(span, encode(alt)) and not np.any(span == N_CODE):
            return "swapped"
    return "mismatch"


def normalise_all(
    positions: NDArray[np.int64],
    refs: Sequence[str],
    alts: Sequence[str],
    *,
    reference_codes: Codes | None,
) -> Normalised:
    """Return class, REF status and normalised form of many alleles of one contig.

    Single bases, which are nearly all of them, are done together; the rest one by one. Equal to
    :func:`classify`, :func:`ref_status` and :func:`normalise` in turn.

    Parameters
    ----------
    positions : int64 array, shape (M,)
        0-based.
    refs, alts : sequences of str, length M
    reference_codes : uint8 array or None
        Codes of the whole contig; None for a contig that the genome lacks.
    """
    size = len(positions)
    position_M = np.array(positions, dtype=np.int64)
    out_refs, out_alts = list(refs), list(alts)
    class_M, status_M = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    changed_M = np.zeros(size, bool)
    done_M = _single_bases(position_M, out_refs, out_alts, class_M, status_M, reference_codes)
    for i in np.flatnonzero(~done_M):
        allele = Allele(int(position_M[i]), out_refs[i], out_alts[i])
        kind, status = classify(allele.ref, allele.alt), ref_status(allele, reference_codes)
        class_M[i], status_M[i] = CLASSES.index(kind), STATUSES.index(status)
        if kind in SEQUENCE_CLASSES and status == "ok" and reference_codes is not None:
            position_M[i], out_refs[i], out_alts[i] = new = normalise(allele, reference_codes)
            changed_M[i] = new != (allele.position, allele.ref.upper(), allele.alt.upper())
    return Normalised(position_M, out_refs, out_alts, class_M, status_M, changed_M)


def _single_bases(
    position_M: NDArray[np.int64],
    refs: list[str],
    alts: list[str],
    class_M: NDArray[np.uint8],
    status_M: NDArray[np.uint8],
    reference_codes: Codes | None,
) -> NDArray[np.bool_]:
    """Fill class and status of substitutions whose REF fits; return which were done."""
    if reference_codes is None or not len(refs):
        return np.zeros(len(refs), bool)
    ref_codes, alt_codes = _codes_of_singles(refs), _codes_of_singles(alts)
    inside = (position_M >= 0) & (position_M < len(reference_codes))
    here = reference_codes[np.where(inside, position_M, 0)] if len(reference_codes) else ref_codes
    done: NDArray[np.bool_] = (
        inside & (ref_codes < N_CODE) & (alt_codes < N_CODE) & (ref_codes == here)
    )
    same = ref_codes == alt_codes
    class_M[done] = CLASSES.index("snv")
    class_M[done & same] = CLASSES.index("same")
    status_M[done] = _OK
    for i in np.flatnonzero(done & _lower(refs, alts)):
        refs[i], alts[i] = refs[i].upper(), alts[i].upper()
    return done


def _codes_of_singles(letters: list[str]) -> Codes:
    """Return base codes of the texts that are one of ACGTacgt, N for all others."""
    lengths = np.fromiter(map(len, letters), dtype=np.int64, count=len(letters))
    codes = np.full(len(letters), N_CODE, np.uint8)
    single = lengths == 1
    if single.all():
        text = "".join(letters)
    else:
        text = "".join([letter for letter in letters if len(letter) == 1])
    found = encode(text)
    # U is no letter of an allele of DNA.
    raw = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    found[(raw | 32) == ord("u")] = N_CODE
    codes[single] = found
    return codes


def _lower(refs: list[str], alts: list[str]) -> NDArray[np.bool_]:
    """Return where an allele is in lower case, quickly none in most files."""
    texts = ["".join(refs), "".join(alts)]
    if all(text == text.upper() for text in texts):
        return np.zeros(len(refs), bool)
    return np.array(
        [a != a.upper() or b != b.upper() for a, b in zip(refs, alts, strict=True)], dtype=bool
    )


def _class_without_sequence(alt: str) -> str | None:
    """Return the class of an ALT that is no sequence; None if it may be one."""
    if alt in ("", "."):
        return "missing_alt"
    if alt == "*":
        return "star"
    if alt[0] == "<":
        return "ref_block" if alt.upper() in ("<*>", "<NON_REF>") else "symbolic"
    if "[" in alt or "]" in alt or alt[0] == "." or alt[-1] == ".":
        return "symbolic"
    return None


def _letters(allele: str) -> str:
    """Return the bases of an allele in upper case; a gap has none."""
    return "" if allele == _GAP else allele.upper()


def _trimmed(position: int, ref: str, alt: str) -> tuple[int, str, str]:
    """Return both alleles without the bases they share at the end, then at the beginning."""
    shortest = min(len(ref), len(alt))
    end = 0
    while end < shortest and ref[-1 - end] == alt[-1 - end]:
        end += 1
    ref, alt = ref[: len(ref) - end], alt[: len(alt) - end]
    shortest -= end
    start = 0
    while start < shortest and ref[start] == alt[start]:
        start += 1
    return position + start, ref[start:], alt[start:]


def _anchored_behind(position: int, after: int, reference_codes: Codes) -> bool:
    """Whether an insertion or deletion at a position is anchored at the base after it."""
    if position == 0:
        return True
    unknown = reference_codes[position - 1] == N_CODE
    return bool(unknown and after < len(reference_codes) and reference_codes[after] != N_CODE)


def _leftmost(position: int, bases: str, reference_codes: Codes) -> tuple[int, str]:
    """Move bases that are inserted or deleted at a position left as long as nothing changes."""
    codes = encode(bases)
    size, moves = len(codes), 0
    # By one base the last one goes to the front if the reference before says so: a turn.
    while position > moves and reference_codes[position - 1 - moves] == codes[-1 - moves % size]:
        moves += 1
    turn = -moves % size
    return position - moves, bases[turn:] + bases[:turn]
