"""Haplotypes by editing texts, one base at a time; and by bcftools. Shares no code with ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from seq2exp.core.sequence import encode
from seq2exp.variation.alleles import Allele, classify, normalise

PAIR = {"AG": "R", "CT": "Y", "CG": "S", "AT": "W", "GT": "K", "AC": "M"}
COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
TURNED = str.maketrans("ACGTNRYSWKMBDHV", "TGCANYRSWMKVHDB")

Row = tuple[int, str, str]

needs_bcftools = pytest.mark.skipif(
    not shutil.which("bcftools"), reason="bcftools is not installed"
)


class Edited(NamedTuple):
    """A whole contig of one haplotype.

    Per base: a letter, its reference position (or None), and the position whose value it takes.
    """

    letters: list[str]
    places: list[int | None]
    anchors: list[int]
    dropped: list[int]


def opposite(text: str) -> str:
    return text.translate(TURNED)[::-1]


def core(row: Row) -> tuple[int, str, str, bool]:
    """Return what changes without the anchor, and whether the anchor stands before it."""
    position, ref, alt = row
    if len(ref) != len(alt):
        if ref[0] == alt[0]:
            return position + 1, ref[1:], alt[1:], True
        if ref[-1] == alt[-1]:
            return position, ref[:-1], alt[:-1], False
    return position, ref, alt, False


def drops(rows: Sequence[Row], actions: Sequence[int]) -> list[int]:
    """Return which records the rule `first` leaves out, as it is told in the documentation."""
    out, last, longer = [], -1, False
    for i, (row, action) in enumerate(zip(rows, actions, strict=True)):
        position, ref, alt = row
        if action == 0 or (action == 2 and not core(row)[1]):
            continue
        stands_on = position == last
        if position < last or (stands_on and (not core(row)[3] or longer)):
            out.append(i)
            continue
        last, longer = position + len(ref) - 1, action == 1 and len(alt) > len(ref)
    return out


def drops_longest(rows: Sequence[Row], actions: Sequence[int]) -> list[int]:
    """Return which records are left out when longer ones go first."""
    kept = [0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (-max(map(len, rows[i][1:])), i))
    out = []
    for i in order:
        kept[i] = actions[i]
        if drops(rows, kept):
            kept[i] = 0
            out.append(i)
    return sorted(out)


def edit(
    reference: str, rows: Sequence[Row], actions: Sequence[int], overlap: str = "first"
) -> Edited:
    out = (drops_longest if overlap == "longest" else drops)(rows, actions)
    letters = dict(enumerate(reference))
    inserted: dict[int, str] = {}
    for i, (row, action) in enumerate(zip(rows, actions, strict=True)):
        if action == 0 or i in out:
            continue
        position, ref, alt, _ = core(row)
        if action == 2:
            alt = "N" * len(ref)
        if action == 3:
            alt = PAIR["".join(sorted(ref + alt))]
        for j in range(len(ref)):
            letters[position + j] = alt[j] if j < len(alt) else ""
        if len(alt) > len(ref):
            inserted[position + len(ref) - 1] = alt[len(ref) :]
    edited = Edited([], [], [], [rows[i][0] for i in out])
    for at in range(-1, len(reference)):
        if letters.get(at, ""):
            edited.letters.append(letters[at])
            edited.places.append(at)
            edited.anchors.append(at)
        edited.letters.extend(inserted.get(at, ""))
        edited.places.extend([None] * len(inserted.get(at, "")))
        edited.anchors.extend([max(at, 0)] * len(inserted.get(at, "")))
    return edited


def place_of_tss(edited: Edited, tss: int, strand: str) -> int:
    """Return where in the contig of the haplotype the TSS, or what stands for it, is."""
    where = {place: at for at, place in enumerate(edited.places) if place is not None}
    if tss in where:
        return where[tss]
    if strand == "+":
        return min((at for place, at in where.items() if place > tss), default=len(edited.letters))
    return max((at for place, at in where.items() if place < tss), default=-1)


def anchors(edited: Edited, tss: int, start: int, length: int, strand: str) -> list[int | None]:
    """Return the position whose value each base of a window takes; None beyond the contig."""
    first = place_of_tss(edited, tss, strand) - (tss - start)
    inside = range(len(edited.letters))
    found = [edited.anchors[i] if i in inside else None for i in range(first, first + length)]
    return found[::-1] if strand == "-" else found


def cut(edited: Edited, tss: int, start: int, length: int, strand: str) -> tuple[str, list[int]]:
    """Return sequence and map of a window in model direction."""
    first = place_of_tss(edited, tss, strand) - (tss - start)
    inside = range(len(edited.letters))
    text = "".join(edited.letters[i] if i in inside else "N" for i in range(first, first + length))
    places = [edited.places[i] if i in inside else None for i in range(first, first + length)]
    numbers = [-1 if place is None else place for place in places]
    return (opposite(text), numbers[::-1]) if strand == "-" else (text, numbers)


def random_reference(random: np.random.Generator, length: int) -> str:
    """Return a text with many repeats, so that normalisation has something to do."""
    text = ""
    while len(text) < length:
        unit = "".join(random.choice(list("ACGT"), random.integers(1, 5)))
        text += unit * int(random.integers(1, 4))
    return text[:length]


def random_rows(random: np.random.Generator, reference: str, number: int) -> list[Row]:
    """Return normalised alleles in order; many touch each other and the ends of the contig."""
    codes, found = encode(reference), []
    for _ in range(number):
        at = int(random.integers(0, len(reference)))
        kind = random.integers(0, 10)
        removed = 1 if kind < 5 else int(random.geometric(0.35)) - 1
        added = 1 if kind < 5 else int(random.geometric(0.35)) - 1
        ref = reference[at : at + removed]
        alt = "".join(random.choice(list("ACGT"), added))
        if ref == alt or "N" in ref or len(ref) == len(reference):
            continue
        allele = normalise(Allele(at, ref or "-", alt or "-"), codes)
        if classify(allele.ref, allele.alt) in ("same", "allele_non_acgt"):
            continue
        found.append(tuple(allele))
    random.shuffle(found)
    return sorted(dict.fromkeys(found), key=lambda row: row[0])


def bcftools(*words: object) -> str:
    return subprocess.run(
        ["bcftools", *map(str, words)], check=True, capture_output=True, text=True
    ).stdout


def write_vcf(
    path: Path,
    contigs: dict[str, int],
    records: Sequence[tuple[str, int, str, str, Sequence[str]]],
    samples: Sequence[str],
) -> Path:
    """Write a compressed, indexed VCF of (contig, 0-based position, REF, ALT, genotypes)."""
    lines = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="call">']
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs.items()]
    lines.append("\t".join((*COLUMNS, *samples)))
    for contig, position, ref, alt, calls in records:
        row = (contig, str(position + 1), ".", ref, alt, ".", ".", ".", "GT", *calls)
        lines.append("\t".join(row))
    text = path.with_suffix(".vcf")
    text.write_text("\n".join(lines) + "\n")
    bcftools("view", "-Oz", "-o", path, text)
    bcftools("index", "-f", "-t", path)
    return path


def consensus(fasta: Path, vcf: Path, sample: str, which: str) -> dict[str, str]:
    """Return the sequence of every contig of one haplotype."""
    text = bcftools("consensus", "-s", sample, "-H", which, "-f", fasta, vcf)
    parts = [part.partition("\n") for part in text.split(">")[1:]]
    return {name.split()[0]: rest.replace("\n", "").upper() for name, _, rest in parts}
