"""The genotype columns of VCF lines as arrays of allele numbers.

Shapes: R records, D donors that are kept, S samples of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts

__all__ = ["ABSENT", "UNCALLED", "Calls", "parse_calls"]

UNCALLED = -1
"""An allele that was not called: a dot."""
ABSENT = -2
"""The second allele of a haploid call."""

_TAB, _COLON, _SLASH, _BAR, _DOT, _ZERO, _NINE = b"\t:/|.09"


@dataclass(frozen=True, eq=False)
class Calls:
    """Genotypes of some records.

    Attributes
    ----------
    alleles_RD2 : int16 array
        0 REF, 1 the first ALT, ..., ``UNCALLED``; second allele ``ABSENT`` in haploid calls.
    phased_RD : bool array
        The call was written with ``|``.
    phase_set_RD : int32 array or None
        PS, 0 where it is missing; None when no record has it.
    problem_R : list of str
        Why a record cannot be used: ``no_genotypes``, ``ploidy``, or empty.
    """

    alleles_RD2: NDArray[np.int16]
    phased_RD: NDArray[np.bool_]
    phase_set_RD: NDArray[np.int32] | None
    problem_R: list[str]


def parse_calls(
    formats: Sequence[bytes],
    columns: Sequence[bytes],
    *,
    num_samples: int,
    keep: NDArray[np.int64],
    places: Sequence[str],
) -> Calls:
    """Return the genotypes of some records.

    Parameters
    ----------
    formats : sequence of bytes, length R
        The FORMAT column.
    columns : sequence of bytes, length R
        All columns after it, tabs between them, without line end.
    num_samples : int
        Columns that the header names.
    keep : int64 array, shape (D,)
        Numbers of the samples to return, in this order.
    places : sequence of str, length R
        File, contig and position of each record, for messages.

    Raises
    ------
    FormatError
        Another number of columns than the header names, or a GT that is no genotype.
    """
    size = len(columns)
    alleles = np.full((size, len(keep), 2), UNCALLED, dtype=np.int16)
    phased = np.zeros((size, len(keep)), dtype=np.bool_)
    problems = [""] * size
    sets: NDArray[np.int32] | None = None
    simple: dict[int, list[int]] = {}
    for row, (form, line) in enumerate(zip(formats, columns, strict=True)):
        if form == b"GT" and len(line) in (4 * num_samples - 1, 2 * num_samples - 1):
            simple.setdefault(len(line), []).append(row)
    slow = set(range(size))
    for length, rows in simple.items():
        parse = _diploid if length == 4 * num_samples - 1 else _haploid
        good = parse([columns[row] for row in rows], rows, keep, alleles, phased)
        slow.difference_update(good)
    for row in sorted(slow):
        keys = formats[row].split(b":")
        fields = _fields(columns[row], num_samples, places[row])
        if b"GT" not in keys:
            problems[row] = "no_genotypes"
            continue
        if keys[0] == b"GT":
            problems[row] = _general(
                columns[row], fields, keep, alleles[row], phased[row], places[row]
            )
        else:
            problems[row] = _anywhere(
                columns[row], keys.index(b"GT"), keep, alleles[row], phased[row], places[row]
            )
        if b"PS" in keys:
            if sets is None:
                sets = np.zeros((size, len(keep)), dtype=np.int32)
            sets[row] = _phase_sets(columns[row], keys.index(b"PS"), keep, places[row])
    return Calls(alleles, phased, sets, problems)


def _diploid(
    lines: list[bytes],
    rows: list[int],
    keep: NDArray[np.int64],
    alleles: NDArray[np.int16],
    phased: NDArray[np.bool_],
) -> list[int]:
    """Fill rows that are nothing but ``a|b`` of single digits or dots; return those that are."""
    text = np.frombuffer(b"".join(line + b"\t" for line in lines), dtype=np.uint8)
    text = text.reshape(len(lines), -1, 4)
    first, mark, second = text[..., 0], text[..., 1], text[..., 2]
    bar = mark == _BAR
    fits = (
        (text[..., 3] == _TAB) & (bar | (mark == _SLASH)) & _is_allele(first) & _is_allele(second)
    )
    good = np.flatnonzero(fits.all(axis=1))
    chosen = np.asarray(rows)[good]
    kept = np.ix_(good, keep)
    alleles[chosen, :, 0] = _number(first[kept])
    alleles[chosen, :, 1] = _number(second[kept])
    phased[chosen] = bar[kept]
    return [rows[row] for row in good]


def _haploid(
    lines: list[bytes],
    rows: list[int],
    keep: NDArray[np.int64],
    alleles: NDArray[np.int16],
    phased: NDArray[np.bool_],
) -> list[int]:
    """Fill rows that are nothing but single digits or dots; return those that are."""
    text = np.frombuffer(b"".join(line + b"\t" for line in lines), dtype=np.uint8)
    text = text.reshape(len(lines), -1, 2)
    fits = (text[..., 1] == _TAB) & _is_allele(text[..., 0])
    good = np.flatnonzero(fits.all(axis=1))
    chosen = np.asarray(rows)[good]
    alleles[chosen, :, 0] = _number(text[..., 0][np.ix_(good, keep)])
    alleles[chosen, :, 1] = ABSENT
    phased[chosen] = False
    return [rows[row] for row in good]


def _is_allele(letters: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = ((letters >= _ZERO) & (letters <= _NINE)) | (letters == _DOT)
    return found


def _number(letters: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.where(letters == _DOT, UNCALLED, letters.astype(np.int16) - _ZERO).astype(np.int16)


def _fields(line: bytes, num_samples: int, place: str) -> NDArray[np.int64]:
    """Return where each sample's column begins."""
    text = np.frombuffer(line, dtype=np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(text == _TAB) + 1))
    if len(starts) != num_samples:
        raise FormatError(
            facts(
                place,
                found=f"{len(starts)} genotype columns",
                expected=f"the {num_samples} samples that the header names",
                fix="the file is damaged or was cut: restore it",
            )
        )
    return starts


def _general(
    line: bytes,
    starts: NDArray[np.int64],
    keep: NDArray[np.int64],
    alleles: NDArray[np.int16],
    phased: NDArray[np.bool_],
    place: str,
) -> str:
    """Fill one record whose GT stands first, whatever follows it; return a problem."""
    text = np.frombuffer(line + b"\t\t\t\t", dtype=np.uint8)
    at = starts[keep]
    first, second, third, fourth = (text[at + offset] for offset in range(4))
    short = _ends(second)
    pair = ((second == _BAR) | (second == _SLASH)) & _is_allele(third) & _ends(fourth)
    usual = _is_allele(first) & (short | pair)
    alleles[:, 0] = _number(first)
    alleles[:, 1] = np.where(short, ABSENT, _number(third))
    phased[:] = (second == _BAR) & pair
    problem = ""
    for donor in np.flatnonzero(~usual).tolist():
        begin = int(at[donor])
        end = line.find(b"\t", begin)
        word = line[begin : end if end >= 0 else None].split(b":", 1)[0]
        problem = _one(word, donor, alleles, phased, place) or problem
    return problem


def _anywhere(
    line: bytes,
    key: int,
    keep: NDArray[np.int64],
    alleles: NDArray[np.int16],
    phased: NDArray[np.bool_],
    place: str,
) -> str:
    """Fill one record whose GT does not stand first, against the rule; return a problem."""
    columns = line.split(b"\t")
    problem = ""
    for donor, sample in enumerate(keep):
        words = columns[sample].split(b":")
        word = words[key] if key < len(words) else b"."
        problem = _one(word, donor, alleles, phased, place) or problem
    return problem


def _one(
    word: bytes,
    donor: int,
    alleles: NDArray[np.int16],
    phased: NDArray[np.bool_],
    place: str,
) -> str:
    """Fill one call, written in any way; return ``ploidy`` when it has more than two alleles."""
    # VCF 4.4 may put the phase of the first allele before it.
    marks = word[1:] if word[:1] in (b"|", b"/") else word
    parts = marks.replace(b"/", b"|").split(b"|")
    numbers = [UNCALLED if part in (b".", b"") else _integer(part) for part in parts]
    if None in numbers or (marks == b"" and word != b""):
        raise FormatError(
            facts(
                place,
                found=f"GT {word[:30].decode('ascii', 'replace')!r}",
                expected="allele numbers or dots with | or / between them",
                fix="the file is damaged: restore it",
            )
        )
    known = [number for number in numbers if number is not None]
    if len(known) > 2:
        return "ploidy"
    alleles[donor] = (known[0], known[1] if len(known) == 2 else ABSENT)
    phased[donor] = b"|" in marks
    return ""


def _integer(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 5 else None


def _ends(letters: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (letters == _TAB) | (letters == _COLON)
    return found


def _phase_sets(line: bytes, key: int, keep: NDArray[np.int64], place: str) -> NDArray[np.int32]:
    columns = line.split(b"\t")
    sets = np.zeros(len(keep), dtype=np.int32)
    for donor, sample in enumerate(keep):
        words = columns[sample].split(b":")
        word = words[key] if key < len(words) else b"."
        if word in (b".", b""):
            continue
        if not word.isdigit() or int(word) > np.iinfo(np.int32).max:
            raise FormatError(
                facts(
                    place,
                    found=f"phase set {word[:30].decode('ascii', 'replace')!r}",
                    expected="a whole number or a dot",
                    fix="the file is damaged: restore it",
                )
            )
        sets[donor] = int(word)
    return sets
