"""Motif files: MEME minimal format, JASPAR (raw and pfm) and TRANSFAC are read, MEME is written.

The format follows from the content, not from the name. Counts become probabilities, rows that sum
to about 1 are renormalised, anything else is refused with its line.

Shapes: W columns of a motif, C the four bases A C G T.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.sequence import ALPHABET, NUM_BASES

__all__ = ["MotifMatrix", "meme_text", "read_motifs"]

# Rows of probabilities may miss 1 by what a file with two decimals loses.
_SUM_TOLERANCE = 0.05
_NAME = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, eq=False)
class MotifMatrix:
    """A motif as probabilities of the bases.

    Attributes
    ----------
    name : str
        Identifier; unique in a file.
    alt_name : str
        Second name, may be empty.
    probabilities : float64 array, shape (width, 4)
        Columns A C G T; rows sum to 1 and may hold zeros.
    num_sites : float
        Sites behind the matrix: the mean count of a column, or what the file says; 0 if unknown.
    """

    name: str
    alt_name: str
    probabilities: NDArray[np.float64]
    num_sites: float = 0.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.probabilities)


Lines = list[tuple[int, str]]


def read_motifs(path: Path) -> list[MotifMatrix]:
    """Return the motifs of a file.

    Parameters
    ----------
    path : Path
        MEME minimal format (version 4 or later), JASPAR (``>id`` and four rows, with or without
        letters and brackets) or TRANSFAC; plain or gzipped text.

    Raises
    ------
    InputError
        The file is missing or holds no motif.
    FormatError
        A line that is broken, an alphabet other than DNA, a name that occurs twice, columns that
        are neither counts nor probabilities.
    """
    path = Path(path)
    lines = _lines(path)
    texts = [text for _, text in lines]
    if any(text.startswith("MEME version") for text in texts):
        motifs = list(_meme(lines, path))
    elif any(text.startswith(">") for text in texts):
        motifs = list(_jaspar(lines, path))
    elif any(re.match(r"P[O0]\s", text) for text in texts):
        motifs = list(_transfac(lines, path))
    elif lines:
        raise _broken(path, lines[0], "MEME version 4, a JASPAR header (>), or TRANSFAC (P0)")
    else:
        motifs = []
    if not motifs:
        raise InputError(
            facts(str(path), found="no motif", expected="at least one", fix="check the file")
        )
    _require_unique(motifs, path)
    return motifs


def _lines(path: Path) -> Lines:
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a motif file", fix="check the path")
        )
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="motifs as text", fix="restore the file")
        ) from error
    pairs = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, line) for number, line in pairs if line and not line.startswith("#")]


def _broken(path: Path, line: tuple[int, str], expected: str) -> FormatError:
    return FormatError(
        facts(
            f"{path} line {line[0]}",
            found=repr(line[1][:60]),
            expected=expected,
            fix="mend the line",
        )
    )


def _meme(lines: Lines, path: Path) -> Iterator[MotifMatrix]:
    """Parse MEME minimal format: blocks of MOTIF, letter-probability matrix, rows."""
    at, names = 0, ("", "")
    while at < len(lines):
        line = lines[at]
        at += 1
        key = line[1].split()[0]
        if line[1].startswith("ALPHABET"):
            _require_dna(line, path)
        elif key == "MOTIF":
            words = line[1].split()[1:]
            if not words:
                raise _broken(path, line, "MOTIF and a name")
            names = words[0], " ".join(words[1:])
        elif line[1].startswith("letter-probability matrix"):
            if not names[0]:
                raise _broken(path, line, "a line MOTIF before the matrix")
            keys = dict(re.findall(r"(\w+)\s*=\s*([^\s]+)", line[1]))
            width = _whole(keys.get("w"), line, path)
            rows = lines[at : at + width] if width else _number_rows(lines, at)
            at += len(rows)
            if keys.get("alength", "4") != "4" or not rows or (width and len(rows) < width):
                raise _broken(path, line, f"alength= 4 and {width or 'some'} rows after it")
            sites = _float(keys.get("nsites", "0"), line, path)
            yield _matrix(names, rows, path, sites=sites)
            names = ("", "")


def _require_dna(line: tuple[int, str], path: Path) -> None:
    letters = line[1].split("=", 1)[-1].strip().strip('"') if "=" in line[1] else line[1]
    if letters not in (ALPHABET, "DNA", 'ALPHABET "DNA" DNA-LIKE') and "DNA" not in letters:
        raise _broken(path, line, "ALPHABET= ACGT")


def _whole(text: str | None, line: tuple[int, str], path: Path) -> int:
    if text is None:
        return 0
    if not text.isdigit() or int(text) == 0:
        raise _broken(path, line, "w= and a positive number")
    return int(text)


def _float(text: str, line: tuple[int, str], path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value < 0:
        raise _broken(path, line, "numbers that are not negative")
    return value


def _number_rows(lines: Lines, at: int) -> Lines:
    rows = []
    while at < len(lines) and re.match(r"[-+.\d]", lines[at][1]):
        rows.append(lines[at])
        at += 1
    return rows


def _jaspar(lines: Lines, path: Path) -> Iterator[MotifMatrix]:
    """Parse JASPAR: a header and four rows of counts, A C G T, one column per position."""
    at = 0
    while at < len(lines):
        header = lines[at]
        words = header[1].removeprefix(">").split()
        if not header[1].startswith(">") or not words:
            raise _broken(path, header, "a header: > and a name")
        rows = lines[at + 1 : at + 1 + NUM_BASES]
        at += 1 + NUM_BASES
        if len(rows) < NUM_BASES or any(text.startswith(">") for _, text in rows):
            raise _broken(path, header, "four rows of counts after the header")
        columns = [_jaspar_row(row, ALPHABET[base], path) for base, row in enumerate(rows)]
        if len({len(column) for column in columns}) != 1:
            raise _broken(path, header, "four rows of equal length")
        yield _from_counts((words[0], " ".join(words[1:])), np.array(columns).T, header, path)


def _jaspar_row(row: tuple[int, str], base: str, path: Path) -> list[float]:
    words = row[1].replace("[", " ").replace("]", " ").split()
    if words and words[0].isalpha():
        if words[0].upper() != base:
            raise _broken(path, row, f"the row of {base}; rows come in the order A, C, G, T")
        words = words[1:]
    if not words:
        raise _broken(path, row, "counts")
    return [_float(word, row, path) for word in words]


def _transfac(lines: Lines, path: Path) -> Iterator[MotifMatrix]:
    """Parse TRANSFAC: ID and NA lines, P0 with the letters, one numbered row per position."""
    name, alt, rows, order = "", "", [], list(ALPHABET)
    for line in lines:
        key, *words = line[1].split()
        if key in ("ID", "AC") and words:
            name = name or words[0]
        elif key == "NA" and words:
            alt = words[0]
        elif key in ("P0", "PO"):
            order = [word.upper() for word in words[:NUM_BASES]]
            if sorted(order) != sorted(ALPHABET):
                raise _broken(path, line, "P0 A C G T")
        elif key.isdigit():
            if len(words) < NUM_BASES:
                raise _broken(path, line, "a position and four counts")
            values = [_float(word, line, path) for word in words[:NUM_BASES]]
            rows.append([values[order.index(base)] for base in ALPHABET])
        elif key == "//":
            if rows:
                yield _from_counts((name or "motif", alt), np.array(rows), line, path)
            name, alt, rows = "", "", []
    if rows:
        yield _from_counts((name or "motif", alt), np.array(rows), lines[-1], path)


def _matrix(names: tuple[str, str], rows: Lines, path: Path, *, sites: float) -> MotifMatrix:
    """Make a motif of rows of probabilities, or of counts, A C G T."""
    values = []
    for row in rows:
        words = row[1].split()
        if len(words) != NUM_BASES:
            raise _broken(path, row, "four numbers, A C G T")
        values.append([_float(word, row, path) for word in words])
    matrix = np.array(values)
    sums = matrix.sum(axis=1)
    if (np.abs(sums - 1) <= _SUM_TOLERANCE).all():
        return MotifMatrix(*names, matrix / sums[:, None], sites)
    motif = _from_counts(names, matrix, rows[int(np.argmax(np.abs(sums - 1)))], path)
    return replace(motif, num_sites=sites or motif.num_sites)


def _from_counts(
    names: tuple[str, str],
    counts: NDArray[np.float64],
    line: tuple[int, str],
    path: Path,
) -> MotifMatrix:
    """Make a motif of counts; probabilities are counts whose columns sum to 1."""
    sums = counts.sum(axis=1)
    are_probabilities = (np.abs(sums - 1) <= _SUM_TOLERANCE).all()
    if not are_probabilities and (sums < 1.5).any():
        raise FormatError(
            facts(
                f"{path} line {line[0]}, motif {names[0]}",
                found=f"a column that sums to {float(sums.min()):.4g}",
                expected="probabilities that sum to 1, or counts of at least two sites",
                fix="mend the matrix",
            )
        )
    sites = 0.0 if are_probabilities else float(sums.mean())
    return MotifMatrix(*names, counts / sums[:, None], sites)


def _require_unique(motifs: Sequence[MotifMatrix], path: Path) -> None:
    names = [motif.name for motif in motifs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FormatError(
            facts(
                str(path),
                found="motifs of the same name",
                expected="each name once",
                fix="rename or remove them",
                count=len(twice),
                examples=twice,
            )
        )


def meme_text(motifs: Sequence[MotifMatrix]) -> str:
    """Return motifs in MEME minimal format, version 4, with a uniform background."""
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", ""]
    lines += ["Background letter frequencies", "A 0.25 C 0.25 G 0.25 T 0.25", ""]
    for motif in motifs:
        name, alt = (_NAME.sub("_", text) for text in (motif.name, motif.alt_name))
        lines.append(f"MOTIF {name} {alt}".rstrip())
        sites = f"{motif.num_sites:g}" if motif.num_sites else "20"
        lines.append(f"letter-probability matrix: alength= 4 w= {motif.width} nsites= {sites} E= 0")
        lines += [" ".join(f"{value:.8f}" for value in row) for row in motif.probabilities]
        lines.append("")
    return "\n".join(lines)
